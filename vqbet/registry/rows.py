"""Validation of the content of links: their fields, the fields' types, and the order of times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from vqbet.files.manifest import SHA256

MAX_VERSION = 2**31 - 1
YEARS = range(2000, 2200)  # valid for times in a chain: arithmetic with others overflows
# Clocks of machines that share a ledger differ by seconds, or by minutes if they are not synchronised. This program
# never writes decreasing times, see `now`; its first version could.
BACKWARDS = timedelta(minutes=5)

Shape = tuple[Callable[[Any], bool], str]  # a predicate and its description


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _digest(value: Any) -> bool:
    return isinstance(value, str) and SHA256.fullmatch(value) is not None


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_VERSION


TEXT: Shape = (_text, "a text")
NAME: Shape = (lambda value: _text(value) and bool(value.strip()), "a name")
DIGEST: Shape = (_digest, "a sha256 in hexadecimal")
DIGEST_OR_NONE: Shape = (lambda value: value == "" or _digest(value), "a sha256 in hexadecimal, or an empty text")
COUNT: Shape = (_count, "a whole number, 0 or more")
VERSION: Shape = (lambda value: _count(value) and value > 0, "a whole number, 1 or more")
TIME: Shape = (lambda value: moment(value) is not None, "a time with its offset, as 2026-05-01T14:30:00+00:00")


def one_of(*words: str) -> Shape:
    return (lambda value: isinstance(value, str) and value in words), f"one of {', '.join(words)}"


def exactly(word: str) -> Shape:
    return (lambda value: isinstance(value, str) and value == word), repr(word)


def fault(row: Mapping[str, Any], shapes: Mapping[str, Shape], *, optional: frozenset[str] = frozenset()) -> str:
    """Return a sentence about the first field that is missing, unknown or invalid; empty if all fields are valid.

    optional: fields that may be absent.
    """
    for name, (fits, wanted) in shapes.items():
        if name not in row:
            if name in optional:
                continue
            return f"field {name!r} is missing, expected {wanted}"
        if not fits(row[name]):
            return f"field {name!r}: expected {wanted}, got {short(row[name])}"
    if unknown := sorted(set(row) - set(shapes)):
        return f"field {unknown[0][:40]!r} is unknown to this version; use the version that wrote it"
    return ""


def moment(text: Any) -> datetime | None:
    """Return the time in UTC if `text` is ISO 8601 with an offset and a year in YEARS, otherwise None."""
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return found.astimezone(UTC) if found is not None and found.tzinfo is not None and found.year in YEARS else None


def backwards(when: str, before: str) -> str:
    """Return a sentence if the time `when` is more than BACKWARDS before that of the previous entry, otherwise ""."""
    this, last = moment(when), moment(before)
    if this is None or last is None or this >= last - BACKWARDS:
        return ""
    return f"field 'when': {when} is before the entry before it, {before}"


def now(before: str = "") -> str:
    """Return the later of the present time and the previous entry's time `before`."""
    present, last = datetime.now(UTC).replace(microsecond=0), moment(before)
    return written(max(present, last) if last is not None else present)


def written(when: datetime) -> str:
    return when.isoformat(timespec="seconds")


def short(value: Any) -> str:
    """Return the repr of a value, truncated to 60 characters."""
    text = repr(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."
