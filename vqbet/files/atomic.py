"""Atomic replacement of files and folders: at every moment either the old or the new one exists, even after a crash.

While a writer runs, or after it was killed, these may exist beside a folder `name`: `.name.lock` (held with flock),
`.name.new` (being written; never read) and, on systems that cannot exchange two folders in one step, `.name.old` (the
previous folder, between the two renames). If `name` itself is missing, `.name.old` is whole and `settled` returns it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REASONS = re.compile(
    "no space left|disk is full|disk full|disk I/O error|quota exceeded|file too large|file size limit", re.IGNORECASE
)
ROOM = "the disk is full, or a limit on its use is reached: free space (df -h, quota, ulimit -f), then run it again"
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def advice(reason: str | OSError) -> str:
    """Return ROOM if an error, or another program's error message, says that the disk is full; otherwise ""."""
    if isinstance(reason, OSError) and reason.errno in FULL:
        return ROOM
    return ROOM if REASONS.search(str(reason)) else ""


def sync(path: Path) -> None:
    """Flush a file, or a folder's directory entries, to disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, content: bytes | str, refuse: type[Exception], *, private: bool = False) -> None:
    """Write a file and its parent folders. Raises `refuse` on failure; the old file is then unchanged.

    private: mode 0600, from the first byte on.
    """
    staging = path.with_name(f".{path.name}.{threading.get_native_id()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _fill(staging, content, "wb", 0o600 if private else 0o666)
        os.replace(staging, path)
    except OSError as error:
        raise refuse(_sentence(path, error)) from error
    finally:
        with suppress(OSError):
            staging.unlink()


def create(path: Path, content: bytes | str) -> None:
    """Write a new file into a folder from `replacing` and flush it to disk. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _fill(path, content, "xb")


def create_from(path: Path, parts: Iterable[bytes]) -> None:
    """Write a new file like `create`, part by part, so that it need not fit into memory. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(target: Path, refuse: type[Exception], mend: str = "nothing is left half written") -> Iterator[Path]:
    """Yield an empty folder that replaces `target` when the block ends. The folder is removed if the block raises.

    Raises `refuse`, with `mend` at the end, for an OSError in the block or during the replacement, and if another
    process is replacing the same target.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target, refuse):
            _recover(target)
            staging = _beside(target, "new")
            staging.mkdir()
            try:
                yield staging
                _commit(staging, target)
            finally:
                _recover(target)
    except OSError as error:
        raise refuse(_sentence(target, error, mend)) from error


def settled(target: Path) -> Path:
    """Return the path of the folder: `target`, or `.name.old` if a writer died between the two renames."""
    old = _beside(target, "old")
    return old if os.path.isdir(old) and not os.path.lexists(target) else target


def _fill(path: Path, content: bytes | str, mode: str, permissions: int = 0o666) -> None:
    with open(path, mode, opener=lambda name, flags: os.open(name, flags, permissions)) as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


def _sentence(path: Path, error: OSError, mend: str = "") -> str:
    return "; ".join(filter(None, (f"{path}: cannot be written: {error.strerror or error}", mend, advice(error))))


def _commit(staging: Path, target: Path) -> None:
    for folder, _, _ in os.walk(staging):
        sync(Path(folder))
    if not target.exists():
        staging.rename(target)
    elif not _exchange(staging, target):
        target.rename(_beside(target, "old"))
        staging.rename(target)
    sync(target.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; return False if the system cannot (only Linux can). Raises OSError."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(AT_FDCWD, bytes(one), AT_FDCWD, bytes(other), RENAME_EXCHANGE) == 0:
        return True
    if ctypes.get_errno() in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _recover(target: Path) -> None:
    """Undo or finish the work of a killed writer. The caller holds the lock."""
    old = _beside(target, "old")
    if old.is_dir() and not target.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(_beside(target, "new"), ignore_errors=True)


@contextmanager
def _locked(target: Path, refuse: type[Exception]) -> Iterator[None]:
    """Hold the write lock of `target`. The kernel releases the lock of a dead writer."""
    path = _beside(target, "lock")
    descriptor = _acquire(path, refuse)
    while not _is_current(path, descriptor):  # the last holder removed the file after we opened and before we locked it
        os.close(descriptor)
        descriptor = _acquire(path, refuse)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path, refuse: type[Exception]) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise refuse(f"{path}: another process is writing there; wait for it, or stop it") from error
    return descriptor


def _is_current(path: Path, descriptor: int) -> bool:
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(status, os.fstat(descriptor))


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(f".{target.name}.{suffix}")
