"""Replay buffers of Diffusion Policy (Zarr v2), read as untrusted data: metadata first, then content.

Zarr v2 has no checksums, reads a missing chunk as zeros, follows symbolic links, and lets a few bytes request
gigabytes. So nothing is decompressed before the metadata, the presence of every chunk, and every chunk's own header
have been checked.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from vqbet.contract import Spec, StoreError
from vqbet.demos.importers import fetch
from vqbet.demos.sources import zarr_arrays
from vqbet.demos.sources.packed import Folder
from vqbet.demos.sources.replay_buffer import check_ends
from vqbet.demos.sources.zarr_arrays import Claim

ENDS = "meta/episode_ends"
FLOATS = ("<f4", "<f8")
INTEGERS = ("<i4", "<i8")
CODECS = ("blosc", None)
MAX_CHUNK_BYTES = 64 * 2**20
MAX_ARRAY_BYTES = 2**30


def load(source: Path, fields: Mapping[str, tuple[int, ...]], *, max_bytes: int) -> dict[str, np.ndarray]:
    """Return `read` of the buffer that `find` returns for `source`, or for a zip that unpacks to max_bytes at most."""
    if not source.is_file():
        return read(find(source), fields)
    with tempfile.TemporaryDirectory(prefix="replay-buffer-") as folder:
        fetch.unpack(source, Path(folder), max_bytes=max_bytes)
        return read(find(Path(folder)), fields)


def content(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the sha256 of the numbers in `arrays`, independent of file, dtype and chunks.

    Each name, its shape and its values as little-endian float64 are hashed in the order of the names; float64 is exact
    for int64 values below 2**53 and all values of 32 bits.
    """
    total = hashlib.sha256()
    for name in sorted(arrays):
        total.update(f"{name} {arrays[name].shape}\0".encode())
        total.update(np.ascontiguousarray(arrays[name], "<f8").tobytes())
    return total.hexdigest()


def columns(
    spec: Spec, arrays: Mapping[str, np.ndarray], success: Bool[np.ndarray, " E"], *, published: Mapping[str, str]
) -> dict[str, np.ndarray]:
    """Return the columns of the episodes in `arrays`, whose content determines source and session.

    published: names of published data sets by people, by the `content` of their arrays. Any other content is named
    "replay_buffer:" and the first 12 characters of its own `content`, and its operator is "unknown".
    """
    digest = content(arrays)
    foreign = f"replay_buffer:{digest[:12]}"
    source = published.get(digest, foreign)
    return {
        "session": np.full(len(success), "published" if digest in published else foreign),
        "operator": np.full(len(success), "human" if digest in published else "unknown"),
        "source": np.full(len(success), source),
        "seed": np.full(len(success), -1, np.int64),
        "success": success,
        "task": np.full(len(success), spec.task),
    }


def time_s(ends: Int[np.ndarray, " E"], control_hz: float) -> Float[np.ndarray, " N"]:
    """Return the seconds of each step since the start of its episode."""
    lengths = np.diff(ends, prepend=0)
    return (np.arange(lengths.sum()) - np.repeat(ends - lengths, lengths)) / control_hz


def find(source: Path) -> Path:
    """Return the one replay buffer at `source`, in it, or one folder further down. Raises StoreError otherwise."""
    if not source.is_dir():
        raise StoreError(f"{source}: expected a folder with a Zarr v2 replay buffer, or a zip of one; it is no folder")
    if (source / ".zgroup").exists():
        return source
    found = sorted(path.parent for pattern in ("*/.zgroup", "*/*/.zgroup") for path in source.glob(pattern))
    found = [path for path in found if (path / "data").exists() or (path / "meta").exists()]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(str(path.relative_to(source)) for path in found)
        raise StoreError(f"{source}: expected one replay buffer, found {len(found)} ({names}); name the one you mean")
    raise StoreError(f"{source}: holds no Zarr v2 replay buffer: no folder with a .zgroup and data/ and meta/ in it")


def read(root: Path, fields: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Return the arrays data/<field> (N, *trailing), by the trailing shapes in `fields`, and "episode_ends" (E,) int64.

    Raises StoreError naming file, field and steps: missing or linked files, another layout, another number of steps,
    a dtype, codec or size that is not allowed, a chunk that is missing, truncated or larger than expected, ends that do
    not cut the steps into episodes.
    """
    try:
        return _read(root, {f"data/{field}": trailing for field, trailing in fields.items()})
    except OSError as error:
        raise StoreError(f"{error.filename or root}: cannot be read: {error.strerror or error}") from error


def _read(root: Path, arrays: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    claims = {ENDS: _claim(root, ENDS, (), INTEGERS)}
    claims |= {name: _claim(root, name, trailing, FLOATS) for name, trailing in arrays.items()}
    steps = {name: claim.shape[0] for name, claim in claims.items() if name != ENDS}
    if len(set(steps.values())) != 1:
        told = ", ".join(f"{name} has {count}" for name, count in steps.items())
        raise StoreError(f"{root}: expected as many steps in every array, but {told}")
    for claim in claims.values():
        _check_chunks(claim)
    ends = _values(claims[ENDS]).astype(np.int64)
    _check_ends(root, ends, next(iter(steps.values())))
    return {"episode_ends": ends} | {name.removeprefix("data/"): _values(claims[name]) for name in arrays}


def _claim(root: Path, name: str, trailing: tuple[int, ...], dtypes: tuple[str, ...]) -> Claim:
    """Return the metadata of an array of these dtypes, in chunks of whole rows, compressed with Blosc or not."""
    files = Folder(root)
    if files.size(f"{name}/.zarray") is None:
        found = _listing((root / name).parent)
        raise StoreError(f"{root / name / '.zarray'}: missing; expected a Zarr v2 array {name} (found: {found})")
    told = zarr_arrays.document(files, f"{name}/.zarray")
    where = f"{root / name / '.zarray'}: {name}"
    for key, allowed in (("zarr_format", (2,)), ("dtype", dtypes), ("order", ("C",)), ("filters", (None, []))):
        zarr_arrays.expect(where, key, told.get(key), allowed)
    zarr_arrays.expect(where, "dimension_separator", told.get("dimension_separator", "."), (".",))
    compressor = told.get("compressor")
    codec = compressor.get("id") if isinstance(compressor, dict) else compressor
    zarr_arrays.expect(where, "compressor", codec, CODECS)
    shape = zarr_arrays.sizes(where, "shape", told.get("shape"))
    chunks = zarr_arrays.sizes(where, "chunks", told.get("chunks"))
    if shape[1:] != trailing or len(shape) != 1 + len(trailing):
        wanted = ", ".join(["any number", *map(str, trailing)])
        raise StoreError(f"{where}: shape: expected ({wanted}), got {shape}")
    if chunks[1:] != trailing or len(chunks) != len(shape):
        raise StoreError(f"{where}: chunks: expected whole rows of {trailing}, got {chunks}")
    return zarr_arrays.claim(files, name, 2, most_bytes=MAX_ARRAY_BYTES, most_chunk_bytes=MAX_CHUNK_BYTES)


def _check_chunks(claim: Claim) -> None:
    """Raise StoreError unless every chunk is a file of its own whose header agrees with the metadata."""
    for key, row in claim.chunks():
        step = f", from step {row}" if claim.name != ENDS else ""
        zarr_arrays.check_file(claim, key, f"{claim.files.where(f'{claim.name}/{key}')}: {claim.name}{step}")


def _values(claim: Claim) -> np.ndarray:
    return zarr_arrays.values(claim)


def _check_ends(root: Path, ends: np.ndarray, steps: int) -> None:
    check_ends(str(root), ends)
    if ends[-1] != steps:
        raise StoreError(f"{root}: {ENDS}: the last episode ends at step {ends[-1]}, but there are {steps} steps")


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "nothing"
