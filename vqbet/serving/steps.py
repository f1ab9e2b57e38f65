"""Control steps as rows of arrays, and the .npy files that rows are appended to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, final

import numpy as np

from vqbet.contract import ServingError, Spec
from vqbet.files import reading
from vqbet.files.manifest import NAME
from vqbet.serving import cameras
from vqbet.serving.recordings import KINDS, WORD

HEADER_BYTES = 128

Row = dict[str, np.ndarray]  # one step of every array, by name


@final
@dataclass(slots=True)
class GrowingArray:
    """One .npy file that grows: a header of fixed size, whose number of rows is written when the file is closed."""

    file: BinaryIO
    dtype: np.dtype
    shape: tuple[int, ...]  # of a row
    rows: int = 0

    @classmethod
    def create(cls, path: Path, row: np.ndarray) -> GrowingArray:
        path.parent.mkdir(exist_ok=True)
        made = cls(path.open("xb"), row.dtype, row.shape)
        made.file.write(made.header())
        return made

    def header(self) -> bytes:
        """Return the magic string, the version and the padded dictionary of the .npy format, version 1.0."""
        said = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.rows, *self.shape)}
        text = repr(said).ljust(HEADER_BYTES - 11) + "\n"
        return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("latin1")

    def append(self, row: np.ndarray) -> None:
        self.file.write(row.data if row.ndim else row.tobytes())
        self.rows += 1

    def close(self) -> None:
        """Write the number of rows, and wait until the file is on the disk."""
        self.file.seek(0)
        self.file.write(self.header())
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()


def row(
    spec: Spec,
    observation: Mapping[str, np.ndarray],
    asked: np.ndarray | None,
    sent: np.ndarray | None,
    verdict: str,
    reason: str,
    intervened: bool,
    signals: Mapping[str, float],
) -> Row:
    """Return copies of one step, by the name of the file. Raises ServingError for what has another shape or name."""
    D, A = (len(spec.observation),), (len(spec.action),)
    state = np.array(observation["state"], KINDS["observation"])
    if state.shape != D:
        raise ServingError(f"state: expected shape {D}, got {state.shape}")
    action = np.full(A, np.nan, KINDS["action"]) if sent is None else np.array(sent, KINDS["action"])
    if action.shape != A:
        raise ServingError(f"sent: expected shape {A}, got {action.shape}")
    found = {
        "observation": state,
        "action": action,
        "asked": _asked(asked, A),
        "intervention": np.array(intervened, KINDS["intervention"]),
        "verdict": _word(verdict),
        "reason": _word(reason),
    }
    cameras.checked(spec.cameras, {one.name: observation.get(cameras.KEY + one.name) for one in spec.cameras})
    for name, picture in observation.items():
        if name != "state":
            found[_named(name, cameras.KEY)] = _picture(name, picture)
    for name, value in signals.items():
        found[_named(f"signal/{name}", "signal/")] = np.array(value, KINDS["signal"])
    return found


def _asked(asked: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """Return the policy's action; NaN where there is none, or none of this shape, which the guard has refused."""
    fits = asked is not None and np.shape(asked) == shape
    return np.array(asked, KINDS["asked"]) if fits else np.full(shape, np.nan, KINDS["asked"])


def _picture(name: str, picture: np.ndarray) -> np.ndarray:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ServingError(f"{name}: expected (height, width, 3) uint8, got {picture.shape} {picture.dtype}")
    return np.array(picture, KINDS["camera"], order="C")


def _named(name: str, prefix: str) -> str:
    if not name.startswith(prefix) or name.count("/") != 1 or not NAME.fullmatch(name):
        raise ServingError(f"expected a name such as {prefix}wrist, got {reading.short(name)}")
    return name


def _word(text: str) -> np.ndarray:
    word = np.array(str(text).encode("ascii", "replace"))
    if word.dtype.itemsize > np.dtype(WORD).itemsize:
        raise ServingError(f"expected a verdict or reason of at most 24 letters, got {reading.short(text)}")
    return word.astype(WORD)


def empty(spec: Spec) -> Row:
    """Return a row of every array that each recording has, also one without steps."""
    shapes = {"observation": (len(spec.observation),)}
    shapes |= dict.fromkeys(("action", "asked"), (len(spec.action),))
    always = KINDS.keys() - {"camera", "signal"}
    return {name: np.zeros(shapes.get(name, ()), KINDS[name]) for name in sorted(always)}
