"""Records of trials: what a session's log says of each pair, as episode records of the gate, and its interim look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vqbet.contract import EpisodeRecord, GateError
from vqbet.evaluation import gate
from vqbet.evaluation.trials.blinding import Blinding
from vqbet.evaluation.trials.trial_log import TrialEvent
from vqbet.evaluation.trials.trial_plan import TrialPlan
from vqbet.evaluation.trials.trial_progress import Trial, progress
from vqbet.evaluation.trials.trial_session import Interim


def records_of(plan: TrialPlan, trials: Mapping[str, Trial], pairs: int) -> list[EpisodeRecord]:
    """Return the records of the first `pairs` pairs, arm by arm. They name the arms: for the gate only.

    Raises GateError where a trial of these pairs has no outcome.
    """
    valid = {(trial.slot.arm, trial.slot.pair): trial for trial in trials.values() if trial.state == "graded"}
    wanted = [(arm, pair) for arm in plan.arms for pair in range(pairs)]
    missing = [place for place in wanted if place not in valid]
    if missing:
        raise GateError(f"{len(missing)} of {len(wanted)} trials of the first {pairs} pairs have no outcome")
    protocol = plan.plan
    return [_record(plan, protocol.sha256, valid[place]) for place in wanted]


def interim(plan: TrialPlan, blinding: Blinding) -> Interim:
    """Return the look of a session: whether the gate, on the complete pairs, asks for more."""

    def goes_on(events: Sequence[TrialEvent], pairs: int) -> bool:
        played = records_of(plan, progress(plan, blinding, events).trials, pairs)
        return gate.decide(plan.plan, gate.by_policy(played)).outcome == "HOLD"

    return goes_on


def seed_of(plan: TrialPlan, pair: int) -> int:
    """Return the seed by which the gate knows a pair."""
    return plan.judged.first_seed + pair


def _record(plan: TrialPlan, protocol: str, trial: Trial) -> EpisodeRecord:
    assert trial.stopped is not None
    credit, said = plan.grade(trial.stage).credit, trial.stopped
    numbers = {name: float(said[name]) for name in ("duration_s", "holds", "interventions")}
    return EpisodeRecord(
        world=plan.judged.world,
        policy=trial.slot.arm,
        digest=plan.arms[trial.slot.arm],
        plan=protocol,
        seed=seed_of(plan, trial.slot.pair),
        steps=said["steps"],
        success=credit == 1.0,
        score=credit,
        slice=plan.judged.slices[0].name,
        machine=plan.robot,
        metrics={**numbers, "repeats": float(trial.repeat)},
    )
