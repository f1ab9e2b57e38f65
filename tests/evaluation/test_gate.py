"""Verdicts: each outcome, each planted fault by name, how often equal policies are promoted, replay byte for byte."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vqbet.contract import EpisodeRecord, GateError
from vqbet.evaluation import gate, records
from vqbet.evaluation.gate import Plan, decide
from vqbet.evaluation.statistics import paired_difference

Arm = Callable[..., list[EpisodeRecord]]

PAIRS = 2000


def shares(zeros: int, halves: int, ones: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.repeat([0.0, 0.5, 1.0], [zeros, halves, ones]))


GOOD, POOR, NOTHING = shares(10, 40, 150), shares(80, 60, 60), np.zeros(200)


def checks(verdict: gate.Verdict) -> dict[str, str]:
    return {check.name: check.state for check in verdict.checks}


def test_the_first_champion_passes_absolute_floors_only_and_says_so(plan: Plan, arm: Arm) -> None:
    verdict = decide(plan, arm(plan, "candidate", GOOD), None, {"noop": arm(plan, "noop", NOTHING)})
    assert verdict.outcome == "PROMOTE"
    assert verdict.reason.startswith("no champion yet, so only absolute floors were checked")
    assert checks(verdict) == {"floor": "passed", "modes": "passed", "better than noop": "passed"}
    assert (verdict.candidate, verdict.champion, verdict.more_episodes) == ("c" * 64, "", 0)
    assert verdict.numbers is not None
    assert verdict.numbers["candidate"]["score"] == 0.85
    assert verdict.numbers["noop"]["score_high"] < 0.02
    assert verdict.numbers["candidate"]["mode_entropy_bits"] == 1.0


def test_a_better_candidate_is_promoted_against_the_champion(plan: Plan, arm: Arm) -> None:
    verdict = _against(plan, arm, GOOD, POOR)
    assert verdict.outcome == "PROMOTE"
    assert verdict.reason.startswith("against the champion, same seeds")
    assert checks(verdict)["better than champion"] == "passed"
    assert verdict.champion == "d" * 64


def test_a_worse_candidate_is_rejected(plan: Plan, arm: Arm) -> None:
    assert _against(replace(plan, floor=0.1), arm, POOR, GOOD).outcome == "REJECT"


def test_a_certain_improvement_below_the_margin_is_promoted(plan: Plan, arm: Arm) -> None:
    champion = np.full(200, 0.8)
    assert _against(plan, arm, champion + 0.02, champion).outcome == "PROMOTE"


def test_no_improvement_worth_having_is_rejected(plan: Plan, arm: Arm) -> None:
    champion = np.full(200, 0.8)
    champion[0], candidate = 0.9, np.full(200, 0.8)
    verdict = _against(plan, arm, candidate, champion)
    assert verdict.outcome == "REJECT"
    assert "better than champion failed" in verdict.reason


def test_hold_says_how_many_more_and_that_many_do_decide(plan: Plan, arm: Arm) -> None:
    champion, candidate = np.full(200, 0.5), np.full(200, 0.5)
    candidate[:30], champion[30:48] = 1.0, 1.0  # 30 wins, 18 losses
    verdict = _against(plan, arm, candidate, champion)
    assert verdict.outcome == "HOLD"
    assert checks(verdict)["better than champion"] == "undecided"
    assert 0 < verdict.more_episodes < 1800
    assert f"{verdict.more_episodes} more episodes" in verdict.reason
    times = -(-(200 + verdict.more_episodes) // 200)
    longer = replace(plan, episodes=200 * times)
    assert _against(longer, arm, np.tile(candidate, times), np.tile(champion, times)).outcome == "PROMOTE"


def test_hold_asks_for_no_more_than_the_plan_allows_and_then_rejects(plan: Plan, arm: Arm) -> None:
    candidate = shares(1, 199, 0)  # mean 0.4975 against a floor of 0.5
    tight = replace(plan, floor=0.5, max_episodes=230)
    verdict = decide(tight, arm(tight, "candidate", candidate), None, {"noop": arm(tight, "noop", NOTHING)})
    assert (verdict.outcome, verdict.more_episodes) == ("HOLD", 30)
    spent = replace(tight, max_episodes=200)
    verdict = decide(spent, arm(spent, "candidate", candidate), None, {"noop": arm(spent, "noop", NOTHING)})
    assert (verdict.outcome, verdict.more_episodes) == ("REJECT", 0)
    assert "after the plan's most episodes (200) still floor undecided" in verdict.reason


def test_a_mean_on_the_floor_asks_for_all_that_is_left(plan: Plan, arm: Arm) -> None:
    verdict = decide(plan, arm(plan, "candidate", np.full(200, 0.5)), None, {"noop": arm(plan, "noop", NOTHING)})
    assert (verdict.outcome, verdict.more_episodes) == ("HOLD", 1800)


@pytest.mark.parametrize(
    ("floor", "fields", "failed"), [(0.9, {}, "floor"), (0.5, {"mode": "left"}, "modes"), (0.5, {"mode": ""}, "modes")]
)
def test_a_failed_floor_rejects_with_and_without_champion(
    plan: Plan, arm: Arm, floor: float, fields: dict[str, str], failed: str
) -> None:
    changed = replace(plan, floor=floor)
    candidate, noop = arm(changed, "candidate", GOOD, **fields), {"noop": arm(changed, "noop", NOTHING)}
    for champion in (None, arm(changed, "champion", NOTHING)):
        verdict = decide(changed, candidate, champion, noop)
        assert verdict.outcome == "REJECT"
        assert f"{failed} failed" in verdict.reason


def test_a_candidate_no_better_than_a_baseline_is_not_promoted(plan: Plan, arm: Arm) -> None:
    for noop, outcome in ((GOOD, "HOLD"), (np.ones(200), "REJECT")):
        verdict = decide(plan, arm(plan, "candidate", GOOD), None, {"noop": arm(plan, "noop", noop)})
        assert verdict.outcome == outcome
        assert "better than noop" in verdict.reason


def test_success_can_be_the_metric(plan: Plan, arm: Arm) -> None:
    on_success = replace(plan, metric="success", floor=0.8)
    verdict = decide(on_success, arm(on_success, "candidate", GOOD), None, {"noop": arm(on_success, "noop", NOTHING)})
    assert verdict.checks[0].value == 0.75
    assert verdict.outcome == "HOLD"


def test_record_order_does_not_matter(plan: Plan, arm: Arm) -> None:
    candidate, champion = arm(plan, "candidate", GOOD), arm(plan, "champion", POOR)
    noop = {"noop": arm(plan, "noop", NOTHING)}
    shuffled = [candidate[index] for index in np.random.default_rng(0).permutation(200)]
    assert decide(plan, candidate, champion, noop) == decide(plan, shuffled, champion[::-1], noop)


# Planted faults


@pytest.mark.parametrize("who", ["candidate", "champion", "noop"])
@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (lambda arm: [record for record in arm if record.score > 0], r"seeds are missing"),
        (lambda arm: arm[1:], r"1 seeds are missing \(1000\)"),
        (lambda arm: [], r"200 seeds are missing \(1000, 1001, 1002, 1003, 1004, \.\.\.\)"),
        (lambda arm: [*arm, arm[5]], r"1 seeds are played twice \(1005\)"),
        (lambda arm: [*arm, replace(arm[0], seed=9)], r"1 seeds are outside the plan \(9\)"),
        (lambda arm: [replace(record, seed=record.seed + 200) for record in arm], "200 seeds are missing"),
        (lambda arm: [*arm[:-1], replace(arm[-1], digest="e" * 64)], "mix the digests"),
        (lambda arm: [replace(record, plan="0" * 64) for record in arm], "played under plan 000"),
        (lambda arm: [*arm[:-1], replace(arm[-1], world="pusht")], "seed 1199 was played in world 'pusht'"),
        (lambda arm: [*arm[:-1], replace(arm[-1], policy="other")], "seed 1199 was played by 'other'"),
    ],
)
def test_records_that_do_not_belong_are_not_comparable(
    plan: Plan, arm: Arm, who: str, fault: Callable[[list[EpisodeRecord]], list[EpisodeRecord]], sentence: str
) -> None:
    played = {name: arm(plan, name, POOR) for name in ("candidate", "champion", "noop")}
    played[who] = fault(played[who])
    verdict = decide(plan, played["candidate"], played["champion"], {"noop": played["noop"]})
    assert (verdict.outcome, verdict.checks, verdict.numbers) == ("NOT_COMPARABLE", (), None)
    assert verdict.reason.startswith(f"{who}: ")
    assert re.search(sentence, verdict.reason)


def test_a_policy_is_not_compared_with_itself(plan: Plan, arm: Arm) -> None:
    champion = arm(plan, "champion", POOR, digest="c" * 64)
    verdict = decide(plan, arm(plan, "candidate", GOOD), champion, {"noop": arm(plan, "noop", NOTHING)})
    assert verdict.outcome == "NOT_COMPARABLE"
    assert verdict.reason == f"candidate and champion are the same policy, digest {'c' * 64}"


def test_a_candidate_without_digest_is_not_comparable(plan: Plan, arm: Arm) -> None:
    candidate = arm(plan, "candidate", GOOD, digest="")
    verdict = decide(plan, candidate, None, {"noop": arm(plan, "noop", NOTHING)})
    assert (verdict.outcome, verdict.reason) == ("NOT_COMPARABLE", "candidate: the records name no bundle digest")


def test_the_plans_baselines_must_have_been_played(plan: Plan, arm: Arm) -> None:
    verdict = decide(plan, arm(plan, "candidate", GOOD), None, {})
    assert verdict.reason == "the plan names the baselines ['noop'], the records hold []"


EDITS: dict[str, Any] = {
    "margin": 0.01,
    "floor": 0.1,
    "min_modes": 0,
    "alpha": 0.2,
    "max_episodes": 201,
    "metric": "success",
    "spec": "another",
}


@pytest.mark.parametrize("field", EDITS)
def test_a_plan_edited_after_the_fact_is_not_comparable(plan: Plan, arm: Arm, field: str) -> None:
    edited = replace(plan, **{field: EDITS[field]})
    verdict = decide(edited, arm(plan, "candidate", GOOD), None, {"noop": arm(plan, "noop", NOTHING)})
    assert verdict.outcome == "NOT_COMPARABLE"
    assert f"played under plan {plan.sha256}, not {edited.sha256}" in verdict.reason


def test_a_score_that_is_no_number_is_an_error(plan: Plan, arm: Arm) -> None:
    candidate = arm(plan, "candidate", GOOD)
    candidate[3] = replace(candidate[3], score=float("nan"))
    with pytest.raises(GateError, match="candidate, seed 1003: score"):
        decide(plan, candidate, None, {"noop": arm(plan, "noop", NOTHING)})


def test_a_plan_of_other_rules_is_an_error(plan: Plan, arm: Arm) -> None:
    with pytest.raises(GateError, match="gate version 2, this is 1"):
        decide(replace(plan, version=2), [], None, {})


# Error rates, simulated


@pytest.mark.parametrize("chances", [(0.05, 0.25, 0.70), (0.3, 0.4, 0.3), (0.2, 0.0, 0.8), (0.01, 0.01, 0.98)])
@pytest.mark.parametrize("shared", [0.0, 0.5, 0.95])
def test_equal_policies_are_promoted_at_most_alpha_of_the_time(chances: tuple[float, ...], shared: float) -> None:
    """`shared` of the episodes are decided by the initial condition alone. "Higher mean" would promote nearly half."""
    random = np.random.default_rng(6)
    champion = random.choice([0.0, 0.5, 1.0], (PAIRS, 200), p=chances)
    fresh = random.choice([0.0, 0.5, 1.0], (PAIRS, 200), p=chances)
    candidate = np.where(random.random((PAIRS, 200)) < shared, champion, fresh)
    promoted = sum(paired_difference(one, two).low > 0 for one, two in zip(candidate, champion, strict=True))
    assert promoted / PAIRS <= 0.05 / 2 + 0.01


def test_higher_mean_is_no_gate() -> None:
    """The planted fault: at 20 episodes and success 0.8 it promotes an equal policy 42 % of the time."""
    random = np.random.default_rng(7)
    one, two = (random.binomial(20, 0.8, PAIRS) for _ in range(2))
    assert (one > two).mean() == pytest.approx(0.42, abs=0.03)


def test_power_at_200_episodes() -> None:
    """An improvement from 0.70 to 0.85, half of the episodes shared, is seen at least 9 times in 10."""
    random = np.random.default_rng(8)
    luck, again = random.random((2, PAIRS, 200))
    champion = luck < 0.70
    candidate = np.where(random.random((PAIRS, 200)) < 0.5, luck, again) < 0.85
    promoted = sum(
        paired_difference(one, two).low > 0
        for one, two in zip(candidate.astype(float), champion.astype(float), strict=True)
    )
    assert promoted / PAIRS >= 0.90


# Plans and files


def test_a_plan_comes_back_from_its_file_with_the_same_hash(plan: Plan, tmp_path: Path) -> None:
    plan.write(tmp_path / "plan.json")
    back = Plan.read(tmp_path / "plan.json")
    assert (back, back.sha256) == (plan, plan.sha256)
    assert (
        plan.sha256 == "14bb4b69ff6ba67604fba3e46a490379313ff38e2bc375c070fb942b37d1fe85"
    )  # golden: changes only together with GATE_VERSION
    assert list(plan.seeds)[::199] == [1000, 1199]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"margin": 0.0}, "margin: expected a float between 0 and 1.0, got 0.0"),
        ({"margin": float("nan")}, "NaN is not a number"),
        ({"alpha": 0.5}, "alpha: expected a float between 0 and 0.5"),
        ({"floor": 1}, "floor: expected a float in 0..1, got 1"),
        ({"metric": "reward"}, "metric: expected 'score' or 'success', got 'reward'"),
        ({"episodes": 0}, "episodes: expected a whole number >= 1"),
        ({"episodes": True}, "episodes: expected a whole number >= 1, got True"),
        ({"episodes": 3000}, "max_episodes: expected at least episodes = 3000, got 2000"),
        ({"first_seed": -1}, "first_seed: expected a whole number >= 0"),
        ({"task": ""}, "task: expected a name"),
        ({"spec": None}, "spec: expected a name"),
        ({"baselines": ["noop", "noop"]}, "baselines: expected distinct names"),
        ({"baselines": ["champion"]}, "baselines: expected distinct names"),
        ({"baselines": "noop"}, "baselines: expected a list"),
        ({"extra": 1}, r"unknown \['extra'\]"),
    ],
)
def test_a_wrong_plan_is_refused_with_file_and_field(
    plan: Plan, tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**plan.to_json(), **change}))
    with pytest.raises(GateError, match=rf"plan\.json: .*{sentence}"):
        Plan.read(path)


def test_a_plan_that_is_no_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("3")
    with pytest.raises(GateError, match="expected an object, got int"):
        Plan.read(tmp_path / "plan.json")


@pytest.fixture
def evidence(plan: Plan, arm: Arm, tmp_path: Path) -> Path:
    candidate, champion, noop = (
        arm(plan, name, scores) for name, scores in (("candidate", GOOD), ("champion", POOR), ("noop", NOTHING))
    )
    plan.write(tmp_path / "evaluation" / "plan.json")
    records.write(tmp_path / "evaluation" / "records.jsonl", [*candidate, *noop])
    records.write(tmp_path / "gate" / "champion.jsonl", champion)
    gate.write(tmp_path / "gate" / "verdict.json", decide(plan, candidate, champion, {"noop": noop}))
    return tmp_path


def test_a_verdict_is_replayed_from_its_evidence(evidence: Path) -> None:
    verdict = gate.replay(evidence)
    assert verdict.outcome == "PROMOTE"
    path = evidence / "gate" / "verdict.json"
    before = path.read_bytes()
    gate.write(path, verdict)
    assert path.read_bytes() == before
    assert json.loads(before)["checks"][0] == asdict(verdict.checks[0])


def test_a_first_verdict_is_replayed_without_a_champion(evidence: Path, plan: Plan) -> None:
    (evidence / "gate" / "champion.jsonl").unlink()
    played = gate.arms(records.read(evidence / "evaluation" / "records.jsonl"))
    verdict = decide(plan, played["candidate"], None, {"noop": played["noop"]})
    gate.write(evidence / "gate" / "verdict.json", verdict)
    assert gate.replay(evidence) == verdict


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("gate/verdict.json", b"PROMOTE", b"REJECT"),
        ("gate/verdict.json", b'"value": 0.85', b'"value": 0.86'),
        ("gate/champion.jsonl", b'"score":1.0', b'"score":0.5'),
        ("evaluation/records.jsonl", b'"score":0.0', b'"score":0.5'),
        ("evaluation/plan.json", b'"floor": 0.5', b'"floor": 0.4'),
    ],
)
def test_changed_evidence_is_detected(evidence: Path, name: str, old: bytes, new: bytes) -> None:
    path = evidence / name
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))
    with pytest.raises(GateError, match="the evidence beside it gives another verdict"):
        gate.replay(evidence)


@pytest.mark.parametrize("name", ["gate/champion.jsonl", "gate/verdict.json", "evaluation/records.jsonl"])
def test_deleted_evidence_is_detected(evidence: Path, name: str) -> None:
    (evidence / name).unlink()
    with pytest.raises(GateError, match=r"another verdict|cannot be read"):
        gate.replay(evidence)


def _against(plan: Plan, arm: Arm, candidate: np.ndarray, champion: np.ndarray) -> gate.Verdict:
    return decide(
        plan,
        arm(plan, "candidate", candidate),
        arm(plan, "champion", champion),
        {"noop": arm(plan, "noop", np.zeros(len(candidate)))},
    )
