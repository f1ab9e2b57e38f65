"""Ingest of demonstrations from an importer or the task's oracle: validate, store, version, audit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from vqbet import tasks, versions
from vqbet.commands import completeness, located, origin
from vqbet.commands.origin import Origin
from vqbet.contract import ConfigError, Demonstrations, PipelineError, StoreError
from vqbet.demos import importers, store
from vqbet.demos.sources import declared
from vqbet.demos.sources.bags import Resampling
from vqbet.demos.sources.declared import Declaration
from vqbet.demos.store.staging import Staging
from vqbet.demos.validation import validate
from vqbet.files import canonical
from vqbet.stages import artifacts, code_version
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.tasks import TASKS, Oracle, Task

if TYPE_CHECKING:
    from vqbet.config import SourceParams, TaskParams


@dataclass(frozen=True, slots=True)
class Collected:
    """Summary of data/<task>.zarr. made: whether the store was written by this call."""

    episodes: int
    steps: int
    digest: str
    made: bool


def collect(root: Path, task: str, params: TaskParams, source: str, watch: Watch) -> Collected:
    """Write a task's demonstrations to its store and record their source. A store made by the same recipe is kept.

    Pictures that an interrupted ingest has decoded are not decoded again. Raises PipelineError, before anything is
    done, where data/ cannot be versioned, lacks another task's store, or is read by a stage of the graph;
    ConfigError where the task has neither importer nor oracle; StoreError where the present store holds recorded
    episodes; ValidationError where the demonstrations are not fit for training. After an error the previous store is
    untouched.
    """
    paths = Paths(root, task)
    for left in completeness.check(root, task):
        watch.say(
            f"{left} is not in the new version of data/; vqbet ingest {left.removesuffix('.zarr')} makes it again"
        )
    if params.source is not None and not source:
        source = params.source.path
    oracle = None if source else _oracle(task)
    recipe = _recipe(oracle, task, params) if oracle else ""
    note = paths.scratch("ingested") / "made.json"
    if oracle and note.is_file() and paths.store.is_dir():
        known = artifacts.read_object(note, recipe=str, digest=str, episodes=int, steps=int)
        if known["recipe"] == recipe and known["digest"] == store.digest(paths.store):
            origin.keep(paths, known["digest"], _scripted(oracle, task, params), versioned=False)
            return Collected(known["episodes"], known["steps"], known["digest"], made=False)
    _refuse_loss(paths)
    _expect_idle(paths, params, watch)
    if oracle:
        demos, source_of = _demonstrated(oracle, task, params, watch), _scripted(oracle, task, params)
    elif params.source is not None:
        demos, source_of = _declared(root, task, params.source, source, watch)
    else:
        demos, source_of = _imported(root, task, source, watch)
    staging = Staging(paths.scratch("staged"), _decoding(task), paths.store)
    with watch.bar(f"pictures {task}") as advance:
        digest = store.write(
            paths.store,
            demos,
            accept=lambda written: refuse_unfit(written, params, source or task),
            progress=lambda done, total: advance(done, total, {}),
            staging=staging,
            alone=lambda: versions.alone(root, _again(task, staged=bool(demos.cameras))),
        )
    if staging.reused:
        watch.say(
            f"pictures: {staging.reused} of {staging.reused + staging.made} files were decoded by an earlier ingest"
        )
    origin.keep(paths, digest, source_of, versioned=bool(source))
    made = Collected(len(demos.episode_ends), len(demos.action), digest, made=True)
    artifacts.write_json(note, {"recipe": recipe, "digest": digest, "episodes": made.episodes, "steps": made.steps})
    return made


def refuse_unfit(demos: Demonstrations, params: TaskParams, where: str | Path) -> None:
    """Raise ValidationError where demonstrations are not fit for training."""
    report = validate.validate(demos, tasks.of(demos.spec).validation(), **params.validate_.model_dump())
    validate.raise_for_errors(report, where)


def _refuse_loss(paths: Paths) -> None:
    """Raise StoreError where the present store holds recorded episodes, which the new one would not hold."""
    if paths.store.is_dir() and store.recorded(paths.store):
        raise StoreError(
            f"{paths.store}: holds episodes recorded on a robot, which would be lost from data/; nothing was done. To "
            "add more of them: vqbet ingest --from. To begin again without them, remove this folder first"
        )


def _expect_idle(paths: Paths, params: TaskParams, watch: Watch) -> None:
    """Raise PipelineError where a stage reads data/; pictures may be decoded meanwhile, after a word."""
    found = versions.busy(paths.root)
    if found and params.source is not None and params.source.cameras:
        watch.say(f"{found}; pictures are decoded meanwhile, and replace the old ones only if it has ended by then")
    elif found:
        raise PipelineError(f"{found}; nothing was done: {_again(paths.task, staged=False)}")


def _again(task: str, *, staged: bool) -> str:
    kept = ", which takes what is decoded as it is" if staged else ""
    return f"run vqbet ingest {task} again when that has ended{kept}, or in a clone of its own"


def _decoding(task: str) -> str:
    """Return a digest of the code and the libraries between a source's files and the bytes of pictures in a store."""
    code = [code_version.digest(module, task) for module in ("vqbet.demos.sources", "vqbet.demos.store")]
    return canonical.digest([*code, *(_installed(name) for name in ("av", "numcodecs", "numpy", "pillow", "scipy"))])


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def publish(root: Path, watch: Watch) -> versions.DataVersion:
    """Version data/, push the version, and compare it with the remote's content."""
    with versions.alone(root, "run the same command again when that has ended; what was brought in is kept"):
        pass  # dvc add waits a minute for others without a word
    version = versions.add(root)
    watch.say(f"data.dvc {version.md5[:12]}: {version.files} files, {version.size / 1e6:.1f} MB")
    versions.push(root)
    versions.audit(root)
    return version


def _oracle(task: str) -> Oracle:
    known = TASKS.get(task)
    if known is None or known.oracle is None:
        raise ConfigError(
            f"{task}: expected a path or URL of its demonstrations, got none (an oracle makes them only for "
            f"{_names(lambda each: each.oracle)}): vqbet ingest {task} <path or URL>"
        )
    return known.oracle


def _demonstrated(oracle: Oracle, task: str, params: TaskParams, watch: Watch) -> Demonstrations:
    with watch.bar(f"demonstrations {task}") as advance:
        return oracle(params.demos.episodes, params.demos.seed, lambda done, total: advance(done, total, {}))


def _scripted(oracle: Oracle, task: str, params: TaskParams) -> Origin:
    """Return the origin of demonstrations that the task's oracle makes: its code and its parameters."""
    module, chosen = tasks.module(oracle), params.demos
    return Origin(
        module, "oracle", code_version.digest(module, task), place=f"{chosen.episodes} episodes, seed {chosen.seed}"
    )


def _declared(root: Path, task: str, chosen: SourceParams, path: str, watch: Watch) -> tuple[Demonstrations, Origin]:
    """Return the demonstrations of a declared task, and their origin; say what of the source is not used."""
    wanted = Declaration(
        spec=chosen.spec(task),
        observation={name: len(channels) for name, channels in chosen.observation.items()},
        action={name: len(channels) for name, channels in chosen.action.items()},
        cameras={name: camera.field for name, camera in chosen.cameras.items()},
        leave_out=chosen.incomplete == "leave_out",
    )
    with located.opened(root, task, path, chosen.format, watch, _resampling(chosen)) as found:
        for sentence in found.notes:
            watch.say(sentence)
        if rest := declared.unused(found, wanted):
            watch.say(f"not used of {found.path.name}: {', '.join(rest)}")
        whole = declared.chosen(found, wanted)
        if len(whole) < len(found.episodes):
            watch.say(
                f"left out: {len(found.episodes) - len(whole)} of {len(found.episodes)} episodes, which lack files"
            )
        with watch.bar(f"read {task}") as advance:
            demos = declared.demonstrations(found, wanted, lambda done, total: advance(done, total, {}))
        return demos, origin.imported(path, found.path, chosen.format, "")


def _resampling(chosen: SourceParams) -> Resampling | None:
    """Return how the topics of a bag become steps; None where the source is no bag."""
    if chosen.format != "bag":
        return None
    how = chosen.resample
    if how is None:
        return Resampling(rate_hz=float(chosen.control_hz))
    return Resampling(float(chosen.control_hz), frozenset(how.nearest), how.largest_gap_s)


def _imported(root: Path, task: str, source: str, watch: Watch) -> tuple[Demonstrations, Origin]:
    known = TASKS.get(task)
    if known is None or known.importer is None:
        raise ConfigError(
            f"{task}: no importer reads its published data; there are importers for "
            f"{_names(lambda each: each.importer)}"
        )
    folder, archive = located.fetched(root, task, source, watch)
    try:
        demos = known.importer.read(folder)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be read: {error.strerror}") from error
    found = importers.located(folder)
    return demos, origin.imported(source, found, known.importer.format, archive)


def _recipe(oracle: Oracle, task: str, params: TaskParams) -> str:
    """Return a digest of everything that determines the oracle's demonstrations: its parameters and its code."""
    code = code_version.digest(tasks.module(oracle), task)
    return canonical.digest([task, params.demos.model_dump(), code])


def _names(brought_in: Callable[[Task], object]) -> str:
    return ", ".join(sorted(name for name, task in TASKS.items() if brought_in(task))) or "none"
