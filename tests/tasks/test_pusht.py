"""Push-T: the same physics, starts and coverage as gym-pusht, the recorded world, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gym_pusht.envs.pusht import PushTEnv
from hypothesis import given
from hypothesis import strategies as st

from vqbet.contract import Demonstrations, WorldError
from vqbet.tasks.pusht import IMAGE, TASK, importer
from vqbet.tasks.pusht.camera import pictures
from vqbet.tasks.pusht.geometry import GOAL_POSE, KEYPOINTS_PX, PARTS_PX, coverage, placed
from vqbet.tasks.pusht.world import PushT, demonstrated_poses

POSES = np.array([[150.0, 180.0, 0.3], [300.0, 350.0, -2.0], [256.0, 200.0, 5.5]])


@pytest.fixture(scope="module")
def reference() -> PushTEnv:
    env = PushTEnv(obs_type="state")
    env.reset(seed=0)
    return env


@pytest.fixture
def demos() -> Demonstrations:
    """Episodes of 7, 3 and 5 steps, in which the block's x says the step."""
    state = np.zeros((15, 5))
    state[:, 2], state[:, 3], state[:, 4] = np.arange(15), 200.0, 1.0
    spec = TASK.spec
    ends = np.array([7, 10, 15])
    return Demonstrations(spec, np.zeros((15, 20)), np.zeros((15, 2)), np.arange(15) / 10, ends, {}, state)


def covered(env: PushTEnv, pose: np.ndarray, goal: np.ndarray = GOAL_POSE) -> float:
    env.block.angle = pose[2]
    env.block.position = tuple(pose[:2])
    its_own, env.goal_pose = env.goal_pose, goal
    share = env._get_coverage()
    env.goal_pose = its_own
    return share


def chase(env: PushT, generator: np.random.Generator) -> np.ndarray:
    """Targets around each block, so that it is pushed."""
    state = env.state()
    return np.clip(state[:, 2:4] + generator.normal(scale=50, size=(len(state), 2)), 0, 512)


def test_the_task_s_world_observes_what_was_recorded() -> None:
    env = TASK.world()
    assert isinstance(env, PushT)
    assert env.spec is TASK.spec
    assert env.max_steps == 300
    names = [channel.name for channel in env.spec.observation]
    assert names[:3] == ["keypoint0_x", "keypoint0_y", "keypoint1_x"]
    assert names[18:] == [channel.name for channel in env.spec.action] == ["agent_x", "agent_y"]


@pytest.mark.parametrize("seed", [0, 7, 1_000_000])
def test_a_seed_starts_where_gym_pusht_starts(reference: PushTEnv, seed: int) -> None:
    expected, _ = reference.reset(seed=seed)
    env = PushT()
    env.reset(np.array([3, seed]))
    state = env.state()[1]
    state[4] %= 2 * np.pi
    np.testing.assert_array_equal(state, expected)


def test_physics_and_coverage_are_gym_pusht_s_to_the_last_bit() -> None:
    seeds, steps, generator = np.array([4, 11, 23]), 120, np.random.default_rng(0)
    env = PushT()
    env.reset(seeds)
    starts, targets, states, shares = env.state(), [], [], []
    for _ in range(steps):
        targets.append(chase(env, generator))
        env.step(targets[-1], np.arange(3))
        states.append(env.state())
        shares.append(env.metrics()["final_coverage"])
    assert all(np.abs(states[-1][:, 2:4] - starts[:, 2:4]).max(axis=1) > 5), "the blocks were not pushed"
    for row, seed in enumerate(seeds):
        gym = PushTEnv(obs_type="state")
        gym.reset(seed=int(seed))
        peak = 0.0
        for step in range(steps):
            _, _, _, _, info = gym.step(targets[step][row])
            np.testing.assert_array_equal(states[step][row], np.concatenate([info["pos_agent"], info["block_pose"]]))
            assert abs(shares[step][row] - info["coverage"]) < 1e-9
            peak = max(peak, info["coverage"])
        assert abs(env.metrics()["max_coverage"][row] - peak) < 1e-9


def test_an_episode_does_not_depend_on_its_neighbours() -> None:
    generator = np.random.default_rng(1)
    targets = generator.uniform(100, 400, (30, 2))
    alone, crowd = PushT(), PushT()
    alone.reset(np.array([5]))
    crowd.reset(np.array([9, 5, 2]))
    for step, target in enumerate(targets):
        one, _ = alone.step(target[None], np.array([0]))
        rows = np.array([1]) if step % 3 else np.array([2, 1])
        many, _ = crowd.step(np.tile(target, (len(rows), 1)), rows)
        np.testing.assert_array_equal(many[-1], one[0])


@given(
    x=st.floats(0, 512), y=st.floats(0, 512), angle=st.floats(-10, 10), scale=st.sampled_from([1.0, 0.1, 1e-3, 1e-9])
)
def test_coverage_is_shapely_s(reference: PushTEnv, x: float, y: float, angle: float, scale: float) -> None:
    pose = GOAL_POSE + scale * (np.array([x, y, angle]) - GOAL_POSE)
    assert abs(coverage(pose[None])[0] - covered(reference, pose)) < 1e-9


def test_coverage_where_edges_coincide(reference: PushTEnv) -> None:
    quarter, whole = np.pi / 2, np.array([0.0, 15.0, 30.0, 60.0, -60.0, 120.0])
    poses = np.array(
        [[256 + x, 256 + y, np.pi / 4 + turn * quarter] for x in whole for y in whole for turn in range(4)]
    )
    expected = [covered(reference, pose) for pose in poses]
    np.testing.assert_allclose(coverage(poses), expected, rtol=0, atol=1e-9)
    assert coverage(GOAL_POSE[None])[0] == pytest.approx(1.0, abs=1e-12)
    assert coverage(np.zeros((0, 3))).shape == (0,)


@given(
    pose=st.tuples(st.floats(0, 512), st.floats(0, 512), st.floats(-10, 10)),
    goal=st.tuples(st.floats(50, 450), st.floats(50, 450), st.floats(-10, 10)),
    near=st.sampled_from([1.0, 0.1, 1e-3, 0.0]),
)
def test_coverage_of_any_goal_is_shapely_s(reference: PushTEnv, pose: tuple, goal: tuple, near: float) -> None:
    wanted = np.array(goal)
    found = wanted + near * (np.array(pose) - wanted)
    assert abs(coverage(found[None], wanted)[0] - covered(reference, found, wanted)) < 1e-9


@pytest.mark.parametrize("angle", [5e-324, 1e-310, 1e-200, 1e-99, 1e-30])
def test_edges_that_are_almost_upright_do_no_harm(angle: float) -> None:
    goal, block = np.array([50.0, 50.0, angle]), np.array([[0.0, 50.0, 0.0], [50.0, 50.0, 0.0]])
    np.testing.assert_allclose(coverage(block, goal), coverage(block, np.array([50.0, 50.0, 0.0])), atol=1e-12)


def test_each_block_may_have_its_own_goal() -> None:
    generator = np.random.default_rng(0)
    poses, goals = (generator.uniform([200, 200, -4], [300, 300, 4], (50, 3)) for _ in range(2))
    together = coverage(poses, goals)
    alone = [coverage(pose[None], goal)[0] for pose, goal in zip(poses, goals, strict=True)]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-12)
    assert together.std() > 0.1
    np.testing.assert_array_equal(coverage(poses, GOAL_POSE), coverage(poses))


def test_the_geometry_is_gym_pusht_s_block(reference: PushTEnv) -> None:
    corners = [np.array(shape.get_vertices()) for shape in reference.block.shapes]  # a set: in any order
    boxes = sorted([points.min(axis=0).tolist(), points.max(axis=0).tolist()] for points in corners)
    assert boxes == sorted(np.asarray(PARTS_PX).tolist())
    np.testing.assert_array_equal(reference.goal_pose, GOAL_POSE)


def test_keypoints_have_the_shifts_of_their_generator() -> None:
    generator = np.random.default_rng(0)
    generator.choice(12_000)
    pixels = KEYPOINTS_PX - generator.uniform(0, 1, KEYPOINTS_PX.shape)
    np.testing.assert_allclose(pixels, np.round(pixels), atol=1e-12)


def test_restore_puts_everything_exactly_where_it_was() -> None:
    states = np.array([[200.0, 100.0, 230.0, 300.0, 3.0], [30.0, 40.0, 400.0, 111.0, 0.25]])
    env = PushT()
    env.reset(np.array([1, 2, 3]))
    env.step(np.full((3, 2), 250.0), np.arange(3))
    observation = env.restore(states)
    np.testing.assert_allclose(env.state(), states, rtol=0, atol=1e-12)
    np.testing.assert_allclose(observation[:, :18].reshape(-1, 9, 2), placed(KEYPOINTS_PX, states[:, 2:]), rtol=1e-6)
    env.step(states[:, :2], np.arange(2))  # told to stay, at rest, far from the block: nothing may move
    np.testing.assert_allclose(env.state(), states, rtol=0, atol=1e-9)


def test_metrics_remember_the_best_and_report_the_last() -> None:
    env = PushT()
    goal = np.array([[20.0, 20.0, *GOAL_POSE]])
    env.restore(goal)
    before = env.metrics()
    assert before["final_coverage"][0] == pytest.approx(1.0)
    assert not before["success"][0]
    env.step(np.array([[20.0, 20.0]]), np.array([0]))
    for _ in range(20):
        env.step(np.array([[300.0, 300.0]]), np.array([0]))
    metrics = env.metrics()
    assert metrics["success"][0]
    assert metrics["max_coverage"][0] == pytest.approx(1.0)
    assert metrics["score"][0] == metrics["final_coverage"][0] < 0.95
    assert {value.shape for value in metrics.values()} == {(1,)}


def test_goals_are_picked_by_the_seed_alone_and_change_no_start() -> None:
    seeds = np.arange(60)
    env = PushT(goal_poses=POSES)
    np.testing.assert_array_equal(env.reset(seeds), PushT().reset(seeds))
    goals = env.goals()
    assert env.goal == tuple(channel.name for channel in env.spec.observation[:18])
    assert (goals.shape, goals.dtype) == ((60, 18), np.float32)
    offered = placed(KEYPOINTS_PX, POSES).reshape(3, 18).astype(np.float32)
    counts = (goals[:, None] == offered).all(axis=2).sum(axis=0)
    assert counts.sum() == 60
    assert counts.min() > 8
    env.reset(seeds[::-1])
    np.testing.assert_array_equal(env.goals()[::-1], goals)
    env.reset(seeds[[17]])
    np.testing.assert_array_equal(env.goals(), goals[[17]])
    far = np.tile([20.0, 20.0, 256.0, 256.0, 0.0], (60, 1))
    env.restore(far)  # without seeds: those of 0, 1, 2 ...
    np.testing.assert_array_equal(env.goals(), goals)
    env.restore(far, seeds[::-1])
    np.testing.assert_array_equal(env.goals()[::-1], goals)


def test_an_unconditional_world_asks_for_nothing() -> None:
    env = PushT()
    assert env.goal == ()
    assert env.goals().shape == (0, 0)
    env.reset(np.arange(3))
    assert (env.goals().shape, env.goals().dtype) == ((3, 0), np.float32)


def test_coverage_is_of_the_pose_asked_for() -> None:
    env, seeds = PushT(goal_poses=POSES), np.arange(12)
    env.reset(seeds)
    picked = (env.goals()[:, None] == placed(KEYPOINTS_PX, POSES).reshape(3, 18).astype(np.float32)).all(2).argmax(1)
    assert set(picked) == {0, 1, 2}
    env.restore(np.concatenate([np.full((12, 2), 20.0), np.tile(POSES[1], (12, 1))], axis=1), seeds)
    assert (env.metrics()["final_coverage"] > 0.999).tolist() == (picked == 1).tolist()
    env.step(np.full((12, 2), 20.0), np.arange(12))
    metrics = env.metrics()
    assert metrics["success"].tolist() == (picked == 1).tolist()
    np.testing.assert_allclose(metrics["score"], coverage(np.tile(POSES[1], (12, 1)), POSES[picked]), atol=1e-9)


def test_coverage_follows_the_pose_asked_for_while_blocks_are_pushed() -> None:
    seeds, rows, generator = np.arange(6), np.arange(6), np.random.default_rng(2)
    env, plain = PushT(goal_poses=POSES), PushT()
    env.reset(seeds)
    plain.reset(seeds)
    picked = (env.goals()[:, None] == placed(KEYPOINTS_PX, POSES).reshape(3, 18).astype(np.float32)).all(2).argmax(1)
    best = np.zeros(6)
    for _ in range(40):
        targets = chase(env, generator)
        np.testing.assert_array_equal(env.step(targets, rows)[0], plain.step(targets, rows)[0])
        now = coverage(env.state()[:, 2:], POSES[picked])
        np.testing.assert_allclose(env.metrics()["final_coverage"], now, rtol=0, atol=1e-12)
        best = np.maximum(best, now)
        np.testing.assert_allclose(env.metrics()["max_coverage"], best, rtol=0, atol=1e-12)
    assert best.max() > 0


def test_a_picture_shows_the_goal_asked_for() -> None:
    env = PushT(goal_poses=POSES[:1])
    state = np.array([[20.0, 20.0, 400.0, 400.0, 0.0]])
    env.restore(state)
    x, y = np.round(POSES[0, :2] * 320 / 512).astype(int)
    red, green, _ = env.render(0)[y + 8, x].astype(int)
    assert green > red + 20
    plain = PushT()
    plain.restore(state)
    assert (plain.render(0)[y + 8, x] > 240).all()


def test_goal_poses_are_those_that_demonstrations_pass_through(demos: Demonstrations) -> None:
    poses = demonstrated_poses(demos)
    assert poses[:, 0].tolist() == [4, 5, 6, 14]  # the ends of segments of five steps
    assert (poses[:, 1:] == [200.0, 1.0]).all()
    env = TASK.goal_world(demos)
    env.reset(np.arange(40))
    middle = placed(np.zeros((1, 2)), poses)[:, 0]
    spread = np.unique(env.goals().round(3), axis=0)
    assert len(spread) == len(middle)


def test_recorded_episodes_have_no_poses(demos: Demonstrations) -> None:
    state = np.array(demos.state)
    state[demos.episode_starts[-1] :] = np.nan
    recorded = replace(demos, state=state)
    assert recorded.stateless.tolist() == [False] * (len(demos.lengths) - 1) + [True]
    without = demonstrated_poses(recorded)
    np.testing.assert_array_equal(without, demonstrated_poses(demos)[: len(without)])
    assert np.isfinite(without).all()


def test_goals_that_make_no_sense_are_refused(demos: Demonstrations) -> None:
    for poses, told in ((np.zeros((2, 2)), r"\(2, 2\)"), (np.zeros((0, 3)), r"\(0, 3\)"), (np.zeros(3), r"\(3,\)")):
        with pytest.raises(WorldError, match=rf"goals: expected finite poses of shape \(M, 3\), got shape {told}"):
            PushT(goal_poses=poses)
    with pytest.raises(WorldError, match="with 3 numbers that are not finite"):
        PushT(goal_poses=np.full((1, 3), np.nan))
    with pytest.raises(WorldError, match="hold no states to take poses from"):
        demonstrated_poses(replace(demos, state=None))
    with pytest.raises(WorldError, match="hold no states to take poses from"):
        demonstrated_poses(replace(demos, state=np.full_like(demos.state, np.nan)))
    with pytest.raises(WorldError, match=r"another spec: control_hz: 10\.0 here, 20\.0 there"):
        demonstrated_poses(replace(demos, spec=replace(demos.spec, control_hz=20.0)))
    with pytest.raises(WorldError, match="expected a demonstration of 5 steps or more"):
        demonstrated_poses(replace(demos, episode_ends=np.array([4, 8, 12, 15])))
    with pytest.raises(WorldError, match="one seed for each of 1 states, got 2"):
        PushT(goal_poses=POSES).restore(np.zeros((1, 5)), np.arange(2))


def test_episodes_end_after_max_steps_and_not_before() -> None:
    env = PushT(max_steps=2)
    env.restore(np.tile([20.0, 20.0, *GOAL_POSE], (2, 1)))
    stay = np.full((2, 2), 20.0)
    assert env.step(stay, np.array([0, 1]))[1].tolist() == [False, False]
    assert env.step(stay[:1], np.array([1]))[1].tolist() == [True]
    with pytest.raises(WorldError, match="episode 1 ended after 2 steps"):
        env.step(stay[:1], np.array([1]))
    assert env.step(stay[:1], np.array([0]))[1].tolist() == [True]


def test_no_episodes_are_no_trouble() -> None:
    env, none = PushT(), np.zeros(0, np.int64)
    assert env.reset(none).shape == (0, 20)
    observation, ended = env.step(np.zeros((0, 2)), none)
    assert (observation.shape, ended.shape) == ((0, 20), (0,))
    assert {value.shape for value in env.metrics().values()} == {(0,)}


def test_targets_are_held_within_the_window() -> None:
    far, edge = PushT(), PushT()
    for env, target in ((far, [9e30, -50.0]), (edge, [512.0, 0.0])):
        env.reset(np.array([0]))
        env.step(np.array([target]), np.array([0]))
    np.testing.assert_array_equal(far.state(), edge.state())


def test_refuses_senseless_starts() -> None:
    env = PushT()
    for seeds in (np.array([[1]]), np.array([0.5]), np.array([-1])):
        with pytest.raises(WorldError, match="seeds"):
            env.reset(seeds)
    with pytest.raises(WorldError, match=r"shape \(E, 5\), got shape \(1, 4\)"):
        env.restore(np.zeros((1, 4)))
    with pytest.raises(WorldError, match="with 1 numbers that are not finite"):
        env.restore(np.array([[0, 0, 0, np.nan, 0]]))


def test_pictures_are_deterministic_and_show_what_moves() -> None:
    env = PushT()
    env.reset(np.array([3]))
    first = env.render(0)
    assert first.shape == (320, 320, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, env.render(0))
    agent = np.round(env.state()[0, :2] * 320 / 512).astype(int)
    red, _, blue = first[agent[1], agent[0]].astype(int)
    assert blue > red + 100
    env.step(np.array([[50.0, 450.0]]), np.array([0]))
    later = env.render(0)
    assert (later != first).any()
    red, green, _ = later[round(450 * 320 / 512), round(50 * 320 / 512)].astype(int)
    assert red > green + 60


def test_naming_the_worlds_imports_no_simulator() -> None:
    code = (
        "import sys, vqbet.tasks; list(vqbet.tasks.TASKS.items()); "
        "sys.exit(any(name in sys.modules for name in ('pymunk', 'pygame', 'mujoco', 'cv2', 'torch', 'zarr')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_stepping_never_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("drew")

    monkeypatch.setattr("vqbet.tasks.pusht.world.draw", refuse)
    env = PushT()
    env.reset(np.array([0]))
    env.step(np.array([[1.0, 1.0]]), np.array([0]))
    env.metrics()
    with pytest.raises(AssertionError, match="drew"):
        env.render(0)


# --- the camera ------------------------------------------------------------------------------------------------------


def test_the_camera_s_picture_is_gym_pusht_s() -> None:
    """Within 1 of 255 on average; what differs are single pixels of edges."""
    env = PushTEnv(obs_type="pixels", observation_width=96, observation_height=96, render_mode="rgb_array")
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    states = rng.uniform((20, 20, 80, 80, -4), (490, 490, 430, 430, 4), (40, 5))
    expected = []
    for state in states:
        env.block.angle = state[4]
        env.block.position, env.agent.position = tuple(state[2:4]), tuple(state[:2])
        env.space.reindex_shapes_for_body(env.block)
        env.space.reindex_shapes_for_body(env.agent)
        expected.append(env._render())
    world = IMAGE.world()
    observation = world.restore(states)
    shown = world.cameras(np.arange(40))["image"]
    errors = np.abs(shown - np.array(expected, float)).mean((1, 2, 3))
    assert errors.mean() < 0.3
    assert errors.max() < 1
    np.testing.assert_allclose(observation, states[:, :2], atol=1e-3)


def test_the_recorded_pictures_are_those_of_the_recorded_states(real_demos: Callable[[str], Path]) -> None:
    demos = importer.load_seen(real_demos("pusht"))
    steps = np.array([[0, 161], [25_000, 160]])
    recorded = demos.cameras["image"][steps]
    assert recorded.shape == (2, 2, 96, 96, 3)
    drawn = pictures(demos.state[steps.flatten()]).reshape(recorded.shape)
    assert np.abs(recorded - drawn.astype(float)).mean() < 1
    assert (demos.spec, demos.observation.shape) == (IMAGE.spec, (25_650, 2))


def test_a_world_seen_through_its_camera_is_the_same_world() -> None:
    seen, known = IMAGE.world(), TASK.world()
    rows = np.arange(3)
    one, two = seen.reset(rows), known.reset(rows)
    np.testing.assert_array_equal(one, two[:, -2:])
    for action in np.random.default_rng(0).uniform(100, 400, (10, 3, 2)):
        one, two = seen.step(action, rows)[0], known.step(action, rows)[0]
    np.testing.assert_array_equal(one, two[:, -2:])
    np.testing.assert_array_equal(seen.metrics()["score"], known.metrics()["score"])
    goals = PushT(goal_poses=POSES)
    goals.restore(np.tile([256.0, 400.0, 256.0, 200.0, 0.0], (6, 1)))
    assert len(np.unique(goals.cameras(np.arange(6))["image"], axis=0)) == 1, "the table shows gym-pusht's own goal"
