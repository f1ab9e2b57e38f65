"""Lock files: the version, hashes and platform of each distribution."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from vqbet.contract import SupplyError

MAIN = "requirements.lock"
TORCH = "infra/setup/torch.lock"
CUDA = "infra/setup/cuda.lock"
CPU = "infra/setup/torch-cpu.lock"
INSTALLER = "infra/setup/uv.lock"
ALL = (MAIN, TORCH, CUDA, CPU, INSTALLER)


@dataclass(frozen=True, slots=True)
class LockEntry:
    """Entry of a lock. name: in canonical form. version: the only allowed one. hashes: sha256 of the files."""

    name: str
    version: str
    hashes: tuple[str, ...]
    lock: str
    here: bool  # whether its marker matches this platform and Python


def read(root: Path, names: Sequence[str] = ALL) -> list[LockEntry]:
    """Return every entry of the locks `names` under `root`.

    Raises SupplyError where a lock is missing or an entry is no exact pin.
    """
    return [pin for name in names for pin in _read(root / name, name)]


def without_hash(pins: Sequence[LockEntry]) -> list[str]:
    """Return name and lock of every entry without a hash."""
    return [f"{pin.name} in {pin.lock}" for pin in pins if not pin.hashes]


def installed(name: str) -> str:
    """Return the version of a distribution in this environment; empty where it is missing."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def differences(pins: Sequence[LockEntry]) -> list[str]:
    """Return a phrase for each distribution that is missing or installed in another version than locked.

    A version that only adds a local label, such as 2.13.0+cpu, counts as equal.
    """
    found = []
    for pin in pins:
        have = installed(pin.name) if pin.here else pin.version
        if not have:
            found.append(f"{pin.name} {pin.version} is missing")
        elif Version(have) != Version(pin.version) and Version(have).public != pin.version:
            found.append(f"{pin.name} is {have}, locked is {pin.version}")
    return found


def _read(path: Path, name: str) -> list[LockEntry]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SupplyError(f"{name}: expected a lock, got {type(error).__name__}; write it with `make lock`") from error
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    return [_pin(line, name) for line in lines if line and not line.startswith("#")]


def _pin(line: str, name: str) -> LockEntry:
    hashes = tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})(?=\s|$)", line))
    try:
        requirement = Requirement(re.split(r"\s--hash", line, maxsplit=1)[0])
        (only,) = requirement.specifier
    except (InvalidRequirement, ValueError) as error:
        raise SupplyError(
            f"{name}: expected <name>==<version>, got {line[:60]!r}; write it with `make lock`"
        ) from error
    if only.operator != "==" or "*" in only.version or requirement.url:
        raise SupplyError(f"{name}: expected one exact version, got {line[:60]!r}; write it with `make lock`")
    here = requirement.marker is None or requirement.marker.evaluate()
    return LockEntry(canonicalize_name(requirement.name), only.version, hashes, name, here)
