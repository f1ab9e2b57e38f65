"""Registered stand-in bundles for policies, and verdicts about them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from vqbet import registry
from vqbet.contract import Channel, Spec

SPEC = Spec(
    task="tiny",
    observation=tuple(Channel(f"o{i}", "m", -1.0, 1.0) for i in range(3)),
    action=tuple(Channel(f"a{i}", "m", -1.0, 1.0) for i in range(2)),
    control_hz=10.0,
    action_kind="relative",
    frame="world",
)


def bundle(folder: Path, content: str) -> str:
    """Write a stand-in bundle and return its digest."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bundle.json").write_text(content)
    (folder / "policy.safetensors").write_bytes(content.encode() * 3)
    return hashlib.sha256(content.encode()).hexdigest()


def registered(folder: Path, *contents: str, name: str = "tiny") -> list[tuple[int, str]]:
    """Register one version per content; return their numbers and digests."""
    found = []
    for content in contents:
        digest = bundle(folder / content, content)
        tags = {"digest": digest, "data_version": "d1.dir", "verdict": "PROMOTE: good"}
        found.append((registry.register(name, folder / content, tags=tags, spec=SPEC), digest))
    return found


def proof(name: str) -> str:
    """Return a stand-in for the id of a verdict's evidence."""
    return hashlib.sha256(name.encode()).hexdigest()


def verdict(candidate: str, champion: str = "", outcome: str = "PROMOTE") -> dict[str, Any]:
    return {"outcome": outcome, "candidate": candidate, "champion": champion}
