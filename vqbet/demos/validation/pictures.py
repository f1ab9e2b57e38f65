"""Measurements of pictures, taken in one pass over each camera. Pictures are read in blocks and never kept.

A picture is looked at by a grid of points, and compared with others by the checksum of all its bytes. What remains are
a few numbers per step, and the mean picture of each episode in 8 x 8 cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from vqbet.contract import Demonstrations, Frames, ValidationError
from vqbet.demos.validation import tables

BLOCK_BYTES = 16 * 2**20  # of pictures read at once
CELLS, POINTS = 8, 4  # cells of a mean picture and points in a cell, along either side
BLACK, WHITE = 16, 250  # a point is black below, and burnt out from there on, in all three colours
PLAIN = 2  # most difference between the points of a picture of a single colour
MOVED = 0.005  # of a channel's travel in the set: a step that moves further should change the picture
LAGS = 8  # steps searched, both ways
LEAST_STEPS = 20  # for a correlation of pictures with motion


@dataclass(frozen=True, slots=True)
class Seen:
    """Measurements of one camera's pictures.

    black, burnt: share of points. plain: the whole picture has a single colour. content: checksum of all bytes.
    change: mean absolute difference of the points from those of the step before, 0 at an episode's first step.
    same: bit for bit the picture of the step before, in the same episode.
    """

    black: Float[np.ndarray, " N"]
    burnt: Float[np.ndarray, " N"]
    plain: Bool[np.ndarray, " N"]
    content: Int[np.ndarray, " N"]
    change: Float[np.ndarray, " N"]
    same: Bool[np.ndarray, " N"]
    mean: Float[np.ndarray, "E cells cells 3"]

    @classmethod
    def of(cls, demos: Demonstrations, name: str) -> Seen:
        """Return the measurements of a camera. Raises ValidationError, naming the step, for pictures that are none."""
        import google_crc32c

        frames, steps = demos.cameras[name], len(demos.action)
        first, episode = tables.is_first_step(demos), tables.episode_of_step(demos)
        black, burnt, change = (np.zeros(steps, np.float32) for _ in range(3))
        plain, content = np.zeros(steps, bool), np.zeros(steps, np.int64)
        mean = np.zeros((len(demos.episode_ends), CELLS, CELLS, 3))
        before = np.zeros((1, CELLS * POINTS, CELLS * POINTS, 3), np.int16)
        rows, columns = (_places(size) for size in frames.shape[1:3])
        size = max(1, BLOCK_BYTES // int(np.prod(frames.shape[1:])))
        for start in range(0, steps, size):
            here = slice(start, min(start + size, steps))
            block = _read(frames, np.arange(here.start, here.stop), name)
            content[here] = [google_crc32c.value(picture.tobytes()) for picture in block]
            points = block[:, rows[:, None], columns].astype(np.int16)
            black[here] = (points.max(axis=3) < BLACK).mean(axis=(1, 2))
            burnt[here] = (points.min(axis=3) >= WHITE).mean(axis=(1, 2))
            plain[here] = np.ptp(points, axis=(1, 2)).max(axis=1) <= PLAIN
            moved = np.abs(np.diff(points, axis=0, prepend=before))
            change[here] = np.where(first[here], 0, moved.mean(axis=(1, 2, 3)))
            cells = points.reshape(-1, CELLS, POINTS, CELLS, POINTS, 3).mean(axis=(2, 4))
            np.add.at(mean, episode[here], cells)
            before = points[-1:]
        same = ~first & (np.diff(content, prepend=-1) == 0)
        return cls(black, burnt, plain, content, change, same, mean / demos.lengths[:, None, None, None])


def moves(demos: Demonstrations) -> Float[np.ndarray, "N D"]:
    """Return how far each channel moved since the step before, as a share of its travel; 0 where an episode begins."""
    travel = np.ptp(demos.observation, axis=0).astype(np.float64)
    return np.nan_to_num(np.abs(tables.changes(demos))) / np.where(travel > 0, travel, np.inf)


def lags(
    change: Float[np.ndarray, " N"], motion: Float[np.ndarray, " N"], spans: Int[np.ndarray, "S 2"]
) -> Float[np.ndarray, "S lags"]:
    """Return the correlation of the change of pictures at step t + k with the motion at step t, k from -LAGS to LAGS.

    spans: first step and one past the last, of each stretch. 0 for a stretch too short, and where nothing changes.
    """
    found = np.zeros((len(spans), 2 * LAGS + 1))
    for row, (start, end) in enumerate(spans.tolist()):
        seen, moved = change[start + 1 : end], motion[start + 1 : end]
        length = len(seen)
        if length < LEAST_STEPS + LAGS:
            continue
        for place, lag in enumerate(range(-LAGS, LAGS + 1)):
            later, earlier = seen[max(0, lag) : length + min(0, lag)], moved[max(0, -lag) : length - max(0, lag)]
            deviation = later.std() * earlier.std()
            if deviation > 0:
                found[row, place] = ((later - later.mean()) * (earlier - earlier.mean())).mean() / deviation
    return found


def seen(demos: Demonstrations) -> Mapping[str, Seen]:
    """Return the measurements of all cameras. Raises ValidationError like `Seen.of`."""
    return {name: Seen.of(demos, name) for name in demos.cameras}


def _places(size: int) -> Int[np.ndarray, " points"]:
    """Return evenly spread rows or columns of a picture."""
    return ((np.arange(CELLS * POINTS) + 0.5) * size / (CELLS * POINTS)).astype(np.int64)


def _read(frames: Frames, steps: Int[np.ndarray, " B"], name: str) -> UInt8[np.ndarray, "B height width 3"]:
    block = frames[steps]
    wanted = (len(steps), *frames.shape[1:])
    if block.dtype != np.uint8 or block.shape != wanted:
        raise ValidationError(
            f"camera {name!r}: steps {steps[0]} to {steps[-1]}: expected pictures of shape {wanted} of uint8, got "
            f"{block.shape} of {block.dtype}; ingest the demonstrations again"
        )
    return block
