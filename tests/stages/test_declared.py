"""A declared task before its first stage: its store must be what params.yaml declares, its world must be one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.support.made_source import MadeSource, made
from vqbet import config
from vqbet.commands import ingest, located
from vqbet.commands.new import run as new
from vqbet.commands.new.findings import Asked
from vqbet.config import TaskParams
from vqbet.contract import StoreError, ValidationError
from vqbet.demos import store
from vqbet.stages import preflight, worlds
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"
POINT = {
    "gymnasium": "tests.support.gym_worlds:Stranger/Point-v0",
    "observation": {"state": "agent.place"},
    "success": "info.near",
    "max_steps": 20,
}


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> MadeSource:
    found = made(24)

    @contextmanager
    def opened(*_: object) -> Iterator[MadeSource]:
        yield found

    monkeypatch.setattr(located, "opened", opened)
    monkeypatch.setattr(ingest.origin, "imported", lambda *_: ingest.Origin("made", "npz", "0" * 64))
    return found


@pytest.fixture
def root(tmp_path: Path, source: MadeSource) -> Path:
    """A project with the declared task `arm`, looked at and ingested."""
    shutil.copy(PARAMS, tmp_path / "params.yaml")
    new.run(tmp_path, "arm", Asked(path="/data/arm"), Watch())
    ingest.collect(tmp_path, "arm", params(tmp_path), "", Watch())
    return tmp_path


def params(root: Path) -> TaskParams:
    return config.task(root / "params.yaml", "arm")


def edit(root: Path, section: str, values: Mapping[str, Any]) -> None:
    yaml, path = YAML(), root / "params.yaml"
    content = yaml.load(path.read_text(encoding="utf-8"))
    content["arm"][section].update(values)
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(content, file)


def wrong(root: Path) -> list[str]:
    return [str(error) for error in preflight.wrong(Paths(root, "arm"), params(root))]


def test_what_new_writes_and_ingest_brings_in_can_be_trained(root: Path) -> None:
    assert wrong(root) == []
    demos = store.read(Paths(root, "arm").store)
    assert demos.spec == params(root).source.spec("arm")  # type: ignore[union-attr]


def test_a_declaration_that_was_changed_since(root: Path) -> None:
    edit(root, "source", {"control_hz": 25.0})
    (sentence,) = wrong(root)
    assert "arm.source: says otherwise than" in sentence
    assert "control_hz: 25.0 here, 20.0 there" in sentence
    assert "vqbet ingest arm" in sentence


def test_demonstrations_that_are_not_fit_leave_the_old_store_alone(root: Path, source: MadeSource) -> None:
    before = store.digest(Paths(root, "arm").store)
    source.values[3]["action"][5] = float("nan")
    with pytest.raises(ValidationError, match=r"not finite|nan"):
        ingest.collect(root, "arm", params(root), "", Watch())
    assert store.digest(Paths(root, "arm").store) == before


def test_what_is_not_used_is_said(root: Path) -> None:
    said: list[str] = []
    ingest.collect(root, "arm", params(root), "", replace(Watch(), say=said.append))
    assert "not used of made: effort" in said


def test_a_source_that_has_lost_a_field(root: Path, source: MadeSource) -> None:
    del source.fields["action"]
    with pytest.raises(StoreError, match="has no field 'action', which is declared"):
        ingest.collect(root, "arm", params(root), "", Watch())


def test_a_declared_world_is_tried_and_named_by_its_declaration(root: Path) -> None:
    edit(root, "evaluate", {"world": POINT, "videos": 0})
    edit(root, "gate", {"evidence": ["simulated"], "baselines": ["noop"]})
    assert wrong(root) == []
    assert worlds.exists("arm", params(root))
    name = worlds.name("arm", asked=False, params=params(root))
    assert worlds.shown(name) == POINT["gymnasium"]
    env = worlds.make(name, store.read(Paths(root, "arm").store))
    assert env.max_steps == 20
    edit(root, "evaluate", {"world": {**POINT, "success": "info.far"}})
    assert worlds.name("arm", asked=False, params=params(root)) != name
    (sentence,) = wrong(root)
    assert "info.far: the environment's info does not have it" in sentence


def test_a_declared_world_without_a_place_for_a_field(root: Path) -> None:
    edit(root, "evaluate", {"world": {**POINT, "observation": {}}, "videos": 0})
    (sentence,) = wrong(root)
    assert "arm.evaluate.world.observation: expected a path for each observed field (state), got none" in sentence
