"""Digests of what lies behind the pictures of an episode, so that a file that was decoded once is known again."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

from vqbet.contract import StoreError
from vqbet.files import canonical


def of(files: Iterable[Path], *place: str | float | list[int]) -> str:
    """Return a digest of the bytes of `files`, in their order, and of a place in them.

    Raises StoreError naming a file that cannot be read.
    """
    return canonical.digest([[_file(path) for path in files], list(place)])


def _file(path: Path) -> str:
    try:
        status = path.stat()
        return _sha256(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}; copy the set again") from error


@functools.lru_cache(maxsize=100_000)
def _sha256(path: Path, size: int, changed_ns: int) -> str:
    """Return the sha256 of a file of this size and time, read once by this process."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
