"""Signatures of links: made with the key of this process, verified against the trust file.

A signature covers the chain's name and the whole link, so a link cannot be moved to another chain or position.
Each chain of a task requires a role: its ledger and canaries promote, its approvals approve, its attempts judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vqbet import signing
from vqbet.files import canonical
from vqbet.signing import Trust

KEY, SIGNATURE = "key", "signature"
UNSIGNED = "unsigned"
FIRST_LINE = b"vqbet link, version 1\n"  # so that a signature of other content is not valid for a link
ROLES = {"approvals": "approve", "attempts": "judge"}  # by the suffix of the chain's name


def role(name: str) -> str:
    """Return the role required of the signers of the chain `name`."""
    return ROLES.get(name.partition(".")[2], "promote")


def sealed(name: str, link: Mapping[str, Any]) -> dict[str, Any]:
    """Return the link with key and signature if $VQBET_KEY is set, else unchanged. Raises like `keys.read`."""
    key = signing.configured()
    if key is None:
        return dict(link)
    link = {**link, KEY: key.id}
    return {**link, SIGNATURE: key.sign(_content(name, link))}


def fault(trust: Trust | None, name: str, link: Mapping[str, Any], *, new: bool = False) -> str:
    """Return the reason why the link is not trusted; empty if the link is trusted or there is no trust file.

    new: the link is about to be written, so the pin of older, unsigned links does not cover it.
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
    """Return a sentence if a chain of `count` links lacks pinned links, otherwise an empty string."""
    pin = trust.pins.get(name) if trust else None
    if trust is None or pin is None or pin.seq <= count:
        return ""
    return f"there are {count} entries, {trust.where} pins entry {pin.seq}{_hint(trust)}"


def signer(trust: Trust | None, name: str, link: Mapping[str, Any]) -> str:
    """Return the name of the link's trusted signer if it has the chain's role, otherwise "unsigned"."""
    holder = _holder(trust, link) if trust and SIGNATURE in link else None
    if holder is None or role(name) not in holder.roles or not _genuine(holder, name, link):
        return UNSIGNED
    return holder.name


def may(wanted: str) -> bool:
    """Return whether the key of this process has the role `wanted`. Raises SigningError like `signing.current`."""
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
