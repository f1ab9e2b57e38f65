"""Frames between robot and policy server: msgpack maps that hold numpy arrays, as openpi's clients write them.

An array is a map of `__ndarray__`, `data`, `dtype` and `shape`; a numpy scalar one of `__npgeneric__`, `data` and
`dtype`. Both are written with keys of bytes, as openpi does, and read with keys of bytes or text. Arrays in the form of
the package msgpack-numpy (`nd`, `type`, `kind`, `shape`, `data`), which some clients send, are read as well.

Decoding trusts nothing: dtypes outside an allow-list are refused, and the bytes of an array must be exactly those of
its shape, so that nothing is allocated beyond the size of the frame and nothing is unpickled. Arrays are views of the
frame and cannot be written to. numpy and msgpack only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

from vqbet.contract import ServingError
from vqbet.files import reading

DTYPE = re.compile(r"(?:\|[biu]1|<[iuf][248])", re.ASCII)  # booleans, integers and floats, as numpy writes them
MARKERS = frozenset(form for name in ("__ndarray__", "__npgeneric__", "nd") for form in (name, name.encode()))
MOST_AXES = 8
MOST_ITEMS = 1 << 16  # of a list or map


def encode(message: Mapping[str, Any]) -> bytes:
    """Return a frame. Raises ServingError for values that no frame holds."""
    try:
        return bytes(msgpack.packb(message, default=_packed))
    except (TypeError, ValueError, OverflowError) as error:
        raise ServingError(f"frame: cannot be written: {error}") from error


def decode(frame: bytes | str, *, most: int) -> dict[str, Any]:
    """Return the map in a frame of at most `most` bytes. Raises ServingError, saying what is wrong with the frame."""
    if isinstance(frame, str):
        raise ServingError(f"frame: expected a binary frame, got text: {reading.short(frame)}")
    if len(frame) > most:
        raise ServingError(f"frame: {len(frame)} bytes, at most {most} are read")
    try:
        message = msgpack.unpackb(
            frame,
            object_hook=_unpacked,
            ext_hook=_refused,
            strict_map_key=False,
            max_array_len=MOST_ITEMS,
            max_map_len=MOST_ITEMS,
        )
    except ServingError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise ServingError(f"frame: is not msgpack: {type(error).__name__}: {reading.short(str(error))}") from error
    if type(message) is not dict:
        raise ServingError(f"frame: expected a map, got {type(message).__name__}")
    if wrong := [key for key in message if type(key) is not str]:
        raise ServingError(f"frame: expected keys of text, got {reading.short(wrong[0])}")
    return message


def _packed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        _allowed(value.dtype.str)
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    if isinstance(value, np.generic):
        _allowed(value.dtype.str)
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"expected numbers, text, lists, maps or arrays, got {type(value).__name__}")


def _unpacked(fields: dict[Any, Any]) -> Any:
    """Return the array or scalar that a map stands for, or the map itself."""
    if MARKERS.isdisjoint(fields):
        return fields
    named = {key.decode("ascii", "replace") if type(key) is bytes else key: value for key, value in fields.items()}
    if "__ndarray__" in named:
        return _array(named.get("dtype"), named.get("shape"), named.get("data"))
    if "nd" in named and "type" in named:
        shape = named.get("shape") if named["nd"] is True else []
        return _array(named["type"], shape, named.get("data"))
    if "__npgeneric__" in named:
        value = named.get("data")
        if type(value) not in (bool, int, float):
            raise ServingError(f"scalar: expected a number, got {type(value).__name__}")
        try:
            with np.errstate(over="ignore"):  # to infinity
                return _allowed(named.get("dtype")).type(value)
        except OverflowError as error:
            raise ServingError(f"scalar: {error}") from error
    return fields


def _array(dtype: Any, shape: Any, data: Any) -> np.ndarray:
    kind = _allowed(dtype)
    if type(shape) is not list or len(shape) > MOST_AXES or any(type(axis) is not int or axis < 0 for axis in shape):
        raise ServingError(f"array: expected a shape of at most {MOST_AXES} axes, got {reading.short(shape)}")
    if type(data) is not bytes or len(data) != math.prod(shape) * kind.itemsize:
        size = f"{len(data)} bytes" if type(data) is bytes else type(data).__name__
        raise ServingError(f"array: expected the bytes of {reading.short(shape)} {kind.str}, got {size}")
    try:
        return np.frombuffer(data, kind).reshape(shape) if data else np.empty(shape, kind)
    except (ValueError, OverflowError) as error:
        raise ServingError(f"array: shape {reading.short(shape)}: {error}") from error


def _allowed(dtype: Any) -> np.dtype:
    text = dtype.decode("ascii", "replace") if type(dtype) is bytes else dtype
    if type(text) is not str or not DTYPE.fullmatch(text):
        raise ServingError(f"array: dtype {reading.short(text)}: expected booleans, integers or floats, little-endian")
    return np.dtype(text)


def _refused(code: int, data: bytes) -> Any:
    raise ServingError(f"frame: extension type {code} has no meaning here")
