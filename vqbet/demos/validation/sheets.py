"""Contact sheets: a strip of pictures per episode and camera, small enough to stand in the page of validation."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from vqbet.contract import Demonstrations

SHOWN = 8  # pictures of an episode, from its first step to its last
HEIGHT = 72  # px
MOST = 100  # episodes with a sheet: those with findings first, then evenly spread over the others
QUALITY = 80  # of JPEG


@dataclass(frozen=True, slots=True)
class Sheet:
    """Strip of each camera, as the address of an image (`data:`), and the steps within the episode that it shows."""

    episode: int
    steps: tuple[int, ...]
    strips: Mapping[str, str]


def sheets(demos: Demonstrations, remarkable: Collection[int]) -> tuple[Sheet, ...]:
    """Return the sheets of at most MOST episodes, by their number; those in `remarkable` first. None without cameras.

    Equal pictures give equal sheets.
    """
    if not demos.cameras:
        return ()
    found = []
    for episode in _chosen(len(demos.episode_ends), remarkable):
        start, length = int(demos.episode_starts[episode]), int(demos.lengths[episode])
        steps = np.unique(np.linspace(0, length - 1, SHOWN).round().astype(np.int64))
        strips = {name: strip(frames[start + steps], HEIGHT) for name, frames in demos.cameras.items()}
        found.append(Sheet(episode, tuple(steps.tolist()), strips))
    return tuple(found)


def _chosen(episodes: int, remarkable: Collection[int]) -> list[int]:
    first = sorted(remarkable)[:MOST]
    others = np.setdiff1d(np.arange(episodes), first)
    left = min(MOST - len(first), len(others))
    spread = others[np.linspace(0, len(others) - 1, left).round().astype(np.int64)] if left else others[:0]
    return sorted({*first, *spread.tolist()})


def strip(pictures: UInt8[np.ndarray, "B height width 3"], px: int) -> str:
    """Return pictures side by side, `px` high, as the address of a JPEG (`data:`)."""
    from PIL import Image

    height, width = pictures.shape[1:3]
    size = (max(1, round(width * px / height)), px)
    small = [np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX)) for picture in pictures]
    content = io.BytesIO()
    Image.fromarray(np.concatenate(small, axis=1)).save(content, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
