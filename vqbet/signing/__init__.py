"""Signatures: keys of people and machines, the trust file that assigns roles to keys, and the name of the acting user.

Ed25519 comes from `cryptography`. This package signs arbitrary bytes; `vqbet.registry.seals` signs links of chains.
Names of the trust file, whose reader needs pydantic, are imported when they are used: a policy server has no pydantic.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vqbet.signing.keys import Key, SigningError, configured, identify, make, parse, verified
from vqbet.signing.repository import FILE

if TYPE_CHECKING:
    from vqbet.signing.identity import user, who
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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'identity' if name in ('user', 'who') else 'trust'}"), name)
