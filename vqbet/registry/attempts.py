"""Attempts to obtain a verdict on a policy: each plan, sealed before its first episode is played, and its outcome.

Attempts are kept in the chain `<task>.attempts` beside the ledger, shared by all clones that share the ledger. Deleting
a folder therefore does not hide an unwelcome plan, and other clones know which seeds a policy was evaluated on. The
registered model's tag ATTEMPTS_HEAD names the newest link, so a truncated or replaced chain is detected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vqbet import signing
from vqbet.contract import RegistryError
from vqbet.registry import anchors, chain, models, rows, seals

ATTEMPTS_HEAD = "attempts_head"  # tag of the registered model: hash of a link that the chain must hold
PLAN, VERDICT = "plan", "verdict"  # kinds of links


@dataclass(frozen=True, slots=True)
class Attempt:
    """One sealed plan and, once sealed, its verdict."""

    candidate: str  # digest
    plan: str  # sha256
    content: Mapping[str, Any]  # the plan's JSON
    who: str  # started the attempt
    when: str  # UTC, ISO 8601
    outcome: str = ""  # empty until the verdict is sealed
    episodes: int = 0  # played, per arm
    evidence: str = ""  # id of the verdict's evidence

    @property
    def on_robot(self) -> bool:
        """Return whether the plan is of trials on a robot, which have an alpha of their own."""
        return bool(self.content.get("protocol"))

    @property
    def simulated(self) -> bool:
        """Return whether the plan is of episodes in simulation: not of a robot, nor of held-out demonstrations."""
        return not self.on_robot and not self.content.get("held_out")


class Attempts:
    """The attempts of one task, oldest first, as of construction. New links are sealed directly after these."""

    def __init__(self, task: str) -> None:
        """Read the chain. Raises RegistryError if the chain is broken or lacks the link that ATTEMPTS_HEAD names."""
        self.task, self._links = task, anchors.read(_chain(task), task, tag=ATTEMPTS_HEAD, what="attempt")
        self.all = _attempts(task, self._links)

    def of(self, candidate: str) -> list[Attempt]:
        """Return the attempts on the policy with digest `candidate`, oldest first."""
        return [one for one in self.all if one.candidate == candidate]

    def under(self, plan: str) -> Attempt | None:
        """Return the attempt whose plan has the sha256 `plan`, or None."""
        return next((one for one in self.all if one.plan == plan), None)

    def judge(self, evidence: str) -> str:
        """Return the name of the trusted signer of the verdict with this evidence, or "unsigned"."""
        sealed = [link for link in self._links if link["kind"] == VERDICT and link["evidence"] == evidence]
        return chain.signed_by(_chain(self.task), sealed[-1]) if sealed else seals.UNSIGNED

    def seal_plan(self, candidate: str, plan: str, content: Mapping[str, Any]) -> None:
        """Seal a plan before its first episode. Raises OvertakenError if the chain has grown since it was read."""
        self._append({"kind": PLAN, "candidate": candidate, "plan": plan, "content": dict(content)})

    def seal_verdict(self, plan: str, *, outcome: str, episodes: int, evidence: str) -> None:
        """Seal the verdict of a sealed plan. Raises like `seal_plan`."""
        self._append({"kind": VERDICT, "plan": plan, "outcome": outcome, "episodes": episodes, "evidence": evidence})

    def _append(self, content: Mapping[str, Any]) -> None:
        when = rows.now(self._links[-1]["when"] if self._links else "")
        link = chain.append(_chain(self.task), {**content, "who": signing.who(), "when": when}, self._links)
        models.tag_model(self.task, ATTEMPTS_HEAD, link["hash"])


def _attempts(task: str, links: Sequence[Mapping[str, Any]]) -> list[Attempt]:
    """Join plans with their verdicts. Raises RegistryError naming the first malformed link."""
    found: dict[str, Attempt] = {}
    for link in links:
        _expect(task, link, found)
        if link["kind"] == PLAN:
            said = {name: link[name] for name in ("candidate", "plan", "content", "who", "when")}
            found[link["plan"]] = Attempt(**said)
        else:
            said = {name: link[name] for name in ("outcome", "episodes", "evidence")}
            found[link["plan"]] = replace(found[link["plan"]], **said)
    return list(found.values())


COMMON: Mapping[str, rows.Shape] = {"plan": rows.DIGEST, "who": rows.NAME, "when": rows.TIME}
SHAPES: Mapping[str, Mapping[str, rows.Shape]] = {
    PLAN: {**COMMON, "candidate": rows.DIGEST, "content": (lambda value: isinstance(value, dict), "an object")},
    VERDICT: {**COMMON, "outcome": rows.NAME, "episodes": rows.COUNT, "evidence": rows.DIGEST},
}


def _expect(task: str, link: Mapping[str, Any], known: Mapping[str, Attempt]) -> None:
    where = f"{task}: attempts, link {link.get('seq')}"
    kind = link.get("kind")
    if not isinstance(kind, str) or kind not in SHAPES:
        raise RegistryError(f"{where}: field 'kind': expected {' or '.join(SHAPES)}, got {rows.short(kind)}")
    said = {name: value for name, value in link.items() if name not in (*chain.OWN, "kind")}
    if fault := rows.fault(said, SHAPES[kind]):
        raise RegistryError(f"{where}: {fault}; restore the ledger from a copy")
    if (kind == PLAN) == (link["plan"] in known):
        again = "is sealed a second time" if kind == PLAN else "was never sealed"
        raise RegistryError(f"{where}: plan {link['plan'][:12]} {again}; restore the ledger from a copy")


def _chain(task: str) -> str:
    return f"{task}.attempts"
