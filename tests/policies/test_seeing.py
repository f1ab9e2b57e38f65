"""Policies that see: what is encoded and when, what is refused, and the way to a bundle and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.support import seeing, small, untrained
from tests.support.seeing import CAMERAS, SPEC, H, T
from tests.support.small import SEEDS
from vqbet.contract import BundleError, Camera, WorldError
from vqbet.policies.actor import Actor
from vqbet.policies.nearest import NearestDemonstration
from vqbet.policies.noop import NoOp

STEPS, ROWS = 10, np.arange(6)
SCENES = small.observations(STEPS)
SHOWN = [seeing.pictures(6, seed=step) for step in range(STEPS)]


def play(policy: Actor, rows: np.ndarray = ROWS) -> np.ndarray:
    policy.reset(SEEDS[rows])
    count = np.arange(len(rows))
    return np.stack(
        [
            policy.act(scene[rows], count, {name: each[rows] for name, each in shown.items()})
            for scene, shown in zip(SCENES, SHOWN, strict=True)
        ]
    )


@pytest.mark.parametrize("execute", ["first", "chunk", "average"])
def test_actions_are_those_of_the_features_that_stand_in_the_observations(execute: str) -> None:
    """Also bit for bit the same for each episode alone: no picture's features depend on its company."""
    together, told = play(seeing.actor(execute)), seeing.actor(execute)
    told.reset(SEEDS)
    given = [told.act(told.see(scene, shown), ROWS) for scene, shown in zip(SCENES, SHOWN, strict=True)]
    np.testing.assert_array_equal(np.stack(given), together)
    for row in ROWS:
        np.testing.assert_allclose(play(seeing.actor(execute), ROWS[row : row + 1])[:, 0], together[:, row], atol=1e-5)


def test_features_of_a_picture_do_not_depend_on_how_many_others_there_are() -> None:
    planner, shown = seeing.actor().planner, SHOWN[0]
    together = planner.see(shown)
    assert together.shape == (6, 12)
    assert len(np.unique(together.round(5), axis=0)) == 6
    for count in (1, 2, 3, 5):
        np.testing.assert_array_equal(
            planner.see({name: each[:count] for name, each in shown.items()}), together[:count]
        )


def test_pictures_decide_and_only_those_that_a_plan_sees_are_encoded() -> None:
    policy, encoded = seeing.actor("chunk"), list[int]()
    see = policy.planner.see
    policy.planner.see = lambda shown: encoded.append(len(shown["top"])) or see(shown)
    acted = play(policy)
    # of a chunk of 4 actions the window of the next plan sees all steps but the second
    expected = [6 if -step % H < T else 0 for step in range(STEPS)]
    assert encoded == [count for count in expected if count]
    darker = [{name: each // 4 for name, each in shown.items()} for shown in SHOWN]
    other = seeing.actor("chunk")
    other.reset(SEEDS)
    assert not np.allclose(acted, [other.act(*each) for each in zip(SCENES, [ROWS] * STEPS, darker, strict=True)])


def test_what_follows_begins_with_what_is_done() -> None:
    one, two = seeing.actor(), seeing.actor()
    one.reset(SEEDS)
    two.reset(SEEDS)
    for scene, shown in zip(SCENES[:5], SHOWN, strict=False):
        np.testing.assert_array_equal(one.ahead(scene, ROWS, shown).chunk[:, 0], two.act(scene, ROWS, shown))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top": None}, r"camera 'top': expected RGB pictures, uint8 \(6, 40, 48, 3\) .*got none"),
        ({"top": SHOWN[0]["top"][:, :, :40]}, r"camera 'top': .*got uint8 \(6, 40, 40, 3\)"),
        ({"wrist": SHOWN[0]["wrist"].astype(np.float32)}, r"camera 'wrist': .*got float32 \(6, 36, 36, 3\)"),
        ({"wrist": SHOWN[0]["wrist"].transpose(0, 3, 1, 2)}, r"camera 'wrist': .*got uint8 \(6, 3, 36, 36\)"),
        ({"wrist": SHOWN[0]["wrist"][:5]}, r"camera 'wrist': .*got uint8 \(5, 36, 36, 3\)"),
        ({"rear": SHOWN[0]["top"]}, r"camera 'rear': expected pictures of 'top' \(40 x 48\), 'wrist' \(36 x 36\)"),
    ],
)
def test_other_pictures_are_refused(change: dict[str, Any], message: str) -> None:
    policy = seeing.actor()
    policy.reset(SEEDS)
    given = {name: each for name, each in {**SHOWN[0], **change}.items() if each is not None}
    with pytest.raises(WorldError, match=message):
        policy.act(SCENES[0], ROWS, given)
    with pytest.raises(WorldError, match=message):
        policy.ahead(SCENES[0], ROWS, given)


def test_no_pictures_are_refused_and_so_are_those_for_a_policy_that_sees_none() -> None:
    policy = seeing.actor()
    policy.reset(SEEDS)
    with pytest.raises(WorldError, match=r"camera 'top': .*got none"):
        policy.act(SCENES[0], ROWS)
    blind = untrained.build()
    blind.reset(SEEDS)
    with pytest.raises(WorldError, match="camera 'top': expected pictures of no cameras"):
        blind.act(SCENES[0], ROWS, SHOWN[0])


def test_a_policy_for_other_cameras_than_the_spec_s_is_refused() -> None:
    planner = seeing.actor().planner
    for cameras in ((), (Camera("top", 40, 48),), CAMERAS[::-1]):
        with pytest.raises(BundleError, match="cameras: expected a policy that sees what 'fake' has, "):
            Actor(replace(SPEC, cameras=cameras), planner, execute="first")
    with pytest.raises(BundleError, match=r"reference: 'top' \(40 x 48\).* cannot be shown in the frame of a goal"):
        Actor(
            replace(SPEC, observation=SPEC.observation[:4]),
            type("Even", (), {**vars(planner), "see": planner.see, "channels": (4, 2, 2)})(),
            execute="first",
            goal=("o0", "o1"),
            reference=(0.0, 0.0),
        )


def test_it_survives_the_way_to_a_bundle_and_back() -> None:
    acted, again = seeing.actor(), small.rebuilt("vqbet", seeing.actor())
    assert again.planner.cameras == CAMERAS
    np.testing.assert_array_equal(play(again), play(acted))
    with pytest.raises(BundleError, match=r"encoder: tensor .* is missing"):
        small.build_with(lambda _, components: components["encoder"].popitem(), "vqbet", acted)


def test_baselines_accept_pictures_and_look_at_none() -> None:
    from tests.support.synthetic import synthetic

    demos = synthetic(3)
    scene, rows = demos.observation[:2], np.arange(2)
    for policy in (NoOp(replace(demos.spec, action_kind="relative")), NearestDemonstration(demos)):
        policy.reset(rows)
        without = policy.act(scene, rows)
        policy.reset(rows)
        np.testing.assert_array_equal(policy.act(scene, rows, SHOWN[0]), without)
