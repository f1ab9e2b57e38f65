"""Replay buffers in the published format, valid and with faults."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr
from numcodecs import Blosc

from vqbet.contract import Demonstrations

ENDS = np.array([40, 55, 130])
Fault = Callable[[Path], object]


def write(
    root: Path,
    arrays: dict[str, np.ndarray],
    codec: Blosc | None = None,
    *,
    ends: tuple[int, Blosc | None] | None = None,
) -> Path:
    """Write a Zarr v2 group in chunks of 50 rows. ends: rows per chunk and codec of the array meta/episode_ends."""
    group = zarr.open_group(root, mode="w", zarr_format=2)
    for name, values in arrays.items():
        rows, packed = (50, codec) if name != "meta/episode_ends" else ends or (len(values), codec)
        array = group.create_array(
            name, shape=values.shape, chunks=(rows, *values.shape[1:]), dtype=values.dtype, compressors=packed
        )
        array[:] = values
    return root


def edit(field: str, **changes: object) -> Fault:
    """Return a fault that changes values in an array's metadata."""

    def fault(root: Path) -> None:
        document = root / field / ".zarray"
        document.write_text(json.dumps({**json.loads(document.read_text()), **changes}))

    return fault


def within_limits(demos: Demonstrations) -> bool:
    """Return whether every observation and action lies within the limits of its channel."""
    pairs = ((demos.observation, demos.spec.observation), (demos.action, demos.spec.action))
    return all(
        (values.min(axis=0) >= [channel.low for channel in channels]).all()
        and (values.max(axis=0) <= [channel.high for channel in channels]).all()
        for values, channels in pairs
    )
