"""Inspection of a demonstration store: its small JSON documents are checked before any array is read.

A few kilobytes of metadata can request terabytes of memory, name a codec that runs code, or leave out chunks that then
read as fill values. So each document must be the one that `describe` returns, and each file must have the size that
follows from it. Chunks of numbers are not compressed, so nothing grows during decoding. Pictures are compressed; the
decoded size of their chunks follows from the layout, see `shards`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vqbet.contract import Spec, StoreError
from vqbet.demos.store import manifest, schema
from vqbet.demos.store.manifest import Manifest
from vqbet.demos.store.schema import Layout
from vqbet.demos.store.shards import CHECKSUM_BYTES, INDEX_BYTES, Shards

TEXT_COUNT_BYTES = 4  # number of texts at the start of a chunk of texts, uint32

LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
CHECKSUM = {"name": "crc32c"}
SERIALIZERS: Mapping[str, dict[str, Any]] = {
    "bool": {"name": "bytes"},
    "int64": LITTLE,
    "float32": LITTLE,
    "float64": LITTLE,
    "string": {"name": "vlen-utf8", "configuration": {}},
}


@dataclass(frozen=True, slots=True)
class Contents:
    """Spec of a store, the layout of each of its arrays, and of the pictures of each camera by its name."""

    spec: Spec
    layouts: Mapping[str, Layout]
    cameras: Mapping[str, Shards]


def inspect(folder: Path, listing: Manifest) -> Contents:
    """Return the contents of a store with the files of `listing`. Opens zarr.json documents only. Raises StoreError."""
    documents = {name: _document(folder, listing, name) for name in _nodes(folder, listing)}
    pictured = schema.CAMERAS in documents
    for name in schema.groups(pictured):
        _refuse_differences(documents[name], {"zarr_format": 3, "node_type": "group"}, folder / name / "zarr.json")
    found = _root(documents[""], schema.version(schema.INTERVENTION in documents, pictured), folder / "zarr.json")
    layouts = {
        name: _layout(documents[name], name, folder / name / "zarr.json") for name in schema.ARRAYS if name in documents
    }
    _refuse_shapes({name: layout.shape for name, layout in layouts.items()}, found, folder)
    total, most = sum(math.prod(layout.shape) * layout.item_bytes for layout in layouts.values()), schema.most_bytes()
    if total > most:
        raise StoreError(f"{folder}: arrays of {total} bytes are more than the {most} that are read into memory")
    cameras = {
        name.removeprefix(f"{schema.CAMERAS}/"): _shards(documents[name], folder / name / "zarr.json")
        for name in documents
        if _is_camera(name)
    }
    shapes, steps = {name: layout.shape for name, layout in cameras.items()}, layouts["data/observation"].shape[0]
    schema.refuse_cameras(found, shapes, steps, str(folder))
    _refuse_files(layouts, cameras, folder, listing)
    return Contents(found, layouts, cameras)


def describe(layout: Layout) -> dict[str, Any]:
    """Return the zarr.json of an array in this layout (Zarr v3 core specification), without attributes."""
    codecs = [SERIALIZERS[layout.dtype], CHECKSUM]
    if layout.sharded:
        sharding = {
            "chunk_shape": list(layout.chunk_shape),
            "codecs": codecs,
            "index_codecs": [LITTLE, CHECKSUM],
            "index_location": "end",
        }
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "data_type": layout.dtype,
        "shape": list(layout.shape),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(layout.shard_shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": codecs,
        "fill_value": schema.FILL[layout.dtype],
        "storage_transformers": [],
    }


def refuse_gaps(content: bytes, layout: Layout, chunks: int, path: Path) -> None:
    """Raise StoreError where a file does not hold every element, since missing ones would read as the fill value.

    A shard ends with an index of offsets and lengths (Zarr's sharding codec); its `chunks` must fill all bytes before
    the index. A file of texts starts with their number, which determines how much a decoder allocates.
    """
    if layout.dtype == "string":
        count = int.from_bytes(content[:TEXT_COUNT_BYTES], "little")
        if count != layout.shape[0]:
            raise StoreError(f"{path}: expected {layout.shape[0]} texts, got {count}; {manifest.REPAIR}")
    if not layout.sharded:
        return
    length = layout.chunk_bytes + CHECKSUM_BYTES
    index = np.frombuffer(content[chunks * length : -CHECKSUM_BYTES], "<u8").reshape(-1, 2)[:chunks]
    wanted = np.array([(chunk * length, length) for chunk in range(chunks)], np.uint64)
    if not np.array_equal(index[np.argsort(index[:, 0])], wanted):
        raise StoreError(f"{path}: the index of the shard leaves out a chunk; {manifest.REPAIR}")


def _nodes(folder: Path, listing: Manifest) -> list[str]:
    """Return the groups and arrays that have a zarr.json. Raises StoreError where one is unknown or missing."""
    found = [path.removesuffix("zarr.json").rstrip("/") for path in listing.files if path.endswith("zarr.json")]
    for name in (*schema.GROUPS, *schema.ARRAYS):
        if name not in found and name not in schema.OPTIONAL:
            raise StoreError(f"{folder / name / 'zarr.json'}: missing; {manifest.REPAIR}")
    groups = schema.groups(schema.CAMERAS in found)
    for name in found:
        if name not in groups and name not in schema.ARRAYS and not (schema.CAMERAS in groups and _is_camera(name)):
            raise StoreError(f"{folder / name}: a node that schema version {schema.SCHEMA_VERSION} does not have")
    return found


def _is_camera(name: str) -> bool:
    folder, _, camera = name.rpartition("/")
    return folder == schema.CAMERAS and schema.CAMERA_NAME.fullmatch(camera) is not None


def _document(folder: Path, listing: Manifest, name: str) -> dict[str, Any]:
    path = f"{name}/zarr.json".lstrip("/")
    if listing.files[path].size > schema.MAX_DOCUMENT_BYTES:
        raise StoreError(f"{folder / path}: more than {schema.MAX_DOCUMENT_BYTES} bytes of metadata")
    return manifest.document(manifest.fetch(folder, listing, path), folder / path)


def _root(document: Mapping[str, Any], version: int, path: Path) -> Spec:
    attributes = document.get("attributes")
    if not isinstance(attributes, dict) or "spec" not in attributes:
        raise StoreError(f"{path}: no spec in the attributes; ingest the demonstrations again")
    if attributes.get("schema_version") != version:
        found = attributes.get("schema_version")
        if type(found) is int and found > schema.SCHEMA_VERSION:
            raise StoreError(
                f"{path}: schema_version: {found} is of a newer vqbet, this one reads up to {schema.SCHEMA_VERSION}; "
                "update vqbet"
            )
        raise StoreError(f"{path}: schema_version: expected {version}, got {found!r}; ingest again")
    return schema.spec(attributes["spec"], str(path))


def _layout(document: Mapping[str, Any], name: str, path: Path) -> Layout:
    """Return the layout in an array's document, which may choose only shape and chunk length. Raises StoreError."""
    axes, sharded = (2 if name in schema.MATRICES else 1), name in schema.STEP_ARRAYS
    shape = _extent(document.get("shape"), axes, f"{path}: shape")
    shard = _extent(_inside(document.get("chunk_grid")), axes, f"{path}: chunk_grid")
    codecs = document.get("codecs")
    first = codecs[0] if isinstance(codecs, list) and codecs else None
    chunk = _extent(_inside(first), axes, f"{path}: codecs: sharding_indexed") if sharded else shard
    layout = Layout(schema.ARRAYS[name], shape, chunk[0], shard[0], sharded=sharded)
    _refuse_differences(document, describe(layout), path)
    if shard[0] % chunk[0] or (not sharded and shard != shape):
        raise StoreError(f"{path}: chunks of {chunk[0]} rows do not fill shards of {shard[0]} rows, shape {shape}")
    if math.prod(shard) * layout.item_bytes > schema.MAX_SHARD_BYTES:
        raise StoreError(f"{path}: chunk_grid: {shard} passes the limit of {schema.MAX_SHARD_BYTES} bytes per file")
    return layout


def _shards(document: Mapping[str, Any], path: Path) -> Shards:
    """Return the layout in the document of a camera, which may choose shape and lengths of chunks and shards alone."""
    shape = _extent(document.get("shape"), 4, f"{path}: shape")
    shard = _extent(_inside(document.get("chunk_grid")), 4, f"{path}: chunk_grid")
    codecs = document.get("codecs")
    first = codecs[0] if isinstance(codecs, list) and codecs else None
    chunk = _extent(_inside(first), 4, f"{path}: codecs: sharding_indexed")
    layout = Shards(shape, chunk[0], shard[0])
    _refuse_differences(document, layout.describe(), path)
    if shard[0] % chunk[0]:
        raise StoreError(f"{path}: chunks of {chunk[0]} pictures do not fill shards of {shard[0]}")
    if math.prod(shard) > schema.MAX_SHARD_BYTES:
        raise StoreError(f"{path}: chunk_grid: {shard} passes the limit of {schema.MAX_SHARD_BYTES} bytes per file")
    return layout


def _extent(value: Any, axes: int, where: str) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) != axes or any(type(size) is not int or size < 1 for size in value):
        raise StoreError(f"{where}: expected {axes} positive whole numbers, got {value!r}")
    return tuple(value)


def _inside(value: Any) -> Any:
    """Return the chunk shape in a chunk grid or a sharding codec; None where there is none."""
    configuration = value.get("configuration") if isinstance(value, dict) else None
    return configuration.get("chunk_shape") if isinstance(configuration, dict) else None


def _refuse_differences(document: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    for key, value in wanted.items():
        if document.get(key) != value:
            raise StoreError(f"{path}: {key}: expected {value!r}, got {document.get(key)!r}")
    for key in document.keys() - wanted.keys() - {"attributes"}:
        if document[key] is not None:
            raise StoreError(f"{path}: {key}: not part of a demonstration store, got {document[key]!r}")


def _refuse_shapes(shapes: Mapping[str, tuple[int, ...]], found: Spec, folder: Path) -> None:
    steps, episodes = shapes["data/observation"][0], shapes[schema.ENDS][0]
    if episodes > schema.MAX_EPISODES:
        raise StoreError(f"{folder / schema.ENDS}: {episodes} episodes, more than {schema.MAX_EPISODES}")
    for name, shape in shapes.items():
        rows = steps if name in schema.STEP_ARRAYS else episodes
        if shape[0] != rows:
            reference = "data/observation" if name in schema.STEP_ARRAYS else schema.ENDS
            raise StoreError(f"{folder / name}: expected {rows} rows as {reference} has, got {shape[0]}")
    for name, channels in (("data/observation", found.observation), ("data/action", found.action)):
        if shapes[name][1] != len(channels):
            raise StoreError(f"{folder / name}: expected {len(channels)} channels as in spec, got {shapes[name][1]}")


def _refuse_files(
    layouts: Mapping[str, Layout], cameras: Mapping[str, Shards], folder: Path, listing: Manifest
) -> None:
    """Raise StoreError unless every shard exists at its exact or a possible size, and all other files are documents."""
    strangers = {path for path in listing.files if not path.endswith("zarr.json")}
    for name, layout in layouts.items():
        for key, chunks in layout.files():
            path = f"{name}/{key}"
            if path not in strangers:
                raise StoreError(f"{folder / path}: missing; its steps or episodes would read as fill values")
            strangers.remove(path)
            size, wanted = listing.files[path].size, _bytes(layout, chunks)
            if size < wanted if layout.dtype == "string" else size != wanted:
                raise StoreError(f"{folder / path}: expected {wanted} bytes, got {size}; {manifest.REPAIR}")
    for name, pictures in cameras.items():
        _refuse_shards(pictures, f"{schema.CAMERAS}/{name}", strangers, folder, listing)
    if strangers:
        raise StoreError(f"{folder / min(strangers)}: belongs to no array; remove it, or {manifest.REPAIR}")


def _refuse_shards(layout: Shards, name: str, strangers: set[str], folder: Path, listing: Manifest) -> None:
    """Remove a camera's shards from `strangers`. Raises StoreError where one is missing or of an impossible size."""
    if len(layout) > len(strangers):
        raise StoreError(f"{folder / name}: expected {len(layout)} files of pictures, got fewer; {manifest.REPAIR}")
    for shard in range(len(layout)):
        path = f"{name}/{layout.key(shard)}"
        if path not in strangers:
            raise StoreError(f"{folder / path}: missing; its steps would read as black pictures")
        strangers.remove(path)
        size, most = listing.files[path].size, layout.most_bytes(shard)
        if not layout.index_bytes < size <= most:
            raise StoreError(
                f"{folder / path}: expected {layout.index_bytes + 1} to {most} bytes, got {size}; {manifest.REPAIR}"
            )


def _bytes(layout: Layout, chunks: int) -> int:
    """Return the size of a file with `chunks` chunks; for texts the least possible size, one length each."""
    if layout.dtype == "string":
        return TEXT_COUNT_BYTES + layout.chunk_bytes + CHECKSUM_BYTES
    size = chunks * (layout.chunk_bytes + CHECKSUM_BYTES)
    index = layout.shard_rows // layout.chunk_rows * INDEX_BYTES + CHECKSUM_BYTES
    return size + index if layout.sharded else size
