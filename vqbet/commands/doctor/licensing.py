"""Licences of installed distributions, read from their metadata and compared with a list of allowed ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from ruamel.yaml import YAML, YAMLError

from vqbet.commands.doctor.locks import LockEntry
from vqbet.contract import SupplyError

EXCEPTIONS = "infra/licences.yaml"
Text = Annotated[str, Field(min_length=1)]
PERMISSIVE = frozenset(
    {"0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0"}
    | {"CNRI-Python", "HPND", "ISC", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Python-2.0", "Unlicense", "Zlib", "ZPL-2.1"}
)
SPDX = {  # names in older metadata
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Zope Public License": "ZPL-2.1",
}
SAYS_NOTHING = ("OSI Approved", "DFSG approved")


class Allowed(BaseModel):
    """Exception for a distribution whose licence is not permissive. Valid for this licence only."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    package: Text
    licence: str  # as in its metadata; may be empty
    reason: Text


@dataclass(frozen=True, slots=True)
class Licensed:
    """Licence of one distribution. refused: the reason why it is not allowed, "" where it is."""

    name: str
    version: str
    licence: str
    exception: str = ""
    refused: str = ""


def listed(root: Path, pins: Sequence[LockEntry]) -> list[Licensed]:
    """Return every locked distribution that is installed here, with its licence. Raises SupplyError as `exceptions`."""
    rules = {rule.package: rule for rule in exceptions(root)}
    found = []
    for name in sorted({pin.name for pin in pins if pin.here}):
        try:
            described = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found.append(judged(name, described.version, stated(described.metadata), rules.get(name)))
    return found


def exceptions(root: Path) -> list[Allowed]:
    """Return the entries of infra/licences.yaml. Raises SupplyError for one without package, licence or reason."""
    path = root / EXCEPTIONS
    if not path.is_file():
        return []
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")) or []
        return [Allowed.model_validate(entry) for entry in content]
    except (OSError, ValueError, TypeError, YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SupplyError(f"{EXCEPTIONS}: {reason}; an entry has package, licence and reason") from error


def judged(name: str, version: str, licence: str, rule: Allowed | None) -> Licensed:
    """Allow a permissive licence, or exactly the licence of an exception."""
    if permissive(licence):
        return Licensed(name, version, licence)
    if rule is not None and rule.licence == licence:
        return Licensed(name, version, licence, exception=rule.reason)
    said = f"expected {rule.licence!r}, for which there is an exception" if rule else "there is no exception for it"
    refused = f"{name} {version}: licence {licence or 'not stated'} is not permissive, {said} in {EXCEPTIONS}"
    return Licensed(name, version, licence, refused=refused)


def permissive(licence: str) -> bool:
    """Return whether an SPDX expression can be satisfied with permissive licences alone."""
    from license_expression import ExpressionError

    try:
        parsed = _licensing().parse(licence, validate=True)
    except ExpressionError:
        return False
    return parsed is not None and _satisfied(parsed)


@lru_cache(maxsize=1)
def _licensing() -> Any:
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


def stated(described: metadata.PackageMetadata) -> str:
    """Return the SPDX expression, the licence field, or the classifiers joined by AND; empty where there is none."""
    if expression := described.get_all("License-Expression"):
        return str(expression[0])
    lines = [item for item in described.get_all("Classifier") or [] if item.startswith("License ::")]
    classifiers = [item.split("::")[-1].strip() for item in lines]
    named = sorted({SPDX.get(item, item) for item in classifiers if item not in SAYS_NOTHING})
    if named:
        return " AND ".join(named)
    first = ("".join(described.get_all("License") or []).strip().splitlines() or [""])[0]
    return SPDX.get(first, first)[:80]


def _satisfied(parsed: Any) -> bool:
    from license_expression import AND, OR

    if isinstance(parsed, OR):
        return any(map(_satisfied, parsed.args))
    if isinstance(parsed, AND):
        return all(map(_satisfied, parsed.args))
    return str(parsed) in PERMISSIVE
