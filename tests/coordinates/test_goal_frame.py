"""The frame of a goal: rigid, exact where a rigid motion can be, its own inverse, and of each episode alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqbet.coordinates import goal_frame

T = np.array([0.0, 0.0, 40.0, 0.0, 20.0, -70.0, 21.0, 5.0])  # four points, not on a line


def moved(points: np.ndarray, angle: float, by: np.ndarray) -> np.ndarray:
    pairs = points.reshape(-1, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (pairs @ turn.T + by).reshape(points.shape)


@given(angle=st.floats(-np.pi, np.pi), x=st.floats(-500, 500), y=st.floats(-500, 500))
def test_a_scene_that_was_moved_comes_back(angle: float, x: float, y: float) -> None:
    by, scene = np.array([x, y]), np.random.default_rng(0).normal(0, 100, (1, 3, 6))
    motion = goal_frame.onto(moved(T, angle, by)[None], T)
    np.testing.assert_allclose(motion.there(moved(T, angle, by)[None]), T[None], atol=1e-9)
    np.testing.assert_allclose(motion.there(moved(scene, angle, by)), scene, atol=1e-9)
    np.testing.assert_allclose(motion.back(scene), moved(scene, angle, by), atol=1e-9)


def test_points_that_no_rigid_motion_brings_home_come_as_near_as_possible() -> None:
    goal = T + np.random.default_rng(1).normal(0, 5, len(T))
    motion = goal_frame.onto(goal[None], T)

    def distance(points: np.ndarray) -> float:
        return float(np.square(points - T).sum())

    found = motion.there(goal[None])[0]
    for angle in (-0.01, 0.01):
        for by in ([0.5, 0.0], [-0.5, 0.0], [0.0, 0.5], [0.0, -0.5], [0.0, 0.0]):
            centre = np.array([T[0::2].mean(), T[1::2].mean()])
            nearby = moved(found - np.tile(centre, 4), angle, centre + by)
            assert distance(found) < distance(nearby)


def test_an_episode_is_framed_alike_alone_and_among_others() -> None:
    random = np.random.default_rng(2)
    goals, seen = (
        random.normal(0, 100, (33, 8)).astype(np.float32),
        random.normal(0, 100, (33, 2, 6)).astype(np.float32),
    )
    together = goal_frame.onto(goals, T)
    assert together.there(seen).dtype == np.float32
    for row in range(len(goals)):
        alone = goal_frame.onto(goals[row : row + 1], T)
        np.testing.assert_array_equal(alone.there(seen[row : row + 1]), together.there(seen)[row : row + 1])
        np.testing.assert_array_equal(
            together[np.array([row])].back(seen[row : row + 1]), alone.back(seen[row : row + 1])
        )


@pytest.mark.parametrize("place", [0.0, 7.0])
def test_a_goal_without_extent_is_moved_and_not_turned(place: float) -> None:
    goal = np.full((1, 8), place)
    motion = goal_frame.onto(goal, T)
    np.testing.assert_array_equal(motion.cosine, [1.0])
    np.testing.assert_array_equal(motion.sine, [0.0])
    np.testing.assert_allclose(motion.back(motion.there(goal + 3.0)), goal + 3.0)
