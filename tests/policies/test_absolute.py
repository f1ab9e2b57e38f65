"""Acting by positions: each step's command leads to the planned place from where the robot is seen then."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support import small, untrained
from tests.support.small import SEEDS
from vqbet.contract import BundleError
from vqbet.coordinates.action_reference import Counted
from vqbet.policies.actor import Actor

COUNTED = (("o1", 0.5), ("o4", 0.25))
SPEC = replace(small.limited(-1e6, 1e6), action_kind="relative")
SCENES = np.random.default_rng(0).normal(size=(10, 6, 5)).astype(np.float32)  # steps, episodes, channels


def policy(execute: str = "chunk", absolute: Counted = COUNTED, limit: float = 1e6) -> Actor:
    planner = untrained.planner(small.spaces(low=-3.0, high=3.0))
    spec = replace(SPEC, action=tuple(replace(channel, low=-limit, high=limit) for channel in SPEC.action))
    return Actor(spec, planner, execute=execute, absolute=absolute)


@pytest.mark.parametrize("execute", ["first", "chunk", "average"])
def test_commands_lead_from_what_is_seen_to_what_is_planned(execute: str) -> None:
    planned = small.play(policy(execute, absolute=()), SCENES, SEEDS)
    commands = small.play(policy(execute), SCENES, SEEDS)
    np.testing.assert_allclose(SCENES[:, :, [1, 4]] + commands * [0.5, 0.25], planned, atol=1e-5)


def test_within_a_chunk_what_went_wrong_is_made_up_for() -> None:
    """The arm was pushed by 0.2 at the second step of a chunk; the command takes it back, a relative one would not."""
    pushed = SCENES.copy()
    pushed[1, :, 1] += 0.2
    for absolute, change in ((COUNTED, -0.2 / 0.5), ((), 0.0)):
        as_it_was, after = (small.play(policy(absolute=absolute), scenes[:3], SEEDS) for scenes in (SCENES, pushed))
        np.testing.assert_allclose((after - as_it_was)[1, :, 0], change, atol=1e-5)
        np.testing.assert_allclose((after - as_it_was)[[0, 2]], 0, atol=1e-6)


def test_limits_are_those_of_commands() -> None:
    commands = small.play(policy(limit=0.3), SCENES, SEEDS)
    assert (commands.min(), commands.max()) == pytest.approx((-0.3, 0.3))


@pytest.mark.parametrize("execute", ["first", "chunk", "average"])
def test_what_follows_leads_from_target_to_target(execute: str) -> None:
    """The first of the actions ahead is that of `act`, bit for bit; the others are right where each was reached."""
    ahead, acted, targets = policy(execute), policy(execute), policy(execute, absolute=())
    rows = np.arange(6)
    for each in (ahead, acted, targets):
        each.reset(SEEDS)
    for scene in SCENES[:4]:
        commands, planned = ahead.ahead(scene, rows).chunk, targets.ahead(scene, rows).chunk
        np.testing.assert_array_equal(commands[:, 0], acted.act(scene, rows))
        reached = np.concatenate([scene[:, None, [1, 4]], planned[:, :-1]], axis=1)
        moving = slice(1) if execute == "chunk" else slice(None)  # a chunk that runs out stands still, both ways
        np.testing.assert_allclose(
            (reached + commands * np.array([0.5, 0.25], np.float32))[:, moving], planned[:, moving], atol=1e-4
        )


def test_it_survives_the_way_to_a_bundle_and_back() -> None:
    acted, again = policy(), small.rebuilt("vqbet", policy())
    assert again.absolute == COUNTED
    assert np.array_equal(small.play(acted, SCENES, SEEDS), small.play(again, SCENES, SEEDS))
    assert "absolute" not in policy(absolute=()).arguments()


@pytest.mark.parametrize(
    ("absolute", "message"),
    [
        ((("o1", 0.5),), "absolute: expected where each of 2 commands of 'fake' counts from, got 1 channels"),
        ((("o1", 0.5), ("wing", 1.0)), "absolute: 'wing' is not among the observed channels of 'fake'"),
        ((("o1", 0.0), ("o4", 1.0)), "absolute: 'o1': expected a finite reach above 0, got 0"),
        ((("o1", float("nan")), ("o4", 1.0)), "absolute: 'o1': expected a finite reach above 0, got nan"),
    ],
)
def test_what_does_not_fit_is_refused(absolute: Counted, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        policy(absolute=absolute)


def test_a_bundle_that_counts_from_no_channels_is_refused() -> None:
    def fault(arguments: dict[str, object], _components: object) -> None:
        arguments["absolute"] = ["left"]

    with pytest.raises(BundleError, match="arguments are not those of this version"):
        small.build_with(fault, "vqbet", policy())
