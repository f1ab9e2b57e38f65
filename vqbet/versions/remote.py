"""Audit of the remote's copy of data/, object by object in the remote itself, without DVC's index.

After a killed push, DVC's own checks are unreliable: push and `status --cloud` report a remote that lacks objects as
complete, because both rely on an index and on the manifest, which is there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from vqbet.contract import PipelineError
from vqbet.versions import data, objects
from vqbet.versions.objects import Stores

FAILURE = "the DVC remote cannot be audited"
NAMED = 5  # most damaged objects in a message


@dataclass(frozen=True, slots=True)
class Audit:
    """Result for a complete remote: number and total size of the files of data/ that were checked."""

    files: int
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class _Damage:
    path: str  # in the remote
    file: str  # in data/
    reason: str


def audit(root: Path) -> Audit:
    """Check that the remote holds the manifest of data.dvc unchanged and every object with its expected size.

    Raises PipelineError naming the missing or damaged objects and what to do.
    """
    version = data.read(root)
    with objects.opened(root, FAILURE) as stores:
        damages, size = _inspect(root, version, stores)
        manifest = stores.path(version.md5)
    if damages:
        shown = "; ".join(f"{item.path} ({item.file}): {item.reason}" for item in damages[:NAMED])
        more = f"; and {len(damages) - NAMED} more" if len(damages) > NAMED else ""
        raise PipelineError(
            f"data.dvc {version.md5[:12]}: the remote is not whole, {len(damages)} of {version.files} files: {shown}"
            f"{more}. Delete these and {manifest} from the remote and push again with a fresh site cache"
        )
    return Audit(version.files, size)


def _inspect(root: Path, version: data.DataVersion, stores: Stores) -> tuple[list[_Damage], int]:
    """Return the damage to the remote's copy, and its size in bytes."""
    manifest = stores.path(version.md5)
    try:
        content = stores.read(version.md5)
    except FileNotFoundError:
        return [_Damage(manifest, "the manifest", "missing")], 0
    if objects.md5(content) + ".dir" != version.md5:
        return [_Damage(manifest, "the manifest", "content changed")], 0
    damages, total = [], 0
    for entry in json.loads(content):
        oid, file = entry["md5"], entry["relpath"]
        reason, size = _examine(stores, oid, root / "data" / file)
        total += size
        if reason:
            damages.append(_Damage(stores.path(oid), file, reason))
    if not damages and total != version.size:
        damages = [_Damage(manifest, "all files together", f"{total} bytes, expected {version.size}")]
    return damages, total


def _examine(stores: Stores, oid: str, file: Path) -> tuple[str, int]:
    """Return the fault of one object (empty if none) and its size in the remote."""
    try:
        size, expected = stores.size(oid), stores.expected_size(oid, file)
        if expected is not None and size != expected:
            return f"{size} bytes, expected {expected}", size
    except FileNotFoundError:
        return "missing", 0
    return "", size
