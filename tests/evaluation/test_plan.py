"""Plans: there and back, and every value that makes no sense refused with file and field."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vqbet.contract import GateError
from vqbet.evaluation.plan import Plan


def test_a_plan_comes_back_from_its_file_with_the_same_hash(plan: Plan, tmp_path: Path) -> None:
    plan.write(tmp_path / "plan.json")
    back = Plan.read(tmp_path / "plan.json")
    assert (back, back.sha256) == (plan, plan.sha256)
    assert (
        plan.sha256 == "c8eaa49c4be3fbdec43e7d4863f12018216ad09bfe654b2090903d05d23f09c4"
    )  # changes only together with GATE_VERSION
    assert list(plan.seeds)[::199] == [1000, 1199]


def one(share: float, **noise: Any) -> dict[str, Any]:
    return {"name": "all", "share": share, "observation_noise": 0.0, "action_noise": 0.0, **noise}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"margin": 0.0}, "margin: expected a float between 0.0 and 1.0, got 0.0"),
        ({"margin": float("nan")}, "NaN is not a number"),
        ({"alpha": 0.5}, "alpha: expected a float between 0.0 and 0.5"),
        ({"power": 0.5}, "power: expected a float between 0.5 and 1.0"),
        ({"floor": 1}, "floor: expected a float in 0..1, got 1"),
        ({"metric": "reward"}, "metric: expected one of score, success, got 'reward'"),
        ({"question": "best"}, "question: expected one of better, not_worse, got 'best'"),
        ({"stopping": "never"}, "stopping: expected one of fixed, group_sequential, anytime, got 'never'"),
        ({"looks": []}, r"looks: expected ascending numbers of episodes, got \(\)"),
        ({"looks": [100, 50]}, "looks: expected ascending numbers of episodes"),
        ({"looks": [True]}, "looks: expected ascending numbers of episodes"),
        ({"looks": 3}, "looks: expected a list, got 3"),
        ({"looks": [100, 200]}, "looks: expected one look, as stopping is 'fixed'"),
        ({"first_seed": -1}, "first_seed: expected a whole number >= 0"),
        ({"task": ""}, "task: expected a name"),
        ({"spec": None}, "spec: expected a name"),
        ({"candidate": ""}, "candidate: expected a name"),
        ({"champion": None}, "champion: expected a digest, or nothing"),
        ({"machine": 3}, "machine: expected a name, or nothing"),
        ({"baselines": ["noop", "noop"]}, "baselines: expected distinct names"),
        ({"baselines": ["champion"]}, "baselines: expected distinct names"),
        ({"baselines": "noop"}, "baselines: expected a list"),
        ({"retrained": [0.5, 1.5]}, "retrained: expected mean scores in 0..1"),
        ({"retrained": 0.5}, "retrained: expected a list"),
        ({"slices": []}, "slices: expected shares that add up to 1"),
        ({"slices": [one(0.9)]}, "slices: expected shares that add up to 1"),
        ({"slices": [one(0.5), one(0.5)]}, "slices: expected distinct names"),
        ({"slices": [one(0.0)]}, "slices: all: share: expected a float in 0..1, got 0.0"),
        ({"slices": [one(1.0, action_noise=-0.1)]}, "slices: all: action_noise: expected a float in 0..1, got -0.1"),
        ({"slices": [{"name": "all"}]}, r"slices: unknown \[\], missing \['action_noise'"),
        ({"reserved": {"selection": [900, 1001]}}, "'selection' end before 1001, those of 'gate' begin with 1000"),
        ({"reserved": {"audit": [1199, 1300]}}, "'gate' end before 1200, those of 'audit' begin with 1199"),
        (
            {"reserved": {"a": [0, 9], "b": [8, 10]}},
            "'a' end before 9, those of 'b' begin with 8: a seed that a policy",
        ),
        ({"reserved": {"audit": [9, 9]}}, "reserved: expected audit: a first seed below its end"),
        ({"reserved": {"audit": 9}}, "reserved: expected a first seed and an end, got 9"),
        ({"reserved": []}, "reserved: expected an object"),
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


def test_another_value_is_another_plan(plan: Plan) -> None:
    others = [replace(plan, machine="that one"), replace(plan, champion=""), replace(plan, looks=(201,))]
    assert len({plan.sha256, *(other.sha256 for other in others)}) == 4
