"""Mirrors of worlds: what is mirrored could have been recorded, since the world moves alike on both sides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.recorded import recorded
from vqbet.contract import ConfigError, Demonstrations
from vqbet.coordinates import mirror
from vqbet.stages import worlds
from vqbet.tasks import TASKS

STEPS, EPISODES = 16, 6
SIDEWAYS = [0, 3, 4, 7, 8, 10, 13, 14, 17, 18, 20, 22, 24, 25, 27]  # of a state of BlockPush: every x, every yaw


def towards_a_block(task: str, observation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Actions that push, each episode's differently."""
    if task == "pusht":
        return (observation[:, 6:8] + rng.uniform(-60, 60, (EPISODES, 2))).clip(0, 512)
    return (observation[:, :2] - observation[:, 8:10] + rng.uniform(-0.01, 0.01, (EPISODES, 2))).clip(-0.03, 0.03)


def doubled(demos: Demonstrations) -> Demonstrations:
    return mirror.doubled(demos, TASKS[demos.spec.task].mirror)


def pushed(task: str) -> Demonstrations:
    env, rng = worlds.make(task), np.random.default_rng(0)
    observation = env.reset(np.arange(EPISODES))
    return recorded(env, observation, lambda seen: towards_a_block(task, seen, rng), STEPS)


def mirrored_state(task: str, state: np.ndarray) -> np.ndarray:
    """The first states of the mirrored episodes, by the geometry of the world."""
    if task == "pusht":
        x, y, block_x, block_y, angle = state.T
        return np.stack([512 - y, 512 - x, 512 - block_y, 512 - block_x, np.pi / 2 - angle], axis=1)
    signs = np.ones(state.shape[1])
    signs[SIDEWAYS] = -1
    return state * signs


@pytest.fixture(scope="module", params=[name for name, task in TASKS.items() if task.mirror and not task.spec.cameras])
def demos(request: pytest.FixtureRequest) -> Demonstrations:
    return pushed(request.param)


def test_the_world_moves_alike_in_its_mirror(demos: Demonstrations) -> None:
    """A step from every recorded state, there and in the mirror. Push-T's contacts at corners may part the two."""
    task, half, rows = demos.spec.task, len(demos.action), np.arange(len(demos.action))
    env = worlds.make(task)
    before = env.restore(demos.state)
    after, _ = env.step(demos.action, rows)
    expected = doubled(replace(demos, observation=after, state=env.state())).observation[half:]
    env.restore(mirrored_state(task, demos.state))
    found, _ = env.step(doubled(demos).action[half:], rows)
    unit = {"pusht": 1.0, "blockpush_drawn": 0.001}[task]
    errors, pushed = np.abs(found - expected).max(axis=1), np.abs(after - before)[:, :2].max(axis=1) > unit
    assert pushed.sum() > 20
    assert np.median(errors[pushed]) < 0.01 * unit


def test_what_was_recorded_comes_first_and_as_it_was(demos: Demonstrations) -> None:
    both, half = doubled(demos), len(demos.action)
    assert (both.observation[:half] == demos.observation).all()
    assert (both.action[:half] == demos.action).all()
    assert both.observation.dtype == both.action.dtype == np.float32
    assert both.lengths.tolist() == 2 * demos.lengths.tolist()
    assert both.columns["success"].tolist() == 2 * demos.columns["success"].tolist()
    assert (both.state, both.digest, both.spec) == (None, "data", demos.spec)


def test_a_mirror_in_a_mirror_shows_what_was_there(demos: Demonstrations) -> None:
    task = demos.spec.task
    half = len(demos.action)
    once = doubled(demos)
    turned = replace(
        demos,
        observation=once.observation[half:],
        action=once.action[half:],
        state=mirrored_state(task, demos.state),
    )
    twice = doubled(turned)
    np.testing.assert_allclose(twice.observation[half:], demos.observation, atol=1e-3)
    np.testing.assert_allclose(twice.action[half:], demos.action, atol=1e-4)


def test_the_mirror_of_a_goal_reached_is_a_goal_reached() -> None:
    """Push-T's goal lies on the axis of its mirror: the T on it is the T on it."""
    from vqbet.tasks.pusht.geometry import GOAL_POSE, KEYPOINTS_PX, placed

    demos = pushed("pusht")
    observation = demos.observation.copy()
    observation[-1, :-2] = placed(KEYPOINTS_PX, GOAL_POSE[None]).reshape(-1)
    shown = doubled(replace(demos, observation=observation)).observation[-1, :-2].reshape(-1, 2)
    corners = placed(KEYPOINTS_PX * [-1.0, 1.0], GOAL_POSE[None])[0]
    np.testing.assert_allclose(512 - corners[:, ::-1], placed(KEYPOINTS_PX, GOAL_POSE[None])[0], atol=1e-9)
    np.testing.assert_allclose(shown, placed(KEYPOINTS_PX, GOAL_POSE[None])[0], atol=1e-3)


def test_push_t_without_states_is_refused() -> None:
    with pytest.raises(ConfigError, match="pusht: its demonstrations have no states"):
        doubled(replace(pushed("pusht"), state=None))
    with pytest.raises(ConfigError, match="pusht: its demonstrations have no states"):
        doubled(replace(pushed("pusht"), state=np.full_like(pushed("pusht").state, np.nan)))


def test_episodes_without_states_are_mirrored_by_what_the_others_know() -> None:
    demos = pushed("pusht")
    state = np.array(demos.state)
    state[demos.episode_starts[-1] :] = np.nan
    np.testing.assert_allclose(doubled(replace(demos, state=state)).observation, doubled(demos).observation, atol=1e-3)


def test_pictures_are_mirrored_as_what_they_show() -> None:
    env = worlds.make("pusht_image")
    rng = np.random.default_rng(0)
    state = rng.uniform((60, 60, 120, 120, -3), (450, 450, 390, 390, 3), (EPISODES, 5))
    rows, both = np.arange(EPISODES), TASKS["pusht_image"].mirror
    observation = env.restore(state)
    shown = Demonstrations(
        env.spec, observation, observation, np.zeros(EPISODES), np.arange(1, EPISODES + 1), {}, None, "",
        cameras=env.cameras(rows),
    )  # fmt: skip
    made = mirror.doubled(shown, both).cameras["image"]
    assert made.shape == (2 * EPISODES, 96, 96, 3)
    np.testing.assert_array_equal(made[rows], shown.cameras["image"])
    env.restore(mirrored_state("pusht", state))
    expected = env.cameras(rows)["image"].astype(float)
    assert np.abs(made[rows + EPISODES] - expected).mean() < 1
    np.testing.assert_array_equal(made[np.array([[3, EPISODES + 3]])][0, 1], made[np.array([EPISODES + 3])][0])
    with pytest.raises(IndexError, match=f"expected steps from 0 to {2 * EPISODES - 1}, got -1 to -1"):
        made[np.array([-1])]
