"""Episode records on disk: JSON lines, one canonical line per episode, read strictly.

Canonical: sorted keys, no spaces, ASCII, finite numbers only. Files not written by `write` are refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from vqbet.contract import EpisodeRecord, GateError
from vqbet.files import atomic, canonical, reading

MAX_BYTES = 256 * 2**20  # a record is about 400 bytes, so this is far more episodes than any evaluation has

KINDS: Mapping[str, type] = {
    "world": str,
    "policy": str,
    "digest": str,
    "plan": str,
    "seed": int,
    "steps": int,
    "success": bool,
    "score": float,
    "mode": str,
    "slice": str,
    "machine": str,
    "metrics": dict,
}


def parse(text: str, where: str) -> Any:
    """Parse JSON without duplicate keys, NaN or infinity. Raises GateError naming `where`."""
    return reading.parse(text, where, GateError)


def load(path: Path) -> str:
    """Return the text of a UTF-8 file of at most MAX_BYTES. Raises GateError where there is none."""
    return reading.load(path, GateError, most=MAX_BYTES)


def write(path: Path, records: Sequence[EpisodeRecord]) -> None:
    """Write records in the given order. Raises GateError where one is invalid or an episode appears twice."""
    seen: dict[tuple[str, str, int], int] = {}
    lines = []
    for number, record in enumerate(records, start=1):
        where = f"{path}: line {number}"
        check(record, where)
        _once(record, number, seen, where)
        lines.append(canonical.line(record.to_json()) + "\n")
    atomic.write(path, "".join(lines), GateError)


def read(path: Path) -> list[EpisodeRecord]:
    """Read the records of a file. Raises GateError naming file, line and field of the first error."""
    text = load(path)
    if not text:
        raise GateError(f"{path}: expected one record per line, got an empty file")
    if not text.endswith("\n"):
        raise GateError(f"{path}: line {text.count(chr(10)) + 1}: the last line is cut off; write the file again")
    seen: dict[tuple[str, str, int], int] = {}
    records = []
    for number, line in enumerate(text[:-1].split("\n"), start=1):
        where = f"{path}: line {number}"
        record = _record(parse(line, where), where)
        if canonical.line(record.to_json()) != line:
            raise GateError(f"{where}: is not canonical JSON; records are written by a rollout and never edited")
        _once(record, number, seen, where)
        records.append(record)
    return records


def check(record: EpisodeRecord, where: str) -> None:
    """Raise GateError naming `where` and the field unless every value has its type and lies within its bounds."""
    for name, kind in KINDS.items():
        value = getattr(record, name)
        if not isinstance(value, Mapping) if kind is dict else type(value) is not kind:
            found = f"{type(value).__name__} {reading.short(value)}"
            raise GateError(f"{where}: {name}: expected {kind.__name__}, got {found}")
    for name in ("world", "policy", "plan"):
        if not getattr(record, name):
            raise GateError(f"{where}: {name}: expected a name, got an empty string")
    if not 0 <= record.score <= 1:
        raise GateError(f"{where}: score: expected 0..1, got {record.score!r}")
    if record.seed < 0 or record.steps < 1:
        raise GateError(f"{where}: expected seed >= 0 and steps >= 1, got {record.seed} and {record.steps}")
    for name, value in record.metrics.items():
        if type(value) is not float or not math.isfinite(value):
            raise GateError(f"{where}: metrics.{name}: expected a finite float, got {value!r}")


def _record(value: Any, where: str) -> EpisodeRecord:
    if not isinstance(value, dict):
        raise GateError(f"{where}: expected an object, got {type(value).__name__}")
    names = [item.name for item in fields(EpisodeRecord)]
    unknown, missing = sorted(set(value) - set(names)), [name for name in names if name not in value]
    if unknown or missing:
        raise GateError(f"{where}: unknown fields {unknown}, missing fields {missing}")
    record = EpisodeRecord(**value)
    check(record, where)
    return record


def _once(record: EpisodeRecord, number: int, seen: dict[tuple[str, str, int], int], where: str) -> None:
    first = seen.setdefault((record.world, record.policy, record.seed), number)
    if first != number:
        raise GateError(
            f"{where}: seed {record.seed} of {record.policy!r} in {record.world!r} is already on line {first}; "
            "an episode counts once"
        )
