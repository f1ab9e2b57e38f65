"""Messages of ROS 2 as numbers with names, or as pictures; and the sizes to which the chunks of an MCAP file unpack."""

from __future__ import annotations

import dataclasses
import functools
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vqbet.contract import StoreError
from vqbet.demos.sources import checked, pictures, zarr_arrays
from vqbet.demos.sources.source import Field
from vqbet.files import reading

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
ENCODINGS = {"rgb8": 3, "bgr8": 3, "mono8": 1}
SKIPPED = ("header", "name", "names", "layout")
CLOCKS = ("builtin_interfaces/msg/Time", "builtin_interfaces/msg/Duration")
MOST_NUMBERS = 4096  # of one message: more is a scan or a cloud, not a state
MAX_CHUNK_BYTES = 2**30
MAGIC = b"\x89MCAP0\r\n"
CHUNK = 6  # opcode of a chunk, https://mcap.dev/spec


@functools.cache
def store() -> Any:
    """Return the message types that rosbags brings along."""
    from rosbags.typesys import Stores, get_typestore

    return get_typestore(Stores.LATEST)


def field(name: str, kind: str, content: bytes, where: str) -> Field | None:
    """Return the field that a topic is by its first message; None where it holds neither numbers nor pictures."""
    if kind not in store().fielddefs:
        return None
    with checked.decoding(f"{where}: message 0"):
        message = store().deserialize_cdr(content, kind)
    if kind == IMAGE:
        if message.encoding not in ENCODINGS:
            return None
        return Field(name, "pictures", (int(message.height), int(message.width), 3), "uint8")
    if kind == COMPRESSED:
        return _compressed(name, message, where)
    names, _ = flat(message)
    return Field(name, "numbers", (len(names),), "float64", names) if 0 < len(names) <= MOST_NUMBERS else None


def _compressed(name: str, message: Any, where: str) -> Field | None:
    lossy = "jpeg" if "jp" in message.format else ""
    if not lossy and "png" not in message.format:
        return None
    shape = pictures.png(message.data.tobytes(), (), f"{where}: message 0").shape
    return Field(name, "video" if lossy else "pictures", shape, "uint8", codec=lossy)


def flat(message: Any) -> tuple[tuple[str, ...], list[float]]:
    """Return the numbers of a message and their names, such as `position.elbow`, without header, clocks and texts."""
    pairs = list(_numbers(message, ""))
    return tuple(name for name, _ in pairs), [value for _, value in pairs]


def _numbers(value: Any, prefix: str) -> Iterator[tuple[str, float]]:
    if getattr(value, "__msgtype__", "") in CLOCKS:
        return
    labels = getattr(value, "name", None)
    for one in dataclasses.fields(value):
        if one.name in SKIPPED or one.name == "__msgtype__":
            continue
        inner, path = getattr(value, one.name), f"{prefix}{one.name}"
        if isinstance(inner, bool | int | float | np.number):
            yield path, float(inner)
        elif isinstance(inner, np.ndarray) and inner.dtype.kind in "biuf":
            named = labels if isinstance(labels, list) and len(labels) == len(inner) else range(len(inner))
            yield from ((f"{path}.{label}", float(number)) for label, number in zip(named, inner.ravel(), strict=False))
        elif isinstance(inner, list):
            for place, item in enumerate(inner):
                if dataclasses.is_dataclass(item):
                    yield from _numbers(item, f"{path}.{place}.")
        elif dataclasses.is_dataclass(inner):
            yield from _numbers(inner, f"{path}.")


def picture(message: Any, shape: tuple[int, ...], where: str) -> UInt8[np.ndarray, "height width 3"]:
    """Return the RGB picture of an Image or a CompressedImage, which must be of this shape."""
    if message.__msgtype__ == COMPRESSED:
        return pictures.png(message.data.tobytes(), shape, where)
    depth = ENCODINGS.get(message.encoding)
    if depth is None:
        raise StoreError(f"{where}: encoding: expected {', '.join(ENCODINGS)}, got {reading.short(message.encoding)}")
    got = (int(message.height), int(message.width), 3)
    if got != shape:
        raise StoreError(f"{where}: expected a picture of {shape}, got {got}")
    row = got[1] * depth
    if message.step < row or len(message.data) != message.step * got[0]:
        raise StoreError(
            f"{where}: expected {got[0]} rows of at least {row} bytes, got {len(message.data)} by {message.step}"
        )
    pixels = message.data.reshape(got[0], message.step)[:, :row].reshape(got[0], got[1], depth)
    if message.encoding == "bgr8":
        pixels = pixels[:, :, ::-1]
    return np.ascontiguousarray(np.broadcast_to(pixels, got))


def check_chunks(path: Path, where: str) -> None:
    """Raise StoreError where a chunk of an MCAP file unpacks to more than allowed; nothing is unpacked."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise StoreError(f"{path}: {where}: is no MCAP file; copy the bag again")
        while file.tell() + 9 <= size - len(MAGIC):
            opcode, length = struct.unpack("<BQ", file.read(9))
            start = file.tell()
            if start + length > size:
                raise StoreError(
                    f"{path}: {where}: is cut off at byte {start}: its recorder stopped; mcap recover mends it"
                )
            if opcode == CHUNK:
                _check_chunk(file.read(min(length, 128)), f"{path}: {where}: the chunk at byte {start}")
            file.seek(start + length)


def _check_chunk(head: bytes, where: str) -> None:
    """Compare the size that a chunk claims with the limit, and with its Zstandard frame."""
    with reading.sentences(where, StoreError):
        claimed = int.from_bytes(head[16:24], "little")
        name = 32 + int.from_bytes(head[28:32], "little")
        packed, frame = head[32:name].decode(), head[name + 8 :]
        inside = zarr_arrays.zstd_size(frame) if packed == "zstd" else claimed
    if max(claimed, inside) > MAX_CHUNK_BYTES or inside != claimed:
        raise StoreError(f"{where}: unpacks to {inside} bytes, claims {claimed}, at most {MAX_CHUNK_BYTES} are read")
