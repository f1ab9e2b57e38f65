"""Cells of the comparison: trained for the same time, evaluated on the same seeds, and stored as results.

A cell that has a result of the same parameters and data is skipped, so an interrupted run can be resumed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vqbet import environment, tasks, versions
from vqbet.comparison import grid, timed
from vqbet.comparison.grid import VQBET, Cell
from vqbet.comparison.results import Result
from vqbet.comparison.share import share
from vqbet.comparison.timed import Job
from vqbet.contract import GOAL_PICTURES, ConfigError, Demonstrations, Env, Pictures, goal_channels
from vqbet.coordinates import views
from vqbet.demos import store
from vqbet.environment import threads
from vqbet.evaluation import records, rollout
from vqbet.evaluation.rollout import Label
from vqbet.policies.actor import Actor
from vqbet.stages import artifacts, evaluate, tokenizer, worlds
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.training import loop

if TYPE_CHECKING:
    from vqbet.comparison.params import Params

LATENCY_S = 2.0  # duration of a latency measurement
ADVICE = "put its demonstrations there: vqbet ingest"


def check(root: Path, params: Params, chosen: list[Cell]) -> dict[str, str]:
    """Check that every cell can be trained, without training; return the digest of the demonstrations by task.

    Raises ConfigError, StoreError or TrainingError naming the parameter, the value, and what to do.
    """
    digests = {}
    for task in dict.fromkeys(cell.task for cell in chosen):
        demos = _demonstrations(root, params, task)
        digests[task] = demos.digest
        for cell in (cell for cell in chosen if cell.task == task):
            _checked(params, cell, demos)
    return digests


def run(root: Path, params: Params, cell: Cell, watch: Watch) -> Result:
    """Train and evaluate one cell; write and return its result. Raises like `check`."""
    demos = _demonstrations(root, params, cell.task)
    seen, chosen = _checked(params, cell, demos), grid.resolved(params, cell)
    job = Job(params, cell, chosen, seen, root / ".vqbet" / "paper", watch)
    trained = timed.trained(job)
    actor = timed.actor(job)
    world = _world(cell, demos)
    first, found = params.paper.first_seed, _key(params, cell, chosen, demos.digest)
    world_name = worlds.name(cell.task, asked=cell.goal)
    with watch.bar(f"{cell.name}: evaluate") as advance:
        played = rollout.play(
            world,
            actor,
            range(first, first + cell.episodes),
            Label(world_name, cell.policy, trained["digest"], found, environment.machine()),
            progress=lambda done, total: advance(done, total, {}),
        )
    records.write(job.folder / f"{cell.name}.jsonl", played.records)
    result = Result(
        key=found,
        task=cell.task,
        goal=cell.goal,
        policy=cell.policy,
        variant=cell.variant,
        seed=cell.seed,
        size=params.paper.size,
        first_seed=first,
        **{name: trained[name] for name in timed.NUMBERS},
        act_ms=_latency(actor, demos),
        score=[record.score for record in played.records],
        success=[record.success for record in played.records],
        modes=_modes(played),
        metrics={name: round(value, 5) for name, value in evaluate.summary(played.records).items()},
        made_with={**trained["made_with"], "git_commit": versions.git_commit(root)},
        params=dict(chosen),
        changes=dict(cell.changes),
        demonstrations=len(seen.episode_ends),
    )
    artifacts.write_json(path(root, params, cell), result.to_json())
    return result


def missing(root: Path, params: Params, chosen: list[Cell], digests: Mapping[str, str]) -> list[Cell]:
    """Return the cells that have no result of these parameters and this data."""
    left = []
    for cell in chosen:
        file = path(root, params, cell)
        wanted = _key(params, cell, grid.resolved(params, cell), digests[cell.task])
        if not file.is_file() or artifacts.read_object(file).get("key") != wanted:
            left.append(cell)
    return left


def current(params: Params, found: Sequence[Result]) -> list[Result]:
    """Return the results that match the present parameters at some size; all others are of older parameters."""
    planned = {
        (size, *_which(cell)): cell for size in params.paper.sizes for cell in grid.plan(params.sized(size).paper)
    }
    return [each for each in found if _as_planned(params, planned.get((each.size, *_which(each))), each)]


def _which(one: Cell | Result) -> tuple[str, str, bool, str, int]:
    return one.task, one.policy, one.goal, one.variant, one.seed


def _as_planned(params: Params, cell: Cell | None, result: Result) -> bool:
    return cell is not None and (dict(cell.changes), grid.resolved(params, cell), params.paper.first_seed) == (
        result.changes,
        result.params,
        result.first_seed,
    )


def path(root: Path, params: Params, cell: Cell) -> Path:
    """Return the path of a cell's result, which is under version control."""
    return folder(root) / params.paper.size / f"{cell.name}.json"


def folder(root: Path) -> Path:
    return root / "docs" / "results"


def _demonstrations(root: Path, params: Params, task: str) -> Demonstrations:
    where = Paths(root, task).store
    if not where.is_dir():
        raise ConfigError(f"{params.own}: tasks: {task}: no demonstrations at {where}: {ADVICE} {task} [path or URL]")
    return store.read(where)


def _checked(params: Params, cell: Cell, demos: Demonstrations) -> Demonstrations:
    """Return the cell's share of the demonstrations. Raises if the cell cannot be trained or evaluated."""
    chosen, seen = grid.resolved(params, cell), share(demos, cell.change("data", 1.0), cell.seed)
    if cell.goal and not tasks.TASKS[cell.task].goal:
        raise ConfigError(f"{params.own}: goal_policies: {cell.policy!r} in {cell.task!r}: the world has no goals")
    _world(cell, demos)
    if cell.policy == VQBET:
        task = grid.sections(params, cell)
        views.refuse(cell.task, task.demos.views, tasks.of(demos.spec))
        tokenizer.refuse_unfit(cell.task, task.tokenizer, seen)
    else:
        timed.baseline(params, cell, chosen, seen)
    return seen


def _key(params: Params, cell: Cell, chosen: Mapping[str, Any], digest: str) -> str:
    return grid.key(cell, chosen, params.paper.first_seed, digest)


def _world(cell: Cell, demos: Demonstrations) -> Env:
    world = worlds.make(worlds.name(cell.task, asked=cell.goal), demos)
    seen, done = float(cell.change("observation_noise", 0.0)), float(cell.change("action_noise", 0.0))
    return worlds.disturbed(world, demos, observation_noise=seen, action_noise=done)


def _latency(actor: Actor, demos: Demonstrations) -> dict[str, float]:
    """Return milliseconds on one thread, for 1 and 64 episodes: median of a planning call, and per executed action."""
    every = actor.planner.chunk if actor.execute == "chunk" else 1
    found = {}
    with threads.of(1):
        for batch in (1, 64):
            times = _timed(actor, demos, batch, every)
            found[f"batch_{batch}"] = round(1000 * float(np.median(times[::every])), 3)
            found[f"action_{batch}"] = round(1000 * float(np.median(times.reshape(-1, every).mean(axis=1))), 3)
    return found


def _timed(actor: Actor, demos: Demonstrations, batch: int, every: int) -> np.ndarray:
    """Return the seconds of each call over whole chunks, encoding included, without the first three chunks."""
    rows = np.arange(batch) % len(demos.observation)
    shown = {"cameras": _pictures(demos, rows)} if GOAL_PICTURES in actor.goal else {}
    wanted = np.zeros((batch, len(goal_channels(actor.goal))), np.float32)
    actor.reset(np.arange(batch), wanted if actor.goal else None, **shown)
    rows, times = np.arange(batch), list[float]()
    until = time.monotonic() + LATENCY_S
    while time.monotonic() < until or len(times) < 8 * every or len(times) % every:
        steps = (len(times) * batch + rows) % len(demos.observation)
        seen, shown = demos.observation[steps], {"cameras": _pictures(demos, steps)} if demos.cameras else {}
        began = loop.clock()
        actor.act(seen, rows, **shown)
        times.append(loop.clock() - began)
    return np.array(times[3 * every :])


def _pictures(demos: Demonstrations, steps: np.ndarray) -> Pictures:
    return {name: frames[steps] for name, frames in demos.cameras.items()}


def _modes(played: rollout.Play) -> dict[str, int]:
    found: dict[str, int] = {}
    for record in played.records:
        if record.mode:
            found[record.mode] = found.get(record.mode, 0) + 1
    return dict(sorted(found.items()))
