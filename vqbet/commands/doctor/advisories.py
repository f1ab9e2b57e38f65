"""Known vulnerabilities of locked distributions, from the index's advisories, through pip-audit.

Strict: a distribution that the index does not know counts as not checked, never as clean.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML, YAMLError

from vqbet.commands.doctor import locks
from vqbet.contract import SupplyError

IGNORED = "infra/advisories.yaml"
ASKED = (locks.MAIN, locks.TORCH, locks.CUDA, locks.INSTALLER)  # no index has torch's CPU builds
TIMEOUT_S = 600
Text = Annotated[str, Field(min_length=1)]


class Ignored(BaseModel):
    """Rule that ignores an advisory which does not concern this project, with its reason, until it expires."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: Text
    package: Text
    reason: Text
    expires: date


@dataclass(frozen=True, slots=True)
class Advisory:
    """One known vulnerability of one locked distribution. fix: versions without it; empty where there is none."""

    package: str
    version: str
    ids: tuple[str, ...]
    fix: tuple[str, ...]

    def __str__(self) -> str:
        fix = f"fixed in {', '.join(self.fix)}" if self.fix else "no fixed version"
        return f"{self.package} {self.version}: {', '.join(self.ids)}, {fix}"


@dataclass(frozen=True, slots=True)
class AdvisoryAudit:
    """Answer of an index. unasked: the reason why there is no answer, "" where there is one."""

    looked_at: int = 0
    open: tuple[Advisory, ...] = ()
    ignored: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    expired: tuple[str, ...] = ()
    unasked: str = ""

    @property
    def clean(self) -> bool:
        return bool(self.looked_at) and not (self.open or self.skipped or self.expired or self.unasked)


def audit(root: Path, today: date | None = None) -> AdvisoryAudit:
    """Look up every entry of the locks under `root`. Raises SupplyError where a lock or the ignore list is invalid."""
    locks.read(root, ASKED)
    rules = ignored(root)
    answer, reason = _asked(root)
    if answer is None:
        return AdvisoryAudit(unasked=reason)
    return judged(answer, rules, today or datetime.now(UTC).date())


def ignored(root: Path) -> list[Ignored]:
    """Return the rules of infra/advisories.yaml. Raises SupplyError for an incomplete entry."""
    path = root / IGNORED
    if not path.is_file():
        return []
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")) or []
        if not isinstance(content, list):
            raise SupplyError(f"{IGNORED}: expected a list of entries, got {type(content).__name__}")
        return [Ignored.model_validate(entry) for entry in content]
    except (OSError, ValueError, YAMLError, RecursionError) as error:
        raise SupplyError(f"{IGNORED}: {_short(error)}; an entry has id, package, reason and expires") from error


def judged(answer: Sequence[dict[str, Any]], rules: Sequence[Ignored], today: date) -> AdvisoryAudit:
    """Sort pip-audit's dependencies. If all are skipped, the index has no advisories and the audit is unasked."""
    skipped = tuple(str(one["name"]) for one in answer if "skip_reason" in one)
    if not answer or len(skipped) == len(answer):
        return AdvisoryAudit(unasked=f"the index knows none of {len(answer)} distributions: it carries no advisories")
    found, set_aside = [], []
    for advisory in [_advisory(one, item) for one in answer for item in one.get("vulns", [])]:
        rule = next((rule for rule in rules if _covers(rule, advisory) and today <= rule.expires), None)
        if rule is None:
            found.append(advisory)
        else:
            set_aside.append(f"{advisory}; ignored until {rule.expires}: {rule.reason}")
    late = tuple(f"{rule.id} of {rule.package}, since {rule.expires}" for rule in rules if today > rule.expires)
    return AdvisoryAudit(len(answer) - len(skipped), tuple(found), tuple(set_aside), skipped, late)


def _advisory(one: dict[str, Any], item: dict[str, Any]) -> Advisory:
    ids = (str(item["id"]), *map(str, item.get("aliases", [])))
    return Advisory(str(one["name"]), str(one["version"]), ids, tuple(map(str, item.get("fix_versions", []))))


def _covers(rule: Ignored, advisory: Advisory) -> bool:
    return rule.package == advisory.package and rule.id in advisory.ids


def _asked(root: Path) -> tuple[list[dict[str, Any]] | None, str]:
    """Return pip-audit's dependencies, or None and the reason.

    Runs without --strict, which ends at the first unknown distribution, so that all unknown ones are listed.
    """
    if find_spec("pip_audit") is None:
        return None, "pip-audit is not installed; install the extra `dev`"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "audit.json"
        command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off"]
        command += [part for name in ASKED for part in ("--requirement", str(root / name))]
        try:
            ended = subprocess.run(
                [*command, "--format", "json", "--output", str(out)], capture_output=True, text=True, timeout=TIMEOUT_S
            )
            return list(json.loads(out.read_text(encoding="utf-8"))["dependencies"]), ""
        except subprocess.TimeoutExpired:
            return None, f"no answer within {TIMEOUT_S} s"
        except (OSError, ValueError, KeyError, TypeError):  # pip-audit writes no file if the index does not answer
            last = (ended.stderr.strip().splitlines() or ["no reason given"])[-1]
            return None, f"pip-audit ended with {ended.returncode}: {last[:200]}"


def _short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return " ".join(str(error).split())[:200]
