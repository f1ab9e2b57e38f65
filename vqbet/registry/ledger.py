"""The promotion ledger of one task: JSON lines, append-only, each naming the hash of the one before.

An entry is durable before the alias moves, so the ledger is the truth and the alias its copy. A line that a crash cut
short has no newline and never took effect; it is dropped by the next append.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vqbet.contract import RegistryError


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One effect on the champion alias. A version of 0 and an empty digest stand for "no champion"."""

    seq: int  # 1, 2, 3, ...
    action: Literal["promote", "rollback"]
    task: str
    version: int  # who became champion
    digest: str
    previous_version: int  # who was champion before
    previous_digest: str
    who: str
    why: str
    when: str  # UTC, ISO 8601
    evidence: str  # id of the verdict's evidence; empty for a rollback
    prev: str = ""  # hash of entry seq - 1; empty for the first
    hash: str = ""  # sha256 of this entry's canonical JSON without this field

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read(path: Path) -> list[LedgerEntry]:
    """All entries in order, oldest first; none where there is no file. Raises RegistryError naming a broken line."""
    entries: list[LedgerEntry] = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            entry = LedgerEntry(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise RegistryError(
                f"{path}:{number}: not a ledger entry: {error}; restore the file from a copy"
            ) from error
        prev = entries[-1].hash if entries else ""
        if (entry.seq, entry.prev, entry.hash) != (number, prev, _hash(entry)):
            raise RegistryError(
                f"{path}:{number}: the chain is broken: this is entry {entry.seq} after {entry.prev[:12] or 'none'}, "
                f"expected entry {number} after {prev[:12] or 'none'} with unchanged content; restore it from a copy"
            )
        entries.append(entry)
    return entries


def append(path: Path, entry: LedgerEntry) -> LedgerEntry:
    """Chain `entry` to the last one and make it durable; gives it with seq, prev, hash. The caller holds the lock."""
    entries = read(path)
    entry = replace(entry, seq=len(entries) + 1, prev=entries[-1].hash if entries else "")
    entry = replace(entry, hash=_hash(entry))
    line = _canonical(entry.to_json()) + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.truncate(sum(len(earlier) + 1 for earlier in _lines(path)))
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        _sync(path.parent)
    except OSError as error:
        raise RegistryError(
            f"{path}: the ledger cannot be written: {error.strerror}; nothing was promoted. Free space or permissions"
        ) from error
    return entry


def reigns(entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
    """The promotions that no rollback undid, oldest first; the last one made the present champion."""
    standing: list[LedgerEntry] = []
    for entry in entries:
        if entry.action == "promote":
            standing.append(entry)
        else:
            standing.pop()
    return standing


def _lines(path: Path) -> list[bytes]:
    """Whole lines, without their newlines; what follows the last newline was cut short."""
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RegistryError(f"{path}: the ledger cannot be read: {error.strerror}; give this user access") from error


def _canonical(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _hash(entry: LedgerEntry) -> str:
    value = entry.to_json()
    del value["hash"]
    return hashlib.sha256(_canonical(value)).hexdigest()


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
