"""Fetching a data set: a local path is used where it is, an address is downloaded and unpacked.

The server of an archive is not trusted: limits apply to the bytes that are counted, not to those that are claimed, and
nothing appears under its final name before it is complete.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit

from vqbet.contract import StoreError
from vqbet.demos.importers.line import SLOWEST_BYTES_PER_S, Line, Refused, line, opened
from vqbet.files import atomic, reading

Progress = Callable[[int, int], None]

STAGING = ".fetch-"
PIECE_BYTES = 2**20
MAX_FILES = 100_000
UNPACKED_RATIO = 10  # an archive of the largest size allowed may unpack to this many times that size


def fetch(
    source: str,
    into: Path,
    *,
    max_bytes: int,
    progress: Progress | None = None,
    hashed: Callable[[str], None] | None = None,
) -> Path:
    """Return the local path of the data of `source`: the path itself, or the folder that a zip at a URL unpacks to.

    The folder is `into`/<archive's name>-<start of its sha256>; an archive that is already there is not unpacked again.
    progress(done, total) counts bytes; total is 0 where the server does not say. hashed(sha256) is called after an
    archive was downloaded. What a killed fetch left in `into` is removed.

    Raises StoreError, leaving nothing behind, for a path that does not exist; a server that does not answer, stops or
    is too slow; an address of this machine or its network unless $VQBET_PRIVATE_SOURCES is 1; an archive larger than
    `max_bytes`; and an archive that would write outside its own folder.
    """
    shown = _shown(source)
    scheme = _scheme(source, shown)
    if scheme not in ("http", "https"):
        return _local(source, scheme, shown)
    try:
        into.mkdir(parents=True, exist_ok=True)
        with _staging(into) as staging:
            archive = staging / "archive.zip"
            digest = _download(source, shown, archive, max_bytes, progress)
            if hashed:
                hashed(digest)
            final = into / f"{_stem(source)}-{digest[:12]}"
            if not final.is_dir():
                unpacked = staging / "unpacked"
                unpack(archive, unpacked, max_bytes=UNPACKED_RATIO * max_bytes)
                unpacked.rename(final)
            return final
    except OSError as error:
        room = atomic.advice(error)
        raise StoreError(
            f"{shown}: cannot be kept in {into}: {error.strerror or error}{room and '; ' + room}"
        ) from error


def unpack(archive: Path, into: Path, *, max_bytes: int, max_files: int = MAX_FILES) -> None:
    """Unpack a zip into the folder `into`, folders and plain files only.

    Raises StoreError naming archive and member for a damaged or encrypted archive, a member that points outside, is a
    link or repeats a name, and for more bytes or files than allowed; files unpacked before the error remain.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            members = file.infolist()
            if len(members) > max_files:
                raise StoreError(f"{archive}: {len(members)} files, more than the {max_files} allowed")
            targets = [_target(archive, member) for member in members]
            _refuse_twins(archive, targets)
            into.mkdir(parents=True, exist_ok=True)
            left = max_bytes
            for member, target in zip(members, targets, strict=True):
                left -= _unpack_member(file, member, into / target, left)
    except zipfile.BadZipFile as error:
        raise StoreError(f"{archive}: is not a whole zip archive: {error}") from error
    except (zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise StoreError(f"{archive}: cannot be unpacked: {error}") from error
    except OSError as error:
        raise StoreError(f"{archive}: cannot be unpacked to {into}: {error.strerror or error}") from error


def _shown(source: str) -> str:
    """Return a source for use in messages: without user and password, and shortened."""
    return reading.cut(re.sub(r"//.*@", "//***@", source, flags=re.DOTALL), 200)


def _scheme(source: str, shown: str) -> str:
    """Return the lower-case scheme, empty for a path. Raises StoreError for an invalid address, or one with a user."""
    try:
        parts = urlsplit(source)
        scheme, _ = parts.scheme.lower(), parts.port
    except ValueError as error:
        raise StoreError(f"{shown}: expected a path, or an http(s) address with host and port") from error
    if scheme in ("http", "https"):
        if "@" in parts.netloc:
            raise StoreError(
                f"{shown}: expected an address without user and password, which would be written into logs; download "
                "the archive by hand and give its path"
            )
        if not parts.hostname:
            raise StoreError(f"{shown}: expected an http(s) address with a host")
    return scheme


@contextmanager
def _staging(into: Path) -> Iterator[Path]:
    """Yield a new folder in `into` that is removed afterwards, as are the folders of killed fetches.

    Every fetch holds a shared lock of the kernel on the folder `into`, which ends with its process. A fetch that gets
    the exclusive lock knows that no other fetch is running.
    """
    handle = os.open(into, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # another fetch is running, or the file system has no locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in into.glob(f"{STAGING}*"):
                shutil.rmtree(left, ignore_errors=True)
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)
        with tempfile.TemporaryDirectory(prefix=STAGING, dir=into) as staging:
            yield Path(staging)
    finally:
        os.close(handle)


def _local(source: str, scheme: str, shown: str) -> Path:
    if scheme not in ("", "file"):
        raise StoreError(f"{shown}: expected a path or an http(s) address, got one that starts with {scheme}:")
    try:
        path = Path(unquote(urlsplit(source).path) if scheme else source).expanduser()
        path.stat()
    except FileNotFoundError as error:
        raise StoreError(f"{_shown(str(path))}: there is no such file or folder") from error
    except (OSError, RuntimeError, ValueError) as error:  # a name that is too long, an unknown user, NUL
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StoreError(f"{shown}: is no path here: {reason}; give the path of a file or folder") from error
    return path


def _stem(source: str) -> str:
    name = PurePosixPath(unquote(urlsplit(source).path)).stem
    return "".join(letter for letter in name if letter.isalnum() or letter in "_-")[:60] or "archive"


def _download(source: str, shown: str, target: Path, max_bytes: int, progress: Progress | None) -> str:
    """Stream the body into `target` and return its sha256."""
    digest = hashlib.sha256()
    with line() as over, _opened(source, shown, over) as response, target.open("wb") as file:
        total = response.length or 0  # None where the server does not say
        if total > max_bytes:
            raise StoreError(f"{shown}: {total} bytes, more than the {max_bytes} allowed")
        while piece := _piece(shown, response, over):
            over.done += len(piece)
            if over.done > max_bytes:
                raise StoreError(f"{shown}: more than the {max_bytes} bytes allowed")
            file.write(piece)
            digest.update(piece)
            if progress:
                progress(over.done, total)
        if over.late:
            raise _late(shown, over)
        if total and over.done != total:
            raise StoreError(f"{shown}: the server stopped after {over.done} of {total} bytes; try again")
    return digest.hexdigest()


def _opened(source: str, shown: str, over: Line) -> HTTPResponse:
    try:
        return opened(source, over)
    except Refused as error:
        raise StoreError(f"{shown}: {error}") from error
    except HTTPError as error:
        error.close()
        raise StoreError(f"{shown}: the server answered {error.code} {reading.cut(str(error.reason))}") from error
    except (URLError, HTTPException, OSError, ValueError, OverflowError) as error:
        if over.late:
            raise _late(shown, over) from error
        reason = reading.cut(str(getattr(error, "reason", error)), 200)
        raise StoreError(f"{shown}: cannot be reached: {reason}") from error


def _piece(shown: str, response: HTTPResponse, over: Line) -> bytes:
    """Return the next bytes received, at most PIECE_BYTES; empty at the end."""
    try:
        return response.read1(PIECE_BYTES)
    except (HTTPException, OSError, ValueError) as error:
        if over.late:
            raise _late(shown, over) from error
        reason = reading.cut(str(error))
        raise StoreError(f"{shown}: the server stopped after {over.done} bytes ({reason}); try again") from error


def _late(shown: str, over: Line) -> StoreError:
    return StoreError(
        f"{shown}: too slow: {over.done} bytes in {over.allowed_s():.0f} s, expected {SLOWEST_BYTES_PER_S} bytes a "
        "second; try again, or download it by hand and give the path"
    )


def _target(archive: Path, member: zipfile.ZipInfo) -> PurePosixPath:
    name = member.filename
    path = PurePosixPath(name)
    if not name or "\\" in name or ":" in name or path.is_absolute() or ".." in path.parts:
        raise StoreError(f"{archive}: {name!r}: points outside the folder it is unpacked to; do not trust this archive")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise StoreError(f"{archive}: {name!r}: is a link or a device; expected folders and plain files only")
    if member.flag_bits & 1:
        raise StoreError(f"{archive}: {name!r}: is encrypted; unpack it by hand and give the folder")
    return path


def _refuse_twins(archive: Path, targets: list[PurePosixPath]) -> None:
    seen: set[str] = set()
    for target in targets:
        name = str(target).casefold()
        if name in seen:
            raise StoreError(f"{archive}: {str(target)!r}: is there twice")
        seen.add(name)


def _unpack_member(file: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, left: int) -> int:
    """Unpack one member of at most `left` bytes; return its size."""
    if member.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with file.open(member) as source, target.open("xb") as sink:
        size = _copy(source, sink, left)
    if size > left:
        raise StoreError(f"{file.filename}: {member.filename!r}: unpacks to more bytes than allowed, {left} were left")
    return size


def _copy(source: IO[bytes], sink: IO[bytes], most: int) -> int:
    done = 0
    while done <= most and (piece := source.read(min(PIECE_BYTES, most - done + 1))):
        sink.write(piece)
        done += len(piece)
    return done
