"""What a manifest says of a file, so that one changed byte is noticed: of stores, bundles and evidence alike."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Size and hash of a file's content."""

    size: int  # bytes
    sha256: str

    @classmethod
    def of(cls, content: bytes) -> Self:
        return cls(len(content), hashlib.sha256(content).hexdigest())

    def to_json(self) -> dict[str, Any]:
        return {"bytes": self.size, "sha256": self.sha256}
