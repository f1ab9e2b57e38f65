"""Demonstration store: a Zarr v3 group per task, written as a whole. See docs/schema.md.

Numbers are verified and read as a whole: Zarr encodes and decodes them in memory, files are written and read here, so
that each has a known sha256 and a known moment at which it is on the disk. Pictures are written shard by shard and read
where they are asked for, by `frames`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vqbet.contract import COLUMNS, Camera, Demonstrations, Frames, StoreError
from vqbet.demos.store import inspection, manifest, schema, shards
from vqbet.demos.store.frames import CACHE_BYTES, StoredFrames
from vqbet.demos.store.inspection import Contents
from vqbet.demos.store.manifest import Manifest
from vqbet.demos.store.schema import Layout
from vqbet.demos.store.shards import Shards
from vqbet.demos.store.staging import Identified, Staging, poured
from vqbet.files import atomic, canonical
from vqbet.files.manifest import Fingerprint

Fetch = Callable[[str], Path]  # path in the store -> path of the file


def write(
    path: Path,
    demos: Demonstrations,
    *,
    accept: Callable[[Demonstrations], None] | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    staging: Staging | None = None,
    alone: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> str:
    """Write `demos` to `path`, replacing any store there, and return its digest.

    Equal demonstrations give equal bytes. The old store remains until the last moment, even if the process is killed or
    the disk is full; its pictures may be among those that are written. Pictures are read and written chunk by chunk.
    accept: called with what was written, before it replaces the old store; an error that it raises leaves that alone.
    progress(done, total) counts pictures. staging: files of pictures outlive the process there, if `demos` says where
    its pictures come from. alone: held while the old store is replaced, and may refuse it. Raises StoreError where
    `demos` is malformed or the store cannot be written.
    """
    schema.refuse_spec(demos.spec, str(path))
    schema.refuse_malformed(demos, str(path))
    if os.path.islink(path) or (os.path.exists(path) and not os.path.isfile(path / manifest.NAME)):
        raise StoreError(f"{path}: is not a store of ours and will not be replaced; move it away first")
    with ExitStack() as held, atomic.replacing(path, StoreError) as folder:
        listing = _write_files(folder, demos, progress, staging)
        if accept is not None:
            accept(read(folder))
        held.enter_context(alone())
    if staging is not None:
        staging.settle()
    return listing.digest


def read(path: Path, *, cache_bytes: int = CACHE_BYTES, fetch: Fetch | None = None) -> Demonstrations:
    """Return the demonstrations at `path`; `digest` is the digest of the manifest.

    Every byte of the numbers is verified now, and pictures where they are read (see `frames`); `verify` verifies them
    all. cache_bytes: most bytes of decoded pictures that are kept, all cameras together. fetch: returns where a file of
    pictures is, by its path in the store, if the folder at `path` holds all but these; called when one is first needed.

    Raises StoreError, naming the file, where the store is missing, damaged, foreign, malicious or too large. The values
    themselves are checked by validation.
    """
    folder = atomic.settled(path)
    listing = manifest.load(folder, pictured=fetch is None)
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
        cameras=_cameras(folder, listing, contents, cache_bytes, fetch),
    )
    schema.refuse_malformed(demos, str(folder))
    return replace(demos, digest=listing.digest)


def verify(path: Path) -> Demonstrations:
    """Return `read` after comparing every byte, of pictures as well, with the manifest.

    Raises StoreError like `read`, naming the first file that differs.
    """
    demos = read(path)
    for frames in demos.cameras.values():
        if isinstance(frames, StoredFrames):
            frames.verify()
    return demos


def digest(path: Path) -> str:
    """Return the digest of the store at `path`, from its manifest alone. Raises StoreError."""
    folder = atomic.settled(path)
    manifest.refuse_strangers(folder)
    return manifest.read(folder).digest


def recorded(path: Path) -> bool:
    """Return whether a store holds episodes recorded on a robot, from its manifest alone. Raises StoreError."""
    return f"{schema.INTERVENTION}/zarr.json" in manifest.read(atomic.settled(path)).files


def _write_files(
    folder: Path, demos: Demonstrations, progress: Callable[[int, int], None], staging: Staging | None
) -> Manifest:
    """Write pictures, arrays over steps, columns, `episode_ends`, and the manifest once the rest is on the disk."""
    entries: dict[str, Fingerprint] = {}
    steps = len(demos.action)
    for number, camera in enumerate(demos.spec.cameras):
        before, total = number * steps, len(demos.spec.cameras) * steps
        for key, entry, done in _pictures_written(folder, camera, demos.cameras[camera.name], staging):
            entries[key] = entry
            progress(before + done, total)
    for name, array in schema.arrays(demos).items():
        for key, content in sorted(_encode(name, array).items()):  # its zarr.json after its shards
            atomic.create(folder / key, content)
            entries[key] = Fingerprint.of(content)
    for name in reversed(schema.groups(bool(demos.spec.cameras))):
        key = f"{name}/zarr.json".lstrip("/")
        content = _encode_group(schema.attributes(demos) if not name else {})
        atomic.create(folder / key, content)
        entries[key] = Fingerprint.of(content)
    listing = Manifest(entries)
    atomic.create(folder / manifest.NAME, listing.encode())
    return listing


def _pictures_written(
    folder: Path, camera: Camera, frames: Frames, staging: Staging | None
) -> Iterator[tuple[str, Fingerprint, int]]:
    """Write the files of one camera; yield of each its path in the store, its fingerprint, and the pictures so far."""
    layout, name = Shards.of(camera, frames.shape[0]), f"{schema.CAMERAS}/{camera.name}"
    for shard in range(len(layout)):
        key = f"{name}/{layout.key(shard)}"
        last = min((shard + 1) * layout.shard_rows, frames.shape[0])
        parts = shards.encoded(frames, layout, shard, f"camera {camera.name!r}")
        if staging is not None and isinstance(frames, Identified):
            chosen = [layout.shape[1:], layout.chunk_rows, layout.shard_rows]
            pictures = frames.identity(shard * layout.shard_rows, last)
            entry = staging.place(folder / key, canonical.digest([chosen, pictures]), parts)
        else:
            entry = poured(folder / key, parts)
        yield key, entry, last
    document = canonical.document(layout.describe()).encode()
    atomic.create(folder / f"{name}/zarr.json", document)
    yield f"{name}/zarr.json", Fingerprint.of(document), frames.shape[0]


def _cameras(
    folder: Path, listing: Manifest, contents: Contents, cache_bytes: int, fetch: Fetch | None
) -> dict[str, StoredFrames]:
    found = {}
    for name, layout in contents.cameras.items():
        node = f"{schema.CAMERAS}/{name}"
        files = {key: listing.files[f"{node}/{key}"] for key in map(layout.key, range(len(layout)))}
        place = partial(_fetched, fetch, node) if fetch is not None else partial(_beside, folder / node)
        found[name] = StoredFrames(place, layout, files, cache_bytes // len(contents.cameras))
    return found


def _beside(folder: Path, key: str) -> Path:
    return folder / key


def _fetched(fetch: Fetch, node: str, key: str) -> Path:
    return fetch(f"{node}/{key}")


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
