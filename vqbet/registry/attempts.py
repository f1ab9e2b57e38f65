"""Every verdict that was sought about a policy: its plan, written down before an episode is played, and its outcome.

A chain beside the ledger, `<task>.attempts`, shared by all clones that share the ledger. An unwelcome plan cannot be
forgotten by deleting a folder, and another clone knows which seeds a policy has met. The registered model's tag
ATTEMPTS_HEAD names the newest link, so a chain that was cut or replaced is noticed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from vqbet.contract import RegistryError
from vqbet.registry import chain, journal, models

ATTEMPTS_HEAD = "attempts_head"  # tag of the registered model: hash of a link that the chain must hold
PLAN, VERDICT = "plan", "verdict"  # kinds of links


@dataclass(frozen=True, slots=True)
class Attempt:
    """One sealed plan, and its verdict once there is one."""

    candidate: str  # digest
    plan: str  # sha256
    content: Mapping[str, Any]  # the plan's JSON
    when: str  # UTC, ISO 8601
    outcome: str = ""  # empty until the verdict is sealed
    episodes: int = 0  # of each arm, played
    evidence: str = ""  # id of the verdict's evidence


class Attempts:
    """The attempts of one task, oldest first, as they are now. What is sealed is sealed after exactly these."""

    def __init__(self, task: str) -> None:
        """Read the chain. Raises RegistryError where it is broken or has lost links that the registry knows."""
        self.task, self._links = task, chain.read(_chain(task))
        head = models.model_tags(task).get(ATTEMPTS_HEAD, "")
        if head and head not in [link["hash"] for link in self._links]:
            raise RegistryError(
                f"{task}: the registry's last attempt {head[:12]} is not in {journal.opened().where}: links are "
                f"missing, or another machine's ledger is in use; bring that ledger here, or share one through "
                f"{journal.VARIABLE}"
            )
        self.all = _attempts(task, self._links)

    def of(self, candidate: str) -> list[Attempt]:
        """The attempts about one policy, oldest first."""
        return [one for one in self.all if one.candidate == candidate]

    def under(self, plan: str) -> Attempt | None:
        """The attempt with the plan of this sha256, or None."""
        return next((one for one in self.all if one.plan == plan), None)

    def seal_plan(self, candidate: str, plan: str, content: Mapping[str, Any]) -> None:
        """Write a plan down before its first episode. Raises OvertakenError where somebody sealed something since."""
        self._append({"kind": PLAN, "candidate": candidate, "plan": plan, "content": dict(content)})

    def seal_verdict(self, plan: str, *, outcome: str, episodes: int, evidence: str) -> None:
        """Write down what a sealed plan led to. Raises as `seal_plan`."""
        self._append({"kind": VERDICT, "plan": plan, "outcome": outcome, "episodes": episodes, "evidence": evidence})

    def _append(self, content: Mapping[str, Any]) -> None:
        when = datetime.now(UTC).isoformat(timespec="seconds")
        link = chain.append(_chain(self.task), {**content, "when": when}, self._links)
        models.tag_model(self.task, ATTEMPTS_HEAD, link["hash"])


def _attempts(task: str, links: Sequence[Mapping[str, Any]]) -> list[Attempt]:
    """Plans joined with their verdicts. Raises RegistryError naming a link that is neither."""
    found: dict[str, Attempt] = {}
    for link in links:
        _expect(task, link, found)
        if link["kind"] == PLAN:
            found[link["plan"]] = Attempt(link["candidate"], link["plan"], link["content"], link["when"])
        else:
            said = {name: link[name] for name in ("outcome", "episodes", "evidence")}
            found[link["plan"]] = replace(found[link["plan"]], **said)
    return list(found.values())


FIELDS: Mapping[str, Mapping[str, type]] = {
    PLAN: {"candidate": str, "plan": str, "content": dict, "when": str},
    VERDICT: {"plan": str, "outcome": str, "episodes": int, "evidence": str, "when": str},
}


def _expect(task: str, link: Mapping[str, Any], known: Mapping[str, Attempt]) -> None:
    where = f"{task}: attempts, link {link.get('seq')}"
    kind = link.get("kind")
    if not isinstance(kind, str) or kind not in FIELDS:
        raise RegistryError(f"{where}: kind: expected {' or '.join(FIELDS)}, got {str(kind)[:40]!r}")
    for name, expected in FIELDS[kind].items():
        if type(link.get(name)) is not expected:
            raise RegistryError(f"{where}: {name}: expected {expected.__name__}, got {str(link.get(name))[:40]!r}")
    if (kind == PLAN) == (link["plan"] in known):
        again = "is sealed a second time" if kind == PLAN else "was never sealed"
        raise RegistryError(f"{where}: plan {link['plan'][:12]} {again}; restore the ledger from a copy")


def _chain(task: str) -> str:
    return f"{task}.attempts"
