"""Files of pictures that need not be decoded again: those of a write that was killed, and of the store it replaces.

A file is known by a digest of everything that determines its bytes, and verified by its sha256 before it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, final, runtime_checkable

from vqbet.contract import StoreError
from vqbet.demos.store import manifest
from vqbet.files import atomic, canonical
from vqbet.files.manifest import Fingerprint

INDEX = "index.json"  # sha256 of the files of the present store, by their digest
PIECE = 2**20  # bytes read at once
STAGED = re.compile(r"(?P<name>[0-9a-f]{64})-(?P<sha256>[0-9a-f]{64})")


@runtime_checkable
class Identified(Protocol):
    """Pictures that come from a source, of which equal digests promise equal pictures."""

    def identity(self, first: int, last: int) -> str:
        """Return a digest of everything that determines the pictures of the steps from `first` up to `last`."""


@final
class Staging:
    """Folder outside the store, in which each file of pictures is written before it is linked into the store.

    how: digest of the code and the libraries that decode and encode. present: store that is about to be replaced.
    reused, made: files that were there, and files that were written.
    """

    def __init__(self, folder: Path, how: str, present: Path) -> None:
        self._folder, self._how, self._present = folder, how, present
        self._used: dict[str, str] = {}
        self.reused = self.made = 0
        self._staged = {found["name"]: found["sha256"] for found in map(STAGED.fullmatch, _names(folder)) if found}
        self._stored = _stored(folder / INDEX, present)

    def place(self, target: Path, identity: str, parts: Iterator[bytes]) -> Fingerprint:
        """Make `target` the file of this identity, which consists of `parts`; they are not asked for where it is known.

        Raises OSError, and whatever `parts` raises.
        """
        name = canonical.digest([self._how, identity])
        found = self._found(name)
        if found is None:
            self.made += 1
            found = self._written(name, parts)
        else:
            self.reused += 1
        path, entry = found
        self._used[name] = entry.sha256
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except OSError:  # another file system, or one without links
            atomic.create_from(target, _pieces(path))
        return entry

    def settle(self) -> None:
        """Remember what the store holds now, and remove what was staged. Raises StoreError."""
        atomic.write(self._folder / INDEX, json.dumps(self._used), StoreError)
        for name in _names(self._folder):
            if name != INDEX:
                (self._folder / name).unlink()

    def _found(self, name: str) -> tuple[Path, Fingerprint] | None:
        """Return a verified file of this name; a damaged one is removed."""
        if name in self._staged:
            path = self._path(name, self._staged[name])
            entry = _fingerprint(path)
            if entry.sha256 == self._staged[name]:
                return path, entry
            path.unlink()
        if name in self._stored:
            found = self._written(name, _pieces(self._stored[name][0]))
            if found[1].sha256 == self._stored[name][1]:
                return found
            found[0].unlink()
        return None

    def _written(self, name: str, parts: Iterator[bytes]) -> tuple[Path, Fingerprint]:
        partial = self._folder / f"{name}.partial"
        partial.unlink(missing_ok=True)
        entry = poured(partial, parts)
        path = self._path(name, entry.sha256)
        os.replace(partial, path)
        return path, entry

    def _path(self, name: str, sha256: str) -> Path:
        return self._folder / f"{name}-{sha256}"


def poured(path: Path, parts: Iterator[bytes]) -> Fingerprint:
    """Write a new file part by part, flush it to disk, and return its fingerprint. Raises OSError."""
    digest, size = hashlib.sha256(), 0

    def noted() -> Iterator[bytes]:
        nonlocal size
        for part in parts:
            digest.update(part)
            size += len(part)
            yield part

    atomic.create_from(path, noted())
    return Fingerprint(size, digest.hexdigest())


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder)) if folder.is_dir() else []


def _stored(index: Path, present: Path) -> dict[str, tuple[Path, str]]:
    """Return the files of the present store that the index knows, with their sha256."""
    if not index.is_file() or not (present / manifest.NAME).is_file():
        return {}
    try:
        known = dict(json.loads(index.read_bytes()))
    except (ValueError, TypeError):
        return {}  # of another version of this project: everything is decoded
    files = {entry.sha256: present / key for key, entry in manifest.read(present).files.items()}
    return {name: (files[sha256], sha256) for name, sha256 in known.items() if sha256 in files}


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def _fingerprint(path: Path) -> Fingerprint:
    digest, size = hashlib.sha256(), 0
    for piece in _pieces(path):
        digest.update(piece)
        size += len(piece)
    return Fingerprint(size, digest.hexdigest())
