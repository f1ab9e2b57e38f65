"""The comparison's own params.yaml: read as strictly as the project's, and every refusal names file and key."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from vqbet.comparison import params
from vqbet.comparison.params import BCSize, BesoOptions, BeTSize, CNNSize, TransformerSize
from vqbet.comparison.policies.bc import BehaviorCloningShape
from vqbet.comparison.policies.beso import BesoShape, Sampling
from vqbet.comparison.policies.bet import BeTShape
from vqbet.comparison.policies.diffusion_cnn import CNNShape
from vqbet.comparison.policies.diffusion_transformer import TransformerShape
from vqbet.config.section import Section, Transformer
from vqbet.contract import ConfigError

PROJECT = Path(__file__).resolve().parents[2] / "params.yaml"
DECIDED = {"goal_steps"}  # of every shape, by the table: whether a cell has goals


def edited(tmp_path: Path, old: str, new: str) -> Path:
    text = params.OWN.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "own.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("section", "shape", "decided"),
    [
        (BCSize, BehaviorCloningShape, DECIDED),
        (BeTSize, BeTShape, DECIDED),
        (CNNSize, CNNShape, DECIDED),
        (TransformerSize, TransformerShape, DECIDED),
        (Transformer, BesoShape, {*DECIDED, "chunk"}),  # BESO's chunk is 1
        (BesoOptions, Sampling, set()),
    ],
)
def test_a_section_has_every_argument_of_its_class_but_what_the_table_decides(
    section: type[Section], shape: type, decided: set[str]
) -> None:
    assert set(section.model_fields) == {field.name for field in fields(shape)} - decided


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("goal_steps: 1", "goal_stpes: 1", "goal_stpes: unknown key"),
        ("ablation_tasks: [pusht]\n", "", "ablation_tasks: missing"),
        ("goal_steps: 1", "goal_steps: '1'", "goal_steps: .* got '1'"),
        ("  smoke: {train_s: 3.0", "  smoke: {train_s: 0.0", "sizes.smoke.train_s: .* got 0.0"),
        ("goal_steps: 1", "goal_steps: [", "is not YAML"),
        ("goal_steps: 1", "goal_steps: &a [*a]", "an alias stands for what holds it"),
        ("ablation_tasks: [pusht]", "ablation_tasks: [bathroom]", "no section 'bathroom'; sections: blockpush"),
    ],
)
def test_a_mistake_is_refused_with_its_file_and_path(tmp_path: Path, old: str, new: str, named: str) -> None:
    path = edited(tmp_path, old, new)
    with pytest.raises(ConfigError, match=named) as caught:
        params.read(PROJECT, own=path)
    assert str(PROJECT if "bathroom" in new else path) in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("{prior.goal_as:", "{prior.dropout: .nan, prior.goal_as:", "goal_changes: prior.dropout: .* got nan"),
        ("{prior.goal_as:", "{prior.focal_gamma: -1.0, prior.goal_as:", "goal_changes: prior.focal_gamma: .* got -1.0"),
        ("{data: 0.05}", "{data: .inf}", "ablations.data 5 %: data: .* got inf"),
        ("{data: 0.05}", "{data: 0.0}", "ablations.data 5 %: data: .* got 0.0"),
        ("{observation_noise: 0.01}", "{observation_noise: -0.01}", "observation_noise: .* got -0.01"),
        ("{tokenizer.codes: 4}", "{tokenizer.codes: 1}", "tokenizer.codes: .* got 1"),
        ("{tokenizer.codes: 4}", '{tokenizer.codes: "4"}', "tokenizer.codes: .* got '4'"),
        ('{bundle.execute: "first"}', "{bundle.execute: second}", "bundle.execute: .* got 'second'"),
    ],
)
def test_what_an_ablation_changes_is_checked_when_it_is_read(tmp_path: Path, old: str, new: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        params.read(PROJECT, own=edited(tmp_path, old, new))
