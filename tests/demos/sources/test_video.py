"""Video is decoded frame by frame by PyAV, the codec of LeRobot included, which OpenCV decodes to nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.foreign_sets import FPS, SIZE, film, made
from vqbet.contract import StoreError
from vqbet.demos.sources import pictures, video

STEPS = np.arange(12) / FPS


def av1(path: Path) -> video.Footage:
    film(path, made()[0].pictures, codec="libsvtav1")
    return video.Footage(path, f"{path}: episode 0: top", FPS, 0, 12, SIZE)


def test_av1_is_decoded_here_and_to_no_frame_by_opencv(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    told = av1(tmp_path / "film.mp4")
    frames = np.stack(list(video.frames(told, STEPS)))
    assert np.abs(frames.astype(int) - made()[0].pictures).max() <= 4
    capture = cv2.VideoCapture(str(told.path))
    assert [capture.read()[0] for _ in range(3)] == [False] * 3, (
        "OpenCV decodes AV1 now: read docs/decisions/0020 again"
    )


def test_a_scaled_frame_is_the_mean_over_areas(tmp_path: Path) -> None:
    """Grey noise, in squares of 4 px: of colours, a frame of yuv420p has only every fourth."""
    grey = np.random.default_rng(0).integers(16, 236, (3, 20, 30, 1), np.uint8)
    noise = np.repeat(grey.repeat(4, axis=1).repeat(4, axis=2), 3, axis=3)
    film(tmp_path / "film.mp4", noise)
    told = video.Footage(tmp_path / "film.mp4", "film", FPS, 0, 3, (80, 120))
    whole = list(video.frames(told, STEPS[:3]))
    for size in ((40, 60), (33, 47), (80, 120)):
        for small, frame in zip(video.frames(told, STEPS[:3], size), whole, strict=True):
            assert small.shape == (*size, 3)
            assert np.abs(small.astype(int) - pictures.shrunk(frame, size)).mean() < 1


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    told = video.Footage(tmp_path / "film.mp4", "film.mp4: episode 0: top", FPS, 0, 12, SIZE)
    with pytest.raises(StoreError, match=r"film.mp4: episode 0: top: .*install vqbet\[video\]"):
        list(video.frames(told, STEPS))


@pytest.mark.parametrize(("size", "dtype"), [((16, 24), "uint8"), ((10, 30), "float32")])
def test_pictures_are_scaled_by_the_exact_mean(size: tuple[int, int], dtype: str) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (32, 48, 3), np.uint8)
    fine = np.repeat(np.repeat(picture, size[0], axis=0), size[1], axis=1).astype(np.float64)
    exact = fine.reshape(size[0], 32, size[1], 48, 3).mean(axis=(1, 3))
    assert np.abs(pictures.shrunk(picture, size) - exact).max() <= 0.5 + 1e-3
    assert np.array_equal(pictures.whole(picture[None].astype(dtype), "here")[0], picture)


def test_pictures_that_are_no_whole_numbers_are_refused() -> None:
    rows = np.zeros((4, 16, 16, 3), np.float32)
    rows[2, 3, 3] = 0.25
    with pytest.raises(StoreError, match=r"here: step 12: expected whole numbers from 0 to 255, got 0.25"):
        pictures.whole(rows, "here", 10)
    for wrong in (np.nan, -1.0, 256.0):
        with pytest.raises(StoreError, match=r"here: step 0"):
            pictures.whole(np.full((1, 16, 16, 3), wrong, np.float32), "here")


def test_channels_may_stand_first() -> None:
    rows = np.random.default_rng(2).integers(0, 256, (2, 16, 24, 3), np.uint8)
    assert np.array_equal(pictures.whole(np.moveaxis(rows, -1, 1), "here"), rows)
    assert (pictures.upright((3, 16, 24)), pictures.channels((3, 3, 3))) == ((16, 24, 3), "")
