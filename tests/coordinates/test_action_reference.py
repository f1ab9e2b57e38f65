"""Demonstrations by where their commands lead: in the kitchen, by what its servos were told."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.recorded import recorded
from vqbet.contract import Demonstrations
from vqbet.coordinates.action_reference import ActionReference, absolute
from vqbet.tasks.kitchen import TASK, importer
from vqbet.tasks.kitchen.reference import reference
from vqbet.tasks.kitchen.spec import SPEC
from vqbet.tasks.kitchen.world import SUBSTEPS, Kitchen

COUNTED = TASK.action_reference
NAMES = [channel.name for channel in SPEC.observation]
ARM = slice(0, 9)


@pytest.fixture(scope="module")
def demos() -> Demonstrations:
    """Noise and all: what the arm was told counts from where it was seen."""
    env, rng = Kitchen(threads=1), np.random.default_rng(0)
    return recorded(env, env.reset(np.arange(4)), lambda seen: rng.uniform(-0.6, 0.6, (len(seen), 9)), 12)


def test_the_reach_is_the_worlds() -> None:
    led = ActionReference.of(COUNTED, NAMES)
    assert led.places == tuple(range(9))
    np.testing.assert_allclose(led.reach, reference().speed * SUBSTEPS * reference().model.opt.timestep)


def test_positions_are_what_the_servos_were_told(demos: Demonstrations) -> None:
    """The world's own sum, from inside it."""
    env = Kitchen(threads=1)
    env.reset(np.arange(len(demos.action)))
    env.suppose(demos.observation[:, ARM].astype(np.float64), np.arange(len(demos.action)))
    told = env._controlled(demos.action.astype(np.float64), np.arange(len(demos.action)))
    found = absolute(demos, COUNTED)
    low, high = reference().reach
    np.testing.assert_allclose(np.clip(found.action, low, high), told, atol=1e-6)
    assert (np.abs(found.action - demos.observation[:, ARM]) > 0.01).mean() > 0.5


def test_what_leads_there_is_the_command_that_was_given(demos: Demonstrations) -> None:
    found, led = absolute(demos, COUNTED), ActionReference.of(COUNTED, NAMES)
    np.testing.assert_allclose(led.commands(demos.observation, found.action), demos.action, atol=1e-5)


@pytest.mark.slow
def test_positions_do_again_what_people_did(real_demos: Callable[[str], Path]) -> None:
    """Three published episodes by where their commands led, each command counted from a noisy sight of the arm."""
    demos, env, rows = importer.load(real_demos("kitchen")), Kitchen(), np.arange(3)
    found, led = absolute(demos, COUNTED), ActionReference.of(COUNTED, NAMES)
    starts, shortest = demos.episode_starts[rows], int(demos.lengths[rows].min())
    observation = env.restore(demos.state[starts], rows)
    for step in range(shortest):
        observation, _ = env.step(led.commands(observation, found.action[starts + step]), rows)
    assert env.metrics()["tasks"].tolist() == [4, 4, 4]


def test_the_spec_says_what_they_are(demos: Demonstrations) -> None:
    spec = absolute(demos, COUNTED).spec
    assert (spec.action_kind, spec.observation, spec.task) == ("absolute", SPEC.observation, "kitchen")
    assert [(channel.name, channel.unit) for channel in spec.action[6:8]] == [
        ("robot_joint7_position_wanted", "rad"),
        ("robot_finger1_position_wanted", "m"),
    ]
    for channel, seen in zip(spec.action, SPEC.observation[ARM], strict=True):
        assert (channel.low, channel.high) == pytest.approx((seen.low - 0.16, seen.high + 0.16))


def test_the_demonstrations_themselves_stay_as_they_are(demos: Demonstrations) -> None:
    before = copy.deepcopy((demos.observation, demos.action, demos.spec))
    found = absolute(demos, COUNTED)
    assert (before[0] == demos.observation).all()
    assert (before[1] == demos.action).all()
    assert before[2] == demos.spec
    assert found.action.dtype == np.float32
    assert (found.digest, found.columns.keys()) == (demos.digest, demos.columns.keys())
