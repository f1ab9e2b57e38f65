"""Demonstration store: a Zarr v3 group per task, written as a whole, verified as a whole. See docs/schema.md.

Zarr encodes and decodes in memory. Files are written and read here, so that each has a known sha256 and a known
moment at which it is on the disk.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vqbet.contract import COLUMNS, Demonstrations, StoreError
from vqbet.demos.store import inspection, manifest, schema
from vqbet.demos.store.manifest import Manifest
from vqbet.demos.store.schema import Layout
from vqbet.files import atomic
from vqbet.files.manifest import Fingerprint


def write(path: Path, demos: Demonstrations) -> str:
    """Write `demos` to `path`, replacing any store there, and return its digest.

    Equal demonstrations give equal bytes. The old store remains until the last moment, even if the process is killed or
    the disk is full. Raises StoreError where `demos` is malformed or the store cannot be written.
    """
    schema.refuse_spec(demos.spec, str(path))
    schema.refuse_malformed(demos, str(path))
    if os.path.islink(path) or (os.path.exists(path) and not os.path.isfile(path / manifest.NAME)):
        raise StoreError(f"{path}: is not a store of ours and will not be replaced; move it away first")
    with atomic.replacing(path, StoreError) as staging:
        listing = _write_files(staging, demos)
    return listing.digest


def read(path: Path) -> Demonstrations:
    """Return the demonstrations at `path` after verifying every byte; `digest` is the digest of the manifest.

    Raises StoreError, naming the file, where the store is missing, damaged, foreign, malicious or too large. The values
    themselves are checked by validation.
    """
    folder = atomic.settled(path)
    listing = manifest.load(folder)
    contents = inspection.inspect(folder, listing)
    arrays = {name: _decode(folder, listing, name, layout) for name, layout in contents.layouts.items()}
    demos = Demonstrations(
        spec=contents.spec,
        observation=arrays["data/observation"],
        action=arrays["data/action"],
        time_s=arrays["data/time_s"],
        episode_ends=arrays[schema.ENDS],
        columns={name: arrays[f"meta/{name}"] for name in COLUMNS},
        state=arrays.get("data/state"),
        intervention=arrays.get(schema.INTERVENTION),
    )
    schema.refuse_malformed(demos, str(folder))
    return replace(demos, digest=listing.digest)


def digest(path: Path) -> str:
    """Return the digest of the store at `path`, from its manifest alone. Raises StoreError."""
    folder = atomic.settled(path)
    manifest.refuse_strangers(folder)
    return manifest.read(folder).digest


def recorded(path: Path) -> bool:
    """Return whether a store holds episodes recorded on a robot, from its manifest alone. Raises StoreError."""
    return f"{schema.INTERVENTION}/zarr.json" in manifest.read(atomic.settled(path)).files


def _write_files(staging: Path, demos: Demonstrations) -> Manifest:
    """Write arrays over steps, then columns, then `episode_ends`, and the manifest once the rest is on the disk."""
    entries: dict[str, Fingerprint] = {}
    for name, array in schema.arrays(demos).items():
        for key, content in sorted(_encode(name, array).items()):  # its zarr.json after its shards
            atomic.create(staging / key, content)
            entries[key] = Fingerprint.of(content)
    for name in reversed(schema.GROUPS):
        key = f"{name}/zarr.json".lstrip("/")
        content = _encode_group(schema.attributes(demos) if not name else {})
        atomic.create(staging / key, content)
        entries[key] = Fingerprint.of(content)
    listing = Manifest(entries)
    atomic.create(staging / manifest.NAME, listing.encode())
    return listing


def _encode(name: str, array: np.ndarray) -> dict[str, bytes]:
    """Return the files of one array, by their path in the store."""
    import zarr
    from zarr.codecs import Crc32cCodec
    from zarr.storage import MemoryStore

    layout = Layout.of(name, array.shape)
    buffers: dict[str, Any] = {}
    encoded = zarr.create_array(
        MemoryStore(buffers),
        name=name,
        shape=layout.shape,
        dtype=np.dtypes.StringDType() if layout.dtype == "string" else layout.dtype,
        chunks=layout.chunk_shape,
        shards=layout.shard_shape if layout.sharded else None,
        filters=None,
        compressors=[Crc32cCodec()],
        fill_value=schema.FILL[layout.dtype],
        config={"write_empty_chunks": True},  # a chunk of fill values is data, a missing chunk is damage
    )
    encoded[...] = array
    return {key: buffer.to_bytes() for key, buffer in buffers.items() if key.startswith(f"{name}/")}


def _encode_group(attributes: dict[str, Any]) -> bytes:
    import zarr
    from zarr.storage import MemoryStore

    buffers: dict[str, Any] = {}
    zarr.create_group(MemoryStore(buffers), attributes=attributes)
    content: bytes = buffers["zarr.json"].to_bytes()
    return content


def _decode(folder: Path, listing: Manifest, name: str, layout: Layout) -> np.ndarray:
    """Return one array. Files are read once, so that the verified bytes are the decoded ones."""
    import zarr
    from zarr.buffer.cpu import Buffer
    from zarr.storage import MemoryStore

    document = f"{name}/zarr.json"
    buffers: dict[str, Any] = {document: Buffer.from_bytes(manifest.fetch(folder, listing, document))}
    for key, chunks in layout.files():
        file = f"{name}/{key}"
        content = manifest.fetch(folder, listing, file)
        inspection.refuse_gaps(content, layout, chunks, folder / file)
        buffers[file] = Buffer.from_bytes(content)
    try:
        array = np.asarray(zarr.open_array(MemoryStore(buffers), path=name, mode="r")[...])
    except (ValueError, RuntimeError, TypeError) as error:  # a checksum, a codec, a length
        raise StoreError(f"{folder / name}: cannot be decoded: {error}; {manifest.REPAIR}") from error
    return np.array(array.tolist(), dtype=np.str_) if layout.dtype == "string" else array
