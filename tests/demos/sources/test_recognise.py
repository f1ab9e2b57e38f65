"""The format of demonstrations is told from their files; where it cannot be, the readings are listed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import foreign_sets
from vqbet.contract import StoreError
from vqbet.demos.sources import FORMATS, opened

GOOD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "LeRobot v2.1": (lambda root: foreign_sets.lerobot_v2(root / "set", ""), "lerobot"),
    "LeRobot v3.0": (lambda root: foreign_sets.lerobot_v3(root / "set", ""), "lerobot"),
    "Zarr v2": (lambda root: foreign_sets.replay_buffer(root / "set.zarr", 2), "replay_buffer"),
    "Zarr v3": (lambda root: foreign_sets.replay_buffer(root / "set.zarr", 3), "replay_buffer"),
    "robomimic": (lambda root: foreign_sets.robomimic(root / "set.hdf5"), "hdf5"),
    "Isaac Lab": (lambda root: foreign_sets.isaac(root / "set.h5"), "hdf5"),
    "npz": (lambda root: foreign_sets.npz(root / "set"), "npz"),
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_format_is_recognised(tmp_path: Path, kind: str) -> None:
    write, format = GOOD[kind]
    path = write(tmp_path)
    assert opened(path).format == opened(path, format).format == format
    assert format in FORMATS


def test_a_file_without_its_ending_is_recognised(tmp_path: Path) -> None:
    assert opened(foreign_sets.robomimic(tmp_path / "download")).format == "hdf5"


def test_two_readings_are_both_named_and_a_format_decides(tmp_path: Path) -> None:
    root = foreign_sets.lerobot_v2(tmp_path / "set", "")
    foreign_sets.npz(tmp_path / "more")
    (tmp_path / "more/episode_0.npz").rename(root / "episode_0.npz")
    with pytest.raises(
        StoreError, match=r"set: .* 2 readings: lerobot \(meta/info.json\); npz \(episode_0.npz\); name"
    ):
        opened(root)
    assert opened(root, "lerobot").format == "lerobot"
    assert opened(root, "npz").format == "npz"


def test_nothing_to_read_says_what_was_found_and_what_is_understood(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(StoreError, match=r"found: notes.txt\).*expected a LeRobot set \(meta/info.json\)"):
        opened(tmp_path)
    with pytest.raises(StoreError, match=r"notes.txt: holds no demonstrations that are understood: a LeRobot"):
        opened(tmp_path / "notes.txt")
    with pytest.raises(StoreError, match=r"nowhere: there is nothing; expected demonstrations"):
        opened(tmp_path / "nowhere")
    with pytest.raises(StoreError, match=r"format: expected lerobot, .*got 'rlds'"):
        opened(tmp_path, "rlds")


def test_a_folder_too_high_names_the_sets_in_it(tmp_path: Path) -> None:
    foreign_sets.lerobot_v2(tmp_path / "one", "")
    foreign_sets.npz(tmp_path / "two")
    with pytest.raises(StoreError, match=r"name one of one \(lerobot\), two \(npz\)"):
        opened(tmp_path)
