"""Append-only chains of JSON lines, each naming the hash of the one before: what was written can only be added to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from vqbet.contract import RegistryError
from vqbet.registry import journal

Link = dict[str, Any]


class OvertakenError(RegistryError):
    """Somebody else added the link that was to be added."""


def read(name: str) -> list[Link]:
    """All links in order, oldest first; none where there is no such chain. Raises RegistryError naming a broken one."""
    place = journal.opened()
    links: list[Link] = []
    for number, line in enumerate(place.lines(name), start=1):
        where = f"{place.where}: {name}, entry {number}"
        try:
            link = json.loads(line)
        except ValueError as error:
            raise RegistryError(f"{where}: not a line of JSON: {error}; restore it from a copy") from error
        if not isinstance(link, dict):
            raise RegistryError(f"{where}: expected an object, got {link!r}; restore it from a copy")
        prev = links[-1]["hash"] if links else ""
        if (link.get("seq"), link.get("prev"), link.get("hash")) != (number, prev, _hash(link)):
            raise RegistryError(
                f"{where}: the chain is broken: this is entry {link.get('seq')} after "
                f"{str(link.get('prev'))[:12] or 'none'}, expected entry {number} after {prev[:12] or 'none'} with "
                "unchanged content; restore it from a copy"
            )
        links.append(link)
    return links


def append(name: str, content: Mapping[str, Any], after: Sequence[Mapping[str, Any]]) -> Link:
    """Chain `content` to the links that were read, durably; gives it with seq, prev and hash.

    Raises OvertakenError where there is a newer link by now; nothing was written then.
    """
    link = {**content, "seq": len(after) + 1, "prev": after[-1]["hash"] if after else ""}
    link["hash"] = _hash(link)
    place = journal.opened()
    if not place.add(name, link["seq"], _canonical(link)):
        raise OvertakenError(
            f"{place.where}: {name}: somebody else wrote entry {link['seq']} at the same moment, nothing was done; "
            "look at it, and begin again"
        )
    return link


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _hash(link: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical({name: value for name, value in link.items() if name != "hash"})).hexdigest()
