"""Basis of a promotion that needs robot evidence: a sealed verdict on robot trials, made by the committed rules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vqbet import registry
from vqbet.commands import bounds
from vqbet.commands.trials import planning
from vqbet.contract import GateError
from vqbet.evaluation.gate import Verdict
from vqbet.evaluation.plan import Plan
from vqbet.evaluation.trials import judging
from vqbet.evaluation.trials.trial_plan import TrialPlan
from vqbet.registry import Attempt
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
    attempt = sealed[-1]
    folder, found = verdicts.found(root, attempt.evidence)
    plan = TrialPlan.read(folder / judging.TRIALS / "plan.json")
    _expect_sealed(task, attempt, plan, found)
    check(task, plan, params)
    planning.expect_trusted(plan.server_key)
    if plan.after:
        _expect_completed(task, plan)
        bounds.check(root, task, Plan.read(folder / judging.SIMULATED / "plan.json"))
    return attempt.evidence, found, plan


def _expect_sealed(task: str, attempt: Attempt, plan: TrialPlan, found: Verdict) -> None:
    """Raise GateError unless the evidence is of the plan and the outcome that were sealed together."""
    evidence = (plan.plan.sha256, found.candidate, found.outcome)
    if evidence != (attempt.plan, attempt.candidate, attempt.outcome):
        raise GateError(
            f"{task}: evidence {attempt.evidence[:12]} is {found.outcome} about {found.candidate[:12]} under plan "
            f"{plan.sha256[:12]}; the registry names it for {attempt.outcome} about {attempt.candidate[:12]} under "
            f"plan {str(attempt.content['protocol'])[:12]}: a verdict is sealed with its own evidence only; plan "
            f"again: vqbet trials plan {task}"
        )


def _expect_completed(task: str, plan: TrialPlan) -> None:
    """Raise GateError unless a gate has sealed PROMOTE for the simulated part of the evidence."""
    for one in registry.Attempts(task).of(plan.judged.candidate):
        if (one.evidence, one.outcome, one.on_robot) == (plan.after, "PROMOTE", False):
            return
    raise GateError(
        f"{task}: the trials of plan {plan.sha256[:12]} complete simulated verdict {plan.after[:12]}, and no gate has "
        f"sealed it as PROMOTE about {plan.judged.candidate[:12]}; run the gate, then vqbet trials plan {task}"
    )


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
