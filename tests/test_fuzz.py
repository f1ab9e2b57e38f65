"""A sample of what `python -m bench.fuzz` does by the thousand, in a time that a busy machine bounds, not the test."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import fuzz, mutants
from vqbet.contract import ConfigError

BUDGET_S, FEWEST = 45.0, 5
BAD = ("traceback", "hang", "wrong", "too long")


@pytest.mark.slow
def test_no_badly_edited_file_ends_in_a_traceback(tmp_path: Path) -> None:
    counts = {"params": 40, "artefacts": 40}
    found, failures = fuzz.run(counts, seed=1, budget_s=BUDGET_S, folder=tmp_path)
    assert not failures, "\n".join(failures)
    for kind, ended in found.items():
        assert sum(ended.values()) >= FEWEST, kind
        assert ended["sentence"], kind


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda: None, "accepted"),
        (raising(ConfigError("what is wrong")), "sentence"),
        (raising(ConfigError("x" * 10_000)), "too long"),
        (raising(ValueError("x")), "traceback"),
        (raising(MemoryError()), "traceback"),
        (lambda: fuzz.finite({"a": [{"b": float("nan")}]}), "wrong"),
        (lambda: fuzz.finite({"a": 1e30}), "wrong"),
        (lambda: fuzz.finite({"a": [1, 2.5, "x", None, True]}), "accepted"),
    ],
)
def test_every_ending_is_told_apart(act: Callable[[], None], expected: str) -> None:
    assert fuzz.outcome(act)[0] == expected


def test_a_hang_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def works() -> None:
        while True:
            pass

    monkeypatch.setattr(fuzz, "LIMIT_S", 0.1)
    assert fuzz.outcome(works)[0] == "hang"
    monkeypatch.setattr(fuzz, "WAIT_S", 0.1)
    assert fuzz.outcome(lambda: time.sleep(60))[0] == "hang"


def test_a_mutant_is_its_seeds(tmp_path: Path) -> None:
    text = fuzz.small()
    made = [mutants.of_yaml(random.Random(seed), text) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]
    assert len({mutants.of_json(random.Random(seed), b'{"a": 1, "b": [2.5]}') for seed in range(50)}) > 25


def test_the_small_file_is_good(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(fuzz.small())
    assert fuzz.outcome(lambda: fuzz.used(path)) == ("accepted", "")
