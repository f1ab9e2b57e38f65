"""What every world refuses before it steps, in the same words; nothing has moved then."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from vqbet.contract import Env, WorldError
from vqbet.stages import worlds
from vqbet.tasks import TASKS

FAULTS: dict[str, tuple[Callable[[int], np.ndarray], list, str]] = {  # actions of so many channels, rows
    "nan": (lambda A: np.full((1, A), np.nan), [1], "the action of episode 1 is not finite"),
    "infinity": (lambda A: np.array([[1.0] * (A - 1) + [np.inf]]), [0], "the action of episode 0 is not finite"),
    "a channel more": (lambda A: np.ones((1, A + 1)), [0], r"actions of shape \(1, {A}\), got shape \(1, {more}\)"),
    "a row more": (lambda A: np.ones((2, A)), [0], r"actions of shape \(1, {A}\), got shape \(2, {A}\)"),
    "no such episode": (lambda A: np.ones((1, A)), [2], r"rows \[2\] are not all among the 2 episodes"),
    "counted from the end": (lambda A: np.ones((1, A)), [-1], r"rows \[-1\] are not all among the 2 episodes"),
    "twice the same": (lambda A: np.ones((2, A)), [0, 0], "expected different whole numbers as rows"),
    "no whole number": (lambda A: np.ones((1, A)), [0.0], "expected different whole numbers as rows"),
}


@pytest.fixture(scope="module", params=TASKS)
def world(request: pytest.FixtureRequest) -> Env:
    return worlds.make(request.param)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_senseless_step_is_refused(world: Env, fault: str) -> None:
    action, rows, sentence = FAULTS[fault]
    channels = len(world.spec.action)
    world.reset(np.array([0, 1]))
    before = world.state()
    with pytest.raises(WorldError, match=r"\w+: step: .*" + sentence.format(A=channels, more=channels + 1)):
        world.step(action(channels), np.array(rows))
    np.testing.assert_array_equal(world.state(), before)
