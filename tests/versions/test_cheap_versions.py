"""Versions are cheap: ten more episodes push about the bytes of ten episodes, not those of the hundred before them."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.synthetic import synthetic
from vqbet import versions
from vqbet.contract import Camera, Demonstrations
from vqbet.demos import store

SIDE = 48  # px
BEFORE, MORE = 100, 10


def demos(episodes: int) -> Demonstrations:
    """Return the first episodes of one recording, with a camera whose pictures cannot be compressed."""
    made = synthetic(BEFORE + MORE)
    steps = int(made.episode_ends[episodes - 1])
    pictures = np.random.default_rng(0).integers(0, 256, (steps, SIDE, SIDE, 3), np.uint8)
    assert made.state is not None
    return Demonstrations(
        spec=replace(made.spec, cameras=(Camera("top", SIDE, SIDE),)),
        observation=made.observation[:steps],
        action=made.action[:steps],
        time_s=made.time_s[:steps],
        episode_ends=made.episode_ends[:episodes],
        columns={name: column[:episodes] for name, column in made.columns.items()},
        state=made.state[:steps],
        cameras={"top": pictures},
    )


def pushed(root: Path, episodes: int, remote: Path) -> dict[Path, int]:
    """Write, version and push so many episodes; return the sizes of the objects in the remote."""
    store.write(root / "data" / "arm.zarr", demos(episodes))
    versions.add(root)
    versions.push(root)
    return {path: path.stat().st_size for path in remote.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_ten_more_episodes_push_ten_more_episodes(tmp_path: Path) -> None:
    root, remote = tmp_path / "project", tmp_path / "remote"
    root.mkdir()
    subprocess.run(["git", "init", "--quiet", root], check=True)
    for words in (["init", "--quiet"], ["remote", "add", "-d", "local", str(remote)]):
        versions.dvc(root, *words)
    first = pushed(root, BEFORE, remote)
    second = pushed(root, BEFORE + MORE, remote)
    new = [size for path, size in second.items() if path not in first]
    whole, frames = sum(first.values()), demos(BEFORE + MORE).episode_ends
    ten = int(frames[-1] - frames[BEFORE - 1]) * SIDE * SIDE * 3
    shard = 1000 * SIDE * SIDE * 3
    numbers = sum(array.nbytes for array in (demos(BEFORE + MORE).observation, demos(BEFORE + MORE).action))
    assert ten < sum(new) < ten + shard + 4 * numbers, "the last file of pictures, which was not full, and the numbers"
    assert sum(new) < 0.35 * whole
