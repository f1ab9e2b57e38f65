"""Video by PyAV: exactly one frame for every step, found by counting and checked against its timestamp.

OpenCV 5 decodes AV1, the codec of LeRobot, to no frame at all and reports no error, so it is not used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from vqbet.contract import StoreError
from vqbet.demos.sources import checked
from vqbet.demos.sources.source import Size

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

THREADS = 2  # of one decoder
LAG = 0.5  # of a step, between a frame's timestamp and its place


@dataclass(frozen=True, slots=True)
class Footage:
    """A video file as the set describes it: frame `first` of its `total` frames is the first of the episode.

    where: file, episode and field, for messages. size: height and width in px.
    """

    path: Path
    where: str
    fps: float
    first: int
    total: int
    size: Size


def frames(
    film: Footage, time_s: Float[np.ndarray, " N"], size: Size | None = None
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Yield the RGB frame of each time, which are seconds in the file, scaled to `size` by the mean over areas.

    Raises StoreError where PyAV is not installed, for a video with more or fewer frames than the set says, of another
    size, or with a frame that is more than half a step off its time.
    """
    with _opened(film) as container, checked.decoding(film.where):
        from av.video.reformatter import VideoReformatter

        stream = container.streams.video[0]
        _check(film, container, stream)
        _seek(container, stream, float(time_s[0]), film.fps)
        step, converter = 0, VideoReformatter()
        for frame in container.decode(stream):
            if frame.pts is None or frame.time is None:
                raise StoreError(f"{film.where}: frame {film.first + step} has no timestamp")
            off = (frame.time - time_s[step]) * film.fps
            if step == 0 and off < -LAG and film.first:
                continue  # before the episode, decoded since the nearest key frame is there
            if abs(off) > LAG:
                raise StoreError(
                    f"{film.where}: step {step}: expected one at {time_s[step]:.4f} s, got one at {frame.time:.4f} s, "
                    f"{abs(off):.1f} steps off"
                )
            yield _rgb(converter, frame, size or film.size)
            step += 1
            if step == len(time_s):
                return
    raise StoreError(f"{film.where}: expected {len(time_s)} frames, one for every step, got {step}")


def _opened(film: Footage) -> InputContainer:
    try:
        import av
    except ImportError as error:
        raise StoreError(f"{film.where}: decoding video needs PyAV: install vqbet[video]") from error
    try:
        container = av.open(str(film.path), mode="r", metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise StoreError(f"{film.where}: cannot be opened as a video: {error}; copy the set again") from error
    if len(container.streams.video) != 1:
        container.close()
        raise StoreError(f"{film.where}: expected one video stream, got {len(container.streams.video)}")
    return container


def _check(film: Footage, container: InputContainer, stream: VideoStream) -> None:
    """Check size and number of frames before a frame is decoded."""
    stream.thread_type = "FRAME"
    stream.codec_context.thread_count = THREADS
    got = (stream.height, stream.width)
    if got != film.size:
        raise StoreError(f"{film.where}: expected pictures of {film.size} px (height, width), got {got}")
    total = stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
    if total != film.total:
        raise StoreError(f"{film.where}: expected {film.total} frames in the file, one for every step, got {total}")


def _seek(container: InputContainer, stream: VideoStream, time_s: float, fps: float) -> None:
    """Go to the last key frame at or before a time; the frames that are yielded are counted from there by time."""
    base = stream.time_base
    if base is not None:
        container.seek(max(0, math.floor((time_s - LAG / fps) / float(base))), stream=stream, backward=True)


def _rgb(converter: VideoReformatter, frame: VideoFrame, size: Size) -> UInt8[np.ndarray, "height width 3"]:
    """Return a frame as RGB. By these flags, a pixel is within 0.3 of 255, on average, of the exact mean over its area.

    Without FULL_CHR colours are taken from every second column, and brightness is 1 of 255 too low.
    """
    from av.video.reformatter import Interpolation as Way

    flags = Way.AREA | Way.ACCURATE_RND | Way.BITEXACT | Way.FULL_CHR_H_INT | Way.FULL_CHR_H_INP
    height, width = size
    return converter.reformat(frame, width, height, "rgb24", interpolation=flags, threads=1).to_ndarray()
