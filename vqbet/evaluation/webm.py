"""WebM container for VP8 frames: EBML elements of RFC 8794 and Matroska's of RFC 9559, without random ids or dates.

Equal frames produce equal bytes, unlike with general-purpose writers, which draw a random track id.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from vqbet.contract import WorldError

MAX_CLUSTER_MS = 32_767  # a block's time within its cluster is an int16


def mux(packets: Sequence[bytes], *, width: int, height: int, fps: float) -> bytes:
    """Return the bytes of a file of `packets` (one VP8 frame each, the first a key frame) at `fps` frames per second.

    Raises WorldError where the first is not a key frame, or key frames are too far apart.
    """
    if not packets or not _is_key(packets[0]):
        raise WorldError("a video must begin with a key frame")
    times = [round(1000 * index / fps) for index in range(len(packets))]
    starts = [index for index, packet in enumerate(packets) if _is_key(packet)]
    clusters = [
        _cluster(packets[start:stop], times[start:stop])
        for start, stop in zip(starts, [*starts[1:], len(packets)], strict=True)
    ]
    info = _element(
        "1549A966",
        _uint("2AD7B1", 1_000_000),  # one tick is 1 ms
        _element("4489", struct.pack(">d", 1000 * len(packets) / fps)),
        _element("4D80", b"vqbet"),
        _element("5741", b"vqbet"),
    )
    video = _element("E0", _uint("B0", width), _uint("BA", height))
    entry = _element(
        "AE",
        _uint("D7", 1),  # track number
        _uint("73C5", 1),  # track uid
        _uint("9C", 0),  # no lacing
        _uint("83", 1),  # a video track
        _element("86", b"V_VP8"),
        _uint("23E383", round(1e9 / fps)),  # a frame's duration in ns
        video,
    )
    head = info + _element("1654AE6B", entry)
    body = head + _cues([times[start] for start in starts], clusters, len(head)) + b"".join(clusters)
    return _header() + _element("18538067", body)


def _header() -> bytes:
    return _element(
        "1A45DFA3",
        _uint("4286", 1),  # EBML version, and the version needed to read it
        _uint("42F7", 1),
        _uint("42F2", 4),  # longest id and longest size, bytes
        _uint("42F3", 8),
        _element("4282", b"webm"),
        _uint("4287", 2),  # version of the document type, and the version needed to read it
        _uint("4285", 2),
    )


def _cluster(packets: Sequence[bytes], times_ms: Sequence[int]) -> bytes:
    if times_ms[-1] - times_ms[0] > MAX_CLUSTER_MS:
        raise WorldError(f"key frames are {times_ms[-1] - times_ms[0]} ms apart, the format allows {MAX_CLUSTER_MS} ms")
    blocks = [
        _element("A3", b"\x81" + struct.pack(">hB", time_ms - times_ms[0], 0x80 if _is_key(packet) else 0), packet)
        for packet, time_ms in zip(packets, times_ms, strict=True)
    ]
    return _element("1F43B675", _uint("E7", times_ms[0]), *blocks)


def _cues(times_ms: Sequence[int], clusters: Sequence[bytes], head: int) -> bytes:
    """Return the index for seeking. Its positions include the length of the index, which is constant."""
    size = len(_cue_table(times_ms, [0] * len(clusters)))
    positions, at = [], head + size
    for cluster in clusters:
        positions.append(at)
        at += len(cluster)
    return _cue_table(times_ms, positions)


def _cue_table(times_ms: Sequence[int], positions: Sequence[int]) -> bytes:
    points = [
        _element("BB", _uint("B3", time_ms), _element("B7", _uint("F7", 1), _uint("F1", position)))
        for time_ms, position in zip(times_ms, positions, strict=True)
    ]
    return _element("1C53BB6B", *points)


def _is_key(packet: bytes) -> bool:
    """Return whether the first bit of a VP8 frame is 0, as in key frames (RFC 6386, section 9.1)."""
    return len(packet) > 0 and not packet[0] & 1


def _element(identifier: str, *parts: bytes) -> bytes:
    """Return id, size (always in 8-byte form) and content."""
    content = b"".join(parts)
    return bytes.fromhex(identifier) + struct.pack(">Q", len(content) | 1 << 56) + content


def _uint(identifier: str, value: int) -> bytes:
    """Return an element of an unsigned integer, always in 8 bytes."""
    return _element(identifier, struct.pack(">Q", value))
