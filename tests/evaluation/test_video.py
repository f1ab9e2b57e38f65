"""Films: deterministic bytes, readable by an independent demuxer, nothing half written."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from vqbet.contract import WorldError
from vqbet.evaluation import video, webm

RED = (200, 0, 0)


def frames(count: int = 30, height: int = 64, width: int = 96) -> list[np.ndarray]:
    """A red square that moves one pixel to the right per frame."""
    pictures = [np.full((height, width, 3), 255, np.uint8) for _ in range(count)]
    for index, picture in enumerate(pictures):
        picture[8:24, index : index + 16] = RED
    return pictures


def test_a_film_decodes_to_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "films" / "a.webm"
    video.write(path, frames(), fps=10)
    assert [item.name for item in path.parent.iterdir()] == ["a.webm"]
    reader = cv2.VideoCapture(str(path))
    assert reader.get(cv2.CAP_PROP_FPS) == 10
    assert reader.get(cv2.CAP_PROP_FRAME_COUNT) == 30
    decoded = []
    while (frame := reader.read())[0]:
        decoded.append(frame[1][:, :, ::-1].astype(int))
    assert len(decoded) == 30
    for wanted, got in zip(frames(), decoded, strict=True):
        assert np.abs(wanted.astype(int) - got).mean() < 5
    assert np.abs(decoded[20][16, 28] - RED).max() < 30  # red, not blue


def test_a_film_can_be_searched(tmp_path: Path) -> None:
    video.write(tmp_path / "a.webm", frames(60), fps=10)
    reader = cv2.VideoCapture(str(tmp_path / "a.webm"))
    reader.set(cv2.CAP_PROP_POS_FRAMES, 40)
    picture = reader.read()[1][:, :, ::-1].astype(int)
    assert np.abs(picture - frames(60)[40]).mean() < 5


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        video.write(tmp_path / f"{name}.webm", frames(), fps=10)
        video.write_png(tmp_path / f"{name}.png", frames()[0])
    assert (tmp_path / "a.webm").read_bytes() == (tmp_path / "b.webm").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_opencvs_own_writer_gives_other_bytes_each_time(tmp_path: Path) -> None:
    """The planted fault: why webm.py exists."""
    for name in ("a", "b"):
        writer = cv2.VideoWriter(str(tmp_path / f"{name}.webm"), cv2.VideoWriter.fourcc(*"VP80"), 10, (96, 64))
        for frame in frames():
            writer.write(frame)
        writer.release()
    assert (tmp_path / "a.webm").read_bytes() != (tmp_path / "b.webm").read_bytes()


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    video.write(tmp_path / "a.webm", frames(), fps=10)
    assert capfd.readouterr() == ("", "")


def test_odd_sides_and_a_single_frame(tmp_path: Path) -> None:
    video.write(tmp_path / "a.webm", frames(1, 33, 47), fps=2.5)
    picture = cv2.VideoCapture(str(tmp_path / "a.webm")).read()[1]
    assert picture is not None
    assert picture.shape == (34, 48, 3)


def test_a_png_keeps_every_pixel(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    video.write_png(tmp_path / "a.png", picture)
    back = cv2.imread(str(tmp_path / "a.png"))
    assert back is not None
    assert np.array_equal(back[:, :, ::-1], picture)


def test_a_contact_sheet_is_read_row_by_row() -> None:
    pictures = [np.full((2, 3, 3), index, np.uint8) for index in range(5)]
    sheet = video.contact_sheet(pictures, columns=2)
    assert sheet.shape == (6, 6, 3)
    assert sheet[::2, ::3, 0].tolist() == [[0, 1], [2, 3], [4, 255]]
    with pytest.raises(WorldError, match="columns: expected at least 1, got 0"):
        video.contact_sheet(pictures, columns=0)


@pytest.mark.parametrize(
    ("pictures", "fps", "sentence"),
    [
        ([], 10, "at least one frame"),
        (frames(1) + frames(1, 32, 32), 10, r"frame 1: expected .* \(64, 96, 3\), got uint8 \(32, 32, 3\)"),
        ([np.zeros((8, 8, 3))], 10, "frame 0: expected a uint8 picture"),
        ([np.zeros((8, 8), np.uint8)], 10, "frame 0"),
        ([np.zeros((8, 8, 4), np.uint8)], 10, "frame 0"),
        ([np.zeros((0, 8, 3), np.uint8)], 10, "frame 0"),
        (frames(1), 0, "1 to 240 frames per second, got 0"),
        (frames(1), float("nan"), "1 to 240 frames per second, got nan"),
    ],
)
def test_what_is_no_film_is_refused(tmp_path: Path, pictures: list[np.ndarray], fps: float, sentence: str) -> None:
    with pytest.raises(WorldError, match=sentence):
        video.write(tmp_path / "a.webm", pictures, fps)
    assert not list(tmp_path.iterdir())


def test_a_disk_that_refuses_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(WorldError, match=r"a\.png: cannot be written: No space left"):
        video.write_png(tmp_path / "a.png", frames()[0])
    assert not list(tmp_path.iterdir())


def test_without_opencv_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name == "cv2":
            raise ImportError("No module named 'cv2'")
        return right(name, *rest)

    monkeypatch.delitem(sys.modules, "cv2")
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(WorldError, match="install the `sims` extra"):
        video.write_png(tmp_path / "a.png", frames()[0])


@pytest.mark.parametrize(
    ("packets", "fps", "sentence"),
    [
        ([], 10, "must begin with a key frame"),
        ([b"\x01"], 10, "must begin with a key frame"),
        ([b""], 10, "must begin with a key frame"),
        ([b"\x00"] + [b"\x01"] * 40, 1, "key frames are 40000 ms apart"),
    ],
)
def test_frames_that_cannot_be_muxed_are_refused(packets: list[bytes], fps: float, sentence: str) -> None:
    with pytest.raises(WorldError, match=sentence):
        webm.mux(packets, width=2, height=2, fps=fps)
