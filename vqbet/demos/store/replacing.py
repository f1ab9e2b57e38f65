"""A folder replaced as a whole: the old one or the new one, at every moment, whatever dies.

Beside `name` there may be, while a writer runs or after it was killed: `.name.lock` (held with flock), `.name.new`
(being written; never read) and `.name.old` (the previous folder, between the two renames of `commit` and until it is
removed). Where `name` itself is missing, `.name.old` is whole and `settled` names it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vqbet.contract import StoreError
from vqbet.files import durable


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """An empty folder beside `target`, which takes its place when the block ends; dropped if the block raises.

    Raises StoreError where another process is replacing the same target.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target):
        _recover(target)
        staging = _beside(target, "new")
        staging.mkdir()
        try:
            yield staging
            _commit(staging, target)
        finally:
            _recover(target)


def settled(target: Path) -> Path:
    """Where the folder is now: `target`, or the old one set aside by a writer that died between its two renames."""
    old = _beside(target, "old")
    return old if os.path.isdir(old) and not os.path.lexists(target) else target


def write_file(path: Path, content: bytes) -> None:
    """A new file whose bytes are on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _commit(staging: Path, target: Path) -> None:
    for folder, _, _ in os.walk(staging):
        durable.sync(Path(folder))
    if target.exists():
        target.rename(_beside(target, "old"))
    staging.rename(target)
    durable.sync(target.parent)


def _recover(target: Path) -> None:
    """Undo or finish what a writer left behind; the caller holds the lock."""
    old = _beside(target, "old")
    if old.is_dir() and not target.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(_beside(target, "new"), ignore_errors=True)


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """The only writer of `target`; the lock is the kernel's, so a dead writer holds nothing."""
    path = _beside(target, "lock")
    descriptor = _acquire(path)
    while not _is_current(path, descriptor):  # its last holder removed it between our opening and our locking it
        os.close(descriptor)
        descriptor = _acquire(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise StoreError(f"{path}: another process is writing this store; wait for it, or stop it") from error
    return descriptor


def _is_current(path: Path, descriptor: int) -> bool:
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(status, os.fstat(descriptor))


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(f".{target.name}.{suffix}")
