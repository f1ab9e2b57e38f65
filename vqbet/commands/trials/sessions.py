"""Sessions of robot trials of a task: which there are, and what each of them waits for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vqbet import registry
from vqbet.contract import GateError, RegistryError
from vqbet.evaluation.trials import trial_log
from vqbet.evaluation.trials.trial_folder import TrialFolder
from vqbet.evaluation.trials.trial_plan import TrialPlan
from vqbet.evaluation.trials.trial_progress import progress
from vqbet.stages.paths import Paths

SHORT = 12  # letters of a plan's sha256 in the name of its folder


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
    """Return the sessions of a task whose folders are here and whole, oldest first."""
    return [one for one in _found(root, task).values() if isinstance(one, SessionState)]


def rows(root: Path, task: str) -> dict[str, str]:
    """Return a row per session; of one that was changed, what is wrong."""
    found = {
        name: one.sentence() if isinstance(one, SessionState) else str(one) for name, one in _found(root, task).items()
    }
    return found or {"sessions": f"none yet: vqbet trials plan {task}"}


def chosen(root: Path, task: str, plan: str) -> SessionState:
    """Return a session by the first letters of its plan's sha256, or the newest.

    Raises GateError for none, and for one that was changed.
    """
    there = _found(root, task)
    named = [name for name in there if name.startswith(plan[:SHORT])]
    if not named:
        known = ", ".join(there) or f"none; make one: vqbet trials plan {task}"
        raise GateError(f"{task}: no plan of trials {plan!r} here; there are: {known}")
    found = there[named[-1]]
    if isinstance(found, GateError):
        raise found
    return found


def refuse_open(root: Path, task: str, digests: Mapping[str, str]) -> None:
    """Raise GateError where a session about the same policies is not judged yet."""
    for one in states(root, task):
        if not one.outcome and one.plan.arms == digests:
            raise GateError(
                f"{task}: plan {one.plan.sha256[:12]} about the same policies is not finished ({one.sentence()}); "
                "another one is another attempt with less of alpha: --again"
            )


def replaced(plan: TrialPlan) -> str:
    """Return which policy of a plan the registry has replaced meanwhile, so that no promotion can rest on it.

    "" where both are there as they were.
    """
    champion = registry.champion(plan.task)
    now = champion.digest if champion else ""
    if now != plan.judged.champion:
        planned = plan.judged.champion[:12] or "none"
        return f"the champion was replaced meanwhile: the plan compares with {planned}, it is {now[:12] or 'none'} now"
    try:
        registry.by_digest(plan.task, plan.judged.candidate)
    except RegistryError as error:
        return f"the candidate is gone from the registry: {error}"
    return ""


def succeeded(plan: TrialPlan) -> str:
    """Return whether the alias candidate names another policy than the plan's by now; "" where it does not."""
    try:
        now = registry.resolve(f"{plan.task}@{registry.CANDIDATE}").digest
    except RegistryError:
        return ""
    if now == plan.judged.candidate:
        return ""
    return f"the registry's candidate is {now[:12]}, not {plan.judged.candidate[:12]} of these trials"


def _found(root: Path, task: str) -> dict[str, SessionState | GateError]:
    """Return each session by the name of its folder, or what is wrong with it; oldest first."""
    attempts = registry.Attempts(task)
    files = sorted(Paths(root, task).trials().glob("*/plan.json"), key=lambda file: file.stat().st_mtime_ns)
    found = dict[str, SessionState | GateError]()
    for folder in (TrialFolder(file.parent) for file in files):
        try:
            found[folder.path.name] = _state(folder, attempts)
        except GateError as error:
            found[folder.path.name] = error
    return found


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
