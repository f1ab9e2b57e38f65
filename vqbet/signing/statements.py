"""Signed statements of a policy server: which policy it serves in one trial, proved without naming it.

The statement holds a commitment to the policy's digest, under a key that the server gets with the order to serve it.
Without that key the commitment is a random number; with it, it can be of one digest only.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from vqbet.files import canonical
from vqbet.signing import keys

FIRST_LINE = b"vqbet statement of a policy server, version 1\n"  # a signature of other content is not one of this


@dataclass(frozen=True, slots=True)
class Statement:
    """Statement of a server about one trial. plan: sha256 of the plan of trials. nonce: fresh at every order.

    commitment: to the digest of the policy that answers in this trial. when: UTC, ISO 8601.
    """

    plan: str
    trial: str
    robot: str
    nonce: str
    commitment: str
    when: str

    def to_json(self) -> dict[str, str]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Statement:
        """Return the statement that `to_json` wrote. Raises ValueError for anything else."""
        names = {item.name for item in fields(cls)}
        if (
            not isinstance(value, Mapping)
            or set(value) != names
            or not all(isinstance(each, str) for each in value.values())
        ):
            raise ValueError(f"expected a statement with texts for {', '.join(sorted(names))}")
        return cls(**value)

    def content(self) -> bytes:
        """Return the bytes that are signed."""
        return FIRST_LINE + canonical.line(self.to_json(), ascii=False).encode()


def commitment(key: str, digest: str) -> str:
    """Return the commitment to a policy's digest under a trial's key, both hexadecimal; 64 hexadecimal digits."""
    return hmac.new(bytes.fromhex(key), digest.encode(), hashlib.sha256).hexdigest()


def genuine(public: bytes, signature: str, statement: Statement) -> bool:
    """Return whether the holder of this public key (32 bytes) has signed the statement; signature: base64."""
    return keys.verified(public, signature, statement.content())
