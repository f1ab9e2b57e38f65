"""Environments of Gymnasium as worlds: declared, checked, seeded, and stepped as alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.support.gym_worlds import NEAR, Point
from vqbet.contract import Camera, Channel, Spec, WorldError
from vqbet.tasks.declared import measure, world
from vqbet.tasks.declared.spaces import SEED
from vqbet.tasks.declared.world import RENDERED, GymnasiumWorld, WorldDeclaration

PLACE = (Channel("x", "m", -9.0, 9.0), Channel("y", "m", -9.0, 9.0))
MOVES = (Channel("x", "m", -1.0, 1.0), Channel("y", "m", -1.0, 1.0))
SPEC = Spec("point", (*PLACE, Channel("speed", "m/s", -9.0, 9.0)), MOVES, 10.0, "relative", "")
POINT = WorldDeclaration("tests.support.gym_worlds:Stranger/Point-v0", ("agent.place", "agent.speed"), "info.near", 40)


def homing(observation: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(-3 * observation[:, :2], -1, 1))


def played(
    made: GymnasiumWorld, seeds: list[int], act: Callable[[np.ndarray], np.ndarray] = homing
) -> tuple[list[np.ndarray], list[int]]:
    """Return each episode's observations, and its length."""
    observation, rows = made.reset(np.array(seeds)), np.arange(len(seeds))
    paths: list[list[np.ndarray]] = [[one] for one in observation]
    while len(rows):
        observation, ended = made.step(act(observation), rows)
        for row, one in zip(rows, observation, strict=True):
            paths[row].append(one)
        observation, rows = observation[~ended], rows[~ended]
    return [np.stack(path) for path in paths], [len(path) - 1 for path in paths]


def test_an_episode_is_the_environments_own() -> None:
    """Step by step what a single environment of Gymnasium does, although others run beside it and end before it."""
    seeds = [3, 4, 5, 6]
    made = GymnasiumWorld(SPEC, POINT)
    paths, lengths = played(made, seeds)
    assert len(set(lengths)) > 1
    for seed, path, success in zip(seeds, paths, made.metrics()["success"], strict=True):
        own = Point()
        seen, _ = own.reset(seed=seed)
        near = False
        for number, observed in enumerate(path):
            assert np.array_equal(observed, np.concatenate([seen["agent"]["place"], seen["agent"]["speed"]]))
            if number < len(path) - 1:
                seen, *_, info = own.step(np.float32(homing(observed[None])[0]))
                near |= info["near"]
        assert success == near


def test_a_world_is_used_again() -> None:
    made = GymnasiumWorld(SPEC, POINT)
    first = played(made, [1, 2])
    again = played(made, [1, 2])
    assert all(np.array_equal(one, two) for one, two in zip(first[0], again[0], strict=True))
    assert played(made, [2])[1] == [first[1][1]], "another number of episodes"


def test_it_ends_at_its_most_steps() -> None:
    made = GymnasiumWorld(SPEC, replace(POINT, max_steps=7))
    _, lengths = played(made, [1, 2, 3], lambda seen: np.zeros((len(seen), 2)))
    assert lengths == [7, 7, 7]
    assert not made.metrics()["success"].any()


def test_actions_are_clipped_to_the_environments_limits() -> None:
    paths, _ = played(GymnasiumWorld(SPEC, POINT), [1], lambda seen: np.full((len(seen), 2), 50.0))
    assert np.allclose(np.diff(paths[0][:, 0]), 0.2, atol=1e-6)


@pytest.mark.parametrize(
    ("success", "score", "expected"),
    [
        ("info.near", "success", (1.0, 1.0)),
        ("return >= -100", "return / -100", (1.0, None)),
        ("reward >= 0.5", "info.closeness", (0.0, None)),
        ("terminated", "success", (1.0, 1.0)),
    ],
)
def test_rules(success: str, score: str, expected: tuple[float, float | None]) -> None:
    made = GymnasiumWorld(SPEC, replace(POINT, success=success, score=score))
    played(made, [1])
    found = made.metrics()
    assert float(found["success"][0]) == expected[0]
    if score.startswith("return"):
        assert found["score"][0] == pytest.approx(np.clip(found["return"][0] / -100, 0, 1))
    elif score.startswith("info"):
        assert 1 - NEAR / 4 < found["score"][0] <= 1
    else:
        assert found["score"][0] == expected[1]


@pytest.mark.parametrize("text", ["near", "info.", "return > 3", "reward >= x", "", "info.a b"])
def test_rules_of_success_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="expected info"):
        measure.success(text)


@pytest.mark.parametrize("text", ["return", "return / 0", "return / x", "reward"])
def test_rules_of_score_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="expected success, info"):
        measure.score(text)


@pytest.mark.parametrize("path", ["pixels", RENDERED])
def test_cameras(path: str) -> None:
    spec = replace(SPEC, cameras=(Camera("front", 12, 12),))
    made = GymnasiumWorld(spec, replace(POINT, cameras={"front": path}))
    made.reset(np.array([1, 2, 3]))
    found = made.cameras(np.array([2, 0]))["front"]
    assert (found.shape, found.dtype) == ((2, 12, 12, 3), np.uint8)
    assert np.array_equal(found[0], made.render(2))
    small = GymnasiumWorld(spec, replace(POINT, cameras={"front": path}, kwargs={"picture": 8}))
    small.reset(np.array([1]))
    with pytest.raises(WorldError, match=r"camera 'front': expected pictures of shape \(12, 12, 3\) of uint8, got \(8"):
        small.cameras(np.array([0]))


def test_a_good_one_passes_its_check() -> None:
    world.check(SPEC, POINT, drawn=True)
    front = replace(SPEC, cameras=(Camera("front", 12, 12),))
    world.check(front, replace(POINT, cameras={"front": "pixels"}), drawn=False)


def test_a_seed_may_be_an_argument() -> None:
    """Then an episode is its seed's, whatever was played before it and beside it."""
    obeying = replace(POINT, kwargs={"fault": "unseeded", "seed": SEED})
    world.check(SPEC, obeying, drawn=False)
    made = GymnasiumWorld(SPEC, obeying)
    (first, second), _ = played(made, [5, 6])
    (again, before), _ = played(made, [6, 5])
    (alone,), _ = played(made, [6])
    assert np.array_equal(second, again)
    assert np.array_equal(second, alone)
    assert np.array_equal(first, before)
    assert not np.array_equal(first[0], second[0])


@pytest.mark.parametrize(
    ("spec", "changes", "sentence"),
    [
        (SPEC, {"id": "tests.support.gym_worlds:Stranger/Pint-v0"}, "cannot be made: .*is the package installed"),
        (SPEC, {"id": "no_such_package:Door-v0"}, "cannot be made: ModuleNotFoundError"),
        (SPEC, {"kwargs": {"size": 3}}, "cannot be made: TypeError"),
        (SPEC, {"observation": ("agent.place",)}, r"expected 3 numbers as the task's, got 2 at 'agent\.place'"),
        (SPEC, {"observation": ("agent.pose",)}, r"observation 'agent\.pose': the environment has place, speed"),
        (SPEC, {"observation": ("agent",)}, "observation 'agent': is a dictionary of place, speed; name one"),
        (SPEC, {"kwargs": {"fault": "nan"}}, "observation 'x' of episode 0 is nan at step 0"),
        (
            SPEC,
            {"kwargs": {"fault": "discrete"}},
            "expected a box of 2 numbers as actions, .* got Discrete",
        ),
        (replace(SPEC, action=MOVES[:1]), {}, "expected a box of 1 numbers as actions"),
        (SPEC, {"kwargs": {"fault": "unseeded"}}, "two episodes of seed 1 differ after its reset"),
        (
            SPEC,
            {"kwargs": {"fault": "unseeded", "seed": 4}},
            r"seed 1 differ after its reset \(played again\); .*\{seed\}",
        ),
        (SPEC, {"kwargs": {"fault": "noisy"}}, "two episodes of seed 1 differ after step 1"),
        (SPEC, {"kwargs": {"fault": "monotonous"}}, r"every seed plays the same episode \(seeds 1 to 16"),
        (
            SPEC,
            {"kwargs": {"fault": "silent"}},
            r"info\.near: the environment's info does not have it",
        ),
        (SPEC, {"success": "info.closeness.x"}, r"info\.closeness\.x: the environment's info does not have it"),
        (SPEC, {"kwargs": {"fault": "blind"}}, "cannot draw: RuntimeError: no display; set evaluate.videos to 0"),
    ],
)
def test_a_faulty_one_does_not(spec: Spec, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(WorldError, match=sentence):
        world.check(spec, replace(POINT, **changes), drawn=True)


@pytest.mark.slow
def test_a_hand_at_a_door() -> None:
    """AdroitHandDoor-v1 of gymnasium-robotics, without a line about it in this project."""
    observed = tuple(Channel(f"o{number}", "", -50.0, 50.0) for number in range(39))
    spec = Spec(
        "door", observed, tuple(Channel(f"a{number}", "", -1.0, 1.0) for number in range(28)), 50.0, "absolute", ""
    )
    door = WorldDeclaration("gymnasium_robotics:AdroitHandDoor-v1", ("",), "info.success", 12)
    world.check(spec, door, drawn=False)
    made = GymnasiumWorld(spec, door)
    paths, lengths = played(made, [1, 2], lambda seen: np.zeros((len(seen), 28)))
    assert lengths == [12, 12]
    assert not np.array_equal(paths[0], paths[1])
