"""Append-only files of JSON lines, each naming the hash of the one before: what was written once can only be added to.

A line that a crash cut short has no newline and never took effect; it is dropped by the next append.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqbet import durable
from vqbet.contract import RegistryError

Link = dict[str, Any]


def read(path: Path) -> list[Link]:
    """All lines in order, oldest first; none where there is no file. Raises RegistryError naming a broken line."""
    links: list[Link] = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            link = json.loads(line)
        except ValueError as error:
            raise RegistryError(
                f"{path}:{number}: not a line of JSON: {error}; restore the file from a copy"
            ) from error
        if not isinstance(link, dict):
            raise RegistryError(f"{path}:{number}: expected an object, got {link!r}; restore the file from a copy")
        prev = links[-1]["hash"] if links else ""
        if (link.get("seq"), link.get("prev"), link.get("hash")) != (number, prev, _hash(link)):
            raise RegistryError(
                f"{path}:{number}: the chain is broken: this is entry {link.get('seq')} after "
                f"{str(link.get('prev'))[:12] or 'none'}, expected entry {number} after {prev[:12] or 'none'} with "
                "unchanged content; restore it from a copy"
            )
        links.append(link)
    return links


def append(path: Path, content: Mapping[str, Any]) -> Link:
    """Chain `content` to the last line, durably; gives it with seq, prev and hash. The caller holds the lock."""
    links = read(path)
    link = {**content, "seq": len(links) + 1, "prev": links[-1]["hash"] if links else ""}
    link["hash"] = _hash(link)
    line = _canonical(link) + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.truncate(sum(len(earlier) + 1 for earlier in _lines(path)))
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        durable.sync(path.parent)
    except OSError as error:
        raise RegistryError(
            f"{path}: cannot be written: {error.strerror}; nothing was promoted. Free space or permissions"
        ) from error
    return link


def _lines(path: Path) -> list[bytes]:
    """Whole lines, without their newlines; what follows the last newline was cut short."""
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RegistryError(f"{path}: cannot be read: {error.strerror}; give this user access") from error


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _hash(link: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical({name: value for name, value in link.items() if name != "hash"})).hexdigest()
