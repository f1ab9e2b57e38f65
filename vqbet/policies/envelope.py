"""Envelope of demonstrations and quantiles of a policy's signals: the component `guard` of a policy bundle.

`serving.guard` reads the component. Everything in it comes from the demonstrations, and the part that runs the model
from a sample of them, on one thread: equal inputs give equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from vqbet.contract import SLACK, Channel, Demonstrations, TrainingError
from vqbet.demos.goals import GoalWindows
from vqbet.demos.windows import Windows
from vqbet.environment import threads
from vqbet.policies import familiarity
from vqbet.policies.actor import SIGNALS, Actor, Undecided
from vqbet.policies.draws import uniforms
from vqbet.policies.vqbet import VQBeT

# A policy changes its actions faster than people where one chunk meets the next, since each has codes of its own.
MARGIN = 2.0  # times the demonstrations' most rate and acceleration; measured in docs/log.md, 2026-11-29
LEAST = 0.01  # of a channel's range, allowed in one step however still it was: noise and rounding
LEVELS = (0.5, 0.9, 0.99, 0.999)  # quantiles kept of each signal
WINDOWS, PAIRS, BATCH = 2048, 16384, 256  # most windows that are planned for, and pairs of chunks that are encoded
MOST_CODES = 1024  # in the table of transitions, which then has 8 MB
UNSEEN = 0.5  # added to the count of every transition: an unseen one surprises, but not without end

Tensors = dict[str, Float[np.ndarray, "..."]]  # float64


def component(
    actor: Actor, shown: Sequence[Demonstrations], seen: Demonstrations, windows: Windows | GoalWindows
) -> Tensors:
    """Return the tensors of the component `guard` for the bundle of a VQ-BeT policy.

    shown: demonstrations in the actor's spec, as recorded and in all views with such actions. seen: those that the
    policy was trained on, and `windows` of them. Raises TrainingError where the policy's logits for them are not
    finite.
    """
    planner = actor.planner
    assert isinstance(planner, VQBeT), "other policies have no codes"
    found = {f"limit.{name}": value for name, value in limits(shown, moved=bool(actor.reference)).items()}
    stride = planner.chunk if actor.execute == "chunk" else 1
    with threads.of(1):
        table, surprise = transitions(planner, seen, stride)
        signals = {**sampled(planner, windows), "surprise": surprise}
        pictures = familiarity.fitted(shown[0]) if planner.features else {}
    found |= {f"signal.{name}": np.quantile(each, LEVELS) for name, each in signals.items() if len(each)}
    return found | pictures | ({"codes.surprise": table} if len(surprise) else {})


def limits(shown: Sequence[Demonstrations], *, moved: bool) -> Tensors:
    """Return the envelope of demonstrations of one spec: no tensor lies beyond the limits of the spec.

    rate, acceleration (A,): MARGIN times the most change between consecutive actions of an episode, and the most change
    of that change. start_low, start_high (A,): range of the first actions, widened by one step of `rate`.
    observation_low, observation_high (D,): range of the observations, widened by SLACK of the channels' range.
    moved: for a policy that acts in the frame of any goal. Then pairs of channels x, y may turn, so that each has the
    most change of both together, and the demonstrations limit no positions.
    """
    spec = shown[0].spec
    (low, high), (seen_low, seen_high) = _ends(spec.action, np.float32), _ends(spec.observation, np.float64)
    span, slack = high - low, SLACK * (seen_high - seen_low)
    changes = [_changes(demos) for demos in shown]
    rate, acceleration = (
        np.clip(MARGIN * np.maximum.reduce([_most(each, moved) for each in order]), LEAST * span, times * span)
        for times, order in zip((1, 2), zip(*changes, strict=True), strict=True)
    )
    found = {"rate": rate, "acceleration": acceleration}
    if moved:
        return found
    first = np.concatenate([demos.action[demos.episode_starts] for demos in shown]).astype(np.float64)
    every = np.concatenate([demos.observation for demos in shown]).astype(np.float64)
    return found | {
        "start_low": np.clip(first.min(0) - rate, low, high),
        "start_high": np.clip(first.max(0) + rate, low, high),
        "observation_low": np.clip(every.min(0), seen_low, seen_high) - slack,
        "observation_high": np.clip(every.max(0), seen_low, seen_high) + slack,
    }


def sampled(planner: VQBeT, windows: Windows | GoalWindows) -> Tensors:
    """Return the signals of SIGNALS for at most WINDOWS windows, evenly spread over all. Raises TrainingError."""
    watched = VQBeT(planner.prior, temperature=planner.temperature, argmax=planner.argmax, watched=True)
    chosen = _spread(len(windows), WINDOWS)
    uniform = uniforms(chosen, np.zeros_like(chosen), planner.draws)
    found = []
    for first in range(0, len(chosen), BATCH):
        batch = windows.gather(chosen[first : first + BATCH])
        try:
            plan = watched.plan(watched.observed(batch), watched.asked(batch), uniform[first : first + BATCH])
        except Undecided as error:
            raise TrainingError(
                "policy: its logits for the demonstrations it was trained on are not finite; train it again, with a "
                "lower learning rate"
            ) from error
        found.append(plan.signals.astype(np.float64))
    return dict(zip(SIGNALS, np.concatenate(found).T, strict=True))


def transitions(
    planner: VQBeT, seen: Demonstrations, stride: int
) -> tuple[Float[np.ndarray, "K K"], Float[np.ndarray, " M"]]:
    """Return -log p of each first code of a chunk, by the first code `stride` steps before, and its values in training.

    Both come from at most PAIRS pairs of recorded chunks; both are empty where no episode is long enough for one, or
    there are more than MOST_CODES codes.
    """
    codes, length = planner.prior.tokenizer.shape.codes, planner.chunk
    left = np.repeat(seen.episode_ends, seen.lengths) - np.arange(len(seen.action))  # steps, the current one included
    places = np.flatnonzero(left >= stride + length)
    if not len(places) or codes > MOST_CODES:
        return np.zeros((0, 0)), np.zeros(0)
    places = places[_spread(len(places), PAIRS)]
    windows = Windows(seen, window=1, chunk=length, pictures=False)
    before, after = (_first_codes(planner, windows, places + ahead) for ahead in (0, stride))
    counts = np.bincount(before * codes + after, minlength=codes * codes).reshape(codes, codes) + UNSEEN
    table = -np.log(counts / counts.sum(1, keepdims=True))
    return table, table[before, after]


def _first_codes(planner: VQBeT, windows: Windows, places: Int[np.ndarray, " M"]) -> Int[np.ndarray, " M"]:
    tokenizer, found = planner.prior.tokenizer, []
    for first in range(0, len(places), BATCH):
        chunks = torch.as_tensor(windows.gather(places[first : first + BATCH])["action"])
        found.append(tokenizer.encode(tokenizer.normalizer.normalize(chunks))[:, 0].numpy())
    return np.concatenate(found)


def _changes(demos: Demonstrations) -> tuple[Float[np.ndarray, "M A"], Float[np.ndarray, "L A"]]:
    """Return changes between consecutive actions of an episode, and changes between consecutive changes."""
    change = np.diff(demos.action.astype(np.float64), axis=0)
    episode = np.repeat(np.arange(len(demos.lengths)), demos.lengths)
    turn = np.diff(change, axis=0)
    return change[episode[1:] == episode[:-1]], turn[episode[2:] == episode[:-2]]


def _most(changes: Float[np.ndarray, "M A"], moved: bool) -> Float[np.ndarray, " A"]:
    sizes = np.abs(changes)
    if moved:
        sizes = np.repeat(np.hypot(changes[:, 0::2], changes[:, 1::2]), 2, axis=1)
    return sizes.max(axis=0, initial=0.0)


def _spread(count: int, most: int) -> Int[np.ndarray, " M"]:
    """Return at most `most` numbers below `count`, evenly spread."""
    return np.arange(min(count, most)) * count // min(count, most)


def _ends(channels: Sequence[Channel], kind: type) -> Float[np.ndarray, "2 C"]:
    """Return lower and upper limits, rounded to the type in which the values are compared."""
    return np.array([[channel.low for channel in channels], [channel.high for channel in channels]], kind).astype(float)
