"""Footers of parquet files are read by ourselves: as pyarrow reads good ones, and to a sentence from damaged ones."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.support import foreign_sets
from vqbet.contract import StoreError
from vqbet.demos.sources import footer


@pytest.mark.parametrize("version", ["1.0", "2.4", "2.6"])
@pytest.mark.parametrize("packed", ["snappy", "zstd", "none"])
def test_a_footer_is_read_as_pyarrow_reads_it(tmp_path: Path, version: str, packed: str) -> None:
    generator = np.random.default_rng(0)
    table = pa.table(
        {
            "a.b": generator.normal(size=1000),
            "flag": generator.random(1000) > 0.5,
            "text": [str(number) for number in range(1000)],
            "pairs": pa.FixedSizeListArray.from_arrays(generator.normal(size=2000).astype(np.float32), 2),
            "picture": [{"bytes": b"x", "path": ""}] * 1000,
            "number": generator.integers(-9, 9, 1000),
        }
    )
    path = tmp_path / "a.parquet"
    parquet.write_table(table, path, row_group_size=300, version=version, compression=packed)
    told = parquet.read_metadata(path)
    mine = footer.groups(path, "episode 0")
    assert [group.rows for group in mine] == [300, 300, 300, 100]
    for place, group in enumerate(mine):
        for column, chunk in enumerate(group.chunks):
            expected = told.row_group(place).column(column)
            assert ".".join(chunk.path) == expected.path_in_schema
            assert (chunk.values, chunk.size) == (expected.num_values, expected.total_uncompressed_size)
            if chunk.low is not None:
                assert (chunk.low, chunk.high) == (expected.statistics.min, expected.statistics.max)
    assert [chunk.low is None for chunk in mine[0].chunks] == [False, False, True, False, True, True, False]


def test_damaged_footers_end_in_a_sentence(tmp_path: Path) -> None:
    root = foreign_sets.lerobot_v2(tmp_path / "set", "")
    path = root / "data/chunk-000/episode_000001.parquet"
    content = path.read_bytes()
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    generator, refused = random.Random(0), 0
    for number in range(400):
        damaged = bytearray(content)
        for _ in range(4):
            damaged[generator.randrange(start, len(content) - 8)] = generator.randrange(256)
        other = tmp_path / f"{number}.parquet"
        other.write_bytes(damaged)
        with suppress(StoreError):
            footer.groups(other, "episode 1")
            refused -= 1
        refused += 1
    assert refused > 100


def test_a_list_that_claims_billions_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"more than|middle"):
        footer.Compact(b"\x19\xf5\xff\xff\xff\xff\x0f" + bytes(100)).struct()
