"""Judging a session: what a record must prove, what was irregular, and evidence that replays byte for byte."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.point import played
from tests.support.trials import SALT, STEPS, Bench, by_arm, judged, key, planned, proof, rewrite
from vqbet.contract import GateError
from vqbet.evaluation import evidence, gate, records
from vqbet.evaluation.gate import Verdict
from vqbet.evaluation.plan import Plan
from vqbet.evaluation.trials import judging
from vqbet.evaluation.trials.judging import TrialJudgement
from vqbet.evaluation.trials.trial_plan import TrialPlan
from vqbet.evaluation.trials.trial_progress import Trial
from vqbet.files import canonical
from vqbet.signing.statements import Statement

BETTER = by_arm({"candidate": "done", "champion": "touched"})
WORSE = by_arm({"candidate": "nothing", "champion": "done"})
FACTS = {"packages": {"numpy": "2"}}
Lines = list[dict[str, Any]]


def ended(folder: Path, outcome: Callable[[Trial], str] = BETTER, **fields: Any) -> Bench:
    bench = Bench(folder, plan=planned(**fields))
    bench.play(outcome)
    bench.session.log.close()
    return bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return ended(tmp_path / "session")


def staged(bench: Bench, **options: Any) -> TrialJudgement:
    """Judge a session into a fresh folder beside it."""
    target = bench.folder.with_name("staged")
    if target.exists():
        shutil.rmtree(target)
    return judging.stage(bench.folder, target, **options)


def packed(bench: Bench, **options: Any) -> Path:
    staged(bench, **options)
    store = bench.folder.with_name("store")
    return store / evidence.pack(store, judging.files(bench.folder.with_name("staged")), FACTS)


def verdict_of(bench: Bench) -> Verdict:
    """Return the verdict, after its evidence has replayed."""
    return evidence.replay(packed(bench))


# --- verdicts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("outcome", "expected"), [(BETTER, "PROMOTE"), (WORSE, "REJECT")])
def test_robot_records_are_judged_as_simulated_ones_and_replayed_from_the_evidence_alone(
    tmp_path: Path, outcome: Callable[[Trial], str], expected: str
) -> None:
    bench = ended(tmp_path / "session", outcome)
    folder = packed(bench)
    shutil.rmtree(bench.folder)
    shutil.rmtree(bench.folder.with_name("staged"))
    verdict = evidence.replay(folder)
    assert verdict.outcome == expected
    plan = Plan.read(folder / "plan.json")
    assert plan == bench.plan.plan
    own = gate.decide(plan, gate.by_policy(records.read(folder / "records.jsonl")))
    assert (own.outcome, own.checks, own.looked, own.numbers) == (
        verdict.outcome,
        verdict.checks,
        verdict.looked,
        verdict.numbers,
    )
    assert verdict.reason.startswith(own.reason)
    assert verdict.reason.endswith("robot minutes; nothing was irregular")


def test_records_say_what_the_log_says(bench: Bench) -> None:
    made = staged(bench).records
    assert {(record.policy, record.score, record.success) for record in made} == {
        ("candidate", 1.0, True),
        ("champion", 0.5, False),
    }
    pairs = len(made) // 2
    assert [record.seed for record in made] == [*range(1000, 1000 + pairs)] * 2
    assert {record.steps for record in made} == {STEPS}
    assert dict(made[0].metrics) == {"duration_s": 1.5, "holds": 0.0, "interventions": 0.0, "repeats": 0.0}
    assert {record.machine for record in made} == {"arm 1"}


def test_hold_says_how_many_more_trials(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "session")
    bench.play(by_arm({"candidate": "done", "champion": "done"}), most=8)
    assert bench.session.settle()
    bench.session.close("end", operator="Ada")
    made = staged(bench)
    assert made.verdict.outcome == "HOLD"
    assert made.verdict.more_episodes > 0
    cost = made.summary["cost"]
    assert cost["trials_needed"] == 2 * (4 + made.verdict.more_episodes)
    assert f"{2 * made.verdict.more_episodes} more may decide" in made.verdict.reason


def test_an_invalid_trial_counts_as_its_repeat_and_costs_a_trial(tmp_path: Path) -> None:
    seen: set[int] = set()

    def outcome(trial: Trial) -> str:
        if trial.slot.number in (2, 5) and trial.repeat == 0:
            return ""
        seen.add(trial.repeat)
        return BETTER(trial)

    bench = ended(tmp_path / "session", outcome)
    made = staged(bench)
    assert made.verdict.outcome == "PROMOTE"
    assert seen == {0, 1}
    assert sum(record.metrics["repeats"] for record in made.records) == 2
    cost = made.summary["cost"]
    assert (cost["trials_spent"], cost["trials_invalid"]) == (len(made.records) + 2, 2)
    assert sum(sum(reasons.values()) for reasons in made.summary["invalid"].values()) == 2


def test_a_session_without_a_simulated_champion_is_judged_against_its_floor(tmp_path: Path) -> None:
    bench = ended(tmp_path / "session", lambda trial: "done", judged={"champion": ""})
    verdict = verdict_of(bench)
    assert verdict.outcome == "PROMOTE"
    assert "only absolute floors were checked" in verdict.reason


def test_the_summary_is_what_the_page_draws(bench: Bench) -> None:
    said = staged(bench, costs={"gpu_hours": 0.25}).summary
    assert said == json.loads((bench.folder.with_name("staged") / "trials" / "summary.json").read_text())
    assert [trial["number"] for trial in said["trials"]] == list(range(1, len(said["trials"]) + 1))
    assert [trial["code"] for trial in said["trials"]] == list(bench.session.progress.trials)
    assert said["arms"] == bench.plan.arms
    assert said["stages"] == {"candidate": {"done": 8}, "champion": {"touched": 8}} or said["looks"][-1]["pairs"] == 4
    assert said["tags"]["candidate"] == {}
    assert said["looks"][-1]["outcome"] == "decided"
    assert all(look["low"] <= look["value"] <= look["high"] for look in said["looks"])
    assert said["cost"]["gpu_hours"] == 0.25
    assert said["cost"]["robot_minutes"] == pytest.approx(1.5 * len(said["trials"]) / 60)
    assert (said["voiding"], said["irregular"], said["fused"]) == ([], [], None)


# --- unblinding ------------------------------------------------------------------------------------------------------


def test_nobody_is_unblinded_before_the_session_is_closed(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "session")
    bench.play(BETTER, most=3)
    with pytest.raises(GateError, match="the session is not closed, and nobody is unblinded before that"):
        staged(bench)
    assert not bench.folder.with_name("staged").exists()


def test_a_session_that_ended_before_its_first_look_says_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "session")
    bench.play(BETTER, most=5)
    bench.session.close("end", operator="Ada")
    made = staged(bench)
    assert made.verdict.outcome == "NOT_COMPARABLE"
    assert made.verdict.reason.startswith("the session ended before its first look at 4 complete pairs")
    assert "ended early by the operator, 5 trials after the last look not counted" in made.verdict.reason
    assert made.records == ()
    assert verdict_of(bench).outcome == "NOT_COMPARABLE"


# --- irregularities --------------------------------------------------------------------------------------------------


def test_two_operators_are_named(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "session")
    bench.play(BETTER, most=2)
    bench.session.open("second", operator="Bob", user="bob")
    bench.operator = "Bob"
    bench.play(BETTER)
    verdict = verdict_of(bench)
    assert verdict.outcome == "PROMOTE"
    assert "irregular: 2 operators: Ada, Bob" in verdict.reason


def test_a_trial_that_was_armed_twice_and_an_outcome_that_was_taken_back_are_named(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "session")
    bench.session.arm("one", bench.prove)
    trial = bench.run()
    bench.enter(trial, "nothing")
    bench.session.undo("undo", trial.code, operator="Ada")
    bench.enter(trial, BETTER(trial))
    bench.play(BETTER)
    verdict = verdict_of(bench)
    assert verdict.outcome == "PROMOTE"
    assert "1 trial armed more than once; 1 outcome taken back and entered again" in verdict.reason


def test_a_lost_connection_is_named(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "session")
    trial = bench.session.arm("a", bench.prove)
    bench.session.start("b", trial.code)
    bench.session.stop("c", trial.code, by="lost")
    bench.enter(trial, "")
    bench.play(BETTER)
    verdict = verdict_of(bench)
    assert verdict.outcome == "PROMOTE"
    assert "irregular: the connection was lost in 1 trial" in verdict.reason


def test_a_verdict_does_not_rest_on_a_session_with_too_many_invalid_trials(tmp_path: Path) -> None:
    bench = ended(tmp_path / "session", lambda trial: "" if trial.repeat == 0 else BETTER(trial))
    verdict = verdict_of(bench)
    assert verdict.outcome == "NOT_COMPARABLE"
    assert "trials were invalid, more than the share of 0.4 of the plan" in verdict.reason


def test_invalid_trials_of_one_arm_alone_are_named(tmp_path: Path) -> None:
    def outcome(trial: Trial) -> str:
        return "" if trial.slot.arm == "candidate" and trial.repeat == 0 else BETTER(trial)

    asked = {"looks": (8,), "stopping": "fixed"}
    verdict = verdict_of(ended(tmp_path / "session", outcome, judged=asked))
    assert verdict.outcome == "PROMOTE"
    assert (
        "differ in invalid trials (8 of 16 of the candidate, 0 of 8 of the champion; Fisher's p 0.0" in verdict.reason
    )


def cut_short(tmp_path: Path) -> Bench:
    """Return a session whose log was replaced by an older copy, of whole lines: its ninth trial never was."""
    bench = Bench(tmp_path / "session")
    bench.play(lambda trial: "done", most=9)
    lines = bench.paths.log.read_text().splitlines(keepends=True)
    bench.session.log.close()
    bench.paths.log.write_text("".join(lines[:-4]))
    bench.reopen()
    return bench


def test_a_trial_that_was_removed_from_the_end_of_the_log_leaves_no_verdict(tmp_path: Path) -> None:
    """The log is valid by itself; the robot's recordings know better."""
    bench = cut_short(tmp_path)
    bench.session.close("end", operator="Ada")
    verdict = verdict_of(bench)
    assert verdict.outcome == "NOT_COMPARABLE"
    assert "the log lacks 1 trial that the robot recorded under this plan (recordings 9)" in verdict.reason


@pytest.mark.slow
def test_a_trial_that_was_removed_and_run_once_more_is_named_and_counts_as_invalid(tmp_path: Path) -> None:
    bench = cut_short(tmp_path)
    bench.play(lambda trial: "done")
    verdict = verdict_of(bench)
    assert verdict.outcome == "PROMOTE"
    assert "1 trial run more than once and not declared invalid (recordings 9)" in verdict.reason
    for trial in list(bench.session.progress.trials.values())[:16]:
        bench.record(trial)
    verdict = verdict_of(bench)
    assert verdict.outcome == "NOT_COMPARABLE"
    assert re.search("17 of [0-9]+ trials were invalid, more than the share of 0.4", verdict.reason)


def test_a_recording_of_an_invalid_trial_that_the_log_does_not_name_is_named(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "session")
    trial = bench.session.arm("a", bench.prove)
    bench.session.start("b", trial.code)
    bench.record(trial)
    bench.session.stop("c", trial.code, by="lost")
    bench.enter(trial, "")
    bench.play(BETTER)
    assert "recordings of invalid trials that the log does not name: 1" in verdict_of(bench).reason


def test_other_steps_than_recorded_and_a_lost_recording_of_an_invalid_trial_are_named(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "session")
    trial = bench.session.arm("a", bench.prove)
    bench.session.start("b", trial.code)
    bench.session.stop("c", trial.code, by="robot", report={**bench.record(trial), "steps": STEPS + 1})
    bench.enter(trial, "")
    bench.play(BETTER)
    assert "in 1 trial the robot reported other steps than it recorded" in verdict_of(bench).reason
    shutil.rmtree(bench.paths.recordings / "00001")
    assert "the recordings of 1 invalid trial are missing" in staged(bench).verdict.reason


def test_recordings_of_others_in_the_folder_do_not_matter(bench: Bench) -> None:
    trial = next(iter(bench.session.progress.trials.values()))
    number = bench.record(trial, session="corrections", digest="e" * 64)["recording"]["number"]
    verdict = verdict_of(bench)
    assert verdict.reason.endswith("nothing was irregular")
    assert not (bench.folder.with_name("staged") / "trials" / "recordings" / f"{number:05d}").exists()


# --- provenance ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"digest": "e" * 64}, "is of another policy than the plan's"),
        ({"robot": "arm 2"}, "is of another robot than the plan's: 'arm 2', expected 'arm 1'"),
        ({"session": "trial ABCDEFGH"}, "is of another session than the plan's"),
        ({"session": ""}, "is of another session than the plan's"),
        ({"seed": 7}, "is of another seed than the plan's: 7"),
        ({"operator": "Eve"}, r"by operator 'Eve', the session's are \('Ada',\)"),
    ],
)
def test_a_recording_of_something_else_is_refused(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    bench = Bench(tmp_path / "session")
    trial = bench.run(**wrong)
    bench.enter(trial, BETTER(trial))
    bench.play(BETTER)
    with pytest.raises(GateError, match=message):
        staged(bench)


def _lose(folder: Path) -> None:
    shutil.rmtree(folder)


def _change_array(folder: Path) -> None:
    array = np.load(folder / "action.npy")
    np.save(folder / "action.npy", array + 1)


def _change_facts(folder: Path) -> None:
    said = json.loads((folder / "episode.json").read_text())
    (folder / "episode.json").write_text(json.dumps({**said, "operator": "Eve"}))


def _change_manifest(folder: Path) -> None:
    said = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**said, "note": "fine"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_lose, r"00003/manifest\.json: is missing"),
        (_change_array, r"00003/action\.npy: is missing or was changed"),
        (_change_facts, r"00003/episode\.json: was changed"),
        (_change_manifest, "recording 3: is another one than the log names"),
    ],
)
def test_a_recording_that_is_missing_or_changed_is_refused(
    bench: Bench, change: Callable[[Path], None], message: str
) -> None:
    change(bench.paths.recordings / "00003")
    with pytest.raises(GateError, match=message):
        staged(bench)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"commitment": "0" * 64}, "not about this trial and its policy: commitment differs"),
        ({"plan": "0" * 64}, "not about this trial and its policy: plan differs"),
        ({"robot": "arm 2"}, "not about this trial and its policy: robot differs"),
        ({"trial": "ABCDEFGH", "nonce": "old"}, "not about this trial and its policy: trial, nonce differ"),
    ],
)
def test_a_statement_about_something_else_is_refused(tmp_path: Path, wrong: dict[str, str], message: str) -> None:
    """Signed by the right server: an answer to another order, or of another policy."""
    bench = Bench(tmp_path / "session")
    bench.session.arm("a", lambda trial: proof(bench.plan, bench.blinding, trial, nonce="new", wrong=wrong))
    bench.session.arm("b", bench.prove)
    bench.play(BETTER)
    with pytest.raises(GateError, match=message):
        staged(bench)


def test_the_other_arm_s_policy_in_a_trial_is_refused(tmp_path: Path) -> None:
    """The server was right that it serves one of the two, and served the wrong one."""
    bench = Bench(tmp_path / "session")

    def swapped(trial: Trial) -> dict[str, Any]:
        other = next(digest for arm, digest in bench.plan.arms.items() if arm != trial.slot.arm)
        wrong = {"commitment": bench.blinding.commitment(trial.code, other)}
        return proof(bench.plan, bench.blinding, trial, nonce="n", wrong=wrong)

    bench.session.arm("a", swapped)
    bench.session.arm("b", bench.prove)
    bench.play(BETTER)
    with pytest.raises(GateError, match="not about this trial and its policy: commitment differs"):
        staged(bench)


def test_a_signature_of_another_key_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    def forge(lines: Lines) -> Lines:
        armed = next(line for line in lines if line["kind"] == "armed")
        other = replace(key(), private=Ed25519PrivateKey.generate())
        armed["signature"] = other.sign(Statement.from_json(armed["statement"]).content())
        return lines

    bench = ended(tmp_path / "session")
    rewrite(bench.paths.log, forge)
    with pytest.raises(GateError, match="is not signed by the key that the plan names"):
        staged(bench)


@pytest.mark.parametrize("value", [None, 7, {}, {"plan": 1}])
def test_what_is_no_statement_is_refused(bench: Bench, value: Any) -> None:
    rewrite(bench.paths.log, lambda lines: [lines[0], {**lines[1], "statement": value}, *lines[2:]])
    with pytest.raises(GateError, match="statement of the server"):
        staged(bench)


def test_one_nonce_for_two_orders_is_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "session")
    for name in "ab":
        bench.session.arm(name, lambda trial: proof(bench.plan, bench.blinding, trial, nonce="same"))
    bench.play(BETTER)
    with pytest.raises(GateError, match="two orders to the server have one nonce"):
        staged(bench)


def test_one_recording_for_two_trials_is_refused(bench: Bench) -> None:
    def doubled(lines: Lines) -> Lines:
        stopped = [line for line in lines if line["kind"] == "stopped"]
        stopped[1]["recording"] = stopped[0]["recording"]
        return lines

    rewrite(bench.paths.log, doubled)
    with pytest.raises(GateError, match="two trials name one recording"):
        staged(bench)


# --- what was changed after the fact ---------------------------------------------------------------------------------


def test_a_plan_that_was_edited_after_locking_is_refused(bench: Bench) -> None:
    plan = replace(bench.plan, judged=judged(margin=0.6))
    plan.write(bench.paths.plan)
    with pytest.raises(GateError, match=r"session\.jsonl: event 1, opened: of plan .*; do not mix them"):
        staged(bench)
    bench.paths.plan.write_text(json.dumps(bench.plan.to_json()))
    with pytest.raises(GateError, match=r"plan\.json: is not as it was written"):
        staged(bench)


def test_another_salt_is_refused(bench: Bench) -> None:
    bench.paths.salt.write_text(SALT[::-1].hex())
    with pytest.raises(GateError, match="the salt is not the one"):
        staged(bench)
    bench.paths.salt.write_text("salt")
    with pytest.raises(GateError, match="salt"):
        staged(bench)


def test_a_picture_that_was_exchanged_is_refused(tmp_path: Path) -> None:
    import hashlib

    content = b"picture"
    name = hashlib.sha256(content).hexdigest()
    conditions = (replace(planned().conditions[0], picture=name),)
    bench = Bench(tmp_path / "session", plan=planned(conditions=conditions))
    bench.paths.pictures.mkdir()
    (bench.paths.pictures / f"{name}.png").write_bytes(content)
    bench.play(BETTER)
    folder = packed(bench)
    assert (folder / "trials" / "pictures" / f"{name}.png").read_bytes() == content
    (bench.paths.pictures / f"{name}.png").write_bytes(b"another")
    with pytest.raises(GateError, match="the plan names this picture of 'left'"):
        staged(bench)


def test_an_outcome_that_was_edited_is_refused(bench: Bench) -> None:
    text = bench.paths.log.read_text()
    bench.paths.log.write_text(text.replace('"touched"', '"nothing"', 1))
    with pytest.raises(GateError, match="was changed: its hash is another one"):
        staged(bench)


def test_a_look_that_said_another_thing_is_refused(tmp_path: Path) -> None:
    """A desk that goes on after the gate has decided, or stops although it has not."""
    bench = ended(tmp_path / "session", WORSE)

    def stop_early(lines: Lines) -> Lines:
        first = next(place for place, line in enumerate(lines) if line["kind"] == "looked")
        return [*lines[:first], {**lines[first], "go_on": not lines[first]["go_on"]}, lines[-1]]

    rewrite(bench.paths.log, stop_early)
    with pytest.raises(GateError, match=r"looked: says (stop|go on) at 4 pairs; the gate says the opposite"):
        staged(bench)


def test_closed_as_decided_must_be_decided(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "session")
    bench.play(by_arm({"candidate": "done", "champion": "done"}), most=8)
    bench.session.settle()
    bench.session.close("end", operator="Ada")
    rewrite(bench.paths.log, lambda lines: [*lines[:-1], {**lines[-1], "why": "decided"}])
    with pytest.raises(GateError, match="closed as decided, and no look has decided it"):
        staged(bench)


DERIVED = ("plan.json", "records.jsonl", "verdict.json", "trials/summary.json")


@pytest.mark.parametrize("name", DERIVED)
def test_a_derived_file_that_does_not_follow_is_refused_although_it_was_packed_anew(bench: Bench, name: str) -> None:
    """Whoever packs a folder computes its hashes; what the log says is another matter."""
    staged(bench)
    target = bench.folder.with_name("staged")
    text = (target / name).read_text()
    changed = {
        "plan.json": text.replace('"alpha": 0.2', '"alpha": 0.3'),
        "records.jsonl": text.replace('"score":0.5', '"score":0.6'),
        "verdict.json": text.replace("nothing was irregular", "all was well"),
        "trials/summary.json": text.replace('"operators": [\n    "Ada"', '"operators": [\n    "Bob"'),
    }[name]
    assert changed != text
    (target / name).write_text(changed)
    store = bench.folder.with_name("store")
    with pytest.raises(GateError, match="is not what follows from the session beside it"):
        evidence.pack(store, judging.files(target), FACTS)
    assert evidence.folders(store) == []


def test_one_byte_anywhere_is_detected(bench: Bench) -> None:
    folder, random = packed(bench), np.random.default_rng(0)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        good = path.read_bytes()
        place = int(random.integers(len(good)))
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(GateError):
            evidence.replay(folder)
        path.write_bytes(good)
    assert evidence.replay(folder).outcome == "PROMOTE"


def test_robot_records_without_their_session_are_no_evidence(bench: Bench) -> None:
    """The coin flips: records that somebody has written, under a plan that names a robot."""
    staged(bench)
    target, store = bench.folder.with_name("staged"), bench.folder.with_name("store")
    names = ("plan.json", "records.jsonl", "verdict.json")
    own = gate.decide(bench.plan.plan, gate.by_policy(records.read(target / "records.jsonl")))
    gate.write(target / "verdict.json", own)
    with pytest.raises(GateError, match=r"trials/plan\.json"):
        evidence.pack(store, {name: target / name for name in names}, FACTS)
    plain = bench.plan.judged
    plain.write(target / "plan.json")
    made = [replace(record, plan=plain.sha256) for record in records.read(target / "records.jsonl")]
    records.write(target / "records.jsonl", made)
    gate.write(target / "verdict.json", gate.decide(plain, gate.by_policy(made)))
    with pytest.raises(GateError, match=r"trials/plan\.json"):
        evidence.pack(store, {name: target / name for name in names}, FACTS)


# --- both kinds of evidence ------------------------------------------------------------------------------------------


def simulated(store: Path, scores: tuple[np.ndarray, np.ndarray], **fields: Any) -> str:
    """Pack a simulated verdict about the same policies; return its id."""
    plan = judged(world="point", machine="here", metric="success", looks=(60,), stopping="fixed", margin=0.2, **fields)
    arms = {name: played(plan, name, values) for name, values in zip(("candidate", "champion"), scores, strict=True)}
    folder = store.with_name("simulated")
    folder.mkdir()
    plan.write(folder / "plan.json")
    records.write(folder / "records.jsonl", [record for arm in arms.values() for record in arm])
    gate.write(folder / "verdict.json", gate.decide(plan, arms))
    return evidence.pack(store, {path.name: path for path in folder.iterdir()}, FACTS)


def both(tmp_path: Path, better: bool = True) -> tuple[TrialPlan, Path]:
    random = np.random.default_rng(0)
    mine = (random.uniform(size=60) < (0.95 if better else 0.2)).astype(float)
    theirs = (random.uniform(size=60) < 0.6).astype(float)
    made = simulated(tmp_path / "simulated-store", (mine, theirs))
    return planned(after=made), tmp_path / "simulated-store" / made


def test_a_verdict_that_completes_a_simulated_one_holds_it_and_a_fused_estimate(tmp_path: Path) -> None:
    plan, before = both(tmp_path)
    bench = Bench(tmp_path / "session", plan=plan)
    bench.play(BETTER)
    made = staged(bench, simulated=before)
    assert made.verdict.outcome == "PROMOTE"
    fused = made.summary["fused"]
    assert fused["low"] <= fused["estimate"] <= fused["high"]
    assert fused["measured"] + fused["predicted_others"] == 60
    assert made.summary["after"] == before.name
    assert evidence.replay(packed(bench, simulated=before)) == made.verdict


def test_it_is_refused_without_that_verdict_or_with_another_one(tmp_path: Path) -> None:
    plan, before = both(tmp_path)
    bench = Bench(tmp_path / "session", plan=plan)
    bench.play(BETTER)
    with pytest.raises(GateError, match=f"the plan completes verdict {before.name[:12]}, and it is missing"):
        staged(bench)
    text = (before / "records.jsonl").read_text()
    (before / "records.jsonl").write_text(text.replace('"steps":20', '"steps":21', 1))
    with pytest.raises(GateError, match=r"records\.jsonl: was changed: it is not what verdict"):
        staged(bench, simulated=before)
    (before / "manifest.json").write_text((before / "manifest.json").read_text() + "\n")
    with pytest.raises(GateError, match="is not verdict"):
        staged(bench, simulated=before)


def test_a_simulated_verdict_that_does_not_promote_is_not_completed(tmp_path: Path) -> None:
    plan, before = both(tmp_path, better=False)
    bench = Bench(tmp_path / "session", plan=plan)
    bench.play(BETTER)
    with pytest.raises(GateError, match="is REJECT about candidate c"):
        staged(bench, simulated=before)


def test_a_simulated_verdict_that_the_plan_does_not_complete_is_refused(tmp_path: Path) -> None:
    _, before = both(tmp_path)
    bench = ended(tmp_path / "session")
    with pytest.raises(GateError, match="the plan completes no simulated verdict, and it is here"):
        staged(bench, simulated=before)


@pytest.mark.parametrize("costs", [{"gpu_hours": -1.0}, {"gpu_hours": "many"}, {"gpu_hours": True}])
def test_costs_are_numbers(bench: Bench, costs: dict[str, Any]) -> None:
    with pytest.raises(GateError, match=r"costs\.json: expected costs by name"):
        staged(bench, costs=costs)
    assert canonical.document(costs)
