"""Signatures of links: made with the key of this process, judged by the trust file.

A signature covers the chain's name and everything in the link, so the link cannot be moved to another chain or place.
Each chain of a task asks for a role: its ledger for promote, its approvals for approve, its attempts for judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vqbet import signing
from vqbet.files import canonical
from vqbet.signing import Trust

KEY, SIGNATURE = "key", "signature"
UNSIGNED = "unsigned"
FIRST_LINE = b"vqbet link, version 1\n"  # so that a signature of something else is none of a link
ROLES = {"approvals": "approve", "attempts": "judge"}  # by the ending of the chain's name


def role(name: str) -> str:
    """Return the role that links of the chain `name` need."""
    return ROLES.get(name.partition(".")[2], "promote")


def sealed(name: str, link: Mapping[str, Any]) -> dict[str, Any]:
    """Return the link with key and signature, unchanged where $VQBET_KEY is not set. Raises SigningError as `keys`."""
    key = signing.configured()
    if key is None:
        return dict(link)
    link = {**link, KEY: key.id}
    return {**link, SIGNATURE: key.sign(_content(name, link))}


def fault(trust: Trust | None, name: str, link: Mapping[str, Any], *, new: bool = False) -> str:
    """Return the reason why the link is not to be trusted, empty where it is, or where there is no trust file.

    new: the link is to be written now, so the pin of older links that were never signed does not cover it.
    """
    if trust is None:
        return ""
    pin = trust.pins.get(name)
    if pin is not None and not new and link["seq"] <= pin.seq:
        replaced = link["seq"] == pin.seq and link["hash"] != pin.hash
        return f"is not the entry that {trust.where} pins ({pin.hash[:12]}){_hint(trust)}" if replaced else ""
    wanted = role(name)
    said = f"; {trust.where} asks for the signature of somebody with the role {wanted}{_hint(trust)}"
    if SIGNATURE not in link:
        return f"is unsigned{said}"
    holder = _holder(trust, link)
    if holder is None:
        return f"is signed with key {str(link.get(KEY))[:12]}, which is nobody's{said}"
    if not _genuine(holder, name, link):
        return f"has a signature that is not of this content in this place by {holder.name}{said}"
    if wanted not in holder.roles:
        return f"is signed by {holder.name}, who may {', '.join(holder.roles) or 'do nothing'}{said}"
    if link.get("who", holder.name) != holder.name:
        return f"names {str(link['who'])[:60]!r} and is signed by {holder.name}{said}"
    return ""


def missing(trust: Trust | None, name: str, count: int) -> str:
    """Return the reason why a chain of `count` links is too short, empty where it is not: pinned links may not go."""
    pin = trust.pins.get(name) if trust else None
    if trust is None or pin is None or pin.seq <= count:
        return ""
    return f"there are {count} entries, {trust.where} pins entry {pin.seq}{_hint(trust)}"


def signer(trust: Trust | None, name: str, link: Mapping[str, Any]) -> str:
    """Return the name of the trusted signer with the chain's role, or "unsigned"."""
    holder = _holder(trust, link) if trust and SIGNATURE in link else None
    if holder is None or role(name) not in holder.roles or not _genuine(holder, name, link):
        return UNSIGNED
    return holder.name


def may(wanted: str) -> bool:
    """Return whether the key of this process is trusted with the role. Raises SigningError as `signing.current`."""
    key, trust = signing.configured(), signing.current()
    holder = trust.holders.get(key.id) if key and trust else None
    return holder is not None and wanted in holder.roles


def _holder(trust: Trust | None, link: Mapping[str, Any]) -> signing.Holder | None:
    return trust.holders.get(str(link.get(KEY))) if trust else None


def _genuine(holder: signing.Holder, name: str, link: Mapping[str, Any]) -> bool:
    signature = link[SIGNATURE]
    return isinstance(signature, str) and signing.verified(holder.public, signature, _content(name, link))


def _content(name: str, link: Mapping[str, Any]) -> bytes:
    kept = {field: value for field, value in link.items() if field not in ("hash", SIGNATURE)}
    return FIRST_LINE + canonical.line({"chain": name, "link": kept}, ascii=False).encode()


def _hint(trust: Trust) -> str:
    return f" ({trust.hint})" if trust.hint else ""
