"""Checks for data that is well formed and wrong: actions against motion, near copies, beginnings and ends, seams.

Measurements are exact, judgements are cautious: an error is a contradiction, a mere oddity is advice.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from jaxtyping import Bool, Float

from vqbet.demos.validation import tables
from vqbet.demos.validation.findings import Finding, Severity, in_episodes, in_steps
from vqbet.demos.validation.measured import Measured
from vqbet.demos.validation.motion import Fault, Judged

FAINT = 2e-4  # of a channel's range: an action with a smaller deviation is noise, not a command
SEAM = 4.0  # times the 95th percentile of a channel's moves: half of the channels moved further in one step
FLOOR = 1e-3  # of a channel's whole travel: smaller moves are noise
ALWAYS = 0.95  # a channel that travels in this share of episodes is moved by the task
TRAVEL, NO_TRAVEL = 0.2, 0.01  # of a channel's whole travel, within an episode
LEAST_EPISODES = 8  # for the other episodes to be a rule
ENOUGH = 20  # episodes for which similar pairs are more than chance ...
RESEMBLING = 0.05  # ... and the share of such pairs that is certain


def motion(measured: Measured) -> Iterator[Finding]:
    """Check that actions explain the motion of what they move: its channel, direction, lag and size."""
    for judged in measured.motion.judged:
        field, say = (
            f"action.{measured.demos.spec.action[judged.link.action].name}",
            partial(_sentence, measured, judged),
        )
        for kind in Fault:
            if kind:
                yield from in_episodes(field, judged.fault == kind, say)
    yield from _unexplaining(measured)


def _sentence(measured: Measured, judged: Judged, episode: int) -> str:
    spec, expected, numbers = measured.demos.spec, judged.expected, judged.numbers
    seen = f"observation.{spec.observation[judged.link.observed].name}"
    own = expected.sign * numbers.own[episode]
    said = f"(correlation {own:.2f}, expected {expected.strength:.2f})"
    instead = measured.motion.judged[int(numbers.others[episode].argmax())].link.observed
    return {
        Fault.IDLE: f"hardly changes while {seen} moves,",
        Fault.REVERSED: f"fits the motion of {seen} only where time runs backwards {said},",
        Fault.AGAINST: f"moves {seen} the other way {said},",
        Fault.CHANNEL: f"moves observation.{spec.observation[instead].name} instead of {seen},",
        Fault.EARLY: f"leads the motion of {seen} by {expected.lag} control steps, so it comes after it,",
        Fault.LAG: f"leads the motion of {seen} by {judged.lag[episode]} control steps, expected {expected.lag},",
        Fault.UNEXPLAINED: f"does not explain the motion of {seen} {said},",
        Fault.SCALE: f"moves {seen} by {numbers.slope[episode]:.3g} per unit, expected {expected.slope:.3g},",
    }[Fault(int(judged.fault[episode]))]


def _unexplaining(measured: Measured) -> Iterator[Finding]:
    """Yield action channels that no observation follows: an error if all are such, advice for single ones."""
    spec, channels = measured.demos.spec, measured.motion.unexplaining
    severity: Severity = "error" if len(channels) == len(spec.action) else "advice"
    for index in channels:
        field = f"action.{spec.action[index].name}"
        text = f"{field} explains neither changes nor values of anything observed, from episode 0, step 0 to the end"
        yield Finding(field, text, 0, 0, severity)


def near_copies(measured: Measured) -> Iterator[Finding]:
    """Check that each episode was shown once, or that at most max_duplicates are near copies: noisy, or slower.

    A mere resemblance to one other episode is sometimes chance, but not in a larger part of a set.
    """
    bound = measured.bounds.max_duplicates
    original, alike = measured.episodes["near_copy_of"], measured.episodes["resembles"]
    copy = original >= 0
    severity: Severity = "error" if copy.mean() > bound else "advice"
    note = f"{copy.mean():.2%} of episodes are near copies, max_duplicates is {bound:.2%}"
    yield from in_episodes("observation", copy, lambda e: f"nearly repeats episode {original[e]}", severity, note)
    other = (alike >= 0) & ~copy
    if len(alike) >= ENOUGH and other.mean() > bound:
        severity = "error" if other.mean() > max(bound, RESEMBLING) else "advice"
        note = f"{other.mean():.2%} of episodes resemble one other and no third, max_duplicates is {bound:.2%}"
        yield from in_episodes("observation", other, lambda e: f"resembles episode {alike[e]}", severity, note)


def success_seen(measured: Measured) -> Iterator[Finding]:
    """Check that observations show each labelled success, in tasks whose goal can be read off."""
    unseen = measured.episodes["success_unseen"]
    yield from in_episodes("columns.success", unseen, lambda e: "is true, but the observed end shows no success,")


def done_at_start(measured: Measured) -> Iterator[Finding]:
    """Check that no part of the goal is done before the first action, in tasks whose goal can be read off."""
    done = measured.episodes["done_at_start"]
    yield from in_episodes("observation", done, lambda e: "shows a part of the goal done before the first action,")


def motionless(measured: Measured) -> Iterator[Finding]:
    """Check that a success moves every channel that nearly all episodes move; an error where half of them are still."""
    demos, success = measured.demos, measured.episodes["success"]
    if len(success) < LEAST_EPISODES:
        return
    travel = _travel(measured)
    always = (travel >= TRAVEL).mean(axis=0) >= ALWAYS
    unmoved = (travel < NO_TRAVEL) & always & success[:, None]
    half = unmoved.sum(axis=1) >= max(2, always.sum() / 2)
    names = [channel.name for channel in demos.spec.observation]
    for index in np.flatnonzero(unmoved.any(axis=0)):
        field = f"observation.{names[index]}"
        yield from in_episodes(field, unmoved[:, index] & half, _unmoved)
        yield from in_episodes(field, unmoved[:, index] & ~half, _unmoved, "advice")


def _unmoved(episode: int) -> str:
    return "never moves in a success, as it does elsewhere,"


def _travel(measured: Measured) -> Float[np.ndarray, "E D"]:
    """Return the range of each observed channel in each episode, as a share of its range in the whole set."""
    seen, starts = measured.demos.observation.astype(np.float64), measured.demos.episode_starts
    seen = np.where(np.isfinite(seen), seen, np.nan)
    low, high = np.fmin.reduceat(seen, starts, axis=0), np.fmax.reduceat(seen, starts, axis=0)
    whole = np.fmax.reduce(high, axis=0) - np.fmin.reduce(low, axis=0)
    return np.nan_to_num((high - low) / np.where(whole > 0, whole, np.inf))


def seams(measured: Measured) -> Iterator[Finding]:
    """Check for steps at which half of all channels jump: two recordings joined into one episode.

    After steps without any change channels only catch up, which `still` reports.
    """
    marked = _seams(measured)
    yield from in_steps(
        measured.demos.episode_ends, "observation", marked, lambda i: "jumps in half of its channels at once,"
    )


def _seams(measured: Measured) -> Bool[np.ndarray, " N"]:
    demos = measured.demos
    moved = tables.moves(demos)
    inside = moved[~tables.is_first_step(demos)]
    varies = moved.any(axis=0)
    if not len(inside) or varies.sum() < 2:
        return np.zeros(len(moved), bool)
    travel = np.nan_to_num(measured.channels["maximum"] - measured.channels["minimum"])[: moved.shape[1]]
    usual = np.maximum(np.percentile(inside, 95, axis=0), FLOOR * travel)
    far = moved[:, varies] > SEAM * np.maximum(usual, np.finfo(np.float64).tiny)[varies]
    caught_up = np.roll(tables.frozen(demos), 1)
    return np.asarray((far.mean(axis=1) >= 0.5) & ~caught_up)


def faint(measured: Measured) -> Iterator[Finding]:
    """Check for action channels that hardly vary within their range: noise on a command that was never given."""
    channels = measured.channels
    span = channels["high"] - channels["low"]
    limited = (channels["kind"] == "action") & np.isfinite(span) & (channels["deviation"] > 0)
    for index in np.flatnonzero(limited & (channels["deviation"] < FAINT * np.where(limited, span, 0))):
        field, deviation = f"action.{channels['name'][index]}", channels["deviation"][index]
        text = f"{field} varies by {deviation:.3g} in a range of {span[index]:.3g}, from episode 0, step 0 to the end"
        yield Finding(field, text, 0, 0)
