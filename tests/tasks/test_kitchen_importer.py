"""The published Franka Kitchen data: what is read from it, that our world replays it, and what is refused.

Broken buffers in general are the business of `test_pusht_importer`; both are read through `replay_buffer`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numcodecs import Blosc

from tests.support import buffers
from tests.support.buffers import ENDS, Fault, edit, within_limits
from vqbet.contract import COLUMNS, Demonstrations, StoreError, WorldError
from vqbet.tasks.kitchen import TASK, importer
from vqbet.tasks.kitchen.completion import DEMONSTRATED, GOALS, done
from vqbet.tasks.kitchen.replay import replay
from vqbet.tasks.kitchen.world import Kitchen, goal_configurations

ALL = ">".join(DEMONSTRATED)
PACKED = Blosc(cname="lz4", clevel=5, shuffle=Blosc.NOSHUFFLE)
write = partial(buffers.write, codec=PACKED, ends=(25, None))  # as published: more room for ends than there are


def contents() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "data/state": generator.uniform(-0.05, 0.05, (130, 59)).astype(np.float32),
        "data/action": generator.uniform(-1, 1, (130, 9)).astype(np.float32),
        "meta/episode_ends": ENDS,
    }


@pytest.fixture
def buffer(tmp_path: Path) -> Path:
    return write(tmp_path / "made.zarr", contents())


@pytest.fixture(scope="module")
def published(real_demos: Callable[[str], Path]) -> Demonstrations:
    return TASK.importer.read(real_demos("kitchen"))


def test_reads_what_was_written(buffer: Path) -> None:
    wanted, demos = contents(), importer.load(buffer)
    assert demos.state is not None
    np.testing.assert_array_equal(demos.observation, wanted["data/state"])
    np.testing.assert_array_equal(demos.action, wanted["data/action"])
    assert (demos.observation.dtype, demos.action.dtype, demos.state.dtype) == (np.float32, np.float32, np.float64)
    np.testing.assert_array_equal(demos.episode_ends, ENDS)
    np.testing.assert_allclose(demos.time_s[[0, 39, 40, 54, 55, 129]], [0, 3.12, 0, 1.12, 0, 5.92])
    assert set(demos.columns) == set(COLUMNS)
    assert demos.columns["operator"].tolist() == ["unknown"] * 3, "only of a published set is it known"
    assert demos.columns["seed"].tolist() == [-1] * 3


def test_states_are_what_the_world_is_restored_from(buffer: Path) -> None:
    demos, env = importer.load(buffer), Kitchen()
    assert demos.state is not None
    np.testing.assert_array_equal(env.restore(demos.state[:5]), demos.observation[:5])
    names = [channel.name for channel in demos.spec.observation]
    for position, name in ((0, "robot_joint1_position"), (22, "microwave_door"), (52, "microwave_door_velocity")):
        np.testing.assert_array_equal(demos.state[:, position], demos.observation[:, names.index(name)])


def test_finds_the_buffer_in_folders_and_zips(buffer: Path, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    shutil.copytree(buffer, folder / "kitchen" / "made.zarr")
    np.testing.assert_array_equal(importer.load(folder).action, importer.load(buffer).action)
    archive = Path(shutil.make_archive(str(tmp_path / "made"), "zip", folder))
    np.testing.assert_array_equal(importer.load(archive).action, importer.load(buffer).action)


def test_success_is_each_of_the_four_tasks_at_some_step(tmp_path: Path) -> None:
    arrays = contents()
    objects = arrays["data/state"][:, 18:39]  # a view: positions 9 to 29 of the model
    for episode, tasks in ((0, DEMONSTRATED), (2, DEMONSTRATED[:3])):
        for step, task in enumerate(tasks):
            for position, value in GOALS[task].items():
                objects[[0, 40, 55][episode] + 3 * step, position - 9] = value
    objects[45, 23 - 9 :] = list(GOALS["kettle"].values())
    demos = importer.load(write(tmp_path / "labelled.zarr", arrays))
    assert demos.columns["success"].tolist() == [True, False, False]
    assert demos.state is not None
    assert done(demos.state[[0, 1, 3, 45]]).tolist() == [
        [True, False, False, False],
        [False, False, False, False],
        [False, True, False, False],
        [False, True, False, False],
    ]


def test_numbers_that_are_not_finite_pass_to_validation(tmp_path: Path) -> None:
    arrays = contents()
    arrays["data/action"][7, 1] = np.nan
    assert np.isnan(importer.load(write(tmp_path / "nan.zarr", arrays)).action[7, 1])


FAULTS: dict[str, tuple[Fault, str]] = {
    "no state": (lambda root: shutil.rmtree(root / "data/state"), r"state/.zarray: missing.*found: .*action"),
    "no ends": (lambda root: shutil.rmtree(root / "meta"), "episode_ends/.zarray: missing"),
    "no chunk": (lambda root: (root / "data/state/1.0").unlink(), "data/state, from step 50: the chunk is missing"),
    "the 60 numbers of the paper": (
        lambda root: write(root, {**contents(), "data/state": np.zeros((130, 60), np.float32)}),
        r"data/state: shape: expected \(any number, 59\), got \(130, 60\)",
    ),
    "seven joints": (
        lambda root: write(root, {**contents(), "data/action": np.zeros((130, 7), np.float32)}),
        r"data/action: shape: expected \(any number, 9\), got \(130, 7\)",
    ),
    "split rows": (edit("data/state", chunks=[50, 30]), r"chunks: expected whole rows of \(59,\), got \(50, 30\)"),
    "more actions": (edit("data/action", shape=[131, 9]), "data/action has 131"),
    "whole numbers": (edit("data/action", dtype="<i4"), "dtype: expected '<f4' or '<f8', got '<i4'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_refuses_a_broken_buffer(buffer: Path, name: str) -> None:
    fault, sentence = FAULTS[name]
    fault(buffer)
    with pytest.raises(StoreError, match=sentence) as refusal:
        importer.load(buffer)
    assert buffer.name in str(refusal.value)


def test_refuses_what_is_no_buffer(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="missing: expected a folder"):
        importer.load(tmp_path / "missing")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(StoreError, match="text: is not a whole zip archive"):
        importer.load(tmp_path / "text")


def test_replay_refuses_what_it_cannot_replay(buffer: Path) -> None:
    demos, env = importer.load(buffer), Kitchen()
    with pytest.raises(WorldError, match="hold no states"):
        replay(env, replace(demos, state=None), np.arange(3))
    with pytest.raises(WorldError, match="of another spec: frame"):
        replay(env, replace(demos, spec=replace(demos.spec, frame="table")), np.arange(3))
    env.max_steps = 60
    with pytest.raises(WorldError, match="an episode has 75 steps, the world ends after 60"):
        replay(env, demos, np.arange(3))


def test_the_published_buffer(published: Demonstrations) -> None:
    assert set(published.columns["source"]) == {"kitchen_complete"}
    assert (set(published.columns["session"]), set(published.columns["operator"])) == ({"published"}, {"human"})
    assert published.observation.shape == (4209, 59)
    assert (len(published.lengths), published.lengths.min(), published.lengths.max()) == (19, 208, 236)
    assert published.columns["success"].all()
    assert published.spec == Kitchen().spec
    assert within_limits(published)


def test_every_demonstration_ends_in_a_goal_with_all_four_tasks_done(published: Demonstrations) -> None:
    assert goal_configurations(published).shape == (19, 21)
    assert published.state is not None
    assert done(published.state[published.episode_ends - 1]).all()


@pytest.mark.slow
def test_recorded_servo_targets_do_every_task_again(published: Demonstrations) -> None:
    seen = []
    found = replay(Kitchen(), published, np.arange(19), progress=lambda done, total: seen.append((done, total)))
    assert found["tasks"].mean() >= 3.9  # 4.000 with MuJoCo 3.11.0
    assert (found["mode"] == ALL).sum() >= 18
    assert np.median(found["arm_rad"]) < 0.02
    assert np.median(found["kettle_m"]) < 0.01
    assert (seen[0], seen[-1]) == ((1, 236), (236, 236))


def beginnings(demos: Demonstrations, steps: int) -> Demonstrations:
    """The first steps of every demonstration."""
    rows = (demos.episode_starts[:, None] + np.arange(steps)).ravel()
    assert demos.state is not None
    return replace(
        demos,
        observation=demos.observation[rows],
        action=demos.action[rows],
        time_s=demos.time_s[rows],
        state=demos.state[rows],
        episode_ends=np.arange(1, len(demos.lengths) + 1) * steps,
    )


@pytest.mark.slow
def test_the_recording_is_reproduced_to_float32_until_the_first_touch(published: Demonstrations) -> None:
    """With its seed, and so with its noise: the same start, servos, noise and order of doing things."""
    found = replay(Kitchen(), beginnings(published, 24), np.arange(19), way="seed")
    assert (found["exact_steps"] == 24).all()
    assert found["kettle_m"].max() < 2e-3  # it settles on its burner a little differently


@pytest.mark.slow
def test_other_worlds_fail_the_replay(published: Demonstrations) -> None:
    """One with another seed, and one whose arm is half as fast."""
    demos, env = beginnings(published, 12), Kitchen()
    assert replay(env, demos, np.arange(19), way="actions")["arm_rad"].max() < 0.005
    assert replay(env, demos, np.arange(19), way="actions")["exact_steps"].max() <= 2
    env._reference = replace(env._reference, speed=env._reference.speed / 2)
    assert replay(env, demos, np.arange(19), way="actions")["arm_rad"].min() > 0.02
