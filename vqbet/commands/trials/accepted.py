"""What a promotion rests on where the champion needs robot evidence: a sealed verdict, by the committed rules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vqbet import registry
from vqbet.commands import bounds
from vqbet.commands.trials import planning
from vqbet.contract import GateError
from vqbet.evaluation.gate import Verdict
from vqbet.evaluation.plan import Plan
from vqbet.evaluation.trials.trial_plan import TrialPlan
from vqbet.stages import verdicts

if TYPE_CHECKING:
    from vqbet.config import TaskParams


def verdict(root: Path, task: str, candidate: str) -> tuple[str, Verdict, TrialPlan]:
    """Return evidence, verdict and plan of the last judged session about a candidate.

    Raises GateError where there is none, or it is not of the committed rules, or lacks the simulated verdict that these
    ask for.
    """
    params = bounds.committed(root, task)
    sealed = [one for one in registry.Attempts(task).of(candidate) if one.on_robot and one.outcome]
    if not sealed:
        raise GateError(
            f"{task}.gate.evidence: asks for robot evidence, and no session about candidate {candidate[:12]} was "
            f"judged; vqbet trials status {task} says what is waited for"
        )
    proof = sealed[-1].evidence
    folder, found = verdicts.found(root, proof)
    plan = TrialPlan.read(folder / "trials" / "plan.json")
    check(task, plan, params)
    if plan.after:
        bounds.check(root, task, Plan.read(folder / "simulated" / "plan.json"))
    return proof, found, plan


def check(task: str, plan: TrialPlan, params: TaskParams) -> None:
    """Raise GateError where a plan was not made by these parameters, or lacks a kind of evidence that they ask for."""
    if differing := planning.recommitted(plan, params):
        raise GateError(
            f"{task}.trials.{differing[0]}: the session was run by other rules than those of the committed "
            "params.yaml; commit what was used, for others to see, or run a session by what is committed"
        )
    if ("simulated" in params.gate.evidence) != bool(plan.after):
        said = "completes a simulated verdict" if plan.after else "completes no simulated verdict"
        raise GateError(
            f"{task}.gate.evidence: the committed params.yaml asks for {' and '.join(params.gate.evidence)}, the "
            f"session of plan {plan.sha256[:12]} {said}; plan another one"
        )
