"""One stage by name: how a training in several processes ends, and what is no stage."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.shrunk import shrunk
from vqbet.contract import PipelineError, TrainingError
from vqbet.environment import processes
from vqbet.stages import runner
from vqbet.stages.progress import Watch


def ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """The stage `prior`, whose processes have ended with this exit code."""
    monkeypatch.setattr(processes, "relaunch", lambda arguments: code)
    monkeypatch.setattr(processes, "die_with_parent", lambda: None)
    runner.run(tmp_path, "blockpush", "prior", shrunk("blockpush"), Watch())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_of_several_processes_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """They have written their checkpoint: the command says that it was stopped, as with one process."""
    with pytest.raises(KeyboardInterrupt):
        ended(tmp_path, monkeypatch, 128 + number)


@pytest.mark.parametrize("code", [1, 128 + signal.SIGKILL])
def test_a_failure_of_several_processes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    with pytest.raises(TrainingError, match=f"ended with exit code {code}; see above"):
        ended(tmp_path, monkeypatch, code)


def test_there_are_seven_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "die_with_parent", lambda: None)
    with pytest.raises(PipelineError, match=r"no stage 'dream'; there are: validate, .*report"):
        runner.run(tmp_path, "blockpush", "dream", shrunk("blockpush"), Watch())
