"""Files of pictures that were decoded once are taken again, where what they were decoded from is the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vqbet.contract import Camera, Channel, Demonstrations, Spec
from vqbet.demos import store
from vqbet.demos.store.staging import Staging

SHARD = 1000
ONE = (Channel("x", "m", -1.0, 1.0),)
SPEC = Spec("own", ONE, ONE, 10.0, "absolute", "", cameras=(Camera("top", 8, 8),))


class Decoder:
    """Pictures of which the grey value is told by the step; asked counts the steps that were decoded."""

    def __init__(self, steps: int, version: str = "", breaks_at: int | None = None) -> None:
        self.shape = (steps, 8, 8, 3)
        self.asked, self._version, self._breaks_at = 0, version, breaks_at

    def __getitem__(self, steps: np.ndarray) -> np.ndarray:
        if self._breaks_at is not None and steps.max() >= self._breaks_at:
            raise KeyboardInterrupt
        self.asked += len(steps)
        return np.broadcast_to((steps % 251).astype(np.uint8)[:, None, None, None], (len(steps), 8, 8, 3))

    def identity(self, first: int, last: int) -> str:
        return f"{self._version} {first} {last}"


def demos(frames: Decoder) -> Demonstrations:
    steps = frames.shape[0]
    made = Demonstrations.of(np.zeros((steps, 1)), np.zeros((steps, 1)), [steps // 2, steps], control_hz=10.0)
    columns = {**made.columns, "task": np.full(2, "own")}
    return replace(made, spec=SPEC, columns=columns, cameras={"top": frames})


def written(root: Path, frames: Decoder, how: str = "one") -> tuple[str, int]:
    """Write a store through the staging folder; return its digest and how many files were taken again."""
    staging = Staging(root / "staged", how, root / "own.zarr")
    return store.write(root / "own.zarr", demos(frames), staging=staging), staging.reused


@pytest.fixture
def broken_off(tmp_path: Path) -> Path:
    """A project in which a write broke off in its third file."""
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path, Decoder(2500, breaks_at=2200))
    assert not (tmp_path / "own.zarr").exists()
    return tmp_path


def test_a_write_that_broke_off_goes_on_where_it_stopped(broken_off: Path) -> None:
    again = Decoder(2500)
    assert written(broken_off, again) == (store.write(broken_off / "whole.zarr", demos(Decoder(2500))), 2)
    assert again.asked == 500
    store.verify(broken_off / "own.zarr")
    assert [path.name for path in (broken_off / "staged").iterdir()] == ["index.json"]


@pytest.mark.parametrize("fault", ["damaged", "cut", "source", "decoder"])
def test_what_is_not_the_same_is_decoded_again(broken_off: Path, fault: str) -> None:
    path = sorted((broken_off / "staged").glob("*-*"))[0]
    content = path.read_bytes()
    if fault == "damaged":
        path.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    if fault == "cut":
        path.write_bytes(content[:-1])
    again = Decoder(2500, version="other" if fault == "source" else "")
    digest, reused = written(broken_off, again, how="two" if fault == "decoder" else "one")
    assert digest == store.write(broken_off / "whole.zarr", demos(Decoder(2500)))
    assert (reused, again.asked) == ((1, 1500) if fault in ("damaged", "cut") else (0, 2500))


def test_more_steps_cost_the_decoding_of_the_new_ones(tmp_path: Path) -> None:
    written(tmp_path, Decoder(2500))
    longer = Decoder(3500)
    assert written(tmp_path, longer) == (store.write(tmp_path / "whole.zarr", demos(Decoder(3500))), 2)
    assert longer.asked == 1500, "the last file was not full"


def test_a_stored_file_that_is_damaged_is_decoded_again(tmp_path: Path) -> None:
    digest, _ = written(tmp_path, Decoder(1500))
    path = tmp_path / "own.zarr/data/camera/top/c.0.0.0.0"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    again = Decoder(1500)
    assert written(tmp_path, again) == (digest, 1)
    assert again.asked == SHARD
    store.verify(tmp_path / "own.zarr")


def test_an_index_of_another_version_is_not_believed(tmp_path: Path) -> None:
    written(tmp_path, Decoder(500))
    (tmp_path / "staged" / "index.json").write_text("{not json")
    again = Decoder(500)
    written(tmp_path, again)
    assert again.asked == 500
