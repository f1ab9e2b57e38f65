"""params.yaml: what is accepted, and that every refusal names the path of the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from vqbet import config
from vqbet.contract import ConfigError

SHIPPED = Path(__file__).resolve().parent.parent / "params.yaml"


def edited(tmp_path: Path, old: str, new: str) -> Path:
    text = SHIPPED.read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "params.yaml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def test_the_shipped_file_is_good() -> None:
    assert config.tasks(SHIPPED) == ["blockpush"]
    for name in ("blockpush", "pusht"):
        assert config.task(SHIPPED, name).gate.alpha == 0.05


def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    """YAML 1.2: 1e-4 is a number (PyYAML gives a string)."""
    path = edited(tmp_path, "weight_decay: 1.0e-4", "weight_decay: 1e-4")
    assert config.task(path, "blockpush").tokenizer.weight_decay == 1e-4


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("  window: 1", "  windwo: 1", "blockpush.prior.windwo: unknown key"),
        ("    window: 1\n", "", "blockpush.prior.window: missing"),
        ("    window: 1", "    window: '3'", "blockpush.prior.window: .* got '3'"),
        ("    window: 1", "    window: 0", "blockpush.prior.window: .* got 0"),
        ("    window: 1", "    window: 3.5", "blockpush.prior.window: .* got 3.5"),
        ("    codes: 16", "    codes: 100000", "blockpush.tokenizer.codes: .* got 100000"),
        ('execute: "first"', 'execute: "second"', "blockpush.bundle.execute: .* got 'second'"),
        ("alpha: 0.05", "alpha: 0.9", "blockpush.gate.alpha: .* got 0.9"),
        ("alpha: 0.05", "alpha: .nan", "blockpush.gate.alpha"),
        ("    heads: 4", "    heads: 7", "not a multiple of heads 7"),
        ("max_divergence: 0.02", "max_divergence: 2.0", "blockpush.drift.max_divergence: .* got 2.0"),
        ("max_shift: 0.2", "max_shift: 0.0", "blockpush.drift.max_shift: .* got 0.0"),
        ("max_tail: 1.25", "max_tail: .inf", "blockpush.drift.max_tail"),
        ("  drift: {max_shift: 0.2, max_divergence: 0.02, max_tail: 1.25}\n", "", "blockpush.drift: missing"),
        ("min_steps: 20", "min_steps: 900", "min_steps 900 is above max_steps"),
        ("[blockpush]", "[blockpsuh]", "'blockpsuh' has no section"),
        ("[blockpush]", "blockpush", "expected a list of names"),
    ],
)
def test_a_mistake_is_refused_with_its_path(tmp_path: Path, old: str, new: str, named: str) -> None:
    path = edited(tmp_path, old, new)
    read = config.tasks if old == "[blockpush]" else lambda path: config.task(path, "blockpush")
    with pytest.raises(ConfigError, match=named) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("text", "named"), [("a: [", "is not YAML"), ("- 1", "expected a mapping"), ("", "mapping")])
def test_a_file_that_is_not_parameters(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=named):
        config.task(path, "blockpush")


def test_a_missing_file_and_a_missing_task(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.task(tmp_path / "params.yaml", "blockpush")
    with pytest.raises(ConfigError, match="no section 'bathroom'; sections: blockpush, pusht"):
        config.task(SHIPPED, "bathroom")
