"""Pictures of foreign sets as uint8 RGB: floats that are whole numbers, channels first or last, scaled."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

from vqbet.contract import StoreError
from vqbet.demos.sources import checked
from vqbet.demos.sources.source import Size

ChannelsAt = Literal["", "last", "first"]  # where the channels of a picture stand; "" where rows are no pictures
LEAST_SIDE = 8  # px: smaller arrays with 3 columns are numbers
MAX_PIXELS = 2**26


def channels(shape: tuple[int, ...]) -> ChannelsAt:
    """Return where the three channels stand in rows of this shape; "" where the rows are no RGB pictures."""
    if len(shape) != 3:
        return ""
    if shape[2] == 3 and min(shape[:2]) >= LEAST_SIDE:
        return "last"
    return "first" if shape[0] == 3 and min(shape[1:]) >= LEAST_SIDE else ""


def upright(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape (height, width, 3) of pictures whose rows have this shape."""
    return (*shape[1:], 3) if channels(shape) == "first" else shape


def whole(rows: np.ndarray, where: str, first_step: int = 0) -> UInt8[np.ndarray, "N height width 3"]:
    """Return pictures as uint8, channels last. Floats must be whole numbers from 0 to 255.

    rows: (N, height, width, 3) or (N, 3, height, width). first_step: of the episode, for the message.
    """
    if channels(rows.shape[1:]) == "first":
        rows = np.moveaxis(rows, 1, -1)
    if rows.dtype == np.uint8:
        return np.ascontiguousarray(rows)
    with np.errstate(invalid="ignore"):
        pixels = rows.astype(np.uint8)
    wrong = np.flatnonzero((pixels != rows).any(axis=(1, 2, 3)))
    if len(wrong):
        picture = rows[wrong[0]]
        odd = picture[picture != pixels[wrong[0]]][0]
        raise StoreError(
            f"{where}: step {first_step + int(wrong[0])}: expected whole numbers from 0 to 255, got {odd}; "
            "multiply pictures from 0 to 1 by 255 and round them before they are stored"
        )
    return pixels


def png(content: bytes | None, shape: tuple[int, ...], where: str) -> UInt8[np.ndarray, "height width 3"]:
    """Return an RGB picture from the bytes of a PNG or JPEG file, whose size is checked before it is decoded."""
    from PIL import Image

    if not content:
        raise StoreError(f"{where}: expected the bytes of a picture, got none")
    with checked.decoding(where), Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as picture:
        size = (picture.height, picture.width, len(picture.getbands()))
        if size[0] * size[1] > MAX_PIXELS:
            raise StoreError(
                f"{where}: claims {size[0]} x {size[1]} px, more than the {MAX_PIXELS} px that are decoded"
            )
        if shape and (size != tuple(shape) or picture.mode != "RGB"):
            raise StoreError(f"{where}: expected an RGB picture of {tuple(shape)}, got {picture.mode} of {size}")
        return np.asarray(picture.convert("RGB"), np.uint8)


def scaled(pictures: Iterable[np.ndarray], size: Size | None) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yield each picture at this size, by the mean over the area that a new pixel covers; None: as it is."""
    for picture in pictures:
        yield picture if size is None or picture.shape[:2] == size else shrunk(picture, size)


def shrunk(picture: UInt8[np.ndarray, "height width 3"], size: Size) -> UInt8[np.ndarray, "H W 3"]:
    """Return the picture with `size` rows and columns; each pixel is the mean over the area that it covers, rounded."""
    height, width, depth = picture.shape
    tall = _cover(height, size[0]) @ picture.reshape(height, width * depth).astype(np.float32)
    wide = _cover(width, size[1]) @ tall.reshape(size[0], width, depth).swapaxes(0, 1).reshape(width, -1)
    mean = wide.reshape(size[1], size[0], depth).swapaxes(0, 1)
    return np.ascontiguousarray(np.rint(mean).astype(np.uint8))


@functools.lru_cache(maxsize=64)
def _cover(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """Return the share of each old pixel in the mean of each new one, float32, as a sparse matrix."""
    from scipy.sparse import csr_array

    edges = np.arange(new + 1) * (old / new)
    pixels = np.arange(old)
    inside = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return csr_array((np.clip(inside, 0, None) * (new / old)).astype(np.float32))
