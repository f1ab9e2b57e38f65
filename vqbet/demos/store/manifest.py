"""manifest.json of a demonstration store: the size and sha256 of every file, and its own checksum.

`load` compares it with the folder without opening any other file; `fetch` opens one, and gives its bytes only where
they are the bytes the manifest lists.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqbet.contract import StoreError
from vqbet.demos.store.schema import MAX_DOCUMENT_BYTES, MAX_FILES, MAX_STORE_BYTES
from vqbet.files.fingerprint import Fingerprint

NAME = "manifest.json"
FORMAT = "vqbet demonstrations"
REPAIR = "fetch the store again (dvc checkout, dvc pull) or ingest the demonstrations again"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a store by their path in it ("data/action/c/0/0")."""

    files: Mapping[str, Fingerprint]

    def encode(self) -> bytes:
        """The one way to write this manifest: the same files always give the same bytes."""
        files = {path: entry.to_json() for path, entry in self.files.items()}
        checksum = hashlib.sha256(_canonical(files)).hexdigest()
        return _canonical({"files": files, "format": FORMAT, "sha256": checksum})

    @property
    def digest(self) -> str:
        """The sha256 of manifest.json: one name for all bytes of the store."""
        return hashlib.sha256(self.encode()).hexdigest()


def load(folder: Path) -> Manifest:
    """The manifest of a folder that holds exactly its files. Reads manifest.json and file sizes, nothing else.

    Raises StoreError, naming the file, where it does not; also for links, huge stores and stores of Zarr v2.
    """
    refuse_strangers(folder)
    try:
        found = dict(_walk(folder))
    except OSError as error:
        raise StoreError(f"{error.filename}: cannot be read: {error.strerror}; {REPAIR}") from error
    manifest = read(folder)
    for path in manifest.files.keys() - found.keys():
        raise StoreError(f"{folder / path}: missing, though {NAME} lists it; {REPAIR}")
    for path in found.keys() - manifest.files.keys() - {NAME}:
        raise StoreError(f"{folder / path}: a file that {NAME} does not list; remove it, or {REPAIR}")
    for path, entry in manifest.files.items():
        if found[path] != entry.size:
            raise StoreError(f"{folder / path}: expected {entry.size} bytes, got {found[path]}; {REPAIR}")
    total = sum(found.values())
    if total > MAX_STORE_BYTES:
        raise StoreError(f"{folder}: {total} bytes are more than the {MAX_STORE_BYTES} that are read into memory")
    return manifest


def read(folder: Path) -> Manifest:
    """The manifest alone, checked against its own checksum. Raises StoreError."""
    path = folder / NAME
    content = _open(path, MAX_DOCUMENT_BYTES)
    value = document(content, path)
    try:
        files = {name: Fingerprint(entry["bytes"], entry["sha256"]) for name, entry in value["files"].items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: not a manifest of demonstrations; {REPAIR}") from error
    for name, entry in files.items():
        if type(entry.size) is not int or not isinstance(entry.sha256, str):
            raise StoreError(f"{path}: {name!r}: expected a size and a sha256, got {entry}; {REPAIR}")
    manifest = Manifest(files)
    if content != manifest.encode():
        raise StoreError(f"{path}: damaged: it does not match its own checksum; {REPAIR}")
    return manifest


def fetch(folder: Path, manifest: Manifest, name: str) -> bytes:
    """The bytes of one file. Raises StoreError where they are not the ones that the manifest lists."""
    entry = manifest.files[name]
    content = _open(folder / name, entry.size)
    if Fingerprint.of(content) != entry:
        raise StoreError(f"{folder / name}: damaged: its sha256 is not the one in {NAME}; {REPAIR}")
    return content


def document(content: bytes, path: Path) -> dict[str, Any]:
    """A JSON object. Raises StoreError, naming `path`, where the bytes are anything else."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: not a JSON document; {REPAIR}") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path}: expected a JSON object, got {type(value).__name__}; {REPAIR}")
    return value


def refuse_strangers(folder: Path) -> None:
    """Raise StoreError, saying what to do, where `folder` is not a folder with a manifest."""
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


def _walk(folder: Path) -> Iterator[tuple[str, int]]:
    """Path and size of every file below `folder`; refuses whatever is not a plain file in a plain folder."""
    waiting, count = [""], 0
    while waiting:
        prefix = waiting.pop()
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                count += 1
                if count > MAX_FILES:
                    raise StoreError(f"{folder}: more than {MAX_FILES} files; a store has tens of them")
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(f"{prefix}{entry.name}/")
                elif stat.S_ISREG(status.st_mode):
                    yield f"{prefix}{entry.name}", status.st_size
                else:
                    raise StoreError(f"{entry.path}: expected a plain file, got a link or a device; {REPAIR}")


def _open(path: Path, limit: int) -> bytes:
    """At most `limit` bytes of a plain file; raises StoreError where there are more, or the file is a link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise StoreError(f"{path}: expected a plain file; {REPAIR}")
            content = file.read(limit + 1)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}; {REPAIR}") from error
    if len(content) > limit:
        raise StoreError(f"{path}: more than the expected {limit} bytes; {REPAIR}")
    return content


def _canonical(value: Any) -> bytes:
    return (json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()
