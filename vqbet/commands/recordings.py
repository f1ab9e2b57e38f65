"""Ingest of reviewed recordings: the present demonstrations of a task and those of its robots, as the next version."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vqbet import tasks, versions
from vqbet.commands import completeness, origin, review
from vqbet.commands.ingest import Collected, refuse_unfit
from vqbet.commands.origin import Origin
from vqbet.contract import Demonstrations, StoreError, ValidationError
from vqbet.demos import store
from vqbet.demos.importers import recordings as importer
from vqbet.demos.importers.recordings import Accepted
from vqbet.serving import cameras
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

if TYPE_CHECKING:
    from vqbet.config import TaskParams

AGAIN = "run the same command again when that has ended, or in a clone of its own; the recordings are kept"


def collect(root: Path, task: str, params: TaskParams, folder: Path, watch: Watch) -> Collected:
    """Add the accepted recordings of a folder to a task's store, and record their source.

    A recording that the store already holds is not added again. Raises StoreError, with their numbers, where recordings
    wait for a decision, are damaged or do not fit the demonstrations; ValidationError where the demonstrations would
    not be fit for training. After an error the store is untouched.
    """
    paths = Paths(root, task)
    completeness.check(root, task)
    present = _present(paths)
    accepted = _accepted(folder, watch)
    there = importer.known(present) if present else set[str]()
    new = [each for each in accepted if each.recording.digest not in there]
    watch.say(
        f"{folder}: {len(accepted)} recordings accepted, {len(accepted) - len(new)} of them already in {paths.store}"
    )
    if not new:
        if present is None:
            raise StoreError(f"{folder}: no recording is accepted, and {paths.store} holds nothing yet; review them")
        return Collected(len(present.episode_ends), len(present.action), present.digest, made=False)
    demos = importer.extended(present, new)
    seen = {camera.name for camera in demos.spec.cameras}
    recorded = {name for each in new for name in cameras.given(dict.fromkeys(each.recording.arrays))}
    if unused := sorted(recorded - seen):
        watch.say(f"{folder}: camera {', '.join(unused)}: not among the cameras of {task!r}; its pictures are left out")
    _refuse_other_task(demos, task)
    try:
        refuse_unfit(demos, params, folder)
    except ValidationError as error:
        raise ValidationError(f"{error}\n{_numbered(present, new)}") from error
    digest = store.write(paths.store, demos, alone=lambda: versions.alone(root, AGAIN))
    before = f"demonstrations {present.digest[:12]} and " if present else ""
    whence = Origin(
        f"{before}{len(new)} recordings", "vqbet recordings", importer.digest(new), place=str(folder.resolve())
    )
    origin.keep(paths, digest, whence, versioned=True)
    return Collected(len(demos.episode_ends), len(demos.action), digest, made=True)


def _present(paths: Paths) -> Demonstrations | None:
    """Return the task's demonstrations; None where it has none. Raises StoreError where they are not checked out."""
    if paths.store.is_dir():
        return store.read(paths.store)
    if (paths.root / ".dvc").is_dir() and paths.store.name in versions.stores(paths.root):
        raise StoreError(f"{paths.store}: is not here, and would be lost from data/; bring it back: dvc pull data.dvc")
    return None


def _accepted(folder: Path, watch: Watch) -> list[Accepted]:
    """Return the recordings to add, each verified. Raises StoreError where one waits for a decision or is damaged."""
    reviewed, _ = review.run(folder)
    waiting = [each for each in reviewed if each.open]
    if waiting:
        shown = "".join(f"\n  {each.number}  {each.sentence()}" for each in waiting)
        raise StoreError(
            f"{folder}: {len(waiting)} of {len(reviewed)} recordings wait for a person's decision: "
            f"vqbet review {folder} --accept ... --reject ...{shown}"
        )
    found = []
    with watch.bar("recordings") as advance:
        for done, each in enumerate(reviewed, 1):
            if each.decision.accepted is not False and each.recording is not None:
                each.recording.verify()
                found.append(Accepted(each.recording, bool(each.success)))
            advance(done, len(reviewed), {})
    return found


def _refuse_other_task(demos: Demonstrations, task: str) -> None:
    known = tasks.of(demos.spec).spec
    differences = known.differences(demos.spec) if demos.spec.task == task else [f"its task is {demos.spec.task!r}"]
    if differences:
        raise StoreError(f"these recordings are not of task {task!r}: {'; '.join(differences)}")


def _numbered(present: Demonstrations | None, new: Sequence[Accepted]) -> str:
    """Return which recording each added episode is, since validation counts the episodes of the whole store."""
    first = len(present.episode_ends) if present else 0
    recorded = (each.recording for each in new)
    pairs = (f"{first + place} is recording {each.number}" for place, each in enumerate(recorded))
    return f"Of these episodes, {', '.join(pairs)}; reject what is wrong: vqbet review <folder> --reject <number>"
