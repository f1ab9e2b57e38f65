"""Franka Kitchen: the same physics, noise and completions as gymnasium-robotics, rows on their own, what it refuses."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest

from vqbet.contract import COLUMNS, Demonstrations, WorldError
from vqbet.tasks.kitchen import TASK, world
from vqbet.tasks.kitchen.completion import DEMONSTRATED, GOALS, NEAR, STATE
from vqbet.tasks.kitchen.reference import TASKS, reference
from vqbet.tasks.kitchen.spec import CONTROL_HZ, FULL_SPEED, GOAL, SPEC
from vqbet.tasks.kitchen.world import Kitchen, goal_configurations

PLACES = {  # position -> value that does a task, in the model's order
    "bottom burner": {11: -0.88, 12: -0.01},
    "top burner": {15: -0.92, 16: -0.01},
    "light switch": {17: -0.69, 18: -0.05},
    "slide cabinet": {19: 0.37},
    "hinge cabinet": {20: 0.0, 21: 1.45},
    "microwave": {22: -0.75},
    "kettle": {23: -0.23, 24: 0.75, 25: 1.62},
}
STILL = np.zeros((1, 9))


def walk(seed: int, steps: int) -> np.ndarray:
    """Actions (steps, 9) of a gentle random walk; those of seeds 0 and 9 push things within 60 steps."""
    return np.random.default_rng(seed).normal(0, 0.3, (60, 9)).cumsum(axis=0).clip(-1, 1)[:steps]


def moved(env: Kitchen, row: int) -> float:
    """How far anything but the arm is from its start."""
    return float(np.abs(env.state()[row, 9:26] - reference().start[9:26]).max())


def do(env: Kitchen, row: int, *tasks: str) -> None:
    """Put what these tasks are about where it shall be."""
    for task in tasks:
        for position, value in PLACES[task].items():
            env._state[row, position] = value


def demonstrations(episodes: int = 3, steps: int = 4) -> Demonstrations:
    rows = np.arange(episodes * steps, dtype=np.float32)[:, None]
    text = {name: np.full(episodes, "kitchen") for name in COLUMNS}
    return Demonstrations(
        spec=SPEC,
        observation=rows + np.linspace(0, 0.5, 59, dtype=np.float32),
        action=np.zeros((len(rows), 9), np.float32),
        time_s=np.tile(np.arange(steps) / CONTROL_HZ, episodes),
        episode_ends=np.arange(1, episodes + 1) * steps,
        columns=text | {"seed": np.full(episodes, -1), "success": np.ones(episodes, bool)},
    )


def theirs(**options: float):
    from gymnasium_robotics.envs.franka_kitchen.kitchen_env import KitchenEnv

    return KitchenEnv(**options)


def test_the_task_s_world_observes_what_was_recorded() -> None:
    env = TASK.world()
    assert isinstance(env, Kitchen)
    assert env.spec is TASK.spec
    assert (env.max_steps, env.tasks, env.goal) == (280, TASKS, ())
    names = [channel.name for channel in env.spec.observation]
    assert len(set(names)) == 59
    assert (names[0], names[9]) == ("robot_joint1_position", "robot_joint1_velocity")
    assert (names[31], names[52]) == ("microwave_door", "microwave_door_velocity")
    assert names[32:39] == ["kettle_x", "kettle_y", "kettle_z", "kettle_qw", "kettle_qx", "kettle_qy", "kettle_qz"]


def test_the_words_are_those_of_the_reference() -> None:
    from gymnasium_robotics.envs.franka_kitchen.kitchen_env import OBS_ELEMENT_GOALS

    env, model = theirs(), reference().model
    assert set(TASKS) == set(OBS_ELEMENT_GOALS)
    assert env.robot_env.frame_skip == world.SUBSTEPS
    assert env.robot_env.dt == pytest.approx(1 / CONTROL_HZ)
    assert (reference().speed == FULL_SPEED).all()
    for task, positions in GOALS.items():
        indices, values = reference().wanted[task]
        assert dict(zip(indices.tolist(), values.tolist(), strict=True)) == positions
    assert (NEAR, tuple(GOALS)) == (reference().near, DEMONSTRATED)
    assert (model.nq, model.nv, model.nu) == (30, 29, 9)


def test_the_limits_hold_the_model_s_joints() -> None:
    model = reference().model
    channels = [*SPEC.observation[:9], *SPEC.observation[18:32]]  # one position each; the kettle is free
    for channel, stops, kind in zip(channels, model.jnt_range, model.jnt_type, strict=False):
        assert channel.low < stops[0] < stops[1] < channel.high
        assert channel.unit == {mujoco.mjtJoint.mjJNT_HINGE: "rad", mujoco.mjtJoint.mjJNT_SLIDE: "m"}[kind]


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_an_episode_is_the_reference_s_to_the_last_bit(noise: float) -> None:
    gym = theirs(robot_noise_ratio=0.01 * noise, object_noise_ratio=0.0005 * noise)
    ours = Kitchen(observation_noise=noise)
    seeds, actions = np.array([9, 0]), np.stack([walk(9, 60), walk(0, 60)], axis=1)
    seen = [ours.reset(seeds)]
    states = [ours.state()]
    for action in actions:
        seen.append(ours.step(action, np.arange(2))[0])
        states.append(ours.state())
    assert min(moved(ours, 0), moved(ours, 1)) > 0.01, "nothing was pushed"
    for row, seed in enumerate(seeds):
        observation, _ = gym.reset(seed=int(seed))
        for step in range(61):
            if step:
                observation, _, _, _, info = gym.step(actions[step - 1, row])
            np.testing.assert_array_equal(states[step][row], np.concatenate([gym.data.qpos, gym.data.qvel]))
            np.testing.assert_array_equal(seen[step][row], observation["observation"].astype(np.float32))
        assert ours.metrics()["tasks"][row] == len(info["episode_task_completions"])


def test_a_restored_episode_is_the_reference_s_and_so_are_its_completions() -> None:
    env, gym = Kitchen(), theirs(robot_noise_ratio=0.0, object_noise_ratio=0.0)
    state = np.pad(reference().start, (0, 29))
    state[[0, 19, 22, 49, 52]] = 0.3, 0.05, -0.44, 1.5, -1.5  # cabinet and door on their way, the arm elsewhere
    env.restore(state[None])
    gym.reset(seed=0)
    gym.robot_env.set_state(state[:30], state[30:])
    gym.robot_env._last_robot_qpos = state[:9].copy()
    for action in walk(3, 20):
        env.step(action[None], np.array([0]))
        *_, info = gym.step(action)
        np.testing.assert_array_equal(env.state()[0], np.concatenate([gym.data.qpos, gym.data.qvel]))
    assert sorted(info["episode_task_completions"]) == ["microwave", "slide cabinet"]
    assert env.metrics()["tasks"].tolist() == [2.0]


def test_an_episode_depends_neither_on_its_neighbours_nor_on_threads() -> None:
    actions = walk(0, 40)
    alone, crowd = Kitchen(threads=1), Kitchen(threads=3)
    one = [alone.reset(np.array([5]))[0]]
    many = [crowd.reset(np.array([9, 5, 2, 7, 1]))[1]]
    for step, action in enumerate(actions):
        one.append(alone.step(action[None], np.array([0]))[0][0])
        rows = np.array([1, 4]) if step % 3 else np.array([2, 0, 3, 1])
        others = np.random.default_rng(step).uniform(-1, 1, (len(rows), 9))
        others[rows == 1] = action
        many.append(crowd.step(others, rows)[0][rows == 1][0])
    assert moved(alone, 0) > 0.01
    np.testing.assert_array_equal(one, many)


def test_a_seed_says_it_all_and_nothing_is_left_over() -> None:
    env = Kitchen()
    first = [env.reset(np.array([3, 4])), env.step(np.ones((2, 9)), np.arange(2))[0]]
    env.step(np.ones((1, 9)), np.array([1]))
    again = [env.reset(np.array([4, 3])), env.step(np.ones((2, 9)), np.arange(2))[0]]
    np.testing.assert_array_equal(np.array(first)[:, ::-1], again)
    assert (first[0][0] != first[0][1]).any()
    np.testing.assert_allclose(first[0][0], first[0][1], atol=2.1e-3)  # twice the largest noise
    assert env.metrics()["tasks"].tolist() == [0, 0]


def test_restored_states_are_seen_as_they_are_and_noisy_only_with_seeds() -> None:
    env, state = Kitchen(), np.random.default_rng(0).normal(size=(2, 59))
    seen = env.restore(state)
    np.testing.assert_array_equal(seen, state[:, STATE.argsort()].astype(np.float32))
    np.testing.assert_array_equal(env.state(), state)
    noisy = env.restore(state, np.array([6, 7]))
    assert 0 < np.abs(noisy - seen).max() < 1.1e-3
    np.testing.assert_array_equal(noisy, env.restore(state, np.array([6, 7])))
    np.testing.assert_array_equal(env.state(), state)


def test_tasks_count_once_in_the_order_of_their_completion() -> None:
    env = Kitchen(observation_noise=0.0)
    env.reset(np.array([0, 1]))
    assert env.metrics()["mode"].tolist() == ["", ""]
    for tasks in (["microwave"], [], ["kettle"], ["slide cabinet", "light switch"], ["bottom burner"]):
        do(env, 0, *tasks)
        assert not env.step(np.zeros((2, 9)), np.arange(2))[1].any()
    metrics = env.metrics()
    assert metrics["mode"].tolist() == ["microwave>kettle>light switch>slide cabinet>bottom burner", ""]
    for name, expected in (("tasks", [5.0, 0.0]), ("score", [1.0, 0.0]), ("success", [True, False])):
        assert metrics[name].tolist() == expected
    assert metrics["microwave_s"][0] == pytest.approx(0.08)
    assert metrics["light_switch_s"][0] == metrics["slide_cabinet_s"][0] == pytest.approx(0.32)
    assert np.isnan(metrics["kettle_s"][1])
    assert np.isnan(metrics["hinge_cabinet_s"]).all()
    env._state[0, 22] = 0.0  # somebody closes the microwave again
    env.step(STILL, np.array([0]))
    do(env, 0, "microwave")
    env.step(STILL, np.array([0]))
    after = env.metrics()
    assert (after["tasks"][0], after["microwave_s"][0]) == (5.0, metrics["microwave_s"][0])
    assert {value.shape for value in after.values()} == {(2,)}


def test_an_episode_ends_when_all_its_tasks_are_done_or_time_is_up() -> None:
    env = Kitchen(tasks=("kettle", "microwave"))
    env.reset(np.array([0, 1]))
    env.max_steps = 3
    do(env, 0, "microwave", "slide cabinet")
    assert env.step(np.zeros((2, 9)), np.arange(2))[1].tolist() == [False, False]
    assert (env.metrics()["score"][0], env.metrics()["success"][0]) == (0.5, False)
    do(env, 0, "kettle")
    assert env.step(np.zeros((2, 9)), np.arange(2))[1].tolist() == [True, False]
    assert (env.metrics()["score"][0], env.metrics()["success"][0]) == (1.0, True)
    assert env.step(STILL, np.array([1]))[1].tolist() == [True]
    for row, steps in ((0, 2), (1, 3)):
        with pytest.raises(WorldError, match=f"episode {row} ended after {steps} steps"):
            env.step(STILL, np.array([row]))


def test_with_all_seven_tasks_four_do_not_end_an_episode() -> None:
    env = Kitchen()
    env.reset(np.array([0]))
    do(env, 0, *TASKS[:4])
    assert not env.step(STILL, np.array([0]))[1].any()
    do(env, 0, *TASKS[4:])
    assert env.step(STILL, np.array([0]))[1].all()
    assert (env.metrics()["tasks"][0], env.metrics()["score"][0]) == (7.0, 1.0)


def test_actions_are_held_within_their_limits() -> None:
    far, edge = Kitchen(), Kitchen()
    for env, action in ((far, 7.0), (edge, 1.0)):
        env.reset(np.array([0]))
        env.step(np.full((1, 9), action), np.array([0]))
    np.testing.assert_array_equal(far.state(), edge.state())


def test_actions_count_from_where_the_arm_is_supposed_to_be() -> None:
    env, other = Kitchen(), Kitchen()
    for one in (env, other):
        one.restore(np.pad(reference().start, (0, 29))[None])
    known = env.state()[:, :9]
    env.suppose(known + 0.08, np.array([0]))  # m for the fingers, which are held at their stops
    env.step(STILL, np.array([0]))
    other.step(np.full((1, 9), 0.5), np.array([0]))  # half of 2 rad/s for 0.08 s
    np.testing.assert_allclose(env.state(), other.state(), atol=1e-9)


def test_what_is_observed_in_wild_play_is_within_the_limits() -> None:
    env, generator = Kitchen(), np.random.default_rng(0)
    env.reset(np.arange(4))
    for step in range(60):
        if step % 15 == 0:
            action = generator.choice([-1.0, 1.0], (4, 9))
        seen, _ = env.step(action, np.arange(4))
        for channel, values in zip(SPEC.observation, seen.T, strict=True):
            assert channel.low <= values.min() <= values.max() <= channel.high, channel.name


def test_no_episodes_are_no_trouble() -> None:
    env, none = Kitchen(), np.zeros(0, np.int64)
    assert env.reset(none).shape == (0, 59)
    assert [array.shape for array in (*env.step(np.zeros((0, 9)), none), env.goals())] == [(0, 59), (0,), (0, 0)]
    assert {value.shape for value in env.metrics().values()} == {(0,)}


def test_refuses_senseless_starts_and_constructions() -> None:
    env = Kitchen()
    for seeds in (np.array([[1]]), np.array([0.5]), np.array([-1])):
        with pytest.raises(WorldError, match="seeds"):
            env.reset(seeds)
    with pytest.raises(WorldError, match=r"shape \(E, 59\), got shape \(1, 60\)"):
        env.restore(np.zeros((1, 60)))
    with pytest.raises(WorldError, match="with 59 numbers that are not finite"):
        env.restore(np.full((1, 59), np.nan))
    with pytest.raises(WorldError, match="one seed for each of 2 states, got 1"):
        env.restore(np.zeros((2, 59)), np.array([1]))
    with pytest.raises(WorldError, match=r"different ones of bottom burner, .*got \['dishwasher'\]"):
        Kitchen(tasks=("dishwasher",))
    for tasks in ((), ("kettle", "kettle")):
        with pytest.raises(WorldError, match="tasks: expected different ones"):
            Kitchen(tasks=tasks)
    with pytest.raises(WorldError, match="observation_noise: expected a finite number"):
        Kitchen(observation_noise=-1.0)
    with pytest.raises(WorldError, match=r"shape \(M, 21\), got shape \(2, 20\)"):
        Kitchen(goals=np.zeros((2, 20)))
    with pytest.raises(WorldError, match="no episode 3; there are 0"):
        env.render(3)


def test_says_so_when_the_simulation_becomes_unstable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo notes it in a file there
    env = Kitchen(threads=1)
    states = np.pad(reference().start, (0, 29))[None].repeat(2, axis=0)
    states[1, 40] = 1e12
    env.restore(states)
    with pytest.raises(WorldError, match="simulation of episode 1 became unstable in step 1; its last action was"):
        env.step(np.zeros((2, 9)), np.arange(2))
    env.step(STILL, np.array([0]))  # the same MjData serves other rows again


def test_every_seed_asks_for_one_of_the_goals_and_its_noise_stays_the_same() -> None:
    offered = np.arange(5 * 21, dtype=np.float64).reshape(5, 21)
    env, plain, seeds = Kitchen(goals=offered, tasks=DEMONSTRATED), Kitchen(), np.arange(40)
    np.testing.assert_array_equal(env.reset(seeds), plain.reset(seeds))
    asked = env.goals()
    assert (asked.shape, asked.dtype, plain.goals().shape) == ((40, 21), np.float32, (40, 0))
    assert set(asked[:, 0]) == set(offered[:, 0])
    np.testing.assert_array_equal(asked - asked[:, :1], np.tile(np.arange(21.0), (40, 1)))
    env.reset(seeds[::-1])
    np.testing.assert_array_equal(env.goals(), asked[::-1])
    env.restore(np.zeros((3, 59)))
    np.testing.assert_array_equal(env.goals(), asked[:3])
    assert env.goal == GOAL
    assert (GOAL[0], GOAL[13], GOAL[-1], len(GOAL)) == ("knob1", "microwave_door", "kettle_qz", 21)


def test_the_world_with_goals_asks_for_the_ends_of_demonstrations() -> None:
    demos = demonstrations()
    goals = goal_configurations(demos)
    np.testing.assert_array_equal(goals, demos.observation[[3, 7, 11], 18:39])
    env = TASK.goal_world(demos)
    assert isinstance(env, Kitchen)
    assert (set(env.tasks), env.goal) == (set(DEMONSTRATED), GOAL)
    env.reset(np.arange(30))
    assert set(env.goals()[:, 0]) == set(goals[:, 0])
    with pytest.raises(WorldError, match="goals: these demonstrations are of another spec: control_hz"):
        goal_configurations(replace(demos, spec=replace(SPEC, control_hz=5.0)))


def test_pictures_are_deterministic_and_show_what_moves() -> None:
    env = Kitchen()
    env.reset(np.array([3, 4]))
    first = env.render(0)
    assert (first.shape, first.dtype) == ((320, 320, 3), np.uint8)
    np.testing.assert_array_equal(first, env.render(0))
    np.testing.assert_array_equal(first, env.render(1))  # what is seen is the state, not the noise
    scene, lamps = slice(0, 270), slice(276, 320)
    do(env, 0, "microwave")
    opened = env.render(0)
    assert 1000 < (opened[scene] != first[scene]).any(axis=2).sum() < 20_000
    np.testing.assert_array_equal(opened[lamps], first[lamps])
    env.step(STILL, np.array([0]))
    assert 20 < (env.render(0)[lamps] != first[lamps]).any(axis=2).sum() < 120
    np.testing.assert_array_equal(env.render(1), first)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_changes_the_picture(task: str) -> None:
    env = Kitchen()
    env.reset(np.array([0]))
    before = env.render(0)
    do(env, 0, task)
    env.step(STILL, np.array([0]))
    assert (env.render(0)[:270] != before[:270]).any(axis=2).sum() > 40


@pytest.mark.slow
def test_naming_the_worlds_imports_no_simulator_and_building_this_one_says_nothing() -> None:
    code = (
        "import sys, vqbet.tasks; list(vqbet.tasks.TASKS.items()); "
        "assert not any(name in sys.modules for name in ('gymnasium', 'mujoco', 'cv2')); "
        "vqbet.tasks.TASKS['kitchen'].world()"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_stepping_never_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("drew")

    monkeypatch.setattr("vqbet.tasks.kitchen.picture.draw", refuse)
    env = Kitchen()
    env.reset(np.array([0]))
    env.step(STILL, np.array([0]))
    env.metrics()
    with pytest.raises(AssertionError, match="drew"):
        env.render(0)
