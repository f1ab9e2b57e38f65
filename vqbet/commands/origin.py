"""Origin of demonstrations: recorded at the ingest, looked up when a policy is registered.

    data/<task>.source.json                of an import, versioned with the data: name, format, sha256, address, store
    .vqbet/ingested/<task>/<store>.json    of an import or an oracle, on this machine: path and time too

Addresses are stored without user, password and query. A record names the digest of its store, so that it cannot be
mistaken for the record of another store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from vqbet.contract import StoreError, VqbetError
from vqbet.demos import store
from vqbet.files import manifest
from vqbet.stages import artifacts
from vqbet.stages.paths import Paths

UNKNOWN = "unknown: ingested before sources were recorded"
SHOWN = 300  # most characters of one value in a sentence


@dataclass(frozen=True, slots=True)
class Origin:
    """Source of one store. sha256: hash of an archive's bytes, of a folder by `tree`, or of an oracle's code."""

    name: str
    format: str
    sha256: str
    address: str = ""  # URL of a download; "" for a path
    place: str = ""  # a path, or an oracle's parameters; not versioned

    def sentence(self) -> str:
        """Return the origin as one line of text."""
        whence = self.address or self.place
        return f"{self.name} ({self.format}), sha256 {self.sha256}" + (f", from {whence}" if whence else "")


def imported(source: str, found: Path, format: str, archive: str) -> Origin:
    """Return the origin of an import from `source`, a path or URL.

    found: the folder or archive that was read. archive: sha256 of the downloaded archive, or "". Raises StoreError
    where a file cannot be read.
    """
    if archive:
        name, kind = PurePosixPath(unquote(urlsplit(source).path)).name or "archive", "archive"
        return Origin(name, f"{format}, {kind}", archive, address=masked(source), place="")
    try:
        whole, kind = (tree(found), "folder") if found.is_dir() else (manifest.sha256(found), "archive")
    except OSError as error:
        raise StoreError(f"{error.filename or found}: cannot be read: {error.strerror or error}") from error
    return Origin(found.name, f"{format}, {kind}", whole, place=str(found.resolve()))


def masked(address: str) -> str:
    """Return a URL without user, password, query and fragment, any of which may be a secret."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def tree(folder: Path) -> str:
    """Return the sha256 of the lines "<path in the folder>\\0<sha256 of the file>" of all its files, sorted."""
    lines = sorted(f"{path.relative_to(folder).as_posix()}\0{manifest.sha256(path)}\n" for path in _plain(folder))
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def keep(paths: Paths, digest: str, origin: Origin, *, versioned: bool) -> None:
    """Record that the store with `digest` was made from `origin`. An equal record keeps its time.

    versioned: also write data/<task>.source.json. Otherwise the record of an earlier import is removed from data/.
    """
    record = {"store": digest, **asdict(origin)}
    local = _local(paths, digest)
    if {**(_record(local) or {}), "when": ""} != {**record, "when": ""}:
        artifacts.write_json(local, {**record, "when": datetime.now(UTC).isoformat(timespec="seconds")})
    if versioned:
        shared = {name: value for name, value in record.items() if name != "place"}
        artifacts.write_json(_versioned(paths), shared)
    else:
        _versioned(paths).unlink(missing_ok=True)


def told(paths: Paths, digest: str) -> str:
    """Return one line about the origin of the store with `digest`, for the registry and for people.

    The record of this machine is preferred, since it names path and time. A store that an oracle made on another
    machine is described by its own columns.
    """
    for record in (_record(_local(paths, digest)), _record(_versioned(paths))):
        if record and record["store"] == digest:
            when = f", ingested {record['when']}" if record.get("when") else ""
            names = ("name", "format", "sha256", "address", "place")
            return Origin(**{name: _safe(record.get(name, "")) for name in names}).sentence() + _safe(when)
    return _by_its_columns(paths, digest) or UNKNOWN


def _by_its_columns(paths: Paths, digest: str) -> str:
    """Return a sentence about a local store whose columns name an oracle; "" for any other store."""
    try:
        if store.digest(paths.store) != digest:
            return ""
        demos = store.read(paths.store)
    except VqbetError:
        return ""
    if set(demos.columns["operator"].tolist()) != {"oracle"}:
        return ""
    sources = ", ".join(sorted(map(_safe, np.unique(demos.columns["source"]).tolist())))
    return f"{sources} (oracle), {len(demos.episode_ends)} episodes, made on another machine"


def _local(paths: Paths, digest: str) -> Path:
    return paths.scratch("ingested") / f"{digest}.json"


def _versioned(paths: Paths) -> Path:
    return paths.store.with_name(f"{paths.task}.source.json")


def _record(path: Path) -> dict[str, Any] | None:
    """Return the record in a file; None where it is missing or unreadable."""
    try:
        value = artifacts.read_json(path)
    except (OSError, ValueError, RecursionError, VqbetError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("store"), str) else None


def _safe(value: object) -> str:
    """Return printable, shortened text for the terminal, since the content of a file is not trusted."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))[:SHOWN]


def _plain(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
