"""Signatures: a person's or a machine's key, the file that says whom to trust with which role, and who acts here.

Ed25519 comes from `cryptography`. Nothing here knows what is signed; `vqbet.registry.seals` signs links of chains.
"""

from vqbet.signing.identity import user, who
from vqbet.signing.keys import Key, SigningError, configured, identify, make, parse, verified
from vqbet.signing.repository import FILE
from vqbet.signing.trust import ROLES, Holder, Pin, Trust, current, draft, note, write

__all__ = [
    "FILE",
    "ROLES",
    "Holder",
    "Key",
    "Pin",
    "SigningError",
    "Trust",
    "configured",
    "current",
    "draft",
    "identify",
    "make",
    "note",
    "parse",
    "user",
    "verified",
    "who",
    "write",
]
