"""Conditions that a promotion still lacks: a verdict on robot trials, and approvals.

A verdict other than PROMOTE is not waited for: nothing changes it, and the promotion is refused with its reason.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

from vqbet import registry
from vqbet.commands import bounds, release
from vqbet.registry import Attempt

PROMOTE = "PROMOTE"


def missing(root: Path, task: str, candidate: int = 0) -> list[str]:
    """Return a sentence with its commands for each thing that the promotion of `candidate` waits for.

    candidate: a version; 0: the alias candidate. Nothing is returned where the promotion would happen, or would be
    refused, at once. Reads the committed params.yaml, the sealed attempts and the approvals. Raises as
    `release.promote` where one of them cannot be read.
    """
    registry.check()
    asked = bounds.committed(root, task)
    version = registry.resolve(f"{task}/{candidate}" if candidate else f"{task}@{registry.CANDIDATE}")
    champion = registry.champion(task)
    if champion is not None and champion.digest == version.digest:
        return []
    present = champion.digest if champion else ""
    about = f"candidate {version.digest[:12]} against {f'champion {present[:12]}' if present else 'the floor'}"
    tried = [one for one in registry.Attempts(task).of(version.digest) if one.content.get("champion") == present]
    evidence, said = "", list[str]()
    if "simulated" in asked.gate.evidence:
        evidence = _promoting([one for one in tried if one.simulated])
        if not evidence:
            return []
    if "robot" in asked.gate.evidence:
        trials = [one for one in tried if one.on_robot]
        evidence, said = _promoting(trials), _trials(task, trials, about)
        if not evidence and not said:
            return []
    barred = (
        release.trainers(root, task, version.digest)
        if asked.promotion.four_eyes and asked.promotion.approvals
        else set[str]()
    )
    return said + _approvals(task, evidence, needed=asked.promotion.approvals, barred=barred)


def told(task: str, sentences: Sequence[str]) -> str:
    """Return one line for all that a promotion of the task waits for."""
    return f"{task}: not promoted yet; it waits for {'; and for '.join(sentences)}"


def page(task: str, sentences: Sequence[str]) -> str:
    """Return the same as Markdown, for the page of a run."""
    items = "\n".join(f"- {sentence}" for sentence in sentences)
    return (
        f"# {task} waits\n\n{items}\n\n"
        "No worker is held meanwhile. The run goes on once all of it is there: the deployment `waiting` looks every "
        "ten minutes, `vqbet flow resume` at once."
    )


def _promoting(attempts: Sequence[Attempt]) -> str:
    """Return the evidence of the newest verdict, if that is PROMOTE, otherwise ""."""
    newest = next((one for one in reversed(attempts) if one.outcome), None)
    return newest.evidence if newest is not None and newest.outcome == PROMOTE else ""


def _trials(task: str, attempts: Sequence[Attempt], about: str) -> list[str]:
    """Return what is to be done for a verdict on the robot; nothing where there is PROMOTE, or no plan is open."""
    if _promoting(attempts) or (attempts and attempts[-1].outcome):
        return []
    if not attempts:
        return [
            f"robot trials: {about} has no plan yet: vqbet trials plan {task}, then vqbet trials run {task}, then "
            f"vqbet trials judge {task}"
        ]
    plan = attempts[-1]
    return [
        f"robot trials: {about}: plan {str(plan.content['protocol'])[:12]} of {plan.who} has no verdict yet: vqbet "
        f"trials run {task}, then vqbet trials judge {task}"
    ]


def _approvals(task: str, evidence: str, *, needed: int, barred: Collection[str]) -> list[str]:
    """Return what approvals are missing. evidence: of the verdict to be approved; "" where trials come first."""
    command = f"vqbet approve {task} --why '...'"
    if needed and not evidence:
        return [f"the approval of {_people(needed)}, once the trials are judged: {command}"]
    given = registry.approved_then(task, evidence, datetime.now(UTC).isoformat()).difference(barred) if needed else ()
    lacking = needed - len(given)
    if lacking <= 0:
        return []
    so_far = f" beside {', '.join(sorted(given))}" if given else ""
    return [f"the approval of {_people(lacking)}{so_far} for verdict {evidence[:12]}: {command}"]


def _people(number: int) -> str:
    return f"{number} {'person' if number == 1 else 'people'}"
