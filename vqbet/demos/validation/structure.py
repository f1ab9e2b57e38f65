"""Checks that the arrays of demonstrations fit together: spec, dtypes, shapes, episode ends, per-episode columns.

These checks run first and alone, because nothing else can be computed from arrays that do not fit together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from vqbet.contract import COLUMNS, Demonstrations, Spec
from vqbet.demos.validation.findings import Finding


def structure(demos: Demonstrations) -> list[Finding]:
    """Return one error for each way in which the arrays do not fit together; all other checks require an empty list."""
    found = [*_spec(demos.spec), *_arrays(demos), *_cameras(demos), *_ends(demos)]
    return found or list(_columns(demos))


def _broken(field: str, message: str, episode: int | None = None) -> Finding:
    where = "" if episode is None else f" at episode {episode}"
    return Finding(field, f"{field} {message}{where}", episode)


def _spec(spec: Spec) -> Iterator[Finding]:
    if not (math.isfinite(spec.control_hz) and spec.control_hz > 0):
        yield _broken("spec.control_hz", f"is {spec.control_hz}; expected a positive rate in Hz")
    if spec.action_kind not in ("absolute", "relative"):
        yield _broken("spec.action_kind", f"is {spec.action_kind!r}; expected 'absolute' or 'relative'")
    for kind, channels in (("observation", spec.observation), ("action", spec.action)):
        if not channels:
            yield _broken(f"spec.{kind}", "has no channels; expected at least one")
        names = [channel.name for channel in channels]
        for index, channel in enumerate(channels):
            if channel.name in names[:index]:
                yield _broken(f"spec.{kind}[{index}]", f"repeats the channel name {channel.name!r}")
            if not channel.low < channel.high:
                yield _broken(
                    f"spec.{kind}.{channel.name}", f"has low {channel.low}, high {channel.high}; need low < high"
                )


def _arrays(demos: Demonstrations) -> Iterator[Finding]:
    steps = len(demos.observation) if np.ndim(demos.observation) else 0
    expected: dict[str, tuple[np.ndarray, str, tuple[int | None, ...]]] = {
        "observation": (demos.observation, "float32", (steps, len(demos.spec.observation))),
        "action": (demos.action, "float32", (steps, len(demos.spec.action))),
        "time_s": (demos.time_s, "float64", (steps,)),
        "episode_ends": (demos.episode_ends, "int64", (None,)),
    }
    if demos.state is not None:
        expected["state"] = (demos.state, "float64", (steps, None))
    if demos.intervention is not None:
        expected["intervention"] = (demos.intervention, "bool", (steps,))
    for field, (array, dtype, shape) in expected.items():
        if array.dtype != np.dtype(dtype):
            yield _broken(field, f"has dtype {array.dtype}; expected {dtype}")
        if array.ndim != len(shape) or any(
            want not in (None, have) for want, have in zip(shape, array.shape, strict=True)
        ):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            yield _broken(field, f"has shape {array.shape}; expected ({wanted})")


def _cameras(demos: Demonstrations) -> Iterator[Finding]:
    steps = len(demos.observation) if np.ndim(demos.observation) else 0
    wanted = {camera.name: (steps, *camera.shape) for camera in demos.spec.cameras}
    for name, frames in demos.cameras.items():
        if name not in wanted:
            yield _broken(f"camera.{name}", "has pictures, but the spec has no such camera")
        elif tuple(frames.shape) != wanted[name]:
            yield _broken(f"camera.{name}", f"has pictures of shape {tuple(frames.shape)}; expected {wanted[name]}")
    for name in wanted.keys() - demos.cameras.keys():
        yield _broken(f"camera.{name}", "has no pictures, but the spec has it")


def _ends(demos: Demonstrations) -> Iterator[Finding]:
    ends = demos.episode_ends
    if ends.ndim != 1 or ends.dtype.kind not in "iu" or np.ndim(demos.observation) == 0:
        return
    if not ends.size:
        yield _broken("episode_ends", "is empty; expected at least one episode")
        return
    lengths = np.diff(ends, prepend=0)
    if (lengths <= 0).any():
        episode = int(np.argmax(lengths <= 0))
        yield _broken("episode_ends", f"must grow from episode to episode, {int(ends[episode])} does not", episode)
    steps = len(demos.observation)
    if ends[-1] != steps:
        what = "beyond" if ends[-1] > steps else "short of"
        yield _broken("episode_ends", f"ends at {int(ends[-1])}, {what} the {steps} recorded steps", len(ends) - 1)


def _columns(demos: Demonstrations) -> Iterator[Finding]:
    kinds = {"string": "UT", "int64": "i", "bool": "b"}
    episodes = len(demos.episode_ends)
    for name in sorted({*COLUMNS, *demos.columns}):
        field = f"columns.{name}"
        if name not in demos.columns:
            yield _broken(field, f"is missing; every store has {', '.join(COLUMNS)}")
        elif name not in COLUMNS:
            yield _broken(field, f"is unknown; every store has just {', '.join(COLUMNS)}")
        else:
            array = np.asarray(demos.columns[name])
            if array.shape != (episodes,):
                yield _broken(field, f"has shape {array.shape}; expected ({episodes},), one value per episode")
            if array.dtype.kind not in kinds[COLUMNS[name]] or (array.dtype.kind == "i" and array.dtype != np.int64):
                yield _broken(field, f"has dtype {array.dtype}; expected {COLUMNS[name]}")
