"""Signatures: keys of people and machines, the trust file that assigns roles to keys, and the name of the acting user.

Ed25519 comes from `cryptography`. This package signs arbitrary bytes; `vqbet.registry.seals` signs links of chains.
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
