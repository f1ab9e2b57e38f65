"""Getting a data set: a local path stays where it is, an address is downloaded and unpacked.

Whoever serves the archive is not trusted: sizes are capped while they are counted, not where they are claimed, and
nothing appears under its final name before it is whole.
"""

from __future__ import annotations

import hashlib
import stat
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit

from vqbet.contract import StoreError

Progress = Callable[[int, int], None]

TIMEOUT_S = 30.0  # for connecting, and for every further piece of the answer
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
    """Where the data of `source` lies on this machine: a path as it is, or the folder a zip at a URL was unpacked to.

    The folder is `into`/<archive's name>-<start of its sha256>; an archive that is already there is not unpacked again.
    progress(done, total) counts bytes; total is 0 where the server does not say. hashed(sha256) is called once an
    archive was downloaded. Raises StoreError, leaving nothing behind, for a path that is not there, a server that does
    not answer or stops, an archive that is larger than `max_bytes`, and one that would write anywhere but into its own
    folder.
    """
    scheme = urlsplit(source).scheme.lower()
    if scheme not in ("http", "https"):
        return _local(source, scheme)
    try:
        into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=into) as staging:
            archive = Path(staging) / "archive.zip"
            digest = _download(source, archive, max_bytes, progress)
            if hashed:
                hashed(digest)
            final = into / f"{_stem(source)}-{digest[:12]}"
            if not final.is_dir():
                unpacked = Path(staging) / "unpacked"
                unpack(archive, unpacked, max_bytes=UNPACKED_RATIO * max_bytes)
                unpacked.rename(final)
            return final
    except OSError as error:
        raise StoreError(f"{source}: cannot be kept in {into}: {error.strerror or error}") from error


def unpack(archive: Path, into: Path, *, max_bytes: int, max_files: int = MAX_FILES) -> None:
    """Unpack a zip into the folder `into`, folders and plain files only.

    Raises StoreError naming archive and member for a damaged or encrypted archive, a member that points outside, is a
    link or has the name of another, and for more bytes or files than allowed; what was unpacked until then remains.
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


def _local(source: str, scheme: str) -> Path:
    if scheme not in ("", "file"):
        raise StoreError(f"{source}: expected a path or an http(s) address, got one that starts with {scheme}:")
    path = Path(unquote(urlsplit(source).path) if scheme else source).expanduser()
    if not path.exists():
        raise StoreError(f"{path}: there is no such file or folder")
    return path


def _stem(source: str) -> str:
    name = PurePosixPath(unquote(urlsplit(source).path)).stem
    return "".join(letter for letter in name if letter.isalnum() or letter in "_-")[:60] or "archive"


def _download(source: str, target: Path, max_bytes: int, progress: Progress | None) -> str:
    """Stream the body into `target`; gives its sha256."""
    digest, done = hashlib.sha256(), 0
    with _opened(source) as response, target.open("wb") as file:
        total = response.length or 0  # None where the server does not say
        if total > max_bytes:
            raise StoreError(f"{source}: {total} bytes, more than the {max_bytes} allowed")
        while piece := _piece(source, response, done):
            done += len(piece)
            if done > max_bytes:
                raise StoreError(f"{source}: more than the {max_bytes} bytes allowed")
            file.write(piece)
            digest.update(piece)
            if progress:
                progress(done, total)
    if total and done != total:
        raise StoreError(f"{source}: the server stopped after {done} of {total} bytes; try again")
    return digest.hexdigest()


def _opened(source: str) -> HTTPResponse:
    """The answer to a GET that may be redirected, but only to http and https."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    try:
        return opener.open(urllib.request.Request(source, headers={"User-Agent": "vqbet"}), timeout=TIMEOUT_S)
    except HTTPError as error:
        error.close()
        raise StoreError(f"{source}: the server answered {error.code} {error.reason}") from error
    except (URLError, HTTPException, OSError, ValueError) as error:
        raise StoreError(f"{source}: cannot be reached: {getattr(error, 'reason', error)}") from error


def _piece(source: str, response: HTTPResponse, done: int) -> bytes:
    try:
        return response.read(PIECE_BYTES)
    except (HTTPException, OSError) as error:
        raise StoreError(f"{source}: the server stopped after {done} bytes ({error}); try again") from error


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
    """Unpack one member of at most `left` bytes; gives how many it has."""
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
