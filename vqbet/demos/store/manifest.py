"""manifest.json of a demonstration store: the size and sha256 of every file, and its own checksum.

`load` compares the manifest with the folder without opening any other file. `fetch` opens one file, and returns its
bytes only if they match the manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqbet.contract import StoreError
from vqbet.demos.store.schema import CAMERAS, MAX_FILES, MAX_MANIFEST_BYTES, VARIABLE, most_bytes
from vqbet.files import canonical, manifest, reading
from vqbet.files.manifest import Files, Fingerprint

NAME = "manifest.json"
FORMAT = "vqbet demonstrations"
REPAIR = "fetch the store again (dvc checkout, dvc pull) or ingest the demonstrations again"


@dataclass(frozen=True, slots=True)
class Manifest:
    """Files of a store by their path in it ("data/action/c/0/0")."""

    files: Files

    def encode(self) -> bytes:
        """Return the canonical bytes of the manifest: the same files always give the same bytes."""
        files = manifest.to_json(self.files)
        checksum = hashlib.sha256(canonical.document(files, indent=1).encode()).hexdigest()
        return canonical.document({"files": files, "format": FORMAT, "sha256": checksum}, indent=1).encode()

    @property
    def digest(self) -> str:
        """Return the sha256 of manifest.json, which identifies all bytes of the store."""
        return hashlib.sha256(self.encode()).hexdigest()


def pictures(name: str) -> bool:
    """Return whether a file, by its path in the store, holds pictures."""
    return name.startswith(f"{CAMERAS}/") and not name.endswith("zarr.json")


def load(folder: Path, *, pictured: bool = True) -> Manifest:
    """Return the manifest of a folder that holds exactly its files. Reads manifest.json and file sizes, nothing else.

    pictured: whether the files of pictures are there too, or elsewhere. Raises StoreError, naming the file, for any
    other folder, and for links, huge stores and stores of Zarr v2.
    """
    refuse_strangers(folder)
    found = manifest.sizes(folder, StoreError, REPAIR, most=MAX_FILES)
    listing = read(folder)
    here = {path: entry for path, entry in listing.files.items() if pictured or not pictures(path)}
    for path in here.keys() - found.keys():
        raise StoreError(f"{folder / path}: missing, though {NAME} lists it; {REPAIR}")
    for path in found.keys() - here.keys() - {NAME}:
        raise StoreError(f"{folder / path}: a file that {NAME} does not list; remove it, or {REPAIR}")
    for path, entry in here.items():
        if found[path] != entry.size:
            raise StoreError(f"{folder / path}: expected {entry.size} bytes, got {found[path]}; {REPAIR}")
    total, most = sum(size for name, size in found.items() if not name.startswith(f"{CAMERAS}/")), most_bytes()
    if total > most:
        raise StoreError(
            f"{folder}: {total} bytes without pictures are more than the {most} that are read into memory; where there "
            f"is room for more, set {VARIABLE}"
        )
    return listing


def read(folder: Path) -> Manifest:
    """Return the manifest alone, checked against its own checksum. Raises StoreError."""
    path = folder / NAME
    content = reading.content(path, StoreError, most=MAX_MANIFEST_BYTES, mend=REPAIR)
    try:
        listing = Manifest(manifest.from_json(document(content, path).get("files")))
    except ValueError as error:
        raise StoreError(f"{path}: not a manifest of demonstrations: {error}; {REPAIR}") from error
    if content != listing.encode():
        raise StoreError(f"{path}: damaged: it does not match its own checksum; {REPAIR}")
    return listing


def fetch(folder: Path, listing: Manifest, name: str) -> bytes:
    """Return the bytes of one file. Raises StoreError where they do not match the manifest."""
    entry = listing.files[name]
    content = reading.content(folder / name, StoreError, most=entry.size, mend=REPAIR)
    if Fingerprint.of(content) != entry:
        raise StoreError(f"{folder / name}: damaged: its sha256 is not the one in {NAME}; {REPAIR}")
    return content


def document(content: bytes, path: Path) -> dict[str, Any]:
    """Return a JSON object. Raises StoreError, naming `path`, where the bytes are anything else."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: not a JSON document; {REPAIR}") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path}: expected a JSON object, got {type(value).__name__}; {REPAIR}")
    return value


def refuse_strangers(folder: Path) -> None:
    """Raise StoreError, saying what to do, unless `folder` is a folder with a manifest."""
    try:
        mode = folder.lstat().st_mode
        names = os.listdir(folder) if stat.S_ISDIR(mode) else []
    except (FileNotFoundError, NotADirectoryError) as error:
        sentence = "no demonstrations here; make them or ingest them first (vqbet --help)"
        raise StoreError(f"{folder}: {sentence}") from error
    except OSError as error:
        raise StoreError(f"{folder}: cannot be read: {error.strerror}") from error
    if stat.S_ISLNK(mode):
        raise StoreError(f"{folder}: a symbolic link; a store must be a folder of its own (dvc config cache.type copy)")
    if not stat.S_ISDIR(mode):
        raise StoreError(f"{folder}: expected a folder, got a file; `vqbet ingest` reads foreign formats")
    if NAME in names:
        return
    if {".zgroup", ".zarray", ".zmetadata"} & set(names):
        raise StoreError(f"{folder}: a Zarr v2 store; import it with `vqbet ingest`")
    raise StoreError(f"{folder}: no {NAME}, so not a store of ours; import it with `vqbet ingest`")
