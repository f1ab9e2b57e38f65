"""Demonstrations in the frame of what they reached: what is shown could have been recorded, and ends at the goal."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from tests.support.recorded import recorded
from vqbet.contract import Demonstrations
from vqbet.coordinates import mirror
from vqbet.coordinates.goal_frame import framed
from vqbet.demos import goals
from vqbet.demos.goals import GoalWindows
from vqbet.tasks.pusht import TASK
from vqbet.tasks.pusht.geometry import KEYPOINTS_PX, placed
from vqbet.tasks.pusht.world import PushT

STEPS, EPISODES = 12, 40
AT, GOAL = TASK.goal_frame, TASK.goal


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


def test_policies_keep_the_numbers_that_they_were_trained_for() -> None:
    """A bundle holds them, and its digest with them: computed anew, they are the same to the last bit."""
    assert (
        *(198.8861, 326.2233, 213.7173, 212.0390, 300.0571, 298.0866),
        *(237.7467, 273.8708, 159.2107, 332.8985, 260.3454, 306.8128),
        *(204.5961, 250.8828, 199.6524, 288.5544, 273.8486, 271.4440),
    ) == AT


def test_everything_ends_at_the_goal(demos: Demonstrations) -> None:
    seen = framed(demos, GOAL, AT)
    assert np.abs(last(demos)[:, :18] - np.array(AT)).max() > 50
    np.testing.assert_allclose(last(seen)[:, :18], np.tile(AT, (EPISODES, 1)), atol=1e-2)
    assert (seen.state, seen.digest, seen.spec, seen.observation.dtype) == (None, "data", demos.spec, np.float32)


def test_what_is_seen_in_the_mirror_ends_there_too(demos: Demonstrations) -> None:
    seen = framed(mirror.doubled(demos, TASK.mirror), GOAL, AT)
    np.testing.assert_allclose(last(seen)[:, :18], np.tile(AT, (2 * EPISODES, 1)), atol=1e-2)


def test_the_world_moves_alike_in_every_frame(demos: Demonstrations) -> None:
    """Whole episodes played from their framed beginning with the framed actions, far from the walls."""
    seen, rows = framed(demos, GOAL, AT), np.arange(EPISODES)
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
    made = goals.windows(framed(demos, GOAL, AT), window=2, chunk=3, goal=GOAL, goal_steps=1, ends_only=True)
    assert isinstance(made, GoalWindows)
    assert len(made) == EPISODES * STEPS
    goal = made.gather(np.arange(len(made)))["goal"]
    np.testing.assert_allclose(goal, np.tile(AT, (len(made), 1, 1)), atol=1e-2)


def test_the_demonstrations_themselves_stay_as_they_are(demos: Demonstrations) -> None:
    before = copy.deepcopy((demos.observation, demos.action))
    framed(demos, GOAL, AT)
    assert (before[0] == demos.observation).all()
    assert (before[1] == demos.action).all()
