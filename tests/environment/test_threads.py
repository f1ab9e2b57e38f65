"""Tests of the number of threads that a training uses."""

from __future__ import annotations

import os

import pytest

from vqbet.contract import TrainingError
from vqbet.environment import threads


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (threads.VARIABLE, threads.TORCHS_OWN):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(("cores", "count"), [(1, 1), (2, 2), (64, 2)])
def test_the_lock_of_the_demo_does_not_depend_on_the_number_of_cores(
    cores: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert threads.training() == count


def test_our_variable_comes_before_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads.training() == 3
    monkeypatch.setenv("VQBET_THREADS", "5")
    assert threads.training() == 5


@pytest.mark.parametrize("value", ["0", "two", "", "1025", "-1"])
def test_an_odd_number_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQBET_THREADS", value)
    with pytest.raises(TrainingError, match="VQBET_THREADS: expected a number from 1 to 1024"):
        threads.training()


@pytest.mark.parametrize(("percent", "warns"), [(0.0, False), (20.0, False), (60.0, True)])
def test_the_sentence_warns_where_other_work_is_in_the_way(
    percent: float, warns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr("psutil.cpu_percent", lambda interval: percent)
    assert ("VQBET_THREADS=1 is faster" in threads.reason(2)) == warns
    assert "faster" not in threads.reason(1)


def test_torch_has_its_own_number_again_afterwards() -> None:
    import torch

    before = torch.get_num_threads()
    with threads.of(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
