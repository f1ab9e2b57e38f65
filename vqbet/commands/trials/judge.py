"""Verdict on a closed session: the gate unblinds it, keeps its evidence in the registry, and seals what it says."""

from __future__ import annotations

import tempfile
from pathlib import Path

from vqbet import bundle, registry
from vqbet.commands.trials import sessions
from vqbet.commands.trials.sessions import SessionState
from vqbet.contract import GateError
from vqbet.evaluation import evidence
from vqbet.evaluation.gate import Verdict
from vqbet.evaluation.trials import judging, session_page
from vqbet.stages import verdicts
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch


def run(root: Path, task: str, plan: str, recordings: Path | None, watch: Watch) -> dict[str, str]:
    """Judge a session and return a table of its verdict; a session that was judged keeps its verdict.

    plan: the first letters of its sha256; "": the newest. recordings: None: in the session's folder. Raises GateError
    where the session is not closed, or a proof is missing or wrong.
    """
    registry.check()
    session = sessions.chosen(root, task, plan)
    if not session.closed:
        raise GateError(
            f"plan {session.plan.sha256[:12]}: {session.sentence()}; nobody is unblinded before the session is closed"
        )
    found = recordings or session.folder.recordings
    sealed = registry.Attempts(task).under(session.plan.plan.sha256)
    if sealed is not None and sealed.outcome:
        proof, verdict = sealed.evidence, verdicts.found(root, sealed.evidence)[1]
    else:
        proof, verdict = _judged(root, task, session, found, watch)
    page = _shown(root, task, proof, session, found)
    return {
        "verdict": f"{verdict.outcome}: {verdict.reason}",
        "evidence": proof,
        "page": str(page),
        "next": _next(task, verdict),
    }


def _judged(root: Path, task: str, session: SessionState, recordings: Path, watch: Watch) -> tuple[str, Verdict]:
    plan = session.plan
    simulated = verdicts.found(root, plan.after)[0] if plan.after else None
    with tempfile.TemporaryDirectory(dir=root / ".vqbet", prefix="judge-") as scratch:
        staging = Path(scratch)
        watch.say(f"{task}: proving {session.done} trials")
        judging.stage(
            session.folder.path,
            staging,
            recordings=recordings,
            simulated=simulated,
            costs={"gpu_hours": _gpu_hours(task, plan.judged.candidate)},
        )
        facts = verdicts.facts_of_trials(root, plan.judged.candidate)
        proof = evidence.pack(Paths(root, task).verdicts, judging.files(staging), facts)
    folder = Paths(root, task).verdicts / proof
    verdict = evidence.replay(folder)
    registry.keep(
        task,
        folder,
        metrics={"promote": float(verdict.outcome == "PROMOTE"), "pairs": float(verdict.episodes)},
        tags={"outcome": verdict.outcome, "reason": verdict.reason, "digest": verdict.candidate, "robot": plan.robot},
    )
    _seal(task, session, verdict, proof)
    return proof, verdict


def _gpu_hours(task: str, candidate: str) -> float:
    """Return the hours of GPU behind a candidate, its tokenizer and its prior included."""
    with tempfile.TemporaryDirectory() as scratch:
        made = bundle.read(registry.download(registry.by_digest(task, candidate), Path(scratch) / "bundle"), candidate)
    parts = [str(made.provenance[name]) for name in ("tokenizer", "prior") if name in made.provenance]
    return registry.gpu_hours(task, [candidate, *parts])


def _seal(task: str, session: SessionState, verdict: Verdict, proof: str) -> None:
    sha256 = session.plan.plan.sha256
    while True:
        attempts = registry.Attempts(task)
        before = attempts.under(sha256)
        if before is not None and before.outcome:
            return
        try:
            attempts.seal_verdict(sha256, outcome=verdict.outcome, episodes=verdict.episodes, evidence=proof)
        except registry.OvertakenError:
            continue
        return


def _shown(root: Path, task: str, proof: str, session: SessionState, recordings: Path) -> Path:
    """Write the session's page, and attach it with its films to the run of its evidence."""
    there = recordings if recordings.is_dir() else None
    page = session_page.write(Paths(root, task).verdicts / proof, session.folder.path / "page", recordings=there)
    registry.attach(proof, page)
    return page


def _next(task: str, verdict: Verdict) -> str:
    if verdict.outcome == "PROMOTE":
        return f"vqbet promote {task}"
    if verdict.outcome == "HOLD":
        return f"vqbet trials plan {task}, for a session with another look; the candidate has less of alpha then"
    return "the champion stays"
