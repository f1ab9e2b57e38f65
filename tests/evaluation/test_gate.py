"""Verdicts: each outcome, each planted fault by name, looks, slices, replay byte for byte."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from vqbet.contract import EpisodeRecord, GateError
from vqbet.evaluation import gate, records
from vqbet.evaluation.gate import Plan, decide
from vqbet.evaluation.plan import Slice

Arm = Callable[..., list[EpisodeRecord]]


def shares(zeros: int, halves: int, ones: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat([0.0, 0.5, 1.0], [zeros, halves, ones]))


GOOD, POOR, NOTHING = shares(10, 40, 150), shares(80, 60, 60), np.zeros(200)


def checks(verdict: gate.Verdict) -> dict[str, str]:
    return {check.name.split(" (")[0]: check.state for check in verdict.checks}


def first(plan: Plan) -> Plan:
    """The same without a champion."""
    return replace(plan, champion="")


def test_the_first_champion_passes_absolute_floors_only_and_says_so(plan: Plan, arm: Arm) -> None:
    verdict = _alone(first(plan), arm, GOOD)
    assert verdict.outcome == "PROMOTE"
    assert verdict.reason.startswith("no champion yet, so only absolute floors were checked")
    assert checks(verdict) == {"floor": "passed", "modes": "passed", "better than noop": "passed"}
    assert (verdict.candidate, verdict.champion, verdict.more_episodes) == ("c" * 64, "", 0)
    assert verdict.numbers is not None
    assert verdict.numbers["candidate"]["score"] == 0.85
    assert verdict.numbers["noop"]["score_high"] < 0.02
    assert verdict.numbers["candidate"]["mode_entropy_bits"] == 1.0
    assert verdict.comparison is None


def test_a_better_candidate_is_promoted_against_the_champion(plan: Plan, arm: Arm) -> None:
    verdict = _against(plan, arm, GOOD, POOR)
    assert verdict.outcome == "PROMOTE"
    assert verdict.reason.startswith("against the champion, same seeds")
    assert checks(verdict)["better than champion"] == "passed"
    assert verdict.champion == "d" * 64
    assert verdict.comparison is not None
    assert verdict.comparison["mcnemar_p"] < 0.001
    assert verdict.comparison["tango_low"] > 0


def test_the_luck_of_training_again_is_told_and_decides_nothing(plan: Plan, arm: Arm) -> None:
    alone, told = (_against(replace(plan, retrained=known), arm, GOOD, POOR) for known in ((), (0.8, 0.7, 0.75)))
    assert (told.outcome, told.checks) == (alone.outcome, alone.checks)
    assert alone.comparison is not None
    assert told.comparison is not None
    assert "trainings" not in alone.comparison
    assert told.comparison["trainings"] == 3
    assert told.comparison["retraining_deviation"] == pytest.approx(0.05)
    expected = stats.t.sf(told.comparison["score_difference"] / (np.sqrt(2) * 0.05), 2)
    assert told.comparison["retraining_p"] == pytest.approx(expected, abs=1e-6)
    assert told.reason.startswith(alone.reason)
    assert "the score moves by 0.050 when the recipe is trained again (3 trainings)" in told.reason
    assert _against(replace(plan, retrained=(0.8,)), arm, GOOD, POOR).reason == alone.reason


def test_a_worse_candidate_is_rejected(plan: Plan, arm: Arm) -> None:
    assert _against(replace(plan, floor=0.1), arm, POOR, GOOD).outcome == "REJECT"


def test_a_certain_improvement_below_the_margin_is_promoted(plan: Plan, arm: Arm) -> None:
    champion = np.full(200, 0.8)
    assert _against(plan, arm, champion + 0.04, champion).outcome == "PROMOTE"


def test_no_improvement_worth_having_is_rejected(plan: Plan, arm: Arm) -> None:
    champion = np.full(200, 0.8)
    champion[0], candidate = 0.9, np.full(200, 0.8)
    verdict = _against(plan, arm, candidate, champion)
    assert verdict.outcome == "REJECT"
    assert "better than champion failed" in verdict.reason


def test_four_lucky_seeds_are_not_enough(plan: Plan, arm: Arm) -> None:
    """By the normal distribution they would be: z is 2.0 against 1.78. The exact test says 0.0625."""
    champion = np.where(np.arange(200) < 100, 0.0, 1.0)
    candidate = np.where(np.arange(200) < 4, 1.0, champion)
    verdict = _against(replace(plan, metric="success", floor=0.3), arm, candidate, champion)
    check = next(check for check in verdict.checks if check.name == "better than champion")
    assert (check.low > 0, check.chance, check.state) == (True, 0.0625, "undecided")
    assert verdict.outcome == "HOLD"
    assert "exact p 0.0625" in verdict.reason


def test_not_worse_is_another_question_than_better(plan: Plan, arm: Arm) -> None:
    champion = np.full(200, 0.8)
    same = replace(plan, question="not_worse")
    verdict = _against(same, arm, champion, champion)
    assert verdict.outcome == "PROMOTE"
    assert checks(verdict)["not worse than champion"] == "passed"
    assert _against(same, arm, champion - 0.1, champion).outcome == "REJECT"
    assert _against(same, arm, champion - 0.04, champion).outcome == "HOLD"


def test_hold_says_how_many_more_and_that_many_do_decide(plan: Plan, arm: Arm) -> None:
    champion, candidate = np.full(200, 0.5), np.full(200, 0.5)
    candidate[:30], champion[30:48] = 1.0, 1.0  # 30 wins, 18 losses
    verdict = _against(plan, arm, candidate, champion)
    assert verdict.outcome == "HOLD"
    assert checks(verdict)["better than champion"] == "undecided"
    assert 0 < verdict.more_episodes < 1800
    assert f"{verdict.more_episodes} more episodes, under a new plan, may decide" in verdict.reason
    times = -(-(200 + verdict.more_episodes) // 200)
    longer = replace(plan, looks=(200 * times,))
    assert _against(longer, arm, np.tile(candidate, times), np.tile(champion, times)).outcome == "PROMOTE"


def test_a_mean_on_the_floor_is_never_decided(plan: Plan, arm: Arm) -> None:
    verdict = _alone(first(plan), arm, np.full(200, 0.5))
    assert (verdict.outcome, verdict.more_episodes) == ("HOLD", 0)
    assert "no number of episodes would decide" in verdict.reason


@pytest.mark.parametrize(
    ("floor", "fields", "failed"), [(0.9, {}, "floor"), (0.5, {"mode": "left"}, "modes"), (0.5, {"mode": ""}, "modes")]
)
def test_a_failed_floor_rejects_with_and_without_champion(
    plan: Plan, arm: Arm, floor: float, fields: dict[str, str], failed: str
) -> None:
    for changed in (replace(plan, floor=floor), first(replace(plan, floor=floor))):
        arms = {"candidate": arm(changed, "candidate", GOOD, **fields), "noop": arm(changed, "noop", NOTHING)}
        if changed.champion:
            arms["champion"] = arm(changed, "champion", NOTHING)
        verdict = decide(changed, arms)
        assert verdict.outcome == "REJECT"
        assert f"{failed} failed" in verdict.reason


def test_a_candidate_no_better_than_a_baseline_is_not_promoted(plan: Plan, arm: Arm) -> None:
    alone = first(plan)
    for noop, outcome in ((GOOD, "HOLD"), (np.ones(200), "REJECT")):
        verdict = decide(alone, {"candidate": arm(alone, "candidate", GOOD), "noop": arm(alone, "noop", noop)})
        assert verdict.outcome == outcome
        assert "better than noop" in verdict.reason


def test_success_can_be_the_metric(plan: Plan, arm: Arm) -> None:
    verdict = _alone(first(replace(plan, metric="success", floor=0.72)), arm, GOOD)
    assert verdict.checks[0].value == 0.75
    assert verdict.outcome == "HOLD"


def test_record_order_does_not_matter(plan: Plan, arm: Arm) -> None:
    arms = {"candidate": arm(plan, "candidate", GOOD), "champion": arm(plan, "champion", POOR)}
    arms["noop"] = arm(plan, "noop", NOTHING)
    shuffled = [arms["candidate"][index] for index in np.random.default_rng(0).permutation(200)]
    assert decide(plan, arms) == decide(plan, {**arms, "candidate": shuffled, "champion": arms["champion"][::-1]})


# --- looks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopping", ["group_sequential", "anytime"])
def test_a_plain_case_is_decided_early_and_a_close_one_later(plan: Plan, arm: Arm, stopping: str) -> None:
    looking = replace(plan, stopping=stopping, looks=(50, 100, 200))
    early = _against(looking, arm, np.ones(50), np.zeros(50))
    assert (early.outcome, early.episodes, len(early.looked)) == ("PROMOTE", 50, 1)
    champion = np.full(200, 0.5)
    candidate = np.where(np.arange(200) % 10 == 0, 0.5, 0.5 + 0.2 * (np.arange(200) % 3))
    verdict = _against(looking, arm, candidate[:50] * 0 + 0.5, champion[:50])
    assert (verdict.outcome, verdict.episodes) == ("HOLD", 50)
    late = _against(looking, arm, np.concatenate([np.full(50, 0.5), candidate[50:]]), champion)
    assert len(late.looked) == 3 or late.outcome == "NOT_COMPARABLE"


def test_scores_that_are_plainly_better_pass_at_a_tenth_of_the_plan(plan: Plan, arm: Arm) -> None:
    """The look asks for a p-value of 0.0005, which the exact test must be able to find."""
    looking = replace(plan, stopping="group_sequential", looks=(50, 500))
    random = np.random.default_rng(2)
    champion, candidate = 0.5 * random.random(50), 0.5 + 0.5 * random.random(50)
    verdict = _against(looking, arm, candidate, champion)
    assert (verdict.outcome, verdict.episodes) == ("PROMOTE", 50)
    check = next(check for check in verdict.checks if check.name == "better than champion")
    assert check.chance is not None
    assert check.chance <= 0.0005


def test_each_look_has_its_own_interval(plan: Plan, arm: Arm) -> None:
    """Of the first looks they are wider than of a single one, and what they showed is in the verdict."""
    looking = replace(plan, stopping="group_sequential", looks=(100, 200), margin=0.01)
    champion, candidate = np.full(200, 0.5), np.full(200, 0.5)
    candidate[::9], champion[4::12] = 1.0, 1.0
    one, two = _against(looking, arm, candidate, champion).looked
    single = _against(replace(plan, looks=(100,), margin=0.01), arm, candidate[:100], champion[:100]).looked[0]
    assert (one.value, two.value) == pytest.approx(
        ((candidate - champion)[:100].mean(), (candidate - champion).mean()), abs=1e-6
    )
    assert one.high - one.low > single.high - single.low


def test_who_plays_on_after_a_decision_gets_no_verdict(plan: Plan, arm: Arm) -> None:
    looking = replace(plan, stopping="group_sequential", looks=(100, 200))
    candidate = np.concatenate([np.zeros(100), np.ones(100)])
    verdict = _against(looking, arm, candidate, np.full(200, 0.4))
    assert verdict.outcome == "NOT_COMPARABLE"
    assert verdict.reason == "the verdict was REJECT after 100 episodes, and 200 were played"


def test_modes_may_come_until_the_last_look(plan: Plan, arm: Arm) -> None:
    looking = first(replace(plan, stopping="group_sequential", looks=(100, 200)))
    assert checks(_alone(looking, arm, GOOD[:100], mode="left"))["modes"] == "undecided"
    assert checks(_alone(looking, arm, GOOD, mode="left"))["modes"] == "failed"


# --- slices -----------------------------------------------------------------------------------------------------------


def test_slices_have_their_shares_from_the_first_seeds_on(plan: Plan) -> None:
    for count in (20, 100, 200):
        names = [plan.slice_of(seed).name for seed in range(plan.first_seed, plan.first_seed + count)]
        assert names.count("disturbed") == pytest.approx(0.2 * count, abs=1.5)


def test_better_on_the_whole_and_worse_in_a_slice_is_rejected(plan: Plan, arm: Arm) -> None:
    disturbed = np.array([plan.slice_of(seed).name == "disturbed" for seed in plan.seeds])
    champion, candidate = np.full(200, 0.5), np.where(disturbed, 0.4, 0.8)
    verdict = _against(plan, arm, candidate, champion)
    assert verdict.outcome == "REJECT"
    assert checks(verdict)["better than champion"] == "passed"
    assert "no slice worse (worst: disturbed) failed: -0.100" in verdict.reason
    assert verdict.slices is not None
    assert verdict.slices["disturbed"]["worse_p"] < 0.001
    assert verdict.slices["undisturbed"]["difference"] == pytest.approx(0.3)


def test_one_slice_is_no_slice(plan: Plan, arm: Arm) -> None:
    verdict = _against(replace(plan, slices=(Slice("all", 1.0),)), arm, GOOD, POOR)
    assert "no slice worse" not in checks(verdict)


# --- planted faults ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["candidate", "champion", "noop"])
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (lambda arm: [record for record in arm if record.score > 0], r"seeds are missing of the first 200"),
        (lambda arm: arm[1:], r"1 seeds are missing of the first 200 \(1000\)"),
        (lambda arm: [], r"200 seeds are missing of the first 200 \(1000, 1001, 1002, 1003, 1004, \.\.\.\)"),
        (lambda arm: [*arm, arm[5]], r"1 seeds are played twice \(1005\)"),
        (lambda arm: [*arm[1:], replace(arm[0], seed=9)], r"seed 9 was played in the slice|outside the plan \(9\)"),
        (lambda arm: [*arm[:-1], replace(arm[-1], digest="e" * 64)], "seed 1199 was played by the digest 'eee"),
        (lambda arm: [replace(record, plan="0" * 64) for record in arm], "played under plan '000"),
        (lambda arm: [*arm[:-1], replace(arm[-1], world="pusht")], "seed 1199 was played in world 'pusht'"),
        (lambda arm: [*arm[:-1], replace(arm[-1], policy="other")], "seed 1199 was played by 'other'"),
        (lambda arm: [replace(record, machine="that one") for record in arm], "on the machine 'that one'"),
        (lambda arm: [replace(record, slice="disturbed") for record in arm], "in the slice 'disturbed', expected 'un"),
    ],
)
def test_records_that_do_not_belong_are_not_comparable(
    plan: Plan, arm: Arm, who: str, fault: Callable[[list[EpisodeRecord]], list[EpisodeRecord]], sentence: str
) -> None:
    played = {name: arm(plan, name, POOR) for name in ("candidate", "champion", "noop")}
    played[who] = fault(played[who])
    verdict = decide(plan, played)
    assert (verdict.outcome, verdict.checks, verdict.numbers) == ("NOT_COMPARABLE", (), None)
    assert verdict.reason.startswith(f"{who}: ")
    assert re.search(sentence, verdict.reason)


def test_arms_of_different_length_are_not_comparable(plan: Plan, arm: Arm) -> None:
    looking = replace(plan, stopping="group_sequential", looks=(100, 200))
    arms = {name: arm(looking, name, POOR) for name in ("candidate", "champion", "noop")}
    verdict = decide(looking, {**arms, "champion": arms["champion"][:100]})
    assert verdict.reason == "the arms differ in length: candidate 200, champion 100, noop 200"


def test_a_policy_is_not_compared_with_itself(plan: Plan) -> None:
    verdict = decide(replace(plan, champion="c" * 64), {})
    assert verdict.outcome == "NOT_COMPARABLE"
    assert verdict.reason == f"candidate and champion are the same policy, digest {'c' * 64}"


def test_the_plans_arms_must_have_been_played(plan: Plan, arm: Arm) -> None:
    arms = {name: arm(plan, name, POOR) for name in ("candidate", "champion", "noop")}
    del arms["noop"]
    sentence = "the plan compares candidate, champion, noop; the records are of candidate, champion"
    assert decide(plan, arms).reason == sentence


EDITS: dict[str, Any] = {
    "margin": 0.01,
    "floor": 0.1,
    "min_modes": 0,
    "alpha": 0.2,
    "power": 0.8,
    "metric": "success",
    "question": "not_worse",
    "stopping": "anytime",
    "spec": "another",
    "reserved": {"selection": (0, 900)},
}


@pytest.mark.parametrize("field", EDITS)
def test_a_plan_edited_after_the_fact_is_not_comparable(plan: Plan, arm: Arm, field: str) -> None:
    edited = replace(plan, **{field: EDITS[field]})
    verdict = decide(edited, {name: arm(plan, name, POOR) for name in ("candidate", "champion", "noop")})
    assert verdict.outcome == "NOT_COMPARABLE"
    assert f"played under plan '{plan.sha256}', expected '{edited.sha256}'" in verdict.reason


def test_a_score_that_is_no_number_is_an_error(plan: Plan, arm: Arm) -> None:
    candidate = arm(first(plan), "candidate", GOOD)
    candidate[3] = replace(candidate[3], score=float("nan"))
    with pytest.raises(GateError, match="candidate, seed 1003: score"):
        decide(first(plan), {"candidate": candidate, "noop": arm(first(plan), "noop", NOTHING)})


def test_a_plan_of_other_rules_is_an_error(plan: Plan) -> None:
    with pytest.raises(GateError, match="gate version 1, this is 3"):
        decide(replace(plan, version=1), {})


def test_higher_mean_is_no_gate() -> None:
    """The planted fault: at 20 episodes and success 0.8 it promotes an equal policy 42 % of the time."""
    random = np.random.default_rng(7)
    one, two = (random.binomial(20, 0.8, 2000) for _ in range(2))
    assert (one > two).mean() == pytest.approx(0.42, abs=0.03)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def evidence(plan: Plan, arm: Arm, tmp_path: Path) -> Path:
    scores = {"candidate": GOOD, "champion": POOR, "noop": NOTHING}
    arms = {name: arm(plan, name, values) for name, values in scores.items()}
    plan.write(tmp_path / "plan.json")
    records.write(tmp_path / "records.jsonl", [record for played in arms.values() for record in played])
    gate.write(tmp_path / "verdict.json", decide(plan, arms))
    return tmp_path


def test_a_verdict_is_replayed_from_its_evidence(evidence: Path) -> None:
    verdict = gate.replay(evidence)
    assert verdict.outcome == "PROMOTE"
    path = evidence / "verdict.json"
    before = path.read_bytes()
    gate.write(path, verdict)
    assert path.read_bytes() == before
    assert json.loads(before)["checks"][0] == asdict(verdict.checks[0])


def test_a_first_verdict_is_replayed_without_a_champion(evidence: Path, plan: Plan, arm: Arm) -> None:
    alone = first(plan)
    arms = {"candidate": arm(alone, "candidate", GOOD), "noop": arm(alone, "noop", NOTHING)}
    alone.write(evidence / "plan.json")
    records.write(evidence / "records.jsonl", [*arms["candidate"], *arms["noop"]])
    gate.write(evidence / "verdict.json", decide(alone, arms))
    assert gate.replay(evidence).outcome == "PROMOTE"


def test_where_nothing_was_played_there_is_a_verdict_too(evidence: Path, plan: Plan) -> None:
    same = replace(plan, champion="c" * 64)
    same.write(evidence / "plan.json")
    (evidence / "records.jsonl").unlink()
    gate.write(evidence / "verdict.json", decide(same, {}))
    assert gate.replay(evidence).outcome == "NOT_COMPARABLE"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("verdict.json", b"PROMOTE", b"REJECT"),
        ("verdict.json", b'"value": 0.85', b'"value": 0.86'),
        ("records.jsonl", b'"score":1.0', b'"score":0.5'),
        ("records.jsonl", b'"score":0.0', b'"score":0.5'),
        ("plan.json", b'"floor": 0.5', b'"floor": 0.4'),
    ],
)
def test_changed_evidence_is_detected(evidence: Path, name: str, old: bytes, new: bytes) -> None:
    path = evidence / name
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))
    with pytest.raises(GateError, match="the evidence beside it gives another verdict"):
        gate.replay(evidence)


@pytest.mark.parametrize("name", ["plan.json", "records.jsonl", "verdict.json"])
def test_deleted_evidence_is_detected(evidence: Path, name: str) -> None:
    (evidence / name).unlink()
    with pytest.raises(GateError, match=r"another verdict|cannot be read"):
        gate.replay(evidence)


def _alone(plan: Plan, arm: Arm, scores: np.ndarray, **fields: Any) -> gate.Verdict:
    return decide(
        plan, {"candidate": arm(plan, "candidate", scores, **fields), "noop": arm(plan, "noop", 0.0 * scores)}
    )


def _against(plan: Plan, arm: Arm, candidate: np.ndarray, champion: np.ndarray) -> gate.Verdict:
    arms = {"candidate": arm(plan, "candidate", candidate), "champion": arm(plan, "champion", champion)}
    return decide(plan, {**arms, "noop": arm(plan, "noop", 0.0 * candidate)})
