"""Demonstrations out of a source, as a task declares it: fields become channels, pictures become cameras."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
from jaxtyping import Float, Int, UInt8

from vqbet.contract import Camera, Demonstrations, Spec, StoreError
from vqbet.demos.sources.source import Source
from vqbet.files import canonical

Progress = Callable[[int, int], None]
APART = 0.01  # largest relative difference between the declared rate and the rate of the recorded times


@dataclass(frozen=True, slots=True)
class Declaration:
    """Fields of a source that a task takes. observation, action: fields and their numbers of channels, in spec order.

    cameras: the field of each camera of the spec. leave_out: whether an episode that lacks a file is left out.
    """

    spec: Spec
    observation: Mapping[str, int]
    action: Mapping[str, int]
    cameras: Mapping[str, str] = field(default_factory=dict)
    leave_out: bool = False

    @property
    def used(self) -> list[str]:
        """Return the fields of the source that are used."""
        return [*self.observation, *self.action, *self.cameras.values()]


def unused(source: Source, declaration: Declaration) -> list[str]:
    """Return the fields of a source that a declaration leaves out."""
    return sorted(set(source.fields) - set(declaration.used))


def chosen(source: Source, declaration: Declaration) -> list[int]:
    """Return the numbers of the episodes that are whole. Raises StoreError where one is not and none may be left out,
    and where none is whole."""
    _refuse_fields(source, declaration)
    used = set(declaration.used)
    lacking = {number: sorted(used & set(one.missing)) for number, one in enumerate(source.episodes)}
    broken = {number: names for number, names in lacking.items() if names}
    if broken and not declaration.leave_out:
        number, names = next(iter(broken.items()))
        raise StoreError(
            f"{source.path}: episode {source.episodes[number].name}: {', '.join(names)}: its file is missing, as for "
            f"{len(broken)} of {len(source.episodes)} episodes; bring the files, do not use the field, or set "
            f"{declaration.spec.task}.source.incomplete: leave_out"
        )
    whole = [number for number in lacking if number not in broken]
    if not whole:
        raise StoreError(f"{source.path}: no episode has all of {', '.join(sorted(used))}")
    return whole


def demonstrations(source: Source, declaration: Declaration, progress: Progress | None = None) -> Demonstrations:
    """Return the demonstrations of the episodes of `chosen`: numbers are read at once, pictures when asked for.

    Raises StoreError naming file, episode and field where the source is not as declared.
    """
    whole = chosen(source, declaration)
    parts: dict[str, list[np.ndarray]] = {"observation": [], "action": [], "time_s": []}
    for done, number in enumerate(whole, start=1):
        steps = source.episodes[number].steps
        parts["observation"].append(_joined(source, number, declaration.observation, steps))
        parts["action"].append(_joined(source, number, declaration.action, steps))
        parts["time_s"].append(_time_s(source, number, declaration.spec.control_hz, steps))
        if progress:
            progress(done, len(whole))
    lengths = np.array([source.episodes[number].steps for number in whole], np.int64)
    return Demonstrations(
        spec=declaration.spec,
        observation=np.concatenate(parts["observation"]),
        action=np.concatenate(parts["action"]),
        time_s=np.concatenate(parts["time_s"]),
        episode_ends=np.cumsum(lengths, dtype=np.int64),
        columns=_columns(source, whole, declaration.spec.task),
        cameras={
            camera.name: SourceFrames(source, declaration.cameras[camera.name], camera, whole)
            for camera in declaration.spec.cameras
        },
    )


@final
class SourceFrames:
    """Pictures of one field of a source, scaled to the camera's size, decoded in the order in which they are read.

    Steps that follow one another are cheap. A step that lies before the last one read begins its episode again.
    """

    def __init__(self, source: Source, name: str, camera: Camera, episodes: Sequence[int]) -> None:
        self._source, self._field, self._camera, self._episodes = source, name, camera, list(episodes)
        self._ends = np.cumsum([source.episodes[number].steps for number in episodes])
        self._place, self._next = -1, 0  # the open episode, by its place among these, and the step it yields next
        self._frames: Iterator[np.ndarray] = iter(())

    @property
    def shape(self) -> tuple[int, ...]:
        return (int(self._ends[-1]), *self._camera.shape)

    def __getitem__(self, steps: Int[np.ndarray, "*B"]) -> UInt8[np.ndarray, "*B height width 3"]:
        wanted = np.asarray(steps)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= self._ends[-1]):
            raise IndexError(f"expected steps from 0 to {self._ends[-1] - 1}, got {wanted.min()} to {wanted.max()}")
        distinct, places = np.unique(wanted, return_inverse=True)
        found = np.empty((len(distinct), *self._camera.shape), np.uint8)
        for row, step in enumerate(distinct.tolist()):
            found[row] = self._frame(step)
        return found[places.reshape(wanted.shape)]

    def identity(self, first: int, last: int) -> str:
        """Return a digest of what determines the pictures of the steps from `first` up to `last`."""
        parts = []
        for place, end in enumerate(self._ends.tolist()):
            start = end - self._source.episodes[self._episodes[place]].steps
            if start < last and first < end:
                whole = self._source.identity(self._episodes[place], self._field)
                parts.append([whole, max(first - start, 0), min(last, end) - start])
        return canonical.digest([self._source.format, self._camera.height, self._camera.width, parts])

    def _frame(self, step: int) -> UInt8[np.ndarray, "height width 3"]:
        place = int(np.searchsorted(self._ends, step, side="right"))
        start = int(self._ends[place - 1]) if place else 0
        if place != self._place or step - start < self._next:
            self._place, self._next = place, 0
            size = (self._camera.height, self._camera.width)
            self._frames = iter(self._source.frames(self._episodes[place], self._field, size))
        while True:
            frame = next(self._frames, None)
            if frame is None:
                name = self._source.episodes[self._episodes[place]].name
                raise StoreError(
                    f"{self._source.path}: episode {name}: {self._field}: ends after {self._next} pictures, expected "
                    f"{int(self._ends[place]) - start}"
                )
            self._next += 1
            if self._next > step - start:
                return frame


def _refuse_fields(source: Source, declaration: Declaration) -> None:
    """Raise StoreError unless every declared field is there, of the declared kind and width."""
    known = ", ".join(sorted(source.fields)) or "none"
    for name, width in {**declaration.observation, **declaration.action}.items():
        found = source.fields.get(name)
        if found is None:
            raise StoreError(f"{source.path}: has no field {name!r}, which is declared; there are: {known}")
        count = int(np.prod(found.shape, dtype=np.int64))
        if found.kind != "numbers" or count != width:
            got = f"{count} numbers" if found.kind == "numbers" else found.kind
            raise StoreError(f"{source.path}: field {name!r}: expected {width} numbers a step as declared, got {got}")
    for camera, name in declaration.cameras.items():
        found = source.fields.get(name)
        if found is None:
            raise StoreError(f"{source.path}: camera {camera!r}: has no field {name!r}; there are: {known}")
        if found.kind == "numbers":
            raise StoreError(f"{source.path}: camera {camera!r}: field {name!r} holds numbers, not pictures")


def _joined(source: Source, episode: int, fields: Mapping[str, int], steps: int) -> Float[np.ndarray, "N C"]:
    columns = []
    for name in fields:
        values = source.numbers(episode, name)
        if len(values) != steps:
            where = f"{source.path}: episode {source.episodes[episode].name}: {name}"
            raise StoreError(f"{where}: expected {steps} rows, got {len(values)}")
        columns.append(np.asarray(values, np.float32).reshape(steps, -1))
    return np.concatenate(columns, axis=1)


def _time_s(source: Source, episode: int, control_hz: float, steps: int) -> Float[np.ndarray, " N"]:
    """Return the recorded times, or those of a steady clock. Raises StoreError where they are of another rate."""
    recorded = source.time_s(episode)
    if recorded is None:
        return np.arange(steps) / control_hz
    time_s = np.asarray(recorded, np.float64) - recorded[0]
    rate = 1.0 / float(np.median(np.diff(time_s))) if steps > 1 and time_s[-1] > 0 else control_hz
    if abs(rate / control_hz - 1.0) > APART:
        raise StoreError(
            f"{source.path}: episode {source.episodes[episode].name}: its times are of {rate:.4g} steps a second, "
            f"declared are {control_hz:g}; mend control_hz"
        )
    return time_s


def _columns(source: Source, episodes: Sequence[int], task: str) -> dict[str, np.ndarray]:
    """Return the columns of a store. An episode of which the source says nothing counts as a success."""
    chosen_ones = [source.episodes[number] for number in episodes]
    texts = {
        name: np.array([str(one.labels.get(name, "")) for one in chosen_ones], np.str_)
        for name in ("session", "operator")
    }
    return {
        **texts,
        "source": np.array([f"{source.format} {one.name}" for one in chosen_ones], np.str_),
        "seed": np.full(len(chosen_ones), -1, np.int64),
        "success": np.array([bool(one.labels.get("success", True)) for one in chosen_ones]),
        "task": np.full(len(chosen_ones), task),
    }
