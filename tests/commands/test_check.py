"""`vqbet check` and the first stage tell all that is wrong before any training: a planted fault for each line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from tests.support.shrunk import PARAMS
from tests.support.synthetic import synthetic
from vqbet import config
from vqbet.commands import check, params
from vqbet.contract import ConfigError, Demonstrations, GateError, PipelineError, StoreError
from vqbet.demos import store
from vqbet.stages import preflight, runner
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

TASK = "blockpush"
FITS = {"validate": {"min_steps": 1, "max_steps": 1000}, "tokenizer": {"chunk": 2}, "gate": {"baselines": ["nearest"]}}


def project(root: Path, held: Demonstrations | None, **sections: Mapping[str, Any]) -> Path:
    """A folder with params.yaml, some values of the first task changed, and the task's demonstrations."""
    yaml = YAML()
    content = yaml.load(PARAMS.read_text(encoding="utf-8"))
    for changes in (FITS, sections):
        for name, values in changes.items():
            content[TASK][name].update(values)
    root.mkdir(parents=True, exist_ok=True)
    with (root / "params.yaml").open("w", encoding="utf-8") as file:
        yaml.dump(content, file)
    if held is not None:
        store.write(Paths(root, TASK).store, held)
    return root


@pytest.fixture(autouse=True)
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is empty."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")


def few(distinct: int) -> Demonstrations:
    """Demonstrations whose actions take so many different values."""
    demos = synthetic(6)
    action = np.zeros_like(demos.action)
    action[:, 0] = np.arange(len(action)) % distinct
    return replace(demos, action=action)


def test_what_is_right_is_nothing_to_tell(tmp_path: Path) -> None:
    assert check.run(project(tmp_path, synthetic(6)), TASK) == []


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"gate": {"looks": [200, 100]}}, "blockpush.gate: looks: expected ascending numbers of episodes"),
        ({"gate": {"stopping": "fixed"}}, "blockpush.gate: looks: expected one look, as stopping is 'fixed'"),
        ({"gate": {"slices": {"all": {"share": 0.5}}}}, "blockpush.gate: slices: expected shares that add up to 1"),
        ({"gate": {"slices": {"all": {"share": 0.0}}}}, "blockpush.gate: slices: all: share: expected a float in 0..1"),
        ({"gate": {"baselines": ["nearest", "nearest"]}}, "blockpush.gate: baselines: expected distinct names"),
        ({"gate": {"first_seed": 1_000_100}}, "blockpush.gate: seeds: those of 'selection' end before 1000200"),
        ({"demos": {"seed": 999_900}}, "blockpush.gate: seeds: those of 'demonstrations' end before 1000900"),
        ({"gate": {"looks": [20]}}, "blockpush.gate.looks: at the last, of 20 episodes, the power is"),
        ({"gate": {"baselines": ["noop"]}}, "blockpush.gate.baselines: task 'synthetic': cannot hold still"),
        ({"demos": {"views": ["mirrored"]}}, "blockpush.demos.views: mirrored: the world of 'blockpush' does not look"),
        ({"demos": {"views": ["absolute"]}}, "blockpush.demos.views: absolute: the world of 'blockpush' has no"),
        ({"tokenizer": {"chunk": 60}}, "blockpush.tokenizer.chunk: 60 actions, but the longest of 6 episodes has"),
        ({"validate": {"min_steps": 900}}, "blockpush.validate.min_steps: 900, but an episode has"),
        ({"validate": {"max_steps": 2}}, "blockpush.validate.max_steps: 2, but an episode has"),
        ({"prior": {"unseen": ["wing*"]}}, "blockpush.prior.unseen: 'wing*' fits no observed channel; there are"),
        ({"prior": {"width": 97}}, "blockpush.prior: width 97 is not a multiple of heads 4"),
    ],
)
def test_each_fault_is_a_line_that_names_its_parameter(tmp_path: Path, sections: Any, sentence: str) -> None:
    found = check.run(project(tmp_path, synthetic(6), **sections), TASK)
    assert [sentence in line for line in found] == [True], found


def test_a_chunk_that_some_episodes_do_not_fill(tmp_path: Path) -> None:
    demos = synthetic(6)
    chunk = int(demos.lengths.max())
    found = check.run(project(tmp_path, demos, tokenizer={"chunk": chunk}), TASK)
    assert any("episodes are shorter and teach nothing" in line for line in found)


@pytest.mark.parametrize(
    ("tokenizer", "sentence"),
    [
        (
            {"chunk": 1, "codes": 16},
            "blockpush.tokenizer.codes: 16 codes for 4 distinct chunks of data; use fewer codes",
        ),
        (
            {"chunk": 1, "kind": "fsq", "codes": 16},
            "blockpush.tokenizer.health.min_used: 0.5 of 16 codes cannot be in use: the data has 4 distinct chunks",
        ),
    ],
)
def test_codes_that_the_data_cannot_use(tmp_path: Path, tokenizer: dict[str, Any], sentence: str) -> None:
    found = check.run(project(tmp_path, few(4), tokenizer=tokenizer), TASK)
    assert [sentence in line for line in found] == [True], found


def test_no_data_and_data_that_cannot_be_read(tmp_path: Path) -> None:
    (found,) = check.run(project(tmp_path, None), TASK)
    assert "blockpush.zarr: no demonstrations; bring them in: vqbet ingest blockpush" in found
    project(tmp_path, synthetic(6))
    for path in Paths(tmp_path, TASK).store.rglob("zarr.json"):
        path.write_text("{")
    assert len(check.run(tmp_path, TASK)) == 1


def test_no_section_and_no_world(tmp_path: Path) -> None:
    root = project(tmp_path, synthetic(6))
    (found,) = check.run(root, "sofa")
    assert "no section 'sofa'" in found
    with (root / "params.yaml").open("a", encoding="utf-8") as file:
        file.write("\nsofa:\n" + PARAMS.read_text(encoding="utf-8").split("\nblockpush:\n")[1].split("\npusht:")[0])
    found = check.run(root, "sofa")
    assert any("sofa.gate.evidence: the task has no world to simulate" in line for line in found)
    assert any("sofa.zarr: no demonstrations" in line for line in found)


def test_everything_is_told_at_once(tmp_path: Path) -> None:
    sections = {"gate": {"looks": [9, 8], "baselines": ["noop"]}, "demos": {"views": ["mirrored"]}}
    root = project(tmp_path, few(4), tokenizer={"codes": 512}, prior={"unseen": ["wing"]}, **sections)
    assert len(check.run(root, TASK)) == 5


def test_the_first_stage_refuses_with_the_whole_list_and_begins_nothing(tmp_path: Path) -> None:
    root = project(tmp_path, synthetic(6), demos={"views": ["mirrored"]}, gate={"looks": [9, 8]})
    with pytest.raises(PipelineError, match=r"2 things are wrong, and nothing was begun:\n  - .*looks.*\n  - .*mirror"):
        runner.run(root, TASK, "validate", config.task(root / "params.yaml", TASK), Watch())
    assert not Paths(root, TASK).artifacts.exists()


def test_one_fault_alone_keeps_its_own_error(tmp_path: Path) -> None:
    for number, (sections, kind) in enumerate((({"gate": {"looks": [9, 8]}}, GateError), ({}, StoreError))):
        root = project(tmp_path / str(number), None if kind is StoreError else synthetic(6), **sections)
        with pytest.raises(kind):
            preflight.refuse(Paths(root, TASK), config.task(root / "params.yaml", TASK))


def test_a_task_prints_what_its_stages_see(tmp_path: Path) -> None:
    """What is printed can stand in params.yaml in the place of the section."""
    root = project(tmp_path, None)
    path = tmp_path / "flat.yaml"
    path.write_text(params.run(root, TASK), encoding="utf-8")
    assert config.task(path, TASK) == config.task(root / "params.yaml", TASK)
    assert list(params.tasks(root)) == [
        "blockpush",
        "pusht",
        "pusht_image",
        "blockpush_drawn",
        "kitchen",
        "kitchen_image",
    ]
    assert params.tasks(root)["pusht"] == "not built"
    with pytest.raises(ConfigError, match="no section 'defaults'"):
        params.run(root, "defaults")
