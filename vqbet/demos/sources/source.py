"""Source: demonstrations in a foreign format, as they lie there: fields over steps, cut into episodes.

A source is looked at without being copied into memory. It says what there is, and returns one field of one episode at a
time; what the fields mean is declared elsewhere. Nothing in a source is ever unpickled or executed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Float, Shaped, UInt8

Kind = Literal["numbers", "pictures", "video"]
Size = tuple[int, int]  # height, width in px


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a source: an array with one row per step.

    shape: of one row; of pictures and video (height, width, 3). names, units: of the numbers of a row, flat; empty
    where the source has none. kind: "pictures" are lossless, "video" passed a lossy codec. codec: of video.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    dtype: str = ""
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    codec: str = ""


@dataclass(frozen=True, slots=True)
class SourceEpisode:
    """One episode of a source. name: as the source calls it. steps: N. labels: what the source says of the episode as a
    whole, such as `task`, `success`, `operator`, `session`, each absent where it says nothing.

    missing: fields that the source promises and whose files are not there for this episode.
    """

    name: str
    steps: int
    labels: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


class Source(Protocol):
    """Demonstrations in a foreign format. All methods raise StoreError naming file, episode and field.

    format: its name in params.yaml. rate_hz: the control rate that the source claims; None where it claims none.
    notes: what a person should know about the source, one sentence each.
    """

    format: str
    path: Path
    fields: Mapping[str, Field]
    episodes: tuple[SourceEpisode, ...]
    rate_hz: float | None
    notes: tuple[str, ...]

    def time_s(self, episode: int) -> Float[np.ndarray, " N"] | None:
        """Return the recorded time of each step in seconds, float64; None where none is recorded."""

    def numbers(self, episode: int, name: str) -> Shaped[np.ndarray, "N ..."]:
        """Return a field of kind "numbers", with the dtype it has in the source."""

    def frames(
        self, episode: int, name: str, size: Size | None = None
    ) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
        """Yield the RGB pictures of a field of kind "pictures" or "video", exactly one per step.

        size: to which they are scaled, by the mean over areas; None: as they are. Pictures of floats must be whole
        numbers from 0 to 255. Video is cut by episode lengths and checked against timestamps.
        """

    def files(self) -> list[Path]:
        """Return the files that were or would be read, for their hashes."""

    def identity(self, episode: int, name: str) -> str:
        """Return a digest of everything that determines `frames`: the bytes of its files, and the place in them."""
