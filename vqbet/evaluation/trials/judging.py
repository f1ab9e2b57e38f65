"""The judge of a session: unblinds it, proves every record, and returns the gate's verdict, replayable byte for byte.

    plan.json  records.jsonl  verdict.json     as of simulations; the plan names the plan of trials as its protocol
    trials/                                    `trial_folder`, summary.json (`trial_summary`), costs.json, noted.json
    simulated/                                 the simulated verdict that these trials complete, where the plan has one:
                                               its manifest.json, whose sha256 is its id, and plan, records, verdict

A record counts only with the server's signed statement and the robot's recording, both under the trial's commitment to
the policy. Whatever of that is missing or changed is refused: GateError. What was irregular is in the verdict's reason.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vqbet import statistics
from vqbet.contract import EpisodeRecord, GateError
from vqbet.evaluation import gate, records
from vqbet.evaluation.gate import DIGITS, Verdict
from vqbet.evaluation.trials import irregular, trial_proofs, trial_summary
from vqbet.evaluation.trials.trial_folder import OpenedFolder, TrialFolder
from vqbet.evaluation.trials.trial_plan import CANDIDATE, CHAMPION
from vqbet.evaluation.trials.trial_proofs import TrialRecording
from vqbet.evaluation.trials.trial_records import interim, records_of
from vqbet.files import atomic, canonical, manifest, reading
from vqbet.files.manifest import Fingerprint

TRIALS, SIMULATED = "trials", "simulated"
SUMMARY, COSTS, NOTED, MANIFEST = "summary.json", "costs.json", "noted.json", "manifest.json"
GPU = "gpu_hours"  # the one of `costs` that the verdict's reason tells
DECIDED = ("plan.json", "records.jsonl", "verdict.json")
MOST_BYTES = 256 * 2**20
MEND = "pack the session again"


@dataclass(frozen=True, slots=True)
class TrialJudgement:
    """The verdict on a session, its records and its summary. documents: the derived files of the evidence, by name."""

    verdict: Verdict
    records: tuple[EpisodeRecord, ...]
    summary: Mapping[str, Any]
    documents: Mapping[str, str]


def stage(
    session: Path,
    staging: Path,
    *,
    recordings: Path | None = None,
    simulated: Path | None = None,
    costs: Mapping[str, float] | None = None,
    noted: Sequence[str] = (),
) -> TrialJudgement:
    """Fill a new folder with the evidence of a closed session's verdict, to be packed by `evidence.pack`.

    recordings: folder of the robot's recorder; None: beside the log. simulated: evidence of the simulated verdict that
    the plan completes. costs: by name, for the cost card. noted: what was irregular beside the session, as sentences.
    Raises GateError where the session is not closed, or a proof is missing or wrong.
    """
    source, target = TrialFolder(session), TrialFolder(staging / TRIALS)
    opened = source.read()
    _expect_closed(opened)
    _expect_proofs(opened, recordings or source.recordings)
    target.recordings.mkdir(parents=True)
    for path in (source.plan, source.salt, source.log):
        shutil.copyfile(path, target.path / path.name)
    for name in {condition.picture for condition in opened.plan.conditions} - {""}:
        target.pictures.mkdir(exist_ok=True)
        shutil.copyfile(source.pictures / f"{name}.png", target.pictures / f"{name}.png")
    _take_recordings(opened, recordings or source.recordings, target.recordings)
    if simulated is not None:
        (staging / SIMULATED).mkdir()
        for name in (MANIFEST, *DECIDED):
            shutil.copyfile(simulated / name, staging / SIMULATED / name)
    atomic.write(target.path / COSTS, canonical.document(dict(costs or {})), GateError)
    atomic.write(target.path / NOTED, canonical.document(list(noted)), GateError)
    judgement = judge(staging)
    for name, text in judgement.documents.items():
        atomic.write(staging / name, text, GateError)
    return judgement


def files(staging: Path) -> dict[str, Path]:
    """Return the files of a staged folder by their names in the evidence."""
    return {name: staging / name for name in manifest.sizes(staging, GateError, MEND)}


def replay(folder: Path) -> Verdict:
    """Judge again from the evidence alone and compare every derived file byte for byte.

    Raises GateError where a proof is wrong, or a file is not what follows from the log.
    """
    judgement = judge(folder)
    for name, text in judgement.documents.items():
        if records.load(folder / name) != text:
            raise GateError(
                f"{folder / name}: is not what follows from the session beside it ({judgement.verdict.outcome}: "
                f"{judgement.verdict.reason}); it was changed after the fact: judge the session again"
            )
    return judgement.verdict


def judge(folder: Path) -> TrialJudgement:
    """Return the judgement on the session in `trials/` of a folder. Raises GateError as `replay`."""
    trials = TrialFolder(folder / TRIALS)
    opened = trials.read()
    _expect_closed(opened)
    _expect_proofs(opened, trials.recordings)
    _expect_looks(opened)
    found = trial_proofs.recordings(trials.recordings)
    played = _played(opened)
    verdict = _verdict(opened, played, found)
    costs = trial_summary.cost(opened, verdict, _costs(trials.path / COSTS))
    simulated = _simulated(opened, folder / SIMULATED)
    fused, note = _fused(opened, played, simulated)
    strange = irregular.beside(opened, found) + _noted(trials.path / NOTED)
    verdict = replace(verdict, reason=verdict.reason + _cost_clause(costs) + _clauses(strange))
    summary = {
        **trial_summary.summary(opened, verdict, found),
        "irregular": strange,
        "cost": costs,
        "fused": fused,
        "fused_note": note,
    }
    documents = {
        "plan.json": canonical.document(opened.plan.plan.to_json()),
        "records.jsonl": "".join(canonical.line(record.to_json()) + "\n" for record in played),
        "verdict.json": canonical.document(verdict.to_json()),
        f"{TRIALS}/{SUMMARY}": canonical.document(summary),
    }
    return TrialJudgement(verdict, tuple(played), summary, documents)


# --- proofs ----------------------------------------------------------------------------------------------------------


def _expect_closed(opened: OpenedFolder) -> None:
    if not opened.progress.closed:
        raise GateError(
            "the session is not closed, and nobody is unblinded before that: run it to its end, or end it on its page"
        )


def _expect_proofs(opened: OpenedFolder, recordings: Path) -> None:
    plan, trials = opened.plan, opened.progress.trials
    armed = [event for event in opened.events if event.kind == "armed"]
    nonces = {event["nonce"] for event in armed}
    if len(nonces) != len(armed):
        raise GateError("two orders to the server have one nonce, so one of its statements may be of another trial")
    for event in armed:
        trial_proofs.expect_statement(plan, opened.blinding, trials[event["trial"]], event.fields)
    numbers = [number for trial in trials.values() if (number := irregular.recorded(trial)) is not None]
    if len(set(numbers)) != len(numbers):
        raise GateError("two trials name one recording; each has a recording of its own")
    for trial in trials.values():
        if trial.state == "graded":
            trial_proofs.expect_recording(plan, opened.blinding, trial, opened.progress.operators, recordings)


def _expect_looks(opened: OpenedFolder) -> None:
    """Raise GateError unless every look said what the gate says at it."""
    look = interim(opened.plan, opened.blinding)
    for event in opened.events:
        if event.kind == "looked" and event["go_on"] != look(opened.events[: event.seq - 1], event["pairs"]):
            raise GateError(
                f"event {event.seq}, looked: says {'go on' if event['go_on'] else 'stop'} at {event['pairs']} pairs; "
                "the gate says the opposite: the log was changed, or made by another version"
            )
    if opened.progress.closed == "decided" and opened.progress.goes_on:
        raise GateError("the session was closed as decided, and no look has decided it")


def _take_recordings(opened: OpenedFolder, source: Path, target: Path) -> None:
    """Copy the two documents of all recordings of this plan, after comparing all files of those that count."""
    ours, trials = irregular.codes(opened), opened.progress.trials
    for one in trial_proofs.recordings(source).values():
        if one.code in ours:
            if one.code in trials and trials[one.code].state == "graded":
                one.verify()
            folder = target / one.folder.name
            folder.mkdir()
            for name in (trial_proofs.MANIFEST, trial_proofs.FACTS):
                shutil.copyfile(one.folder / name, folder / name)


# --- verdict ---------------------------------------------------------------------------------------------------------


def _played(opened: OpenedFolder) -> list[EpisodeRecord]:
    return records_of(opened.plan, opened.progress.trials, opened.progress.looked)


def _verdict(opened: OpenedFolder, played: list[EpisodeRecord], recordings: Mapping[int, TrialRecording]) -> Verdict:
    plan = opened.plan.plan
    void = irregular.voiding(opened, recordings)
    if void:
        return replace(gate.decide(plan, {}), reason="; ".join(void))
    if not played:
        reason = f"the session ended before its first look at {plan.looks[0]} complete pairs, so nothing can be said"
        return replace(gate.decide(plan, {}), reason=reason)
    return gate.decide(plan, gate.by_policy(played))


def _clauses(found: Sequence[str]) -> str:
    return f"; irregular: {'; '.join(found)}" if found else "; nothing was irregular"


def _cost_clause(costs: Mapping[str, float | None]) -> str:
    spent, counted, needed = (costs[name] for name in ("trials_spent", "trials_counted", "trials_needed"))
    assert spent is not None
    assert counted is not None
    more = f", {needed - counted:.0f} more may decide" if needed is not None and needed > counted else ""
    rest = f", {costs[GPU]:.2f} GPU hours" if costs.get(GPU) is not None else ""
    return f"; cost: {spent:.0f} trials{more}, {costs['robot_minutes']:.1f} robot minutes{rest}"


def _costs(path: Path) -> dict[str, float]:
    said = records.parse(records.load(path), str(path))
    whole = isinstance(said, dict) and all(
        type(value) in (int, float) and 0 <= value < math.inf for value in said.values()
    )
    if not whole:
        raise GateError(f"{path}: expected costs by name, numbers from 0, got {reading.short(said)}")
    return {name: float(value) for name, value in said.items()}


def _noted(path: Path) -> list[str]:
    said = records.parse(records.load(path), str(path))
    if not isinstance(said, list) or not all(isinstance(one, str) and one.isprintable() for one in said):
        raise GateError(f"{path}: expected a list of sentences, got {reading.short(said)}")
    return said


# --- the simulated verdict -------------------------------------------------------------------------------------------


def _simulated(opened: OpenedFolder, folder: Path) -> list[EpisodeRecord]:
    """Return the records of the simulated verdict that the plan completes; none where it completes none.

    Raises GateError where it is not that verdict, does not promote, or is about other policies.
    """
    after = opened.plan.after
    if bool(after) != folder.is_dir():
        said = f"the plan completes verdict {after[:12]}" if after else "the plan completes no simulated verdict"
        raise GateError(f"{folder}: {said}, and it is {'missing' if after else 'here'}")
    if not after:
        return []
    content = reading.content(folder / MANIFEST, GateError, most=MOST_BYTES, mend=MEND)
    if Fingerprint.of(content).sha256 != after:
        raise GateError(f"{folder}: is not verdict {after[:12]}, which the plan of trials completes")
    with reading.sentences(str(folder / MANIFEST), GateError):
        listed = manifest.from_json(records.parse(content.decode(), str(folder / MANIFEST))["files"])
        for name in DECIDED:
            if Fingerprint.of(reading.content(folder / name, GateError, most=MOST_BYTES, mend=MEND)) != listed[name]:
                raise GateError(f"{folder / name}: was changed: it is not what verdict {after[:12]} was packed with")
    verdict = gate.replay(folder)
    judged = opened.plan.judged
    if verdict.outcome != "PROMOTE" or (verdict.candidate, verdict.champion) != (judged.candidate, judged.champion):
        raise GateError(
            f"{folder}: is {verdict.outcome} about candidate {verdict.candidate[:12]} and champion "
            f"{verdict.champion[:12] or 'none'}; trials complete a PROMOTE about their own policies only"
        )
    return records.read(folder / "records.jsonl")


def _fused(
    opened: OpenedFolder, played: list[EpisodeRecord], simulated: list[EpisodeRecord]
) -> tuple[dict[str, float] | None, str]:
    """Return the prediction-powered estimate of the difference, or of the score without a champion; else why not.

    The simulated scores on the same seeds predict the trials', those on other seeds sharpen the mean.
    """
    if not simulated or not played:
        return None, "no simulated verdict beside these trials" if played else "no complete look"
    metric = opened.plan.judged.metric
    real, told = (_by_seed(metric, arms) for arms in (played, simulated))
    others = sorted(set(told) - set(real))
    if not set(real) <= set(told) or not others:
        return None, "the trials do not have the seeds of the simulated episodes"
    seeds = sorted(real)
    rows = [
        np.array([values[seed] for seed in some]) for values, some in ((real, seeds), (told, seeds), (told, others))
    ]
    found = statistics.prediction_powered(*rows)
    ends = [found.interval.estimate, found.interval.low, found.interval.high]
    if CHAMPION in opened.plan.arms:
        ends = [2 * end - 1 for end in ends]
    numbers = dict(zip(("estimate", "low", "high"), ends, strict=True)) | {"weight": found.weight}
    counts = {"measured": float(len(seeds)), "predicted_others": float(len(others))}
    return {name: round(value, DIGITS) + 0.0 for name, value in (numbers | counts).items()}, ""


def _by_seed(metric: str, played: list[EpisodeRecord]) -> dict[int, float]:
    """Return by seed the candidate's value, or where there is a champion half of the difference, plus a half."""
    arms = {
        name: {record.seed: float(getattr(record, metric)) for record in arm}
        for name, arm in gate.by_policy(played).items()
    }
    mine, theirs = arms[CANDIDATE], arms.get(CHAMPION)
    return mine if theirs is None else {seed: (value - theirs[seed] + 1) / 2 for seed, value in mine.items()}
