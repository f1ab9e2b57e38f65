"""Size and sha256 of files by name, to detect any change in stores, bundles and evidence."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from vqbet.files import reading

NAME = re.compile(r"(?:[\w=-][\w.=-]*/)*[\w=-][\w.=-]*", re.ASCII)  # no part begins with a dot
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
MAX_FILES = 10_000
MAX_FILE_BYTES = 2**40


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Size and hash of a file's content."""

    size: int  # bytes
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> Self:
        return cls(len(content), hashlib.sha256(content).hexdigest())

    def to_json(self) -> dict[str, Any]:
        return {"bytes": self.size, "sha256": self.sha256}


Files = Mapping[str, Fingerprint]  # by the path in the folder ("data/action/c/0/0")


def to_json(files: Files) -> dict[str, Any]:
    """Return the file list of a manifest as JSON."""
    return {name: entry.to_json() for name, entry in files.items()}


def from_json(value: Any, most: int = MAX_FILE_BYTES) -> dict[str, Fingerprint]:
    """Return the files of a JSON file list, the inverse of `to_json`. Names are safe as paths. most: bytes per file.

    Raises ValueError naming the entry with an invalid name, size or sha256.
    """
    if not isinstance(value, dict):
        raise ValueError(f"expected an object of files, got {reading.short(value)}")
    files = {}
    for name, entry in value.items():
        if not NAME.fullmatch(name):
            raise ValueError(f"lists {reading.short(name)}, which is no name for a file; do not trust it")
        if not isinstance(entry, dict) or entry.keys() != {"bytes", "sha256"}:
            raise ValueError(f"{name}: expected bytes and sha256, got {reading.short(entry)}")
        size, sha256 = entry["bytes"], entry["sha256"]
        if type(size) is not int or not 0 <= size <= most:
            raise ValueError(f"{name}: expected 0 to {most} bytes, got {reading.short(size)}")
        if not isinstance(sha256, str) or not SHA256.fullmatch(sha256):
            raise ValueError(f"{name}: expected a sha256, got {reading.short(sha256)}")
        files[name] = Fingerprint(size, sha256)
    return files


def sizes(folder: Path, refuse: type[Exception], mend: str, most: int = MAX_FILES) -> dict[str, int]:
    """Return the size in bytes of every file below a folder, sorted by name, without opening any file.

    Raises `refuse` for anything that is not a plain file in a plain folder, and for more than `most` entries.
    """
    waiting, found, count = [""], dict[str, int](), 0
    while waiting:
        prefix = waiting.pop()
        try:
            entries = [(entry.name, entry.stat(follow_symlinks=False)) for entry in os.scandir(folder / prefix)]
        except OSError as error:
            raise refuse(f"{error.filename}: cannot be read: {error.strerror}; {mend}") from error
        count += len(entries)
        if count > most:
            raise refuse(f"{folder}: more than {most} files; {mend}")
        for name, status in entries:
            if stat.S_ISDIR(status.st_mode):
                waiting.append(f"{prefix}{name}/")
            elif stat.S_ISREG(status.st_mode):
                found[f"{prefix}{name}"] = status.st_size
            else:
                raise refuse(f"{folder / prefix / name}: expected a plain file, got a link or a device; {mend}")
    return dict(sorted(found.items()))


def sha256(path: Path) -> str:
    """Return the sha256 of a file of any size. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def taken(folder: Path, refuse: type[Exception], mend: str, most: int = MAX_FILE_BYTES) -> dict[str, Fingerprint]:
    """Return the fingerprint of every file below a folder. Raises `refuse` like `sizes`, and beyond `most` bytes."""
    names = sizes(folder, refuse, mend)
    return {name: Fingerprint.of(reading.content(folder / name, refuse, most=most, mend=mend)) for name in names}
