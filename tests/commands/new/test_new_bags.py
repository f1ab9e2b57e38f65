"""Bags whose topics become steps as params.yaml says: written by `vqbet new`, obeyed by `vqbet ingest`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import foreign_sets
from vqbet import config
from vqbet.commands import ingest
from vqbet.commands.new import run
from vqbet.commands.new.findings import Asked
from vqbet.contract import ConfigError, StoreError, ValidationError
from vqbet.demos.sources import opened
from vqbet.demos.sources.bags import Resampling
from vqbet.stages.progress import Watch

PARAMS = Path(__file__).resolve().parents[3] / "params.yaml"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copy(PARAMS, tmp_path / "params.yaml")
    (tmp_path / "bags").mkdir()
    for number in range(2):
        foreign_sets.bag(tmp_path / "bags" / f"take{number}", seconds=4.0 + number)
    return tmp_path


def new(root: Path, **asked: Any) -> config.SourceParams:
    fields = {"observation": ("/joints",), "action": ("/command",), "cameras": (), "actions": "absolute"}
    run.run(root, "arm", Asked(path=str(root / "bags"), **{**fields, **asked}), Watch())
    found = config.task(root / "params.yaml", "arm").source
    assert found is not None
    return found


def collect(root: Path) -> None:
    ingest.collect(root, "arm", config.task(root / "params.yaml", "arm"), "", Watch())


def test_rate_way_and_gap_are_written_and_obeyed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = new(root, control_hz=20.0, nearest=("/command",), largest_gap_s=0.3)
    assert found.resample is not None
    assert (found.control_hz, found.resample.nearest, found.resample.largest_gap_s) == (20.0, ["/command"], 0.3)
    written: list[Any] = []
    monkeypatch.setattr(ingest, "refuse_unfit", lambda demos, *_: written.append(demos))  # constant channels
    collect(root)
    source = opened(root / "bags", "bag", Resampling(20.0, frozenset({"/command"}), 0.3))
    wanted = np.concatenate([source.numbers(episode, "/command") for episode in range(2)])
    assert np.array_equal(written[0].action, wanted.astype(np.float32))
    held = opened(root / "bags", "bag", Resampling(20.0))
    assert not np.array_equal(held.numbers(0, "/command"), source.numbers(0, "/command"))


def test_without_the_key_every_topic_holds(root: Path) -> None:
    new(root)
    path = root / "params.yaml"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if "resample: {" not in line))
    assert config.task(path, "arm").source.resample is None  # type: ignore[union-attr]
    with pytest.raises(ValidationError, match="not fit for training"):
        collect(root)


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("nearest: []", 'nearest: ["/nothing"]', "nearest: /nothing is no topic that is read"),
        ("largest_gap_s: 0.5", "largest_gap_s: 0.001", r"expected topics with numbers|too few|more than 0.001 s"),
    ],
)
def test_a_bag_that_does_not_fit_is_refused_at_ingest(root: Path, before: str, after: str, sentence: str) -> None:
    new(root)
    path = root / "params.yaml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    with pytest.raises(StoreError, match=sentence):
        collect(root)


def test_other_formats_are_not_resampled(root: Path) -> None:
    new(root)
    path = root / "params.yaml"
    path.write_text(path.read_text().replace("format: bag", "format: npz"))
    with pytest.raises(ConfigError, match="resample: is for the topics of a bag; the format is npz"):
        config.task(path, "arm")
