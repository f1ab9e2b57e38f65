"""A server that freezes, dies or is cut off: the robot holds, stops, replays nothing, and goes on when it is back."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest

from bench.frozen import KINDS, PERIOD_S, H, Trial, _drive, _stale, campaign
from vqbet.serving.guard import Decision
from vqbet.serving.player import RULES


@pytest.mark.slow
def test_every_kind_of_fault_under_every_rule() -> None:
    """Twelve moments; `python -m bench.frozen 200` is the whole campaign, with the times."""
    trials = campaign(12, seed=1)
    assert {(trial.kind, trial.rule) for trial in trials} == {(kind, rule) for kind in KINDS for rule in RULES}
    assert [trial.wrong for trial in trials] == [[]] * 12
    assert all(trial.stopped >= trial.held >= 0 for trial in trials)


@pytest.mark.parametrize(
    ("planted", "sentence"),
    [
        ((2, 100.0, 100.0), "an action of episode 2 in episode 1"),
        ((1, 100.0, 100.0 - 1000 * PERIOD_S * (H + 1)), "an action planned"),
        ((1, 100.0 + 3000 * PERIOD_S, 100.0), r"meant for \+60 ms from now"),
    ],
)
def test_the_campaign_sees_a_stale_action(planted: tuple[float, ...], sentence: str) -> None:
    assert _stale(np.array([1, 100.0, 100.0]), 1, 100.0) == []
    (found,) = _stale(np.array(planted), 1, 100.0)
    assert re.search(sentence, found)


def test_the_campaign_sees_a_robot_that_does_not_hold_first() -> None:
    verdicts = iter(["pass", "hold", "stop"])
    action = np.array([1, 0.0, 0.0])
    player = SimpleNamespace(step=lambda _, observed_s: Decision(next(verdicts), action))
    clock, trial = SimpleNamespace(said_s=0.0), Trial("frozen", "first")
    _drive(player, clock, trial, 1, 0.0, [0.0], 1.0)  # type: ignore[arg-type]
    assert trial.wrong == ["expected hold, hold, stop in the end, got ['pass', 'hold', 'stop']"]
