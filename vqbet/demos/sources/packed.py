"""Files of a set that lies in a folder, or packed in a zip, read without unpacking it. No link is followed."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Protocol

from vqbet.contract import StoreError
from vqbet.demos.sources import checked

MAX_FILE_BYTES = 2**30
MAX_MEMBERS = 2_000_000


class Files(Protocol):
    """Plain files by their names in a set, which are relative and have slashes."""

    def names(self) -> list[str]:
        """Return the names of all files."""

    def where(self, name: str) -> str:
        """Return a name as messages show it."""

    def size(self, name: str) -> int | None:
        """Return the bytes of a file; None where there is none. Raises StoreError for a link on the way to it."""

    def read(self, name: str, most: int = MAX_FILE_BYTES) -> bytes:
        """Return the first bytes of a file."""


class Folder:
    """Files of a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._own: set[Path] = {root}  # folders that are no links

    def names(self) -> list[str]:
        """Return the names of all files. Raises StoreError for a link to a folder, which might hold an array."""
        found = []
        for folder, folders, files in os.walk(self.root):
            here = Path(folder).relative_to(self.root)
            for name in folders:
                if os.path.islink(os.path.join(folder, name)):
                    raise StoreError(f"{Path(folder) / name}: is a symbolic link; a store must hold its own files")
            found += [(here / name).as_posix() for name in files]
        return found

    def where(self, name: str) -> str:
        return str(self.root / name)

    def size(self, name: str) -> int | None:
        path = self.root / name
        for parent in reversed(path.parents):
            if parent.is_relative_to(self.root) and parent not in self._own:
                if parent.is_symlink():
                    raise StoreError(f"{parent}: is a symbolic link; a store must hold its own files")
                self._own.add(parent)
        try:
            status = path.lstat()
        except OSError:
            return None
        if stat.S_ISLNK(status.st_mode):
            raise StoreError(f"{path}: is a symbolic link; a store must hold its own files")
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def read(self, name: str, most: int = MAX_FILE_BYTES) -> bytes:
        with (self.root / name).open("rb") as file:
            return file.read(most)


class Zip:
    """Files of a zip, below one of its folders. The archive says how large they are; more is never unpacked."""

    def __init__(self, path: Path, below: str = "") -> None:
        self.path, self._below = path, below
        try:
            self._file = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise StoreError(f"{path}: is not a whole zip archive: {error}") from error
        if len(self._file.filelist) > MAX_MEMBERS:
            raise StoreError(f"{path}: {len(self._file.filelist)} files, more than the {MAX_MEMBERS} allowed")

    def names(self) -> list[str]:
        return [name.removeprefix(self._below) for name in self._file.namelist() if name.startswith(self._below)]

    def where(self, name: str) -> str:
        return f"{self.path}/{self._below}{name}"

    def size(self, name: str) -> int | None:
        try:
            member = self._file.getinfo(self._below + name)
        except KeyError:
            return None
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG) or member.flag_bits & 1 or ".." in PurePosixPath(member.filename).parts:
            raise StoreError(f"{self.where(name)}: is a link, encrypted or outside; expected plain files only")
        return None if member.is_dir() else member.file_size

    def read(self, name: str, most: int = MAX_FILE_BYTES) -> bytes:
        with checked.decoding(self.where(name)), self._file.open(self._below + name) as file:
            return file.read(most)


def inflated(content: bytes, bits: int, most: int) -> int:
    """Return the bytes into which a zlib or gzip stream unpacks, counted without being kept, up to `most`."""
    total, rest = 0, content
    while rest and total <= most:
        stream = zlib.decompressobj(bits)
        while not stream.eof and total <= most and rest:
            total += len(stream.decompress(rest, 2**20))
            rest = stream.unconsumed_tail
        rest = stream.unused_data
    return total
