"""Sessions of robot trials of a task: which there are, and what each of them waits for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vqbet import registry
from vqbet.contract import GateError
from vqbet.evaluation.trials import trial_log
from vqbet.evaluation.trials.trial_folder import TrialFolder
from vqbet.evaluation.trials.trial_plan import TrialPlan
from vqbet.evaluation.trials.trial_progress import progress
from vqbet.stages.paths import Paths


@dataclass(frozen=True, slots=True)
class SessionState:
    """A session without its arms. done: valid trials. closed: why; "" while open. outcome: of its sealed verdict."""

    plan: TrialPlan
    folder: TrialFolder
    done: int
    closed: str
    outcome: str

    def sentence(self) -> str:
        at_most = f"{self.done} of at most {self.plan.trials} trials"
        task, plan = self.plan.task, self.plan.sha256[:12]
        if self.outcome:
            return f"{self.outcome}, {self.done} trials on {self.plan.robot}"
        if self.closed:
            return f"{self.done} trials, {self.closed}; waits for: vqbet trials judge {task} --plan {plan}"
        return f"{at_most} on {self.plan.robot}; waits for: vqbet trials run {task} --plan {plan}"


def states(root: Path, task: str) -> list[SessionState]:
    """Return the sessions of a task whose folders are here, oldest first. Raises GateError for a changed one."""
    attempts = registry.Attempts(task)
    files = sorted(Paths(root, task).trials().glob("*/plan.json"), key=lambda file: file.stat().st_mtime)
    return [_state(TrialFolder(file.parent), attempts) for file in files]


def rows(root: Path, task: str) -> dict[str, str]:
    """Return a row per session. Raises as `states`."""
    found = {one.plan.sha256[:12]: one.sentence() for one in states(root, task)}
    return found or {"sessions": f"none yet: vqbet trials plan {task}"}


def chosen(root: Path, task: str, plan: str) -> SessionState:
    """Return a session by the first letters of its plan's sha256, or the newest. Raises GateError for none."""
    there = states(root, task)
    named = [one for one in there if one.plan.sha256.startswith(plan)]
    if not named:
        known = ", ".join(one.plan.sha256[:12] for one in there) or f"none; make one: vqbet trials plan {task}"
        raise GateError(f"{task}: no plan of trials {plan!r} here; there are: {known}")
    return named[-1]


def refuse_open(root: Path, task: str, digests: Mapping[str, str]) -> None:
    """Raise GateError where a session about the same policies is not judged yet."""
    for one in states(root, task):
        if not one.outcome and one.plan.arms == digests:
            raise GateError(
                f"{task}: plan {one.plan.sha256[:12]} about the same policies is not finished ({one.sentence()}); "
                "another one is another attempt with less of alpha: --again"
            )


def expect_sealed(attempts: registry.Attempts, folder: TrialFolder, plan: TrialPlan) -> registry.Attempt:
    """Return the attempt of a plan. Raises GateError where no plan of this content was sealed."""
    attempt = attempts.under(plan.plan.sha256)
    if attempt is None:
        raise GateError(
            f"{folder.plan}: no plan of this content was sealed in the registry: it was changed after it was locked, "
            "or is of another project; bring the original back, or plan again"
        )
    return attempt


def _state(folder: TrialFolder, attempts: registry.Attempts) -> SessionState:
    plan = TrialPlan.read(folder.plan)
    attempt = expect_sealed(attempts, folder, plan)
    events = trial_log.read(folder.log) if folder.log.exists() else []
    seen = progress(plan, folder.blinding(plan), events)
    done = sum(trial.state == "graded" for trial in seen.trials.values())
    return SessionState(plan, folder, done, seen.closed, attempt.outcome)
