"""A verdict on held-out episodes rejects what is shown to be bad, never promotes, and is recomputed byte for byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vqbet.contract import EpisodeRecord, GateError
from vqbet.evaluation import gate, offline_gate, records
from vqbet.evaluation.gate import Verdict
from vqbet.evaluation.plan import Plan, Slice

DIGEST = "c" * 64
RANDOM = np.random.default_rng(0)
GOOD = 0.8 + 0.05 * RANDOM.random(12)


def plan(episodes: int = 12, sessions: int = 0, **changes: object) -> Plan:
    contents = {"episodes": tuple(f"{number:016x}" for number in range(episodes))}
    if sessions:
        contents["sessions"] = tuple(f"{100 + number:016x}" for number in range(sessions))
    made = Plan(
        task="arm",
        world=offline_gate.world("arm"),
        spec="a" * 64,
        candidate=DIGEST,
        champion="",
        machine="",
        first_seed=0,
        looks=(episodes + sessions,),
        reserved={},
        slices=(Slice("held-out", 1.0),),
        metric="score",
        question="better",
        stopping="fixed",
        margin=0.05,
        alpha=0.05,
        power=0.9,
        floor=0.4,
        min_modes=0,
        baselines=("mean", "nearest"),
        held_out=contents,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def played(asked: Plan, **scores: np.ndarray) -> list[EpisodeRecord]:
    return [
        EpisodeRecord(
            world=asked.world,
            policy=name,
            digest=asked.candidate if name == "candidate" else "",
            plan=asked.sha256,
            seed=seed,
            steps=50,
            success=False,
            score=float(score),
            mode=content,
            slice=part,
            metrics={"error": 1 - float(score), "error_next": 0.1, "error_last": 0.2},
        )
        for name, values in scores.items()
        for seed, ((part, content), score) in enumerate(zip(offline_gate.identities(asked), values, strict=True))
    ]


def verdict(asked: Plan, **scores: np.ndarray) -> Verdict:
    return offline_gate.decide(asked, gate.by_policy(played(asked, **scores)))


def test_a_good_policy_is_held_for_the_robot() -> None:
    found = verdict(plan(), candidate=GOOD, mean=GOOD - 0.5, nearest=GOOD - 0.1, linear=GOOD + 0.1)
    assert found.outcome == "HOLD"
    assert found.reason == offline_gate.NEEDS
    assert all(check.passed for check in found.checks)
    assert found.numbers is not None
    assert found.numbers["linear"]["score"] > found.numbers["candidate"]["score"], "shown, and no check"


@pytest.mark.parametrize("score", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("other", [0.0, 0.5, 1.0])
def test_nothing_is_ever_promoted(score: float, other: float) -> None:
    for count in (1, 4, 12):
        values = {"candidate": np.full(count, score), "mean": np.full(count, other), "nearest": np.full(count, other)}
        assert verdict(plan(count), **values).outcome in ("HOLD", "REJECT")


def test_a_policy_that_repeats_the_mean_is_rejected() -> None:
    """Planted: the policy's actions are the mean of the training actions, above the floor or below it."""
    found = verdict(plan(floor=0.1), candidate=GOOD - 0.5, mean=GOOD - 0.5, nearest=GOOD - 0.6)
    assert found.outcome == "REJECT"
    assert "better than mean on held-out episodes failed: 0.000" in found.reason
    rounded = GOOD - 0.5 + 1e-6 * RANDOM.standard_normal(12)
    assert verdict(plan(floor=0.1), candidate=rounded, mean=GOOD - 0.5, nearest=GOOD - 0.6).outcome == "REJECT"


def test_a_policy_below_the_floor_is_rejected() -> None:
    found = verdict(plan(floor=0.9), candidate=GOOD, mean=GOOD - 0.5, nearest=GOOD - 0.1)
    assert found.outcome == "REJECT"
    assert "floor on held-out episodes failed" in found.reason


def test_a_set_is_judged_by_itself() -> None:
    values = np.concatenate([GOOD, GOOD - 0.5])
    found = verdict(plan(12, 12), candidate=values, mean=np.full(24, 0.2), nearest=np.full(24, 0.25))
    assert found.outcome == "REJECT"
    assert "floor on held-out sessions failed" in found.reason
    assert found.slices is not None
    assert found.slices["sessions"]["episodes"] == 12


def test_few_episodes_show_nothing() -> None:
    count = offline_gate.LEAST - 1
    values = {"candidate": np.zeros(count), "mean": np.full(count, 0.5), "nearest": np.full(count, 0.9)}
    assert verdict(plan(count), **values).outcome == "HOLD"


def test_what_may_be_chance_is_held() -> None:
    apart = np.array([0.1, -0.1] * 6)
    assert verdict(plan(), candidate=GOOD, mean=GOOD - 0.5, nearest=GOOD + apart).outcome == "HOLD"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mode": "f" * 16}, "has the content 'ffffffffffffffff'"),
        ({"plan": "b" * 64}, "is under plan"),
        ({"digest": "b" * 64}, "is by the digest"),
        ({"slice": "sessions"}, "is in the set 'sessions'"),
        ({"world": "blockpush"}, "is in world 'blockpush'"),
        ({"seed": 3}, "expected one record of each of 12 episodes"),
    ],
)
def test_records_of_something_else_are_not_comparable(changes: dict[str, object], said: str) -> None:
    first, *rest = played(plan(), candidate=GOOD, mean=GOOD - 0.5, nearest=GOOD - 0.1)
    found = offline_gate.decide(plan(), gate.by_policy([replace(first, **changes), *rest]))  # type: ignore[arg-type]
    assert found.outcome == "NOT_COMPARABLE"
    assert said in found.reason


def test_a_baseline_that_is_missing_is_not_comparable() -> None:
    assert verdict(plan(), candidate=GOOD, mean=GOOD).outcome == "NOT_COMPARABLE"


def test_a_changed_record_breaks_the_replay(tmp_path: Path) -> None:
    """Planted: the score of one held-out episode is raised after the verdict."""
    asked, made = plan(), played(plan(), candidate=GOOD - 0.5, mean=GOOD - 0.2, nearest=GOOD)
    asked.write(tmp_path / "plan.json")
    assert Plan.read(tmp_path / "plan.json") == asked
    records.write(tmp_path / "records.jsonl", made)
    gate.write(tmp_path / "verdict.json", offline_gate.decide(asked, gate.by_policy(made)))
    assert gate.replay(tmp_path, offline_gate.decide).outcome == "REJECT"
    records.write(tmp_path / "records.jsonl", [replace(made[0], score=0.99), *made[1:]])
    with pytest.raises(GateError, match="the evidence beside it gives another verdict"):
        gate.replay(tmp_path, offline_gate.decide)


def test_a_plan_without_held_out_episodes_has_the_bytes_of_before() -> None:
    said = plan().to_json()
    assert "held_out" in said
    assert "held_out" not in replace(plan(), held_out={}).to_json()
    with pytest.raises(GateError, match="held_out: expected a list of sha256"):
        Plan.from_json({**said, "held_out": {"episodes": [1]}})
    with pytest.raises(GateError, match="held_out: expected as many episodes as looks"):
        plan(looks=(3,))
