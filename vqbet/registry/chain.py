"""Append-only chains of JSON lines, each naming the hash of the one before: what was written can only be added to.

Links are signed where $VQBET_KEY names a key, and must be where a trust file says whom to trust; see `seals`.
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
OWN = ("seq", "prev", "hash", seals.KEY, seals.SIGNATURE)  # what the chain adds to a content
SHAPES: Mapping[str, rows.Shape] = {
    "seq": rows.COUNT,
    "prev": rows.DIGEST_OR_NONE,
    "hash": rows.DIGEST,
    seals.KEY: rows.DIGEST,
    seals.SIGNATURE: rows.NAME,
}
OPTIONAL = frozenset({seals.KEY, seals.SIGNATURE})


class OvertakenError(RegistryError):
    """Somebody else added the link that was to be added."""


@dataclass(frozen=True, slots=True)
class Examined:
    """One line of a chain. `link`: None where it cannot be read; `fault`: a sentence, empty for a good one."""

    number: int
    link: Link | None
    fault: str = ""


def read(name: str) -> list[Link]:
    """Return all links, oldest first; none where there is no such chain.

    Raises RegistryError naming the first one that is broken or, where there is a trust file, not to be trusted.
    """
    links = []
    for one in examined(name):
        if one.fault or one.link is None:
            raise RegistryError(one.fault)
        links.append(one.link)
    return links


def examined(name: str, *, trusting: bool = False) -> list[Examined]:
    """Return every line of the chain with its fault; a last one without a link where pinned links are missing.

    trusting: take no notice of signatures. Raises RegistryError where the journal does not answer.
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
    """Chain `content` to the links that were read, durably, and return it with seq, prev, hash and signature.

    Raises OvertakenError where there is a newer link by now, and RegistryError where the trust file would refuse this
    one; nothing was written then.
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
            "look at it, and begin again"
        )
    return link


def signers(name: str, links: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return for each link of the chain `name` who signed it, by the trust file, or "unsigned"."""
    trust = signing.current()
    return [seals.signer(trust, name, link) for link in links]


def signed_by(name: str, link: Mapping[str, Any]) -> str:
    """Return who signed the link of the chain `name`, by the trust file, or "unsigned"."""
    return signers(name, [link])[0]


def _parsed(line: bytes) -> tuple[Link | None, str]:
    """A link, or None and the reason. Only the one way in which `append` writes a link is read as one."""
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
    """Why the link does not stand here; `before` is None where the line before it has no hash to compare with."""
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
