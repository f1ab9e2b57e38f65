"""Append-only chains of JSON lines, each of which names the hash of the previous line.

Links are signed if $VQBET_KEY names a key, and must be signed if there is a trust file; see `seals`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from vqbet import signing
from vqbet.contract import RegistryError
from vqbet.files import canonical
from vqbet.registry import journal, rows, seals

Link = dict[str, Any]
OWN = ("seq", "prev", "hash", seals.KEY, seals.SIGNATURE)  # fields that the chain adds to the content
SHAPES: Mapping[str, rows.Shape] = {
    "seq": rows.COUNT,
    "prev": rows.DIGEST_OR_NONE,
    "hash": rows.DIGEST,
    seals.KEY: rows.DIGEST,
    seals.SIGNATURE: rows.NAME,
}
OPTIONAL = frozenset({seals.KEY, seals.SIGNATURE})


class OvertakenError(RegistryError):
    """Another process added a link first."""


@dataclass(frozen=True, slots=True)
class Examined:
    """One line of a chain. `link`: None if the line cannot be parsed; `fault`: a sentence, empty for a valid line."""

    number: int
    link: Link | None
    fault: str = ""


def read(name: str) -> list[Link]:
    """Return all links, oldest first; an empty list if there is no such chain.

    Raises RegistryError naming the first link that is broken or, if there is a trust file, not trusted.
    """
    links = []
    for one in examined(name):
        if one.fault or one.link is None:
            raise RegistryError(one.fault)
        links.append(one.link)
    return links


def examined(name: str, *, trusting: bool = False) -> list[Examined]:
    """Return every line of the chain with its fault; if pinned links are missing, the last element says so.

    trusting: ignore signatures. Raises RegistryError if the journal does not answer.
    """
    place = journal.opened()
    where = f"{place.where}: {name}"
    trust = None if trusting else signing.current()
    found: list[Examined] = []
    before: Link | None = {"hash": ""}
    for number, line in enumerate(place.lines(name), start=1):
        link, fault = _parsed(line)
        if link is not None:
            fault = fault or _broken(link, number, before) or seals.fault(trust, name, link)
        found.append(Examined(number, link, fault and f"{where}, entry {number}: {fault}"))
        before = link if link is not None and isinstance(link.get("hash"), str) else None
    if short := seals.missing(trust, name, len(found)):
        found.append(Examined(len(found) + 1, None, f"{where}: {short}; restore it from a copy"))
    return found


def append(name: str, content: Mapping[str, Any], after: Sequence[Mapping[str, Any]]) -> Link:
    """Append `content` durably after the links `after` and return it with seq, prev, hash and signature.

    Raises OvertakenError if a newer link exists by now, and RegistryError if the trust file would refuse the new link.
    In both cases nothing is written.
    """
    link = {field: value for field, value in content.items() if field not in OWN}
    link |= {"seq": len(after) + 1, "prev": after[-1]["hash"] if after else ""}
    link = seals.sealed(name, link)
    link["hash"] = _hash(link)
    place = journal.opened()
    if fault := seals.fault(signing.current(), name, link, new=True):
        raise RegistryError(
            f"{place.where}: {name}: nothing was written: the new entry {fault}. Name your key in VQBET_KEY, and have "
            "it trusted: vqbet keys trust --help"
        )
    if not place.add(name, link["seq"], canonical.line(link, ascii=False).encode()):
        raise OvertakenError(
            f"{place.where}: {name}: somebody else wrote entry {link['seq']} at the same moment, nothing was done; "
            "read that entry, then run the command again"
        )
    return link


def signers(name: str, links: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return for each link of the chain `name` the name of its trusted signer, or "unsigned"."""
    trust = signing.current()
    return [seals.signer(trust, name, link) for link in links]


def signed_by(name: str, link: Mapping[str, Any]) -> str:
    """Return the name of the trusted signer of a link of the chain `name`, or "unsigned"."""
    return signers(name, [link])[0]


def _parsed(line: bytes) -> tuple[Link | None, str]:
    """Return the link (or None) and a fault. Only the canonical form that `append` writes is accepted."""
    try:
        link = json.loads(line, parse_constant=_no_number)
        if not isinstance(link, dict):
            return None, f"expected an object, got {str(link)[:60]!r}; restore it from a copy"
        if canonical.line(link, ascii=False).encode() != line:
            return link, "is not written as this program writes it; restore it from a copy"
    except (ValueError, RecursionError) as error:
        return None, f"not a line of JSON: {str(error)[:200]}; restore it from a copy"
    return link, ""


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _broken(link: Link, number: int, before: Link | None) -> str:
    """Return the reason why the link is out of place, or "". `before`: the previous link, None if it has no hash."""
    seq, prev = link.get("seq"), link.get("prev")
    follows = before is None or prev == before["hash"]
    if type(seq) is int and seq == number and follows and link.get("hash") == _hash(link):
        return ""
    expected = "any" if before is None else before["hash"][:12] or "none"
    return (
        f"the chain is broken: this is entry {str(seq)[:20]} after {str(prev)[:12] or 'none'}, expected entry {number} "
        f"after {expected} with unchanged content; restore it from a copy"
    )


def _hash(link: Mapping[str, Any]) -> str:
    content = {name: value for name, value in link.items() if name != "hash"}
    return canonical.digest(content, ascii=False)
