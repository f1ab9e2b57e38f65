"""Demonstrations as LeRobot sets, read back by our own reader, which checks them against their own metadata."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.synthetic import synthetic
from vqbet.contract import Camera, Channel, Demonstrations, Spec, StoreError
from vqbet.demos import sources
from vqbet.demos.exporters import lerobot
from vqbet.demos.exporters.lerobot import Version
from vqbet.demos.sources import declared
from vqbet.demos.sources.declared import Declaration

VERSIONS = pytest.mark.parametrize("version", ["v3.0", "v2.1"])


@pytest.fixture
def demos() -> Demonstrations:
    """Synthetic demonstrations with a camera and an action of one number; the second episode failed."""
    made = synthetic(5)
    pictures = np.random.default_rng(0).integers(0, 256, (len(made.action), 12, 16, 3), np.uint8)
    success = np.array([True, False, True, True, True])
    spec = replace(made.spec, cameras=(Camera("top", 12, 16),), action=made.spec.action[:1])
    return replace(
        made,
        spec=spec,
        action=made.action[:, :1].copy(),
        cameras={"top": pictures},
        columns={**made.columns, "success": success},
        intervention=np.arange(len(made.action)) % 7 == 0,
    )


def written(folder: Path, demos: Demonstrations, version: Version) -> Path:
    lerobot.write(folder / "set", demos, version, lambda done, total: None)
    return folder / "set"


def read_again(folder: Path, spec: Spec) -> Demonstrations:
    wanted = Declaration(
        spec,
        {lerobot.STATE: len(spec.observation)},
        {lerobot.ACTION: len(spec.action)},
        {camera.name: lerobot.PICTURES + camera.name for camera in spec.cameras},
    )
    return declared.demonstrations(sources.opened(folder), wanted)


@VERSIONS
def test_there_and_back_is_bit_for_bit(tmp_path: Path, demos: Demonstrations, version: Version) -> None:
    again = read_again(written(tmp_path, demos, version), demos.spec)
    assert again.observation.tobytes() == demos.observation.tobytes()
    assert again.action.tobytes() == demos.action.tobytes()
    assert again.episode_ends.tolist() == demos.episode_ends.tolist()
    every = np.arange(len(demos.action))
    assert np.array_equal(again.cameras["top"][every], demos.cameras["top"][every])
    assert np.allclose(again.time_s, demos.time_s, atol=1e-5)


@VERSIONS
def test_names_rate_and_statistics(tmp_path: Path, demos: Demonstrations, version: Version) -> None:
    folder = written(tmp_path, demos, version)
    source = sources.opened(folder)
    assert source.format == "lerobot"
    assert source.rate_hz == demos.spec.control_hz
    assert source.fields[lerobot.STATE].names == tuple(channel.name for channel in demos.spec.observation)
    assert source.fields[lerobot.PICTURES + "top"].shape == (12, 16, 3)
    info = json.loads((folder / "meta/info.json").read_text())
    assert Spec.from_json(info[lerobot.OWN]["spec"]) == demos.spec
    if version == "v3.0":
        stats = json.loads((folder / "meta/stats.json").read_text())
        assert stats[lerobot.STATE]["std"] == pytest.approx(demos.observation.astype(np.float64).std(0), rel=1e-6)
        assert np.shape(stats[lerobot.PICTURES + "top"]["mean"]) == (3, 1, 1)


def test_success_stands_at_the_last_step(tmp_path: Path, demos: Demonstrations) -> None:
    source = sources.opened(written(tmp_path, demos, "v3.0"))
    lasts = [bool(source.numbers(episode, lerobot.SUCCESS).ravel()[-1]) for episode in range(5)]
    assert lasts == [True, False, True, True, True]
    marked = np.concatenate([source.numbers(episode, lerobot.INTERVENTION).ravel() for episode in range(5)])
    assert np.array_equal(marked.astype(bool), demos.intervention)


def test_a_large_set_has_several_files(tmp_path: Path, demos: Demonstrations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lerobot, "FILE_BYTES", 1)
    folder = written(tmp_path, demos, "v3.0")
    assert len(list((folder / "data").rglob("*.parquet"))) > 1
    assert read_again(folder, demos.spec).observation.tobytes() == demos.observation.tobytes()


def test_without_cameras(tmp_path: Path) -> None:
    made = synthetic(2)
    again = read_again(written(tmp_path, made, "v3.0"), made.spec)
    assert again.action.tobytes() == made.action.tobytes()


def test_a_folder_that_holds_something(tmp_path: Path, demos: Demonstrations) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").touch()
    with pytest.raises(StoreError, match="holds something already; name a new folder"):
        written(tmp_path, demos, "v3.0")
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["mine"]


def test_one_channel_is_a_column_of_numbers(tmp_path: Path) -> None:
    one = (Channel("x", "m", -1.0, 1.0),)
    made = Demonstrations.of(
        np.zeros((4, 1)), np.ones((4, 1)) / 2, [2, 4], spec=Spec("own", one, one, 10.0, "absolute", "")
    )
    assert read_again(written(tmp_path, made, "v2.1"), made.spec).action.tolist() == [[0.5]] * 4
