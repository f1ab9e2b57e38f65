"""Whatever bytes of a set are damaged: it is read, or it ends in one sentence, in every format."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import foreign_sets
from vqbet.contract import StoreError
from vqbet.demos.sources import opened

SETS: dict[str, Callable[[Path], Path]] = {
    "LeRobot v2.1": lambda root: foreign_sets.lerobot_v2(root / "set"),
    "LeRobot v3.0": lambda root: foreign_sets.lerobot_v3(root / "set", "image"),
    "Zarr v2": lambda root: foreign_sets.replay_buffer(root / "set.zarr"),
    "Zarr v3 in shards": lambda root: foreign_sets.replay_buffer(root / "set.zarr", 3, shards=True),
    "robomimic": lambda root: foreign_sets.robomimic(root / "set.hdf5", [5, 4]),
    "npz": lambda root: foreign_sets.npz(root / "set", [5, 4]),
    "MCAP": lambda root: foreign_sets.bag(root / "bag", packed=True),
    "SQLite": lambda root: foreign_sets.bag(root / "bag", mcap=False),
}
TIMES = 15


def damage(path: Path, generator: random.Random) -> None:
    """Flip, cut, blank, scatter or insert bytes."""
    content = bytearray(path.read_bytes())
    place, size = generator.randrange(len(content)), generator.randrange(1, 60)
    how = generator.randrange(5)
    if how == 0:
        content[place] ^= 1 << generator.randrange(8)
    elif how == 1:
        del content[place:]
    elif how == 2:
        content[place : place + size] = bytes(size)
    elif how == 3:
        for _ in range(20):
            content[generator.randrange(len(content))] = generator.randrange(256)
    else:
        content[place:place] = generator.randbytes(size)
    path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SETS)
def test_damaged_bytes_are_read_or_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "good").mkdir()
    good, generator = SETS[kind](tmp_path / "good"), random.Random(kind)
    for number in range(TIMES):
        root = tmp_path / str(number)
        shutil.copytree(good.parent, root)
        damage(generator.choice(sorted(path for path in root.rglob("*") if path.is_file())), generator)
        try:
            foreign_sets.read_all(opened(root / good.name))
        except StoreError as error:
            assert "\n" not in str(error)  # noqa: PT017 - one that is read is as good
