"""Arrays of Zarr v2 and v3, read as untrusted data: metadata first, then each chunk's own header, then its content.

Zarr v2 has no checksums, reads a missing chunk as zeros, follows symbolic links, and lets a few bytes request
gigabytes. So nothing is decompressed before the metadata, the presence of a chunk, and its decoded size are checked.
"""

from __future__ import annotations

import itertools
import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vqbet.contract import StoreError
from vqbet.demos.sources import packed
from vqbet.demos.sources.packed import Files
from vqbet.files import reading

CODECS = ("blosc", "zstd", "gzip", "zlib", "lz4", None)
MAX_DOCUMENT_BYTES = 64 * 2**10
MAX_CHUNK_BYTES = 2**30
MAX_ARRAY_BYTES = 2**44
BLOSC_HEADER_BYTES = 16
CHECKSUM_BYTES = 4
ABSENT = 2**64 - 1  # offset and length of a chunk that a shard does not hold
PACKAGES = {"imagecodecs": "imagecodecs"}  # prefix of a codec's name, and the package that decodes it


@dataclass(frozen=True, slots=True)
class Claim:
    """Metadata of an array. chunk: the shape that is compressed at once. shard: the shape of a file; None: a chunk's.

    codec: of a chunk, with a checksum behind it or not. key: how files are named, by the prefix and the separator.
    refusal: why the array cannot be decoded here; empty where it can.
    """

    name: str
    files: Files
    zarr_format: int
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype
    codec: str | None
    key: tuple[str, str] = ("", ".")
    shard: tuple[int, ...] | None = None
    summed: bool = False
    index_first: bool = False
    refusal: str = ""

    @property
    def document(self) -> str:
        return f"{self.name}/{'.zarray' if self.zarr_format == 2 else 'zarr.json'}"

    @property
    def chunk_bytes(self) -> int:
        """Return the bytes of one chunk in memory; the last one is as large as the others."""
        return math.prod(self.chunk) * self.dtype.itemsize

    @property
    def step_rows(self) -> int:
        """Return the rows of a file."""
        return (self.shard or self.chunk)[0]

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[str, int]]:
        """Yield the file name, below the array, and the first row of every file that holds rows from start to stop."""
        sizes = self.shard or self.chunk
        grid = [range(-(-size // rows)) for size, rows in zip(self.shape, sizes, strict=True)]
        last = self.shape[0] if stop is None else stop
        grid[0] = range(start // sizes[0], -(-last // sizes[0]))
        prefix, separator = self.key
        for place in itertools.product(*grid):
            yield prefix + separator.join(map(str, place)), place[0] * sizes[0]


def document(files: Files, name: str) -> dict[str, Any]:
    """Return a JSON object of at most MAX_DOCUMENT_BYTES. Raises StoreError where it is missing or no such thing."""
    where, size = files.where(name), files.size(name)
    if size is None:
        raise StoreError(f"{where}: missing; copy the store again, whole")
    if size > MAX_DOCUMENT_BYTES:
        raise StoreError(f"{where}: {size} bytes of metadata, more than the {MAX_DOCUMENT_BYTES} allowed")
    try:
        value = json.loads(files.read(name, MAX_DOCUMENT_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{where}: is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise StoreError(f"{where}: expected a JSON object, got {type(value).__name__}")
    return value


def claim(
    files: Files,
    name: str,
    zarr_format: int,
    *,
    most_bytes: int = MAX_ARRAY_BYTES,
    most_chunk_bytes: int = MAX_CHUNK_BYTES,
) -> Claim:
    """Return the metadata of an array of numbers. Raises StoreError naming file, array and key."""
    read = _claim_v2 if zarr_format == 2 else _claim_v3
    found = read(files, name)
    for what, size, most in (
        ("the array", math.prod(found.shape) * found.dtype.itemsize, most_bytes),
        ("a chunk", found.chunk_bytes, most_chunk_bytes),
    ):
        if size > most:
            where = f"{files.where(found.document)}: {name}"
            raise StoreError(f"{where}: {what} has {size} bytes, more than the {most} that are read")
    return found


def _claim_v2(files: Files, name: str) -> Claim:
    told = document(files, f"{name}/.zarray")
    where = f"{files.where(f'{name}/.zarray')}: {name}"
    expect(where, "zarr_format", told.get("zarr_format"), (2,))
    expect(where, "order", told.get("order"), ("C",))
    separator = told.get("dimension_separator", ".")
    expect(where, "dimension_separator", separator, (".", "/"))
    compressor = told.get("compressor")
    codec = compressor.get("id") if isinstance(compressor, dict) else compressor
    shape, chunk = sizes(where, "shape", told.get("shape")), sizes(where, "chunks", told.get("chunks"))
    same_rank(where, shape, chunk)
    dtype, refusal = _dtype(where, told.get("dtype"))
    if told.get("filters") not in (None, []):
        refusal = f"{where}: filters: expected None, got {reading.short(told.get('filters'))}; store it without filters"
    refusal = refusal or _unknown(where, "compressor", codec)
    return Claim(name, files, 2, shape, chunk, dtype, codec, ("", separator), refusal=refusal)


def _claim_v3(files: Files, name: str) -> Claim:
    told = document(files, f"{name}/zarr.json")
    where = f"{files.where(f'{name}/zarr.json')}: {name}"
    expect(where, "zarr_format", told.get("zarr_format"), (3,))
    expect(where, "node_type", told.get("node_type"), ("array",))
    with reading.sentences(where, StoreError):
        shape = sizes(where, "shape", told.get("shape"))
        grid = told["chunk_grid"]
        expect(where, "chunk_grid", grid["name"], ("regular",))
        chunk = sizes(where, "chunk_shape", grid["configuration"]["chunk_shape"])
        encoding = told["chunk_key_encoding"]
        expect(where, "chunk_key_encoding", encoding["name"], ("default", "v2"))
        plain = encoding["name"] == "v2"
        separator = encoding.get("configuration", {}).get("separator", "." if plain else "/")
        expect(where, "separator", separator, (".", "/"))
        same_rank(where, shape, chunk)
        dtype, refusal = _dtype(where, told.get("data_type"), v3=True)
        codecs, shard, index_first = told["codecs"], None, False
        if codecs and codecs[0]["name"] == "sharding_indexed":
            inner = codecs[0]["configuration"]
            shard, chunk = chunk, sizes(where, "chunk_shape of a shard", inner["chunk_shape"])
            same_rank(where, shard, chunk)
            if any(outer % size for outer, size in zip(shard, chunk, strict=True)):
                raise StoreError(f"{where}: chunk_shape: expected {shard} cut into whole chunks, got {chunk}")
            expect(where, "codecs of the index", [one["name"] for one in inner["index_codecs"]], (["bytes", "crc32c"],))
            index_first = inner.get("index_location", "end") == "start"
            codecs = inner["codecs"]
        names = [one["name"] for one in codecs]
        summed = names[-1:] == ["crc32c"]
        packing = names[1 : len(names) - summed]
        odd = next((one for one in names if one not in ("bytes", "crc32c", *CODECS)), None)
        if odd is not None or names[:1] != ["bytes"] or len(packing) > 1:
            other = f"{where}: codecs: expected bytes and one more, got {names}"
            refusal = refusal or _unknown(where, "codecs", odd) or other
        elif dtype.itemsize > 1 and codecs[0].get("configuration", {}).get("endian") != "little":
            refusal = refusal or f"{where}: codecs: bytes: endian: expected 'little'"
    codec = packing[0] if packing else None
    key = ("" if plain else f"c{separator}", separator)
    return Claim(name, files, 3, shape, chunk, dtype, codec, key, shard, summed, index_first, refusal)


def _dtype(where: str, value: Any, *, v3: bool = False) -> tuple[np.dtype, str]:
    """Return a dtype of numbers; or bytes, and why the real one is refused."""
    told = f"<{np.dtype(value).str[1:]}" if v3 and value in _V3_TYPES else value
    if isinstance(told, str) and told[:1] in "<|" and told[1:2] in tuple("biuf"):
        try:
            return np.dtype(told), ""
        except TypeError:
            pass
    return np.dtype("u1"), (
        f"{where}: dtype: expected numbers in little-endian order, got {reading.short(value)}; objects and texts are "
        "never decoded: convert the field"
    )


_V3_TYPES = ("bool", "float16", "float32", "float64", *(f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)))


def _unknown(where: str, key: str, codec: Any) -> str:
    """Return why a codec is not decoded; empty where it is."""
    if codec in CODECS and not isinstance(codec, bool):
        return ""
    package = next((name for prefix, name in PACKAGES.items() if str(codec).startswith(prefix)), "")
    expected = ", ".join(str(one) for one in CODECS)
    advice = f"; the package {package} decodes it: convert the array with it (pip install {package})" if package else ""
    return f"{where}: {key}: expected one of {expected}, got {reading.short(codec)}{advice}"


def expect(where: str, key: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raise StoreError unless a value is one of those allowed, and of its type."""
    if not any(type(value) is type(one) and value == one for one in allowed):
        choice = " or ".join(repr(one) for one in allowed)
        raise StoreError(f"{where}: {key}: expected {choice}, got {value!r}")


def sizes(where: str, key: str, value: Any) -> tuple[int, ...]:
    """Return a list of positive whole numbers as a tuple."""
    if not isinstance(value, list) or not value or not all(type(size) is int and size > 0 for size in value):
        raise StoreError(f"{where}: {key}: expected a list of positive whole numbers, got {value!r}")
    return tuple(value)


def same_rank(where: str, shape: tuple[int, ...], chunk: tuple[int, ...]) -> None:
    """Raise StoreError unless chunks have as many dimensions as the array."""
    if len(shape) != len(chunk):
        raise StoreError(f"{where}: chunks: expected {len(shape)} dimensions as in {shape}, got {chunk}")


def missing(claim: Claim) -> str | None:
    """Return the first file of an array that is not there; None where all are. Raises StoreError for a link."""
    for key, _ in claim.chunks():
        if claim.files.size(f"{claim.name}/{key}") is None:
            return key
    return None


def check_file(claim: Claim, key: str, where: str) -> None:
    """Raise StoreError unless a chunk without a shard is there, whole, and decodes to the size that the array says."""
    name = f"{claim.name}/{key}"
    size = _present(claim, name, where)
    check_chunk(claim, claim.files.read(name, BLOSC_HEADER_BYTES if claim.codec == "blosc" else size), size, where)


def _present(claim: Claim, name: str, where: str) -> int:
    try:
        size = claim.files.size(name)
    except StoreError as error:
        raise StoreError(f"{where}: {str(error).split(': ', 1)[1]}") from error
    if size is None:
        raise StoreError(f"{where}: the chunk is missing; copy the store again, whole")
    return size


def check_chunk(claim: Claim, content: bytes, size: int, where: str) -> None:
    """Raise StoreError unless a chunk decodes to the size that the array says. content: its header, or all of it."""
    if claim.summed:
        size, content = size - CHECKSUM_BYTES, content[: max(0, size - CHECKSUM_BYTES)]
    stored, unpacked = size, size
    if claim.codec is None:
        stored = claim.chunk_bytes
    elif claim.codec == "blosc":
        if len(content) < BLOSC_HEADER_BYTES:
            raise StoreError(f"{where}: the chunk is cut off: {size} bytes; copy the store again")
        unpacked, stored = int.from_bytes(content[4:8], "little"), int.from_bytes(content[12:16], "little")
    else:
        unpacked = _unpacked(claim.codec, content, claim.chunk_bytes, where)
    if stored != size:
        raise StoreError(f"{where}: the chunk is cut off or padded: {size} bytes of {stored}; copy the store again")
    if unpacked != claim.chunk_bytes:
        raise StoreError(f"{where}: the chunk unpacks to {unpacked} bytes, its metadata says {claim.chunk_bytes}")


def _unpacked(codec: str, content: bytes, most: int, where: str) -> int:
    """Return the decoded size of a chunk: as its header says or, where it has none that binds, counted up to `most`."""
    with reading.sentences(f"{where}: the chunk is damaged", StoreError, "copy the store again"):
        if codec == "lz4":
            return int.from_bytes(content[:4], "little")
        if codec == "zstd":
            return zstd_size(content)
    try:
        return packed.inflated(content, 31 if codec == "gzip" else 15, most)
    except packed.zlib.error as error:
        raise StoreError(f"{where}: the chunk is damaged: {error}; copy the store again") from error


def zstd_size(content: bytes) -> int:
    """Return the content size that a Zstandard frame states (RFC 8878, 3.1.1.1)."""
    if content[:4] != b"\x28\xb5\x2f\xfd":
        raise ValueError("it does not begin as a Zstandard frame")
    descriptor = content[4]
    single, width = descriptor >> 5 & 1, (0, 2, 4, 8)[descriptor >> 6]
    width = width or single
    start = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    if not width or len(content) < start + width:
        raise ValueError("its frame does not say its size")
    return int.from_bytes(content[start : start + width], "little") + (256 if width == 2 else 0)


def _check_shard(claim: Claim, content: bytes, first_row: int, where: str) -> None:
    assert claim.shard is not None
    grid = [outer // size for outer, size in zip(claim.shard, claim.chunk, strict=True)]
    count = math.prod(grid)
    length = 16 * count + CHECKSUM_BYTES
    if len(content) < length:
        raise StoreError(f"{where}: the shard is cut off: {len(content)} bytes; copy the store again")
    index = content[:length] if claim.index_first else content[-length:]
    entries = struct.unpack(f"<{2 * count}Q", index[:-CHECKSUM_BYTES])
    inside = math.prod(grid[1:])
    for place in range(count):
        offset, size = entries[2 * place : 2 * place + 2]
        row = first_row + place // inside * claim.chunk[0]
        at = f"{where}: chunk {place} of the shard, from step {row}"
        if offset == ABSENT:
            if row < claim.shape[0]:
                raise StoreError(f"{at}: the chunk is missing; copy the store again, whole")
            continue
        if offset + size > len(content):
            raise StoreError(f"{at}: lies at byte {offset} to {offset + size} of {len(content)}; copy the store again")
        check_chunk(claim, content[offset : offset + size], size, at)


def values(claim: Claim, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Return rows of an array; of each file that holds some, the bytes that are checked are the ones decoded."""
    import zarr
    from zarr.buffer.cpu import Buffer
    from zarr.storage import MemoryStore

    if claim.refusal:
        raise StoreError(claim.refusal)
    short = claim.document.rsplit("/", 1)[1]
    buffers: dict[str, Any] = {short: Buffer.from_bytes(claim.files.read(claim.document))}
    for key, row in claim.chunks(start, stop):
        name = f"{claim.name}/{key}"
        where = f"{claim.files.where(name)}: {claim.name}, from step {row}"
        size = _present(claim, name, where)
        if size > MAX_CHUNK_BYTES + 2**20:
            raise StoreError(f"{where}: has {size} bytes, more than the {MAX_CHUNK_BYTES} that are read")
        content = claim.files.read(name, size)
        if claim.shard:
            _check_shard(claim, content, row, where)
        else:
            check_chunk(claim, content, len(content), where)
        buffers[key] = Buffer.from_bytes(content)
    where = f"{claim.files.where(claim.name)}: {claim.name}"
    try:
        array: Any = zarr.open_array(MemoryStore(buffers), mode="r", zarr_format=claim.zarr_format)  # type: ignore[arg-type]
        return np.asarray(array[start:stop])
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{where}: cannot be decoded: {error}; copy the store again") from error
