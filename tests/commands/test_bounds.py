"""The conditions of a promotion are those that were committed."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.support.shrunk import PARAMS
from tests.support.synthetic import synthetic
from vqbet import config
from vqbet.commands import bounds
from vqbet.contract import ConfigError, GateError
from vqbet.evaluation.plan import Plan, Slice
from vqbet.stages import gate

TASK = "blockpush"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    edit(tmp_path, PARAMS)
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def git(root: Path, *argv: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *argv], cwd=root, check=True)


def commit(root: Path) -> None:
    git(root, "add", "params.yaml")
    git(root, "commit", "-qm", "params")


def edit(root: Path, source: Path | None = None, **sections: dict[str, Any]) -> None:
    yaml = YAML()
    content = yaml.load((source or root / "params.yaml").read_text(encoding="utf-8"))
    for section, values in sections.items():
        content[TASK][section].update(values)
    with (root / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(content, file)


def plan(root: Path) -> Plan:
    digests = {"candidate": "c" * 64, "champion": "d" * 64}
    return gate.make_plan(TASK, config.task(root / "params.yaml", TASK), synthetic(3), digests)


def test_a_plan_of_the_committed_bounds_is_fine(root: Path) -> None:
    bounds.check(root, TASK, plan(root))
    bounds.check(root, TASK, replace(plan(root), first_seed=2900000, attempt=3))  # fresh seeds are what HOLD asks for


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"floor": 0.0}, "gate.floor: the verdict was sought with 0.0, the committed params.yaml says 0.8"),
        ({"margin": 0.99}, "gate.margin: .* 0.99, .* 0.05"),
        ({"alpha": 0.4}, "gate.alpha"),
        ({"question": "not_worse"}, "gate.question: .* not_worse, .* better"),
        ({"looks": [10]}, "gate.looks: .* 10, .* 200, 500, 1000, 2000"),
        ({"baselines": []}, "gate.baselines: .* noop, nearest"),
        ({"min_modes": 0}, "gate.min_modes"),
        ({"slices": {"undisturbed": {"share": 1.0}}}, "gate.slices: .* undisturbed, .* undisturbed, disturbed"),
    ],
)
def test_bounds_that_nobody_committed_are_refused(root: Path, changed: dict[str, Any], says: str) -> None:
    edit(root, gate=changed)
    sought = plan(root)
    with pytest.raises(GateError, match=f"blockpush.{says}"):
        bounds.check(root, TASK, sought)
    commit(root)
    bounds.check(root, TASK, sought)


def test_approvals_are_those_that_were_committed(root: Path) -> None:
    edit(root, promotion={"approvals": 2})
    commit(root)
    edit(root, promotion={"approvals": 0})
    assert bounds.approvals(root, TASK) == 2


def test_without_a_repository_the_folder_counts(tmp_path: Path) -> None:
    edit(tmp_path, PARAMS, promotion={"approvals": 3})
    assert bounds.approvals(tmp_path, TASK) == 3


def test_a_task_that_was_not_committed_is_a_sentence(root: Path) -> None:
    yaml = YAML()
    content = yaml.load((root / "params.yaml").read_text(encoding="utf-8"))
    content["mine"] = content[TASK]
    with (root / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(content, file)
    with pytest.raises(
        ConfigError, match=r"params.yaml of the last commit: no section 'mine'.*commit params.yaml first"
    ):
        bounds.approvals(root, "mine")


def test_a_slice_of_other_noise_is_refused(root: Path) -> None:
    sought = plan(root)
    louder = tuple(Slice(part.name, part.share, part.observation_noise / 2, 0.0) for part in sought.slices)
    with pytest.raises(GateError, match=r"blockpush.gate.slices"):
        bounds.check(root, TASK, replace(sought, slices=louder))
