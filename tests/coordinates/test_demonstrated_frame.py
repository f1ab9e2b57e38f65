"""Demonstrations in the frame of what they reached: what is shown could have been recorded, and ends at the goal."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from tests.support.recorded import recorded
from vqbet.contract import Demonstrations
from vqbet.coordinates import demonstrated_frame, mirror
from vqbet.demos import goals
from vqbet.demos.goals import GOALS, GoalWindows
from vqbet.tasks.pusht.geometry import GOAL_POSE, KEYPOINTS_PX, placed
from vqbet.tasks.pusht.world import PushT

STEPS, EPISODES = 12, 40
TASK = "pusht"


@pytest.fixture(scope="module")
def demos() -> Demonstrations:
    """Pushes that start at rest in the middle of the window, where no wall is near."""
    env, rng = PushT(), np.random.default_rng(0)
    angle = rng.uniform(-np.pi, np.pi, EPISODES)
    finger = 256 + 90 * np.stack([np.cos(3 * angle), np.sin(3 * angle)], axis=1)
    state = np.column_stack([finger, rng.uniform(240, 272, (EPISODES, 2)), angle])
    return recorded(env, env.restore(state), lambda _: 256 + rng.uniform(-40, 40, (EPISODES, 2)), STEPS)


def last(demos: Demonstrations) -> np.ndarray:
    return demos.observation[demos.episode_ends - 1]


def test_the_place_is_that_of_the_worlds_own_goal() -> None:
    np.testing.assert_allclose(
        demonstrated_frame.AT[TASK], placed(KEYPOINTS_PX, GOAL_POSE[None]).reshape(-1), atol=1e-4
    )
    assert len(demonstrated_frame.AT[TASK]) == len(GOALS[TASK])


def test_everything_ends_at_the_goal(demos: Demonstrations) -> None:
    seen = demonstrated_frame.framed(demos)
    assert np.abs(last(demos)[:, :18] - np.array(demonstrated_frame.AT[TASK])).max() > 50
    np.testing.assert_allclose(last(seen)[:, :18], np.tile(demonstrated_frame.AT[TASK], (EPISODES, 1)), atol=1e-2)
    assert (seen.state, seen.digest, seen.spec, seen.observation.dtype) == (None, "data", demos.spec, np.float32)


def test_what_is_seen_in_the_mirror_ends_there_too(demos: Demonstrations) -> None:
    seen = demonstrated_frame.framed(mirror.doubled(demos))
    np.testing.assert_allclose(last(seen)[:, :18], np.tile(demonstrated_frame.AT[TASK], (2 * EPISODES, 1)), atol=1e-2)


def test_the_world_moves_alike_in_every_frame(demos: Demonstrations) -> None:
    """Whole episodes played from their framed beginning with the framed actions, far from the walls."""
    seen, rows = demonstrated_frame.framed(demos), np.arange(EPISODES)
    first = seen.observation[demos.episode_starts]
    points = first[:, :18].reshape(EPISODES, 9, 2).astype(np.float64)
    # The pose of the T from where its keypoints are: a frame is turned by the same angle as the T in it.
    at_rest = KEYPOINTS_PX - KEYPOINTS_PX.mean(axis=0)
    across = (points - points.mean(axis=1, keepdims=True))[:, :, ::-1] * [1.0, -1.0] * at_rest
    along = (points - points.mean(axis=1, keepdims=True)) * at_rest
    angle = np.arctan2(across.sum(axis=(1, 2)), along.sum(axis=(1, 2)))
    centre = placed(KEYPOINTS_PX, np.column_stack([np.zeros((EPISODES, 2)), angle])).reshape(EPISODES, 9, 2)
    state = np.column_stack([first[:, 18:], points.mean(axis=1) - centre.mean(axis=1), angle])
    env = PushT()
    errors = [np.abs(env.restore(state) - first).max(axis=1)]
    for step in range(STEPS - 1):
        found, _ = env.step(seen.action[demos.episode_starts + step], rows)
        errors.append(np.abs(found - seen.observation[demos.episode_starts + step + 1]).max(axis=1))
    moved = np.abs(last(demos)[:, :18] - demos.observation[demos.episode_starts][:, :18]).max(axis=1) > 5
    assert moved.sum() > EPISODES // 3
    assert np.median(np.max(errors, axis=0)[moved]) < 0.05  # contacts at corners may part the two


def test_a_window_asks_for_nothing_but_the_goal(demos: Demonstrations) -> None:
    made = goals.windows(
        demonstrated_frame.framed(demos), window=2, chunk=3, goal=GOALS[TASK], goal_steps=1, ends_only=True
    )
    assert isinstance(made, GoalWindows)
    assert len(made) == EPISODES * STEPS
    goal = made.gather(np.arange(len(made)))["goal"]
    np.testing.assert_allclose(goal, np.tile(demonstrated_frame.AT[TASK], (len(made), 1, 1)), atol=1e-2)


def test_the_demonstrations_themselves_stay_as_they_are(demos: Demonstrations) -> None:
    before = copy.deepcopy((demos.observation, demos.action))
    demonstrated_frame.framed(demos)
    assert (before[0] == demos.observation).all()
    assert (before[1] == demos.action).all()
