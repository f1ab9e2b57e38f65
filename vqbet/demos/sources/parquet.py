"""Parquet files of foreign sets: their footers before their content, columns as numbers with one row per step."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vqbet.contract import StoreError
from vqbet.demos.sources import checked, footer
from vqbet.files import reading

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

MAX_GROUP_BYTES = 4 * 2**30  # of one row group, decoded
MAX_META_BYTES = 256 * 2**20  # of a table of episodes or tasks, decoded
BATCH_ROWS = 64  # pictures that are in memory at a time


def opened(root: Path, path: Path, what: str, most: int | None = None) -> ParquetFile:
    """Return an open parquet file inside `root`, whose decoded sizes pass the limit in no row group."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    most = most or MAX_GROUP_BYTES
    checked.plain(root, path, what)
    for group in footer.groups(path, what):
        for chunk in group.chunks:
            size = max(chunk.size, 8 * chunk.values)
            if size > most:
                told = f"{'.'.join(chunk.path)}: decodes to {size} bytes, more than {most}"
                raise StoreError(f"{path}: {what}: {told}")
    try:
        return ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = reading.cut(str(error), 160)
        raise StoreError(f"{path}: {what}: cannot be read: {reason}; copy the set again") from error


def table(file: ParquetFile, path: Path, columns: list[str], groups: list[int] | None, where: str) -> pa.Table:
    """Return columns of some row groups, or of all."""
    import pyarrow as pa

    known = file.schema_arrow.names
    lacking = [name for name in columns if name not in known]
    if lacking:
        raise StoreError(f"{where}: expected the column {lacking[0]}, found {', '.join(known[:20])}")
    try:
        if groups is None:
            return file.read(columns=columns, use_threads=False)
        return file.read_row_groups(groups, columns=columns, use_threads=False)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise StoreError(f"{where}: cannot be decoded: {reading.cut(str(error), 160)}; copy the set again") from error


def rows(root: Path, path: Path, what: str) -> list[dict[str, Any]]:
    """Return the rows of a small table."""
    file = opened(root, path, what, MAX_META_BYTES)
    content = table(file, path, file.schema_arrow.names, None, f"{path}: {what}")
    return content.to_pylist()


def texts(root: Path, path: Path, text: str, number: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield place, number and text of each row of a table whose index, in the sense of pandas, is the text."""
    file = opened(root, path, "the table of tasks", MAX_META_BYTES)
    metadata = file.schema_arrow.metadata or {}
    try:
        index = json.loads(metadata.get(b"pandas", b"{}")).get("index_columns", [])
    except ValueError:
        index = []
    named = [name for name in index if isinstance(name, str) and name in file.schema_arrow.names]
    if len(named) != 1 or number not in file.schema_arrow.names:
        raise StoreError(
            f"{path}: expected the column {number}, and the texts of the tasks as the table's index, found the columns "
            f"{', '.join(file.schema_arrow.names)}; write it by pandas: set_index({text!r}).to_parquet"
        )
    content = table(file, path, [named[0], number], None, str(path))
    for place, row in enumerate(content.to_pylist()):
        yield f"{path}: row {place}", row[number], row[named[0]]


def leaf(column: pa.DataType) -> tuple[int, pa.DataType]:
    """Return how deep lists are nested in a type, and the type of their elements."""
    import pyarrow as pa

    depth = 0
    while pa.types.is_list(column) or pa.types.is_large_list(column) or pa.types.is_fixed_size_list(column):
        depth, column = depth + 1, column.value_type
    return depth, column


def numbers(column: pa.ChunkedArray, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Return a column as an array (rows, *shape) of its own dtype. Raises StoreError for gaps and other sizes."""
    import pyarrow as pa

    flat = column.combine_chunks()
    if isinstance(flat, pa.ChunkedArray):
        flat = pa.concat_arrays(flat.chunks) if flat.num_chunks else pa.array([], column.type)
    if isinstance(flat, pa.ExtensionArray):
        flat = flat.storage
    total = len(column)
    _no_gaps(flat, where)
    depth = 0
    while leaf(flat.type)[0]:
        wanted = shape[depth] if depth < len(shape) else 1
        sizes = _sizes(flat)
        wrong = np.flatnonzero(sizes != wanted)
        if len(wrong):
            step = int(wrong[0]) // max(1, math.prod(shape[:depth]))
            raise StoreError(f"{where}: step {step}: expected {shape}, got {sizes[wrong[0]]} numbers")
        flat, depth = flat.flatten(), depth + 1
        _no_gaps(flat, where)
    values = flat.to_numpy(zero_copy_only=False)
    checked.plain_numbers(values.dtype, where)
    if len(values) != total * math.prod(shape):
        raise StoreError(f"{where}: expected rows of {shape}, got {len(values)} numbers in {total} rows")
    return values.reshape(total, *shape)


def _no_gaps(flat: pa.Array, where: str) -> None:
    if flat.null_count:
        raise StoreError(f"{where}: expected a value at every step, but {flat.null_count} are missing")


def _sizes(lists: pa.Array) -> np.ndarray:
    import pyarrow as pa

    if pa.types.is_fixed_size_list(lists.type):
        return np.full(len(lists), lists.type.list_size)
    return np.diff(lists.offsets.to_numpy())


def bounds(files: list[Path], name: str) -> tuple[float, float] | None:
    """Return the least and the largest number of a column by the footers of the files; None where one does not say."""
    low, high = math.inf, -math.inf
    for path in files:
        for group in footer.groups(path, name):
            mine = [one for one in group.chunks if one.path[0] == name]
            if len(mine) != 1 or mine[0].low is None or mine[0].high is None:
                return None
            low, high = min(low, mine[0].low), max(high, mine[0].high)
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None
