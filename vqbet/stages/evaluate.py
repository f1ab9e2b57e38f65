"""Stage: play the candidate on seeds for inspection and selection, which are disjoint from the gate's seeds.

Without a world, predict the actions of held-out episodes instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vqbet import environment, policies, statistics
from vqbet.bundle import Bundle
from vqbet.contract import EpisodeRecord, PipelineError
from vqbet.demos import store
from vqbet.evaluation import records, rollout, video
from vqbet.evaluation.pool import Assignment, RolloutPool
from vqbet.evaluation.rollout import UNPLANNED, Label
from vqbet.files import atomic
from vqbet.policies.actor import Actor
from vqbet.stages import artifacts, offline, offline_page, worlds
from vqbet.stages.paths import Paths
from vqbet.stages.players import StorePlayers
from vqbet.stages.progress import Watch

if TYPE_CHECKING:
    from vqbet.config import TaskParams


def run(paths: Paths, params: TaskParams, watch: Watch) -> dict[str, float]:
    policy, packed = policies.load(paths.policy)
    if not worlds.exists(paths.task, params):
        return _predicted(paths, policy, packed, watch)
    world = worlds.name(paths.task, asked=bool(policy.goal), params=params)
    label = Label(world, "candidate", packed.digest, UNPLANNED, environment.machine())
    first, episodes = params.evaluate.first_seed, params.evaluate.episodes
    seeds = range(first, first + episodes)
    with RolloutPool(StorePlayers(paths.store)) as pool:
        assignment = Assignment(label, seeds, paths.policy, film=seeds[: params.evaluate.videos])
        (played,) = pool.play(f"{worlds.shown(world)}: candidate", [assignment], watch.bar)
    # Without the machine, so that the output is the same on every machine.
    records.write(paths.evaluation / "records.jsonl", [replace(record, machine="") for record in played.records])
    _pictures(paths.evaluation, played)
    metrics = summary(played.records)
    artifacts.write_json(paths.metrics("evaluate"), metrics)
    timing = played.timing
    watch.say(f"{timing.steps_per_s:.0f} steps/s, policy call {timing.act_ms(50):.1f} ms (p99 {timing.act_ms(99):.1f})")
    return metrics


def _predicted(paths: Paths, policy: Actor, packed: Bundle, watch: Watch) -> dict[str, float]:
    """Write errors on held-out episodes, and their pictures, for a task without a world; nothing where none are."""
    said = offline.learned(packed.provenance)
    sets = offline.prepare(policy, store.read(paths.store), said)
    if sets is None:
        return _nothing(paths, watch)
    found = {name: offline_page.measured(policy, part, sets.references, said) for name, part in sets.sets.items()}
    for name, part in sets.sets.items():
        for picture, drawn in offline_page.pictures(policy, part, found[name], name).items():
            atomic.write(paths.evaluation / "pictures" / f"{name}-{picture}.svg", drawn, PipelineError)
    artifacts.write_json(paths.evaluation / "offline.json", offline_page.document(policy, packed, sets, found))
    metrics = {"episodes": 0.0} | offline_page.numbers(found)
    artifacts.write_json(paths.metrics("evaluate"), metrics)
    for name, one in found.items():
        rows, beaten = one["predictions"], one["beaten"]["next"]
        errors = ", ".join(f"{row} {numbers['next_mean']:.3f}" for row, numbers in rows.items())
        worse = f"; the policy is worse than {', '.join(beaten)}" if beaten else ""
        watch.say(f"{one['episodes']} held-out {name}, error of the next action over the deviation: {errors}{worse}")
    return metrics


def _nothing(paths: Paths, watch: Watch) -> dict[str, float]:
    """Write the outputs for a task without a world and without held-out episodes."""
    said = (
        "the task has no world, so no episode was played; try the policy on a robot, or hold episodes out "
        "(demos.held_out) to see the errors of its actions"
    )
    metrics = {"episodes": 0.0}
    artifacts.write_json(paths.evaluation / "unplayed.json", {"why": said})
    artifacts.write_json(paths.metrics("evaluate"), metrics)
    watch.say(said)
    return metrics


def summary(episodes: Sequence[EpisodeRecord]) -> dict[str, float]:
    """Return means of the world's metrics, the 95 % interval of the score, and the number of modes visited."""
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
    """Return the mean of each metric of the world over the episodes that have the metric.

    An event that never happened in an episode has no time there.
    """
    names = sorted({name for record in episodes for name in record.metrics})
    values = {name: [record.metrics[name] for record in episodes if name in record.metrics] for name in names}
    return {f"mean_{name}": float(np.mean(found)) for name, found in values.items()}


def _pictures(folder: Path, played: rollout.Play) -> None:
    """Write films, a contact sheet of each film, and all paths, for the report."""
    for row, film in sorted(played.films.items()):
        seed = played.records[row].seed
        video.write(folder / "films" / f"seed-{seed}.webm", film.frames, film.fps)
        picked = np.linspace(0, len(film.frames) - 1, 6).round().astype(int)
        video.write_png(folder / "films" / f"seed-{seed}.png", video.contact_sheet([film.frames[i] for i in picked], 6))
    lengths = np.array([len(path) for path in played.paths])
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "paths.npy", np.concatenate(played.paths), allow_pickle=False)
    np.save(folder / "path_ends.npy", lengths.cumsum(), allow_pickle=False)
