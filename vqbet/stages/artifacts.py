"""Small JSON and CSV files that stages write: atomically, and with the same bytes for the same content."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vqbet.contract import PipelineError
from vqbet.files import atomic, canonical, reading

MOST_BYTES = 16 * 2**20  # the largest file has some kilobytes
MOST = 1e300  # largest value of a metric
MEND = "run the stage that writes it again: dvc repro"


def write_json(path: Path, value: Any) -> None:
    """Write a value, finite numbers only. Raises PipelineError where the file cannot be written."""
    atomic.write(path, canonical.document(value), PipelineError)


def read_json(path: Path) -> Any:
    """Return the value of a strict JSON file: no duplicate keys, no NaN.

    Raises PipelineError where the file is missing or damaged.
    """
    return reading.parse(reading.load(path, PipelineError, most=MOST_BYTES), str(path), PipelineError)


def read_object(path: Path, **kinds: type) -> dict[str, Any]:
    """Return a JSON object that has at least these keys, with values of these types. Raises as `read_json`."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise PipelineError(f"{path}: expected an object, got {reading.short(value)}; {MEND}")
    for key, kind in kinds.items():
        if key not in value:
            raise PipelineError(f"{path}: {key}: missing; {MEND}")
        if type(value[key]) is not kind:
            found = reading.short(value[key])
            raise PipelineError(f"{path}: {key}: expected {kind.__name__}, got {found}; {MEND}")
    return value


def read_metrics(path: Path, *needed: str) -> dict[str, float]:
    """Return a JSON object of finite numbers that has at least the keys `needed`. Raises as `read_json`."""
    value = read_object(path)
    for key in needed:
        if key not in value:
            raise PipelineError(f"{path}: {key}: missing; {MEND}")
    for key, number in value.items():
        if type(number) not in (int, float) or not abs(number) <= MOST:
            found = reading.short(number)
            raise PipelineError(f"{path}: {reading.cut(key)}: expected a finite number, got {found}; {MEND}")
    return value


def read_number(path: Path) -> float:
    """Return one finite number >= 0 from a JSON file. Raises as `read_json`."""
    value = read_json(path)
    if type(value) not in (int, float) or not 0 <= value <= MOST:
        raise PipelineError(f"{path}: expected a finite number >= 0, got {reading.short(value)}; remove the file")
    return float(value)


def write_curves(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write one CSV line per row; the columns are the first row's keys in their order. Raises as `write_json`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: f"{value:.6g}" for key, value in row.items()} for row in rows)
    atomic.write(path, text.getvalue(), PipelineError)
