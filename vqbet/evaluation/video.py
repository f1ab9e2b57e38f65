"""Films of episodes as files for a browser: WebM (VP8) and PNG. Equal frames produce equal bytes.

OpenCV, from the `sims` extra, encodes; it is imported only when a picture is written.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from jaxtyping import UInt8

from vqbet.contract import WorldError
from vqbet.evaluation import webm
from vqbet.files import atomic

Picture = UInt8[np.ndarray, "height width 3"]  # RGB


def write(path: Path, frames: Sequence[Picture], fps: float) -> None:
    """Write RGB frames of one size as a WebM film. A side of odd length is padded by one pixel, as VP8 needs even ones.

    Raises WorldError where there are no frames, they are not pictures of one size, or the file cannot be written.
    """
    first = _checked(frames)
    if not (math.isfinite(fps) and 1 <= fps <= 240):
        raise WorldError(f"{path}: expected 1 to 240 frames per second, got {fps}")
    margins = (0, first[0] % 2), (0, first[1] % 2), (0, 0)
    even = [np.pad(frame, margins, mode="edge") for frame in frames]
    height, width = even[0].shape[:2]
    atomic.write(path, webm.mux(_encode(even, fps), width=width, height=height, fps=fps), WorldError)


def write_png(path: Path, picture: Picture) -> None:
    """Write one RGB picture. Raises WorldError as `write`."""
    atomic.write(path, png(picture), WorldError)


def contact_sheet(frames: Sequence[Picture], columns: int) -> Picture:
    """Return frames of one size side by side, `columns` per row; the rest of the last row is white."""
    height, width = _checked(frames)
    if columns < 1:
        raise WorldError(f"columns: expected at least 1, got {columns}")
    rows = math.ceil(len(frames) / columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for index, frame in enumerate(frames):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + height, left : left + width] = frame
    return sheet


def shrunk(picture: Picture, most: int) -> Picture:
    """Return a picture at most `most` pixels wide: means of square blocks of the given one, or a copy of it."""
    block = min(math.ceil(picture.shape[1] / most), picture.shape[0])
    height, width = picture.shape[0] // block, picture.shape[1] // block
    cut = picture[: height * block, : width * block].reshape(height, block, width, block, 3)
    return np.asarray(cut.mean((1, 3)).round(), np.uint8)


def read_png(content: bytes, where: str) -> Picture:
    """Return the RGB picture in a PNG file's bytes. Raises WorldError naming `where` for anything else."""
    cv2 = _cv2()
    found = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if found is None:
        raise WorldError(f"{where}: expected a picture, got something that OpenCV cannot read")
    return np.ascontiguousarray(found[:, :, ::-1])


def png(picture: Picture) -> bytes:
    """Return an RGB picture as the bytes of a PNG file. Raises WorldError as `write`."""
    _checked([picture])
    done, data = _cv2().imencode(".png", np.ascontiguousarray(picture[:, :, ::-1]))
    if not done:
        raise WorldError("OpenCV could not encode the picture")
    return bytes(data)


def _encode(frames: Sequence[Picture], fps: float) -> list[bytes]:
    """Return VP8 frames by way of an AVI file: OpenCV returns encoded frames only when reading."""
    cv2 = _cv2()
    height, width = frames[0].shape[:2]
    with tempfile.TemporaryDirectory() as folder:
        avi = str(Path(folder) / "film.avi")
        writer = cv2.VideoWriter(avi, cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"VP80"), fps, (width, height))
        if not writer.isOpened():
            raise WorldError("this OpenCV has no VP8 encoder; install opencv-python-headless from the `sims` extra")
        for frame in frames:
            writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
        writer.release()
        reader = cv2.VideoCapture(avi, cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
        packets = []
        while (packet := reader.read())[0]:
            packets.append(packet[1].tobytes())
        reader.release()
    if len(packets) != len(frames):
        raise WorldError(f"OpenCV encoded {len(packets)} of {len(frames)} frames; is the disk full?")
    return packets


def _checked(frames: Sequence[Picture]) -> tuple[int, int]:
    """Return height and width. Raises WorldError unless all frames are RGB pictures of one size."""
    if not frames:
        raise WorldError("expected at least one frame, got none")
    shape = frames[0].shape
    for index, frame in enumerate(frames):
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape != shape or shape[2] != 3 or not frame.size:
            raise WorldError(
                f"frame {index}: expected a uint8 picture (height, width, 3) as large as the first, {shape}, "
                f"got {frame.dtype} {frame.shape}"
            )
    return shape[0], shape[1]


def _cv2() -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        raise WorldError(f"pictures need OpenCV ({error}): install the `sims` extra, or film no episodes") from error
    return cv2
