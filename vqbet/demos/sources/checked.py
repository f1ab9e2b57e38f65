"""Checks that all foreign formats share: files that stay inside their set, sizes before decoding, strict documents.

Nothing here trusts what it reads. Every fault becomes a StoreError that names the file and the value.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vqbet.contract import StoreError
from vqbet.files import reading

MAX_DOCUMENT_BYTES = 16 * 2**20  # of one JSON document, or of one line of a file of them
MAX_ARRAY_BYTES = 4 * 2**30  # of one field of one episode, decoded
MAX_STEPS = 10_000_000  # of one episode: 92 hours at 30 Hz
MAX_LABEL = 256  # characters


def plain(root: Path, path: Path, what: str) -> Path:
    """Return `path` where it is a file that lies inside the folder `root`, followed through links.

    what: the episode and field that need the file. Raises StoreError where it is missing, no plain file, or elsewhere.
    """
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        near = listing(path.parent)
        raise StoreError(f"{path}: {what}: the file is missing (in its folder: {near}); copy the set again") from error
    if not target.is_relative_to(root.resolve()):
        raise StoreError(
            f"{path}: {what}: is a link to {target}, which lies outside {root}; copy the set with its files (cp -rL)"
        )
    if not target.is_file():
        raise StoreError(f"{path}: {what}: expected a plain file, got something else")
    return path


def listing(folder: Path, most: int = 6) -> str:
    """Return the first names in a folder, for messages."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except OSError:
        return "there is no such folder"
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "") or "nothing"


def document(root: Path, path: Path, what: str) -> dict[str, Any]:
    """Return a JSON object of at most MAX_DOCUMENT_BYTES, without NaN and repeated keys."""
    text = reading.load(plain(root, path, what), StoreError, most=MAX_DOCUMENT_BYTES)
    return mapping(reading.parse(text, str(path), StoreError), str(path))


def lines(root: Path, path: Path, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the JSON object of every line that is not empty."""
    with plain(root, path, what).open("rb") as file:
        number = 0
        while line := file.readline(MAX_DOCUMENT_BYTES + 1):
            number += 1
            where = f"{path}: line {number}"
            if len(line) > MAX_DOCUMENT_BYTES:
                raise StoreError(f"{where}: more than the {MAX_DOCUMENT_BYTES} bytes that are read")
            if not line.strip():
                continue
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise StoreError(f"{where}: is not UTF-8 text: {error.reason} at byte {error.start}") from error
            yield where, mapping(reading.parse(text, where, StoreError), where)


def mapping(value: Any, where: str) -> dict[str, Any]:
    """Return a value that must be a JSON object."""
    if not isinstance(value, dict):
        raise StoreError(f"{where}: expected a JSON object, got {reading.short(value)}")
    return value


def count(value: Any, where: str, least: int = 0, most: int = 2**53) -> int:
    """Return a value that must be a whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
        raise StoreError(f"{where}: expected a whole number from {least} to {most}, got {reading.short(value)}")
    return int(value)


def text(value: Any, where: str) -> str:
    """Return a value that must be a text."""
    if not isinstance(value, str):
        raise StoreError(f"{where}: expected a text, got {reading.short(value)}")
    return value


def rate(value: Any, where: str) -> float:
    """Return a value that must be a rate in Hz: a positive, finite number of at most 100 kHz."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 < value <= 1e5
    if not good:
        raise StoreError(f"{where}: expected a positive rate in Hz, got {reading.short(value)}")
    return float(value)


def room(shape: tuple[int, ...], dtype: np.dtype, where: str, most: int = MAX_ARRAY_BYTES) -> None:
    """Raise StoreError where an array of this shape has more bytes than are decoded."""
    size = math.prod(shape) * dtype.itemsize
    if size > most:
        raise StoreError(
            f"{where}: claims {shape} numbers of {dtype}, {size} bytes, more than the {most} that are read"
        )


def plain_numbers(dtype: np.dtype, where: str) -> np.dtype:
    """Return a dtype that must be of bools, integers or floats; objects, texts and records are never decoded."""
    if dtype.kind not in "biuf" or dtype.hasobject:
        raise StoreError(f"{where}: expected numbers, got dtype {dtype}; objects are never decoded: convert the field")
    return dtype


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """Return the key by which demo_10 stands behind demo_9."""
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in parts if part)


def label(value: Any) -> Any:
    """Return what a label may hold of a value: a bool, a number or a short text; None of anything else."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return reading.cut(value, MAX_LABEL)
    return value if isinstance(value, bool | int | float) and math.isfinite(value) else None


def steady(time_s: np.ndarray, where: str) -> None:
    """Raise StoreError where recorded times are not finite or do not grow from step to step."""
    if not np.isfinite(time_s).all():
        raise StoreError(f"{where}: is not finite at step {int(np.flatnonzero(~np.isfinite(time_s))[0])}")
    back = np.flatnonzero(np.diff(time_s) <= 0)
    if len(back):
        step = int(back[0]) + 1
        raise StoreError(
            f"{where}: expected times that grow, but step {step} is at {time_s[step]} s after {time_s[step - 1]} s"
        )


def same_fields(expected: Mapping[str, Any], got: Mapping[str, Any], where: str, first: str) -> None:
    """Raise StoreError naming fields that one episode has and another lacks, or that differ in shape or dtype."""
    missing, more = sorted(set(expected) - set(got)), sorted(set(got) - set(expected))
    if missing or more:
        told = ", ".join(sorted(expected)[:12])
        lacking = f"lacks {', '.join(missing[:6])}" if missing else f"has {', '.join(more[:6])} too"
        raise StoreError(f"{where}: expected the fields of {first} ({told}), but it {lacking}")
    for name, mine in expected.items():
        if mine != got[name]:
            raise StoreError(f"{where}: {name}: expected {mine} as in {first}, got {got[name]}")


@contextmanager
def decoding(where: str) -> Iterator[None]:
    """Convert what a decoder raises for damaged bytes to StoreError."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:  # whatever a decoder raises for bytes that nobody vouches for
        reason = reading.cut(str(error), 160) or type(error).__name__
        raise StoreError(f"{where}: cannot be decoded: {reason}; copy the set again") from error
