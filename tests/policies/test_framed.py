"""Acting in the frame of a goal: a scene and a goal that are moved together are acted in alike, moved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support import small, untrained
from tests.support.small import SEEDS
from vqbet.contract import BundleError, Channel, Spec
from vqbet.coordinates import goal_frame
from vqbet.models.spaces import Spaces
from vqbet.policies.actor import Actor

POINTS = tuple(Channel(f"{name}_{axis}", "px", -1e6, 1e6) for name in ("corner", "edge", "finger") for axis in "xy")
SPEC = Spec("fake", POINTS, POINTS[-2:], 10.0, "absolute", "table")
WANTED = tuple(channel.name for channel in POINTS[:4])  # corner and edge
REFERENCE = (10.0, 20.0, 40.0, 20.0)
SCENES = np.random.default_rng(0).normal(0, 100, (10, 6, 6)).astype(np.float32)  # steps, episodes, channels
GOALS = np.random.default_rng(1).normal(0, 100, (6, 4)).astype(np.float32)


def framed(execute: str = "chunk", reference: tuple[float, ...] = REFERENCE, spec: Spec = SPEC) -> Actor:
    seen, acted, wanted = (small.between(-100.0, 100.0, channels) for channels in (6, 2, 4))
    planner = untrained.planner(Spaces(seen, acted, wanted))
    return Actor(spec, planner, execute=execute, goal=WANTED, reference=reference)


def motion() -> goal_frame.Motion:
    """Another turn and shift for each episode."""
    angle = np.linspace(-3, 3, 6)
    return goal_frame.Motion(np.cos(angle), np.sin(angle), 7.0 * np.arange(12).reshape(6, 2), np.array([30.0, -50.0]))


@pytest.mark.parametrize("execute", ["first", "chunk", "average"])
def test_what_is_moved_is_acted_in_alike(execute: str) -> None:
    policy, moved = framed(execute), motion()
    here = small.play(policy, SCENES, SEEDS, GOALS)
    there = small.play(policy, np.stack([moved.there(step) for step in SCENES]), SEEDS, moved.there(GOALS))
    assert np.abs(here - there).max() > 10
    np.testing.assert_allclose(there, np.stack([moved.there(step) for step in here]), atol=0.02)


def test_without_a_frame_it_is_not() -> None:
    policy, moved = framed(reference=()), motion()
    here = small.play(policy, SCENES, SEEDS, GOALS)
    there = small.play(policy, np.stack([moved.there(step) for step in SCENES]), SEEDS, moved.there(GOALS))
    assert np.abs(there - np.stack([moved.there(step) for step in here])).max() > 10


def test_a_goal_at_the_reference_changes_nothing() -> None:
    goals = np.tile(np.float32(REFERENCE), (6, 1))
    one, two = (small.play(framed(reference=at), SCENES, SEEDS, goals) for at in (REFERENCE, ()))
    np.testing.assert_allclose(one, two, atol=1e-3)


def test_limits_hold_where_the_world_is_and_not_in_the_frame() -> None:
    limits = tuple(replace(channel, low=0.0, high=15.0) for channel in SPEC.action)
    acted = small.play(framed(spec=replace(SPEC, action=limits)), SCENES, SEEDS, GOALS)
    assert acted.min() == 0.0
    assert acted.max() == 15.0


def test_an_episode_acts_alike_alone_and_among_others() -> None:
    policy = framed()
    together = small.play(policy, SCENES, SEEDS, GOALS)
    for row in range(6):
        alone = small.play(policy, SCENES[:, [row]], SEEDS[[row]], GOALS[[row]])
        np.testing.assert_allclose(alone[:, 0], together[:, row], atol=1e-3)


def test_the_frame_survives_the_way_to_a_bundle_and_back() -> None:
    policy = framed()
    again = small.rebuilt("vqbet", policy)
    assert again.reference == REFERENCE
    assert np.array_equal(
        small.play(policy, SCENES, SEEDS, GOALS),
        small.play(again, SCENES, SEEDS, GOALS),
    )
    assert "reference" not in framed(reference=()).arguments()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ((1.0, 2.0), r"reference: expected x and y of each of the goal's points, .* got 2 numbers"),
        ((*REFERENCE, 1.0, 2.0), "got 6 numbers"),
        ((1.0, 2.0, 3.0, float("nan")), "reference: expected finite numbers"),
    ],
)
def test_a_reference_that_does_not_fit_is_refused(reference: tuple[float, ...], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        framed(reference=reference)


def test_channels_that_are_no_pairs_are_refused() -> None:
    spaces = Spaces(small.between(-1.0, 1.0, 6), small.between(-1.0, 1.0, 3), small.between(-1.0, 1.0, 4))
    spec = replace(SPEC, action=(*SPEC.action, Channel("grip", "1", 0.0, 1.0)))
    with pytest.raises(BundleError, match="pairs of channels all through"):
        Actor(spec, untrained.planner(spaces), execute="first", goal=WANTED, reference=REFERENCE)


def test_a_bundle_whose_reference_is_no_list_of_numbers_is_refused() -> None:
    def fault(arguments: dict[str, object], _components: object) -> None:
        arguments["reference"] = ["left"]

    with pytest.raises(BundleError, match="arguments are not those of this version"):
        small.build_with(fault, "vqbet", framed())
