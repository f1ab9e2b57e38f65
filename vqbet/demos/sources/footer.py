"""The footer of a parquet file, read by ourselves before pyarrow sees it.

pyarrow's own view of a column's metadata ends the process for some damaged footers (an exception of C++ that nobody
catches, pyarrow 25.0.1), and its reader expands a few bytes of equal numbers to gigabytes. The footer is a struct of
Thrift's compact protocol: https://github.com/apache/parquet-format, parquet.thrift.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqbet.contract import StoreError
from vqbet.files import reading

MAGIC = b"PAR1"
MAX_FOOTER_BYTES = 64 * 2**20
DEPTH = 16  # of structs in structs
MOST = 10_000_000  # values of one footer
NUMBERS = {0: "<?", 1: "<i", 2: "<q", 4: "<f", 5: "<d"}  # physical types, and how their statistics are written


@dataclass(frozen=True, slots=True)
class Chunk:
    """A column in a row group. size: bytes when decoded. low, high: of its numbers; None where they are not stated."""

    path: tuple[str, ...]
    values: int
    size: int
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Group:
    """A row group."""

    rows: int
    chunks: tuple[Chunk, ...]


def groups(path: Path, what: str) -> tuple[Group, ...]:
    """Return the row groups of a parquet file. what: the episode, for messages. Raises StoreError for a bad footer."""
    status = path.stat()
    return _groups(path, what, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _groups(path: Path, what: str, size: int, mtime_ns: int) -> tuple[Group, ...]:
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(max(0, size - 8))
        tail = file.read(8)
        length = int.from_bytes(tail[:4], "little")
        if head != MAGIC or tail[4:] != MAGIC or length > min(size - 12, MAX_FOOTER_BYTES):
            cut = "has no footer: its recorder stopped before it closed the file"
            reason = cut if head == MAGIC else "is no parquet file"
            raise StoreError(f"{path}: {what}: {reason}; record the episode again, or take the file from a whole copy")
        file.seek(size - 8 - length)
        content = file.read(length)
    with reading.sentences(f"{path}: {what}: its footer", StoreError, "copy the set again"):
        try:
            told = Compact(content).struct()
            return tuple(_group(one) for one in told[4])
        except struct.error as error:
            raise StoreError(f"{path}: {what}: its footer is cut: {error}; copy the set again") from error


def _group(told: dict[int, Any]) -> Group:
    return Group(_count(told[3]), tuple(_chunk(one[3]) for one in told[1]))


def _chunk(told: dict[int, Any]) -> Chunk:
    stated, form = told.get(12, {}), NUMBERS.get(told[1])
    low, high = (_number(stated.get(key), form) for key in (6, 5))
    path = tuple(one.decode() for one in told[3])
    return Chunk(path, _count(told[5]), _count(told[6]), low, high)


def _number(content: bytes | None, form: str | None) -> float | None:
    if content is None or form is None or len(content) != struct.calcsize(form):
        return None
    return float(struct.unpack(form, content)[0])


def _count(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"expected a count, got {value}")
    return value


class Compact:
    """A reader of Thrift's compact protocol: structs as dicts of field numbers, lists, numbers, bytes."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at, self._left = content, 0, MOST

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Return the struct at this place. Raises ValueError, IndexError or struct.error where it is none."""
        if depth > DEPTH:
            raise ValueError("its structs lie too deep in one another")
        found: dict[int, Any] = {}
        number = 0
        while head := self._take(1)[0]:
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            found[number] = self._value(head & 15, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"it has more than {MOST} values")
        if kind in (1, 2):
            return kind == 1
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 8:
            return self._take(self._varint())
        if kind in (3, 7):
            return self._take(1 if kind == 3 else 8)
        if kind in (9, 10):
            head = self._take(1)[0]
            size = self._varint() if head >> 4 == 15 else head >> 4
            element = head & 15
            return [self._take(1)[0] if element in (1, 2) else self._value(element, depth + 1) for _ in range(size)]
        if kind == 12:
            return self.struct(depth + 1)
        raise ValueError(f"it has a value of the kind {kind}")

    def _varint(self) -> int:
        value = shift = 0
        while shift < 70:
            byte = self._take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise ValueError("it has a number of more than 64 bits")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _take(self, size: int) -> bytes:
        if self._at + size > len(self._content):
            raise ValueError("it ends in the middle of a value")
        taken = self._content[self._at : self._at + size]
        self._at += size
        return taken
