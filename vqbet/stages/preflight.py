"""Checks for everything that would stop a task's graph in a later stage, made before the first stage. Trains nothing.

`vqbet check` prints the errors, and `runner` raises them before the first stage. No stage imports this module, since
the checks cover the code of all stages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

from vqbet import tasks
from vqbet.contract import (
    ConfigError,
    Demonstrations,
    GateError,
    PipelineError,
    StoreError,
    ValidationError,
    VqbetError,
    WorldError,
)
from vqbet.coordinates import views
from vqbet.demos import held_out, store
from vqbet.evaluation import offline
from vqbet.evaluation.plan import Plan, Slice
from vqbet.stages import fitting, gate, worlds
from vqbet.stages.paths import Paths

if TYPE_CHECKING:
    from vqbet.config import SourceParams, TaskParams
    from vqbet.tasks import Task


def refuse(paths: Paths, params: TaskParams) -> None:
    """Raise PipelineError with one line per error; a single error is raised as it is."""
    found = list(wrong(paths, params))
    if len(found) == 1:
        raise found[0]
    if found:
        lines = "".join(f"\n  - {error}" for error in found)
        raise PipelineError(f"{paths.task}: {len(found)} things are wrong, and nothing was begun:{lines}")


SIMULATED = "simulated"  # kind of evidence


def wrong(paths: Paths, params: TaskParams) -> Iterator[VqbetError]:
    """Yield every error that would stop the graph, each naming the parameter or the file."""
    yield from _plan(paths.task, params)
    known = tasks.TASKS.get(paths.task)
    if known is not None:
        yield from _unfit(paths.task, params, known)
    try:
        demos = read(paths)
    except StoreError as error:
        yield error
        demos = None
    if demos is not None and params.source is not None:
        yield from _not_as_declared(paths, params.source, demos)
    if demos is not None:
        yield from _unready(paths, params, demos)
    if not worlds.exists(paths.task, params):
        yield from _without_world(paths.task, params)
        if demos is not None:
            yield from _unheld(paths.task, params, demos)
            yield from of_data(paths.task, params, demos)
        return
    try:
        world = worlds.name(paths.task, asked=params.prior.goal_steps > 0, params=params)
        worlds.make(world, demos)
        if demos is not None:
            worlds.check(world, demos.spec, drawn=params.evaluate.videos > 0)
    except WorldError as error:
        if demos is not None or not params.prior.goal_steps:
            yield error
    if demos is not None:
        yield from of_data(paths.task, params, demos)


def _not_as_declared(paths: Paths, source: SourceParams, demos: Demonstrations) -> Iterator[VqbetError]:
    """Yield an error where the store was made from another declaration than the present one."""
    differences = source.spec(paths.task).differences(demos.spec)
    if differences:
        yield ConfigError(
            f"{paths.task}.source: says otherwise than {paths.store}: {'; '.join(differences[:3])} (here: params.yaml, "
            f"there: the store); bring the demonstrations in again: vqbet ingest {paths.task}"
        )


def _unready(paths: Paths, params: TaskParams, demos: Demonstrations) -> Iterator[VqbetError]:
    """Yield an error where an encoder cannot begin with its weights."""
    chosen = params.prior.encoder
    if chosen is not None and chosen.weights is not None and not list(fitting.blind(chosen, demos.spec)):
        from vqbet.stages import eyes  # imported late: needs torch

        try:
            eyes.encoder(chosen, demos.spec.cameras, paths.root)
        except ConfigError as error:
            yield ConfigError(f"{paths.task}.prior.{error}")


def _without_world(task: str, params: TaskParams) -> Iterator[VqbetError]:
    """Yield an error where a task that cannot be simulated needs simulated evidence."""
    if SIMULATED in params.gate.evidence:
        yield ConfigError(
            f'{task}.gate.evidence: the task has no world to simulate; set it to ["robot"], and promote by trials '
            "on the robot (docs/robot-trials.md)"
        )


def _unfit(task: str, params: TaskParams, known: Task) -> Iterator[VqbetError]:
    """Yield an error for every parameter that the task does not support."""
    try:
        views.refuse(task, params.demos.views, known)
    except ConfigError as error:
        yield error
    if params.prior.goal_steps and not known.goal:
        yield ConfigError(f"{task}.prior.goal_steps: {params.prior.goal_steps}: the task has no goals; set it to 0")


def read(paths: Paths) -> Demonstrations:
    """Return the task's demonstrations. Raises StoreError; where there are none, it says how to bring them in."""
    if not paths.store.is_dir():
        raise StoreError(
            f"{paths.store}: no demonstrations; bring them in: vqbet ingest {paths.task} [path or URL], or dvc pull"
        )
    return store.read(paths.store)


def of_data(task: str, params: TaskParams, demos: Demonstrations) -> Iterator[VqbetError]:
    """Yield an error for every parameter that these demonstrations cannot satisfy."""
    try:
        train = held_out.learned(demos, params.demos.learned()).train
    except ValidationError as error:
        yield ConfigError(f"{task}.{error}")
        train = demos
    yield from (
        ConfigError(f"{task}.tokenizer.{line}")
        for line in fitting.unfit(params.tokenizer, train, params.demos.corrections)
    )
    yield from (ConfigError(f"{task}.prior.{line}") for line in fitting.blind(params.prior.encoder, demos.spec))
    for view in sorted(set(params.demos.views) & set(views.BLIND)) if demos.cameras else ():
        yield ConfigError(
            f"{task}.demos.views: {view!r} is of numbers alone, and the demonstrations have pictures of "
            f"{', '.join(map(repr, demos.cameras))}; take it from the list, or ingest without cameras"
        )
    names = [channel.name for channel in demos.spec.observation]
    for pattern in params.prior.unseen:
        if not any(fnmatchcase(name, pattern) for name in names):
            yield ConfigError(
                f"{task}.prior.unseen: {pattern!r} fits no observed channel; there are {', '.join(names)}"
            )
    try:
        if "noop" in params.gate.baselines:
            worlds.baseline("noop", demos)
    except WorldError as error:
        yield ConfigError(f"{task}.gate.baselines: {error}")


def _unheld(task: str, params: TaskParams, demos: Demonstrations) -> Iterator[VqbetError]:
    """Yield an error for every parameter that keeps a task without a world from being judged on held-out episodes."""
    if "measured" in params.gate.offline_baselines and max(offline.measured(demos.spec)) < 0:
        yield ConfigError(
            f"{task}.gate.offline_baselines: measured: no action is absolute and has the name of an observed channel; "
            "take it from the list"
        )
    try:
        cut = held_out.learned(demos, params.demos.learned())
    except ValidationError:  # of_data says so
        return
    held, chunk = np.concatenate([cut.episodes, cut.sessions]), params.tokenizer.chunk
    short = held[demos.lengths[held] <= chunk]
    if len(short):
        yield ConfigError(
            f"{task}.tokenizer.chunk: {chunk} actions and one before them are more than the {demos.lengths[short[0]]} "
            f"of the held-out episode {short[0]}, so that nothing can be predicted in it; use a shorter chunk, or drop "
            "the episode"
        )


def _plan(task: str, params: TaskParams) -> Iterator[GateError]:
    """Yield the gate's own errors, one for each part of its plan; a whole plan would report only the first."""
    chosen, blank = params.gate, "0" * 64
    most = max(1, max(chosen.looks))
    neutral = Plan(
        task=task,
        world=task,
        spec=blank,
        candidate=blank,
        champion="",
        machine="any",
        first_seed=chosen.first_seed,
        looks=(most,),
        reserved={},
        slices=(Slice("all", 1.0),),
        metric=chosen.metric,
        question=chosen.question,
        stopping="group_sequential",
        margin=chosen.margin,
        alpha=chosen.alpha,
        power=chosen.power,
        floor=chosen.floor,
        min_modes=chosen.min_modes,
        baselines=(),
    )
    for change in (_looks, _slices, _baselines, _seeds):
        try:
            replace(neutral, **change(params))
        except GateError as error:
            yield GateError(f"{task}.gate: {error}")


def _looks(params: TaskParams) -> dict[str, Any]:
    return {"looks": tuple(params.gate.looks), "stopping": params.gate.stopping}


def _slices(params: TaskParams) -> dict[str, Any]:
    return {"slices": tuple(Slice(name, **part.model_dump()) for name, part in params.gate.slices.items())}


def _baselines(params: TaskParams) -> dict[str, Any]:
    return {"baselines": tuple(params.gate.baselines)}


def _seeds(params: TaskParams) -> dict[str, Any]:
    return {"reserved": gate.reserved(params)}
