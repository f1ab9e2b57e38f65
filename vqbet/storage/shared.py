"""Bundles by digest in a bucket, and links by which a machine without credentials fetches one.

<prefix>/bundles/<digest>.tar   the files of a bundle, in one object: a reader sees all of them or none

A link is signed by whoever may read the object, and is as good as a credential for this object until it expires. What
is fetched is a bundle only if `vqbet.bundle` says so: it has the digest.
"""

from __future__ import annotations

import io
import re
import tarfile
import time
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from vqbet.contract import StorageError
from vqbet.files import atomic
from vqbet.storage import client, patience
from vqbet.storage.objects import BLOCK_BYTES, MAX_BYTES

if TYPE_CHECKING:
    from vqbet.storage.bucket import Bucket

HOME = "bundles"
KEY = re.compile(rf"/{HOME}/([0-9a-f]{{64}})\.tar", re.ASCII)
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", re.ASCII)
MAX_FILES = 100
HOURS = 24.0
MOST_HOURS = 7 * 24.0  # of S3's signatures
LONGEST_S = 3600.0  # for one download
GONE = "the link has expired, or its bundle was deleted; ask for a new one: vqbet share <task>@champion"


def put(bucket: Bucket, digest: str, folder: Path) -> str:
    """Upload the bundle in `folder`, which the caller has checked, unless it is there; return its address.

    Raises StorageError.
    """
    key = f"{HOME}/{digest}.tar"
    with client.refused(bucket.address(key), "be put"):
        data = packed(folder)
    if len(data) > MAX_BYTES:
        raise StorageError(f"{folder}: expected at most {MAX_BYTES} bytes, got {len(data)}; copy it another way")
    bucket.object(key).put(data)
    return bucket.address(key)


def link(bucket: Bucket, digest: str, *, hours: float, endpoint: str = "") -> str:
    """Return a link that reads one bundle, and nothing else, for some hours. Sends no request. Raises StorageError.

    endpoint: address of the server as the reader reaches it, which is signed too; "" as this machine reaches it.
    """
    where = bucket.address(f"{HOME}/{digest}.tar")
    if not 0 < hours <= MOST_HOURS:
        raise StorageError(f"{where}: expected a link for more than 0 and at most {MOST_HOURS:g} hours, got {hours:g}")
    signer = client.client(where, endpoint_url=endpoint) if endpoint else bucket.client
    asked = {"Bucket": bucket.name, "Key": f"{bucket.prefix}{HOME}/{digest}.tar"}
    with client.refused(where, "be signed"):
        return str(signer.generate_presigned_url("get_object", Params=asked, ExpiresIn=int(hours * 3600)))


def digest_of(link: str) -> str:
    """Return the digest of the bundle that a link names. Raises StorageError, which does not show the signature."""
    parts = urlsplit(link)
    found = KEY.search(parts.path)
    if parts.scheme not in ("http", "https") or not parts.hostname or found is None:
        raise StorageError(f"{_shown(link)}: expected a link as `vqbet share` prints it")
    return found[1]


def fetch(link: str, folder: Path) -> None:
    """Download the bundle of a link into the new folder `folder`, which appears when all files are written.

    The caller checks the digest. A server that is busy, stops or restarts is asked again for `patience.PATIENCE_S`.
    Raises StorageError.
    """
    digest_of(link)
    data = _downloaded(link)
    with atomic.replacing(folder, StorageError) as staging:
        unpack(data, staging, _shown(link))


def packed(folder: Path) -> bytes:
    """Return the files of a flat folder as an archive; the same files give the same bytes. Raises OSError."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(folder.iterdir()):
            content = path.read_bytes()
            entry = tarfile.TarInfo(path.name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return output.getvalue()


def unpack(data: bytes, into: Path, where: str) -> None:
    """Write the files of an archive. Raises StorageError for anything but plain files with plain names."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            entries = archive.getmembers()
            if len(entries) > MAX_FILES or not all(item.isreg() and NAME.fullmatch(item.name) for item in entries):
                raise StorageError(f"{where}: holds other things than the files of a bundle; nothing was written")
            for entry in entries:
                opened = archive.extractfile(entry)
                atomic.create(into / entry.name, opened.read() if opened else b"")
    except (tarfile.TarError, FileExistsError) as error:
        raise StorageError(f"{where}: is not an archive as `vqbet share` makes it: {error}") from error


def _downloaded(link: str) -> bytes:
    where, until, tries = _shown(link), 0.0, 0
    while True:
        try:
            return _body(link, where)
        except HTTPError as error:
            if error.code not in patience.STATUS:
                advice = GONE if error.code in (403, 404) else "see that it is a link of `vqbet share`"
                raise StorageError(f"{where}: answers with status {error.code}; {advice}") from error
            reason: object = f"answers with status {error.code}"
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(error, URLError) and "CERTIFICATE" in str(reason):
                raise StorageError(f"{where}: {reason}; see that the server's certificate is trusted here") from error
        tries, now = tries + 1, time.monotonic()
        until = until or now + patience.PATIENCE_S
        if now >= until:
            raise StorageError(
                f"{where}: cannot be fetched, tried for {patience.PATIENCE_S:g} s: {client.clean(str(reason))}; see "
                "that the server is reached from here, then fetch again"
            )
        time.sleep(min(patience.pause_s(tries), until - now))


def _body(link: str, where: str) -> bytes:
    """Return all bytes. Raises OSError or HTTPException for a truncated body, too, and StorageError for a large one."""
    data, until = bytearray(), time.monotonic() + LONGEST_S
    with urlopen(link, timeout=client.READ_TIMEOUT_S) as answer:
        while block := answer.read(BLOCK_BYTES):
            data += block
            if len(data) > MAX_BYTES or time.monotonic() > until:
                raise StorageError(
                    f"{where}: expected at most {MAX_BYTES} bytes within {LONGEST_S:g} s, got {len(data)} so far"
                )
        left = answer.length  # what the server has promised beyond that; None where it promised nothing
        if left:
            raise HTTPException(f"{len(data)} bytes came, {left} are missing")
    return bytes(data)


def _shown(link: str) -> str:
    """Return a link without its signature."""
    return client.clean(link)
