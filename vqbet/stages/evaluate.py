"""Stage: play the candidate where people may look and choose, on other seeds than those it will be judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vqbet import bundle, environment, playable, sims
from vqbet.contract import Demonstrations, Env, EpisodeRecord, Policy, WorldError
from vqbet.demos import store
from vqbet.evaluation import records, rollout, statistics, video
from vqbet.evaluation.plan import Slice
from vqbet.evaluation.rollout import Label
from vqbet.policies.nearest import NearestDemonstration
from vqbet.policies.noop import NoOp
from vqbet.sims.disturbed import Disturbed
from vqbet.stages import files
from vqbet.stages.paths import Paths
from vqbet.stages.watch import Watch

if TYPE_CHECKING:
    from vqbet.config import TaskParams

UNPLANNED = "0" * 64  # in the place of a plan's sha256: these records count for no verdict
ASKING = "+goals"  # after a task's name: its world that asks each episode for a goal


def run(paths: Paths, params: TaskParams, watch: Watch) -> dict[str, float]:
    demos = store.read(paths.store)
    candidate, packed = playable.load(paths.policy)
    bundle.expect(packed, demos.spec)
    world = world_name(paths.task, asked=bool(candidate.goal))
    label = Label(world, "candidate", packed.digest, UNPLANNED, environment.machine())
    first, episodes = params.evaluate.first_seed, params.evaluate.episodes
    filmed = range(min(params.evaluate.videos, episodes))
    played = play(label, candidate, range(first, first + episodes), demos, watch, film=filmed)
    records.write(paths.evaluation / "records.jsonl", played.records)
    _pictures(paths.evaluation, played)
    metrics = summary(played.records)
    files.write_json(paths.metrics("evaluate"), metrics)
    timing = played.timing
    watch.say(f"{timing.steps_per_s:.0f} steps/s, policy call {timing.act_ms_p50:.1f} ms (p99 {timing.act_ms_p99:.1f})")
    return metrics


def world_name(task: str, *, asked: bool) -> str:
    return task + ASKING if asked else task


def world(name: str, demos: Demonstrations | None = None) -> Env:
    """A fresh world by name; one whose name ends with ASKING takes what it asks for from `demos`.

    Raises WorldError naming those there are.
    """
    task = name.removesuffix(ASKING)
    known = sims.WORLDS if task == name else sims.GOAL_WORLDS
    if task not in known:
        kind = "world" if task == name else "world that asks for goals"
        raise WorldError(f"no {kind} {task!r}; there are: {', '.join(sorted(known))}")
    if task == name:
        return sims.WORLDS[task]()
    if demos is None:
        raise WorldError(f"world {name!r}: expected demonstrations to ask for goals from, got none")
    return sims.GOAL_WORLDS[task](demos)


def disturbed(env: Env, demos: Demonstrations, *, observation_noise: float, action_noise: float) -> Env:
    """The world as it is, or behind noise where there is some."""
    if not (observation_noise or action_noise):
        return env
    return Disturbed(env, observation_noise=observation_noise, action_noise=action_noise, demos=demos)


def play(
    label: Label,
    policy: Policy,
    seeds: Sequence[int],
    demos: Demonstrations,
    watch: Watch,
    *,
    within: Slice | None = None,
    film: Sequence[int] = (),
) -> rollout.Play:
    """One episode per seed in a fresh world, under the conditions of a slice where one is given."""
    env = world(label.world, demos)
    if within is not None:
        noise = {"observation_noise": within.observation_noise, "action_noise": within.action_noise}
        env, label = disturbed(env, demos, **noise), replace(label, slice=within.name)
    with watch.bar(f"{label.world}: {label.policy}") as advance:
        return rollout.play(env, policy, seeds, label, progress=lambda done, total: advance(done, total, {}), film=film)


def summary(episodes: Sequence[EpisodeRecord]) -> dict[str, float]:
    """Means of the world's metrics, with the 95 % interval of the score, and how many modes were visited."""
    scores = statistics.mean_interval(np.array([record.score for record in episodes]))
    modes = [record.mode for record in episodes if record.mode]
    return {
        "episodes": float(len(episodes)),
        "score": scores.estimate,
        "score_low": scores.low,
        "score_high": scores.high,
        "success": float(np.mean([record.success for record in episodes])),
        "steps": float(np.mean([record.steps for record in episodes])),
        "modes": float(len(set(modes))),
        "mode_entropy_bits": statistics.mode_entropy(modes),
        **_means(episodes),
    }


def _means(episodes: Sequence[EpisodeRecord]) -> dict[str, float]:
    """Of each metric of the world, over the episodes that have it: what never happened has no time."""
    names = sorted({name for record in episodes for name in record.metrics})
    values = {name: [record.metrics[name] for record in episodes if name in record.metrics] for name in names}
    return {f"mean_{name}": float(np.mean(found)) for name, found in values.items()}


def baseline(name: str, demos: Demonstrations) -> Policy:
    return NoOp(demos.spec) if name == "noop" else NearestDemonstration(demos)


def _pictures(folder: Path, played: rollout.Play) -> None:
    """Films, a contact sheet of how they went, and every path, for the report."""
    for row, film in sorted(played.films.items()):
        seed = played.records[row].seed
        video.write(folder / "films" / f"seed-{seed}.webm", film.frames, film.fps)
        picked = np.linspace(0, len(film.frames) - 1, 6).round().astype(int)
        video.write_png(folder / "films" / f"seed-{seed}.png", video.contact_sheet([film.frames[i] for i in picked], 6))
    lengths = np.array([len(path) for path in played.paths])
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "paths.npy", np.concatenate(played.paths), allow_pickle=False)
    np.save(folder / "path_ends.npy", lengths.cumsum(), allow_pickle=False)
