"""Predictions of a policy and of the references on the episodes that the policy has not learned from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int

from vqbet import tasks
from vqbet.contract import Demonstrations, EpisodeRecord, GateError
from vqbet.coordinates import views
from vqbet.demos import held_out
from vqbet.demos.windows import Corrections, Windows, complete_chunks
from vqbet.evaluation import offline, offline_gate
from vqbet.evaluation.offline import Moments, References
from vqbet.evaluation.plan import Plan, Slice, spec_sha256
from vqbet.policies.actor import Actor
from vqbet.policies.vqbet import VQBeT

if TYPE_CHECKING:
    from vqbet.config import TaskParams

MOST, MOST_TRAINING = 20_000, 50_000  # steps of a set at which is predicted, and that references are fitted to
BATCH = 1024
SETS = ("episodes", "sessions")  # fields of HeldOut
FIRST_SEED = 0  # of the drawn codes of held-out episode 0; the next ones have 1, 2, ...


@dataclass(frozen=True, slots=True)
class Held:
    """One set of held-out episodes. numbers: in the store. contents: sha256 of each, as in `held_out.contents`."""

    demos: Demonstrations
    numbers: Int[np.ndarray, " E"]
    contents: tuple[str, ...]
    moments: Moments


@dataclass(frozen=True, slots=True)
class Offline:
    """Held-out sets by name, and references that are fitted to the training episodes."""

    sets: Mapping[str, Held]
    references: References


def learned(provenance: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the provenance of a policy says about the demonstrations it has learned from."""
    found: Mapping[str, Any] = provenance["params"]["demos"]
    return found


def prepare(actor: Actor, demos: Demonstrations, said: Mapping[str, Any]) -> Offline | None:
    """Return the sets of episodes that a policy has not learned from; None where it has learned from all.

    said: see `learned`. Raises ValidationError as `held_out.split`.
    """
    cut = held_out.learned(demos, said)
    sets = {name: held(actor, demos, getattr(cut, name), said) for name in SETS if len(getattr(cut, name))}
    return Offline(sets, References(moments(actor, cut.train, said, MOST_TRAINING))) if sets else None


def held(actor: Actor, demos: Demonstrations, numbers: Int[np.ndarray, " E"], said: Mapping[str, Any]) -> Held:
    """Return these episodes of the store as a set."""
    chosen = held_out.chosen(demos, numbers)
    return Held(chosen, numbers, tuple(held_out.contents(chosen)), moments(actor, chosen, said, MOST))


def moments(actor: Actor, demos: Demonstrations, said: Mapping[str, Any], most: int) -> Moments:
    """Return the steps that are evaluated, at most about `most`, evenly spread over every episode.

    Where policies learn from corrections only, so do the references, and held-out episodes count likewise.
    """
    corrections: Corrections = said.get("corrections", "all")
    windows = Windows(demos, window=actor.planner.window, chunk=actor.planner.chunk, corrections=corrections)
    step = windows.steps - np.repeat(demos.episode_starts, demos.lengths)[windows.steps]
    complete = windows.gather(np.arange(len(windows)))["valid"][:, -actor.planner.chunk :].all(axis=1)
    usable = complete & (step >= 1)
    stride = max(1, -(-int(usable.sum()) // most))
    index = np.flatnonzero(usable & ((step - 1) % stride == 0))
    batch, current = windows.gather(index), windows.steps[index]
    return Moments(
        spec=demos.spec,
        observation=batch["observation"],
        previous=demos.action[current - 1],
        chunk=batch["action"][:, -actor.planner.chunk :],
        episode=np.searchsorted(demos.episode_ends, current, side="right"),
        step=step[index],
    )


def plan(params: TaskParams, demos: Demonstrations, sets: Offline, digests: Mapping[str, str]) -> Plan:
    """Return the plan of a verdict on held-out episodes, before anything is predicted in them.

    digests: of "candidate" and, where there is one, "champion". Raises GateError where the parameters are inconsistent.
    """
    chosen, task = params.gate, demos.spec.task
    contents = {name: tuple(each[: offline_gate.SHOWN] for each in part.contents) for name, part in sets.sets.items()}
    try:
        return Plan(
            task=task,
            world=offline_gate.world(task),
            spec=spec_sha256(demos.spec),
            candidate=digests["candidate"],
            champion=digests.get("champion", ""),
            machine="",
            first_seed=0,
            looks=(sum(map(len, contents.values())),),
            reserved={},
            slices=(Slice(offline_gate.WORLD, 1.0),),
            metric="score",
            question="better",
            stopping="fixed",
            margin=chosen.margin,
            alpha=chosen.alpha,
            power=chosen.power,
            floor=chosen.offline_floor,
            min_modes=0,
            baselines=tuple(chosen.offline_baselines),
            held_out=contents,
        )
    except GateError as error:
        raise GateError(f"{task}.gate: {error}") from error


def recorded(actor: Actor, sets: Offline, asked: Plan) -> list[EpisodeRecord]:
    """Return a record for each held-out episode, of the policy and of every reference, in the order of the plan."""
    found: dict[str, list[EpisodeRecord]] = {}
    place = 0
    for part, held in sets.sets.items():
        rows = {offline_gate.CANDIDATE: predicted(actor, held.demos, held.moments)}
        for name, values in (rows | sets.references.predict(held.moments)).items():
            error = offline.over_deviation(values, held.moments, sets.references.deviation)
            scored = offline.by_episode(error, held.moments.episode, len(held.numbers))
            digest = asked.candidate if name == offline_gate.CANDIDATE else ""
            found.setdefault(name, []).extend(
                EpisodeRecord(
                    world=asked.world,
                    policy=name,
                    digest=digest,
                    plan=asked.sha256,
                    seed=asked.first_seed + place + number,
                    steps=episode.steps,
                    success=False,
                    score=episode.score,
                    mode=held.contents[number][: offline_gate.SHOWN],
                    slice=part,
                    metrics={
                        "error": episode.error, "error_next": episode.error_next, "error_last": episode.error_last
                    },
                )
                for number, episode in enumerate(scored)
            )  # fmt: skip
        place += len(held.numbers)
    return [record for arm in found.values() for record in arm]


def likeliest(actor: Actor, *, argmax: bool) -> Actor:
    """Return the policy with codes that are the likeliest ones, or drawn; it shares the weights."""
    planner = actor.planner
    assert isinstance(planner, VQBeT), "other policies have no codes"
    other = VQBeT(planner.prior, temperature=planner.temperature, argmax=argmax)
    return Actor(
        actor.spec, other, execute=actor.execute, goal=actor.goal, reference=actor.reference, absolute=actor.absolute
    )


def predicted(actor: Actor, demos: Demonstrations, at: Moments) -> Float[np.ndarray, "M H A"]:
    """Return the actions that the policy would execute, in physical units, if it planned at each of the moments.

    A policy with goals is given the end of the demonstration. Raises WorldError as `Actor.plan`.
    """
    goals, parts = _ends(actor.goal, demos)[at.episode], []
    for first in range(0, len(at.chunk), BATCH):
        rows = slice(first, first + BATCH)
        seeds = FIRST_SEED + at.episode[rows]
        plan = actor.plan(at.observation[rows], goals[rows], seeds, at.step[rows])
        parts.append(actor.executed(at.observation[rows][:, -1], plan.chunk))
    return np.concatenate(parts)


def coded(actor: Actor, demos: Demonstrations, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return `offline.codes` of the policy's prior on these episodes, at temperature 1, in the policy's coordinates."""
    planner = actor.planner
    assert isinstance(planner, VQBeT), "other policies have no codes"
    seen = views.seen(demos, set(said.get("views", ())) - {"mirrored"}, tasks.of(demos.spec))
    at, prior = moments(actor, seen, said, MOST), planner.prior
    goals, found = _ends(actor.goal, seen)[at.episode], list[tuple[np.ndarray, np.ndarray]]()
    with torch.inference_mode():
        for first in range(0, len(at.chunk), BATCH):
            rows = slice(first, first + BATCH)
            wanted = np.repeat(goals[rows][:, None], planner.goal_steps, axis=1) if actor.goal else None
            goal = None if wanted is None else torch.as_tensor(wanted)
            features = prior.last(torch.as_tensor(at.observation[rows]), goal)
            chosen = prior.tokenizer.encode(prior.tokenizer.normalizer.normalize(torch.as_tensor(at.chunk[rows])))
            probability = prior.code_head(features, chosen).double().softmax(2)
            found.append((probability.numpy(), chosen.numpy()))
    probabilities, codes = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return offline.codes(probabilities, codes)


def rebuilt(actor: Actor, demos: Demonstrations, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return `Tokenizer.health` of the policy's tokenizer on these episodes, in the policy's coordinates."""
    planner = actor.planner
    assert isinstance(planner, VQBeT), "other policies have no codes"
    seen = views.seen(demos, set(said.get("views", ())) - {"mirrored"}, tasks.of(demos.spec))
    return planner.prior.tokenizer.health(complete_chunks(seen, planner.chunk, said.get("corrections", "all")))


def _ends(goal: tuple[str, ...], demos: Demonstrations) -> Float[np.ndarray, "E C"]:
    """Return the values of the goal's channels at the end of each episode."""
    names = [channel.name for channel in demos.spec.observation]
    return demos.observation[demos.episode_ends - 1][:, [names.index(name) for name in goal]]
