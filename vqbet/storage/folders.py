"""Folders of evidence in a bucket, each named by the sha256 of its manifest.json."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vqbet.contract import StorageError
from vqbet.files import atomic
from vqbet.files.manifest import Fingerprint, from_json
from vqbet.storage import client
from vqbet.storage.objects import MAX_BYTES

if TYPE_CHECKING:
    from vqbet.storage.bucket import Bucket

HOME, MANIFEST = "evidence", "manifest.json"
MAX_MANIFEST_BYTES = 4 * 2**20
MAX_FOLDER_BYTES = 4 * 2**30
MAX_FILES = 10_000
AGAIN = "put the evidence again from a machine that has it (vqbet register)"
LISTED = 20  # most ids in a message


def put(bucket: Bucket, name: str, folder: Path) -> str:
    """Implement `Bucket.put_folder`."""
    place = f"{HOME}/{name}"
    with client.refused(bucket.address(place), "be put"):
        manifest = (folder / MANIFEST).read_bytes()
        for file, entry in sorted(_listed(manifest, name, str(folder / MANIFEST)).items()):
            data = (folder / file).read_bytes()
            if Fingerprint.of(data) != entry:
                raise StorageError(f"{folder / file}: is not the file that {MANIFEST} lists; restore it from a copy")
            bucket.object(f"{place}/{file}").put(data)
        bucket.object(f"{place}/{MANIFEST}").put(manifest)
    return bucket.address(place)


def fetch(bucket: Bucket, prefix: str, store: Path) -> Path:
    """Implement `Bucket.fetch_folder`."""
    name = _find(bucket, prefix)
    place = f"{HOME}/{name}"
    manifest = _get(bucket, f"{place}/{MANIFEST}", MAX_MANIFEST_BYTES)
    entries = _listed(manifest, name, bucket.address(f"{place}/{MANIFEST}"))
    with atomic.replacing(store / name, StorageError) as staging:
        for file, entry in entries.items():
            data = _get(bucket, f"{place}/{file}", entry.size)
            if Fingerprint.of(data) != entry:
                raise StorageError(
                    f"{bucket.address(f'{place}/{file}')}: was changed: it is not what {MANIFEST} lists; {AGAIN}"
                )
            atomic.create(staging / file, data)
        atomic.create(staging / MANIFEST, manifest)
    return store / name


def _find(bucket: Bucket, prefix: str) -> str:
    """Return the only id with a manifest that begins with `prefix`. Raises StorageError listing the existing ids."""
    if not re.fullmatch(r"[0-9a-f]{1,64}", prefix):
        raise StorageError(f"{prefix!r}: expected the beginning of a verdict's id, which is hexadecimal")
    found = _ids(bucket.keys(f"{HOME}/{prefix}"))
    if len(found) == 1:
        return found[0]
    shown = found or _ids(bucket.keys(f"{HOME}/"))
    listed = ", ".join(name[:12] for name in shown[:LISTED]) or "none"
    raise StorageError(
        f"{bucket.address(HOME)}: expected one verdict whose id begins with {prefix!r}, found {len(found)}; "
        f"there {'are' if not found else 'are of these'}: {listed}"
    )


def _ids(keys: list[str]) -> list[str]:
    matches = [re.fullmatch(rf"{HOME}/([0-9a-f]{{64}})/{re.escape(MANIFEST)}", key) for key in keys]
    return [match[1] for match in matches if match]


def _listed(manifest: bytes, name: str, where: str) -> Mapping[str, Fingerprint]:
    """Return the files of a manifest; their names are safe paths. Raises StorageError unless its hash is `name`."""
    if hashlib.sha256(manifest).hexdigest() != name:
        raise StorageError(f"{where}: was changed: its hash is not {name[:12]}, which names this evidence")
    try:
        files = from_json(json.loads(manifest)["files"], MAX_BYTES)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StorageError(f"{where}: is not a manifest of evidence: {error}") from error
    if MANIFEST in files:
        raise StorageError(f"{where}: lists {MANIFEST!r}, which is no name for a file beside it; do not trust it")
    total = sum(entry.size for entry in files.values())
    if len(files) > MAX_FILES or total > MAX_FOLDER_BYTES:
        raise StorageError(
            f"{where}: expected at most {MAX_FILES} files and {MAX_FOLDER_BYTES} bytes, got {len(files)} and {total}"
        )
    return files


def _get(bucket: Bucket, key: str, limit: int) -> bytes:
    found = bucket.object(key).get(limit)
    if found is None:
        raise StorageError(f"{bucket.address(key)}: is missing; {AGAIN}")
    return found.data
