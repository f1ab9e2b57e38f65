"""Published Franka Kitchen demonstrations as a camera sees them: pictures are drawn from the recorded states."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float, Int, UInt8

from vqbet.contract import Demonstrations
from vqbet.files import canonical
from vqbet.tasks.kitchen import camera, importer
from vqbet.tasks.kitchen.spec import CAMERA, SEEN


@final
class DrawnFrames:
    """Pictures of recorded states (N, 59), each drawn when it is read. Satisfies `contract.Frames`."""

    def __init__(self, state: Float[np.ndarray, "N 59"]) -> None:
        self._positions = state[:, :30]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._positions), *CAMERA.shape)

    def __getitem__(self, steps: Int[np.ndarray, "*B"]) -> UInt8[np.ndarray, "*B 96 96 3"]:
        """Draw these steps. Raises IndexError, and WorldError where MuJoCo cannot draw."""
        wanted = np.asarray(steps)
        return camera.pictures(self._positions[wanted.ravel()]).reshape(*wanted.shape, *CAMERA.shape)

    def identity(self, first: int, last: int) -> str:
        """Return a digest of what determines the pictures of the steps from `first` up to `last`."""
        return canonical.digest([*camera.identity(), hashlib.sha256(self._positions[first:last].tobytes()).hexdigest()])


def load(source: Path) -> Demonstrations:
    """Return the demonstrations at `source`, as in `importer.load`, as a camera sees them.

    observation (N, 18): positions, then velocities of the arm; camera "image": MuJoCo's picture of each recorded state,
    which contains the world's observation noise, of at most a hundredth of a radian. Raises StoreError likewise.
    """
    demos = importer.load(source)
    assert demos.state is not None
    return replace(
        demos,
        spec=SEEN,
        observation=np.ascontiguousarray(demos.observation[:, : len(SEEN.observation)]),
        columns={**demos.columns, "task": np.full(len(demos.lengths), SEEN.task)},
        cameras={CAMERA.name: DrawnFrames(demos.state)},
    )
