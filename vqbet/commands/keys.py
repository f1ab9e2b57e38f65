"""Signing keys and the trust file: made, shown and edited for the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from vqbet import registry, signing
from vqbet.signing import FILE, ROLES, Holder, Key, Pin, SigningError, Trust

COMMIT = f"git add {FILE} && git commit -m 'Whom we trust', after somebody looked at it; until then it does not count"


def make(file: str) -> dict[str, str]:
    """Make a key in `file` and return rows about it. Raises SigningError as `signing.make`."""
    path = Path(file).expanduser()
    return _described(signing.make(path)) | {"file": str(path), "use it": f"export VQBET_KEY={path}"}


def show() -> dict[str, str]:
    """Return rows about the key in VQBET_KEY and its roles. Raises SigningError where there is none."""
    key = _own()
    trusted = signing.current()
    holder = trusted.holders.get(key.id) if trusted else None
    roles = f"{', '.join(holder.roles) or 'nothing'}, as {holder.name}" if holder else "nothing: it is in no trust file"
    return _described(key) | {"may": roles}


def trust(root: Path, name: str, roles: Sequence[str], public: str) -> dict[str, str]:
    """Set the roles of a key's holder in the working copy's trust file, replacing earlier roles.

    public: public key in base64; "" for this process's own key. Raises SigningError for unknown roles, an invalid name
    or key, or a key that belongs to somebody else.
    """
    if unknown := sorted(set(roles) - set(ROLES)):
        raise SigningError(f"--role: expected {', '.join(ROLES)}, got {unknown[0][:40]!r}")
    public = public or _own().public
    key = signing.identify(signing.parse(public))
    before = signing.draft(root)
    if key in before.holders and before.holders[key].name != name:
        raise SigningError(f"key {key[:12]} is {before.holders[key].name}'s already; one key has one holder")
    try:
        content = {"name": name, "key": key, "public_key": public, "roles": [role for role in ROLES if role in roles]}
        holder = Holder.model_validate(content)
    except ValidationError as error:
        raise SigningError(f"name: expected letters, digits and . _ @ - within, got {name[:60]!r}") from error
    path = signing.write(root, Trust("", {**before.holders, key: holder}, before.pins))
    return {"trusted": f"{name} with key {key[:12]}", "may": ", ".join(holder.roles), "file": str(path), "next": COMMIT}


def adopt(root: Path, task: str) -> dict[str, str]:
    """Pin the present ends of the task's chains in the working copy's trust file; later links must be signed.

    Where a chain is already pinned, links after the pin must be signed by a trusted key. Raises RegistryError where
    they are not, or where a chain is broken or empty.
    """
    counting = signing.current()
    pinned = counting is not None and any(re.match(rf"{re.escape(task)}(\.|$)", name) for name in counting.pins)
    head = registry.head(task) if pinned else registry.unsigned(task)
    if not head.ends:
        raise SigningError(f"{task}: nothing was written about it yet, so there is nothing unsigned to accept")
    before = signing.draft(root)
    pins = {name: Pin(seq=seq, hash=found) for name, (seq, found) in head.ends.items()}
    path = signing.write(root, Trust("", before.holders, {**before.pins, **pins}))
    rows = {name: f"accepted as it is up to entry {pin.seq}, hash {pin.hash[:12]}" for name, pin in pins.items()}
    return {**rows, "file": str(path), "next": COMMIT}


def listing() -> dict[str, str]:
    """Return the holders of the committed trust file and their roles. Raises SigningError where it is malformed."""
    trusted, note = signing.current(), signing.note()
    rows = {"note": note} if note else {}
    if trusted is None:
        return {"trust file": "none: nothing that is written is signed by anybody trusted", **rows}
    rows |= {"trust file": trusted.where}
    for key, holder in trusted.holders.items():
        rows[f"{holder.name}, key {key[:12]}"] = ", ".join(holder.roles) or "nothing"
    return rows | {name: f"may be unsigned up to entry {pin.seq}" for name, pin in sorted(trusted.pins.items())}


def _own() -> Key:
    key = signing.configured()
    if key is None:
        raise SigningError("VQBET_KEY is not set: name your key's file in it, or make one: vqbet keys make")
    return key


def _described(key: Key) -> dict[str, str]:
    return {"key": key.id, "public key": key.public}
