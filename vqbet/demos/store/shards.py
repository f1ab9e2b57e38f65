"""Files of pictures: shards of compressed chunks, in Zarr v3's sharding codec, one set of them per camera.

The layout depends on the size and the kind of the pictures alone, never on their number. So demonstrations that are
appended leave every full shard as it is. A chunk is `bytes`, `zstd`, `crc32c`; its decoded size follows from the
layout, and is compared with the size in its zstd header before anything is decoded (RFC 8878, section 3.1.1.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from vqbet.contract import Camera, Frames, StoreError
from vqbet.demos.store import schema

CHUNK_FRAMES = 10  # most pictures in a chunk, of which one picture costs the decoding of all ...
CHUNK_BYTES = 640 * 2**10  # ... and their most bytes: drawn ones of 224 px come by four. Measured, see docs/schema.md
FILMED_FRAMES, FILMED_BYTES = 4, 320 * 2**10  # of a robot's video, whose pictures have little in common to the byte
SHARD_FRAMES = 1000
LEVEL = 3  # of zstd
CHECKSUM_BYTES = 4  # crc32c
INDEX_BYTES = 16  # offset and length of a chunk in its shard, uint64 each
NOTHING = np.iinfo(np.uint64).max  # offset and length of a chunk that does not exist
MAGIC = b"\x28\xb5\x2f\xfd"  # of a zstd frame
HEADER_BYTES = 18  # most bytes of a zstd frame's header
CHECKSUM = {"name": "crc32c"}
CODECS = [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": LEVEL, "checksum": False}}, CHECKSUM]
INDEX_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, CHECKSUM]


@dataclass(frozen=True, slots=True)
class Shards:
    """Layout of one camera's pictures, of shape (N, height, width, 3), in files."""

    shape: tuple[int, ...]
    chunk_rows: int
    shard_rows: int  # a multiple of chunk_rows

    @classmethod
    def of(cls, camera: Camera, steps: int) -> Shards:
        """Return the layout in which the pictures of a camera are written."""
        picture = camera.height * camera.width * 3
        frames, most = (FILMED_FRAMES, FILMED_BYTES) if camera.lossy else (CHUNK_FRAMES, CHUNK_BYTES)
        rows = min(max(most // picture, 1), frames)
        chunks = min(SHARD_FRAMES // rows, schema.MAX_SHARD_BYTES // (rows * picture))
        return cls((steps, *camera.shape), rows, chunks * rows)

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        return (self.chunk_rows, *self.shape[1:])

    @property
    def chunk_bytes(self) -> int:
        """Return the bytes of a decoded chunk."""
        return int(np.prod(self.chunk_shape))

    @property
    def shard_chunks(self) -> int:
        return self.shard_rows // self.chunk_rows

    @property
    def index_bytes(self) -> int:
        """Return the bytes of the index at the end of every shard."""
        return self.shard_chunks * INDEX_BYTES + CHECKSUM_BYTES

    def __len__(self) -> int:
        """Return the number of shards."""
        return -(-self.shape[0] // self.shard_rows)

    def key(self, shard: int) -> str:
        """Return the name of a shard beside the array's zarr.json; one file each, no folders."""
        return f"c.{shard}.0.0.0"

    def chunks(self, shard: int) -> int:
        """Return the number of chunks of a shard that hold pictures."""
        rows = min(self.shard_rows, self.shape[0] - shard * self.shard_rows)
        return -(-rows // self.chunk_rows)

    def most_bytes(self, shard: int) -> int:
        """Return the most bytes that a file can have (zstd's own bound for pictures that cannot be compressed)."""
        return self.chunks(shard) * (self.chunk_bytes + self.chunk_bytes // 128 + 512) + self.index_bytes

    def describe(self) -> dict[str, Any]:
        """Return the zarr.json of the array (Zarr v3 core specification, sharding codec 1.0), without attributes."""
        sharding = {
            "chunk_shape": list(self.chunk_shape),
            "codecs": CODECS,
            "index_codecs": INDEX_CODECS,
            "index_location": "end",
        }
        grid = {"chunk_shape": [self.shard_rows, *self.shape[1:]]}
        return {
            "zarr_format": 3,
            "node_type": "array",
            "data_type": "uint8",
            "shape": list(self.shape),
            "chunk_grid": {"name": "regular", "configuration": grid},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "fill_value": 0,
            "storage_transformers": [],
        }


def encoded(frames: Frames, layout: Shards, shard: int, where: str) -> Iterator[bytes]:
    """Yield the bytes of one shard, chunk by chunk, and its index at the end. Equal pictures give equal bytes.

    Raises StoreError, naming `where` and the step, unless `frames` returns uint8 pictures of the shape in `layout`.
    """
    import google_crc32c
    from numcodecs.zstd import compress

    index = np.full((layout.shard_chunks, 2), NOTHING, "<u8")
    offset = 0
    for chunk in range(layout.chunks(shard)):
        first = shard * layout.shard_rows + chunk * layout.chunk_rows
        steps = np.arange(first, min(first + layout.chunk_rows, layout.shape[0]))
        content = compress(_padded(frames[steps], layout, steps, where), LEVEL)
        content += google_crc32c.value(content).to_bytes(CHECKSUM_BYTES, "little")
        index[chunk] = offset, len(content)
        offset += len(content)
        yield content
    table = index.tobytes()
    yield table + google_crc32c.value(table).to_bytes(CHECKSUM_BYTES, "little")


def index(content: bytes, layout: Shards, shard: int, size: int, where: str) -> Int[np.ndarray, "chunks 2"]:
    """Return offset and length, without checksum, of each chunk of a shard of `size` bytes, from its index.

    Raises StoreError unless the chunks that hold pictures fill the file up to the index, in their order, and no others
    are named, since a chunk that is left out reads as black pictures.
    """
    import google_crc32c

    table, checksum = content[:-CHECKSUM_BYTES], content[-CHECKSUM_BYTES:]
    if google_crc32c.value(table).to_bytes(CHECKSUM_BYTES, "little") != checksum:
        raise StoreError(f"{where}: the checksum of the shard's index is wrong")
    found = np.frombuffer(table, "<u8").reshape(-1, 2)
    present, rest = found[: layout.chunks(shard)], found[layout.chunks(shard) :]
    if (rest != NOTHING).any() or (present >= size).any() or (present[:, 1] <= CHECKSUM_BYTES).any():
        raise StoreError(f"{where}: the index of the shard leaves out a chunk, or names one too many")
    ends = np.cumsum(present[:, 1])
    if (present[:, 0] != ends - present[:, 1]).any() or ends[-1] != size - layout.index_bytes:
        raise StoreError(f"{where}: the chunks of the shard do not fill the file one after the other")
    return present.astype(np.int64) - np.array([0, CHECKSUM_BYTES])


def decode(content: bytes, into: UInt8[np.ndarray, "rows height width 3"], where: str) -> None:
    """Decode a chunk with its checksum into an array. Raises StoreError for other bytes or another decoded size."""
    import google_crc32c
    from numcodecs.zstd import decompress

    body, checksum = memoryview(content)[:-CHECKSUM_BYTES], content[-CHECKSUM_BYTES:]
    if google_crc32c.value(body.tobytes()).to_bytes(CHECKSUM_BYTES, "little") != checksum:
        raise StoreError(f"{where}: damaged: the checksum of the chunk is wrong")
    size = content_size(body[:HEADER_BYTES].tobytes())
    if size != into.nbytes:
        promised = "no size" if size is None else f"{size} bytes"
        raise StoreError(f"{where}: expected a chunk of {into.nbytes} bytes when decoded, its header says {promised}")
    try:
        decompress(body, into)
    except (RuntimeError, ValueError) as error:  # a body that is none, or a second frame behind it
        raise StoreError(f"{where}: cannot be decoded: {error}") from error


def content_size(header: bytes) -> int | None:
    """Return the decoded size in the header of a zstd frame (RFC 8878, 3.1.1.1.4); None where there is none."""
    if len(header) < 6 or header[:4] != MAGIC:
        return None
    descriptor = header[4]
    single, flag = descriptor >> 5 & 1, descriptor >> 6
    width = (1 if single else 0, 2, 4, 8)[flag]
    start = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]  # after the window's descriptor and a dictionary's id
    if not width or len(header) < start + width:
        return None
    return int.from_bytes(header[start : start + width], "little") + (256 if width == 2 else 0)


def _padded(pictures: np.ndarray, layout: Shards, steps: np.ndarray, where: str) -> np.ndarray:
    """Return pictures as a whole chunk; beyond the last step they are black."""
    wanted = (len(steps), *layout.shape[1:])
    if pictures.dtype != np.uint8 or pictures.shape != wanted:
        raise StoreError(
            f"{where}: steps {steps[0]} to {steps[-1]}: expected pictures of shape {wanted} of uint8, got "
            f"{pictures.shape} of {pictures.dtype}"
        )
    if len(steps) == layout.chunk_rows:
        return np.ascontiguousarray(pictures)
    chunk = np.zeros(layout.chunk_shape, np.uint8)
    chunk[: len(steps)] = pictures
    return chunk
