"""Franka Kitchen through MuJoCo's renderer: what a picture shows, that the world's is the demonstrations', and where
nothing can draw, the one sentence that says so.

Without libosmesa6, each test of pictures sees to it that this sentence comes in their place.
"""

from __future__ import annotations

import ctypes.util
import functools
import importlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support import buffers, seeing_pusht
from vqbet.contract import Demonstrations, WorldError
from vqbet.demos import store
from vqbet.demos.store.staging import Staging
from vqbet.evaluation.rollout import Label, play
from vqbet.tasks.kitchen import IMAGE, TASK, camera, seen
from vqbet.tasks.kitchen.camera import pictures
from vqbet.tasks.kitchen.completion import STATE
from vqbet.tasks.kitchen.reference import reference
from vqbet.tasks.kitchen.spec import SEEN

SENTENCE = (
    r"kitchen_image: MuJoCo cannot draw here.*: install libosmesa6 \(apt-get install libosmesa6\) or set MUJOCO_GL"
)
START = reference().start
DOOR, ROWS, ENDS = 22, np.arange(2), np.array([4, 7, 12])


def drawn(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test where MuJoCo can draw; elsewhere, check that it says in one sentence what to install."""

    @functools.wraps(test)
    def run(*given: object, **named: object) -> None:
        if camera.renderer() == "osmesa" and ctypes.util.find_library("OSMesa") is None:
            with pytest.raises(WorldError, match=SENTENCE):
                pictures(START[None])
        else:
            test(*given, **named)

    return run


def opened(*angles: float) -> np.ndarray:
    """Return the start, with the microwave's door at these angles in turn."""
    states = np.tile(START, (len(angles), 1))
    states[:, DOOR] = angles
    return states


@pytest.fixture
def buffer(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    state = np.pad(opened(*np.linspace(0, -0.8, 12)), ((0, 0), (0, 29)))
    observed = np.empty_like(state)
    observed[:, STATE] = state
    arrays = {
        "data/state": observed.astype(np.float32),
        "data/action": generator.uniform(-1, 1, (12, 9)).astype(np.float32),
        "meta/episode_ends": ENDS,
    }
    return buffers.write(tmp_path / "made.zarr", arrays)


@drawn
def test_a_picture_shows_the_kitchen_and_is_the_same_each_time() -> None:
    one, again, moved = (pictures(opened(angle))[0] for angle in (0.0, 0.0, -0.7))
    np.testing.assert_array_equal(one, again)
    assert one.shape == (96, 96, 3)
    assert 60 < one.mean() < 200
    assert one.std() > 30
    changed = (one != moved).any(axis=2)
    assert 0.01 < changed.mean() < 0.4, "the door alone, not the whole picture"
    assert changed[50:, :50].sum() > 0.8 * changed.sum(), "the microwave stands in front on the left"
    together = pictures(opened(-0.7, 0.0))
    np.testing.assert_array_equal(together, [moved, one])


def in_a_thread(draw: Callable[[], np.ndarray]) -> np.ndarray:
    """What OpenGL holds is of a thread: what is freed there by others is nothing of ours."""
    found: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: found.append(draw()))
    thread.start()
    thread.join()
    return found[0]


def theirs() -> np.ndarray:
    import mujoco
    from gymnasium_robotics.envs.franka_kitchen.kitchen_env import KitchenEnv

    env = KitchenEnv(render_mode="rgb_array", width=192, height=192)
    env.model.vis.quality.offsamples = env.model.vis.quality.shadowsize = 0
    env.reset(seed=0)
    env.robot_env.set_state(opened(-0.5)[0], np.zeros(29))
    viewer = env.robot_env.mujoco_renderer._get_viewer("rgb_array")
    viewer.scn.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
    return cv2.resize(env.render(), (96, 96), interpolation=cv2.INTER_AREA)


@drawn
def test_the_picture_is_franka_kitchen_s_own_without_shadows(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the same place, the right way up, in the same colours: within 1 of 255 on average."""
    monkeypatch.setenv("MUJOCO_GL", camera.renderer())
    assert np.abs(pictures(opened(-0.5))[0] - in_a_thread(theirs).astype(float)).mean() < 1


@drawn
def test_each_thread_draws_the_same_with_a_renderer_of_its_own() -> None:
    before = pictures(opened(-0.3))
    np.testing.assert_array_equal(in_a_thread(lambda: pictures(opened(-0.3))), before)
    other = importlib.import_module(f"mujoco.{camera.renderer()}").GLContext(8, 8)
    other.make_current()
    np.testing.assert_array_equal(pictures(opened(-0.3)), before, "another's is current in this thread")


@drawn
def test_a_world_seen_through_its_camera_is_the_same_world() -> None:
    world, known = IMAGE.world(), TASK.world()
    one, two = world.reset(ROWS), known.reset(ROWS)
    np.testing.assert_array_equal(one, two[:, :18])
    for action in np.random.default_rng(0).uniform(-1, 1, (5, 2, 9)):
        one, two = world.step(action, ROWS)[0], known.step(action, ROWS)[0]
    np.testing.assert_array_equal(one, two[:, :18])
    np.testing.assert_array_equal(world.state(), known.state())
    shown = world.cameras(ROWS)["image"]
    assert (shown[0] != shown[1]).any()
    np.testing.assert_array_equal(shown, pictures(world.state()[:, :30]))
    np.testing.assert_array_equal(world.cameras(np.array([1]))["image"], shown[1:])


@drawn
def test_demonstrations_are_drawn_where_they_are_read(buffer: Path, tmp_path: Path) -> None:
    demos = seen.load(buffer)
    assert (demos.spec, demos.observation.shape) == (SEEN, (12, 18))
    assert set(demos.columns["task"]) == {"kitchen_image"}
    assert demos.cameras["image"].shape == (12, 96, 96, 3)
    assert demos.state is not None
    world, steps = IMAGE.world(), np.array([[0, 11], [7, 3]])
    observed = world.restore(demos.state[steps.ravel()])
    np.testing.assert_array_equal(observed, demos.observation[steps.ravel()])
    shown = world.cameras(np.arange(4))["image"]
    np.testing.assert_array_equal(demos.cameras["image"][steps], shown.reshape(2, 2, 96, 96, 3))
    made = []
    for folder in ("one.zarr", "two.zarr"):  # the second write finds the pictures of the first
        staging = Staging(tmp_path / "staged", "how", tmp_path / "one.zarr")
        store.write(tmp_path / folder, demos, staging=staging)
        made.append((staging.made > 0, staging.reused > 0))
    assert made == [(True, False), (False, True)]
    np.testing.assert_array_equal(store.read(tmp_path / "two.zarr").cameras["image"][steps.ravel()], shown)


@drawn
def test_goals_are_pictures_of_the_ends_of_demonstrations(buffer: Path) -> None:
    demos = seen.load(buffer)
    assert demos.state is not None
    world = IMAGE.goal_world(demos)
    world.reset(np.arange(6))
    assert world.goals().shape == (6, 0)
    assert world.goal == IMAGE.goal
    ends = pictures(demos.state[ENDS - 1, :30])
    wanted = world.goal_cameras()["image"]
    assert {int(np.abs(ends - one.astype(int)).sum((1, 2, 3)).min()) for one in wanted} == {0}
    assert len(np.unique(wanted, axis=0)) > 1, "every episode shows its own goal"


def test_goals_of_demonstrations_without_states_or_of_another_world_are_refused(buffer: Path) -> None:
    demos: Demonstrations = seen.load(buffer)
    with pytest.raises(WorldError, match="kitchen_image: goals: these demonstrations hold no states to draw"):
        IMAGE.goal_world(replace(demos, state=None))
    with pytest.raises(WorldError, match="kitchen_image: goals: these demonstrations are of another spec: frame"):
        IMAGE.goal_world(replace(demos, spec=replace(SEEN, frame="table")))


@drawn
def test_a_policy_that_sees_plays_in_it() -> None:
    world = IMAGE.world()
    world.max_steps = 3
    done = play(world, seeing_pusht.actor(spec=SEEN), [0, 1], Label("kitchen_image", "untrained", "", "", ""))
    assert [record.steps for record in done.records] == [3, 3]


def drawing(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
    given = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"} | variables
    return subprocess.run([sys.executable, "-c", program], env=given, capture_output=True, text=True)


@pytest.mark.parametrize("chosen", ["disabled", "nothing"])
def test_where_nothing_draws_one_sentence_says_what_to_do(chosen: str) -> None:
    program = (
        "import numpy\nfrom vqbet.contract import WorldError\nfrom vqbet.tasks import TASKS\n"
        "world = TASKS['kitchen_image'].world(); world.reset(numpy.arange(1))\n"
        "try: world.cameras(numpy.arange(1))\nexcept WorldError as error: print(error)"
    )
    done = drawing(program, MUJOCO_GL=chosen)
    assert (done.stderr, done.stdout) == (
        "",
        f"kitchen_image: MuJoCo cannot draw here with MUJOCO_GL={chosen} (expected one of egl, osmesa, glfw, cgl): "
        "install libosmesa6 (apt-get install libosmesa6) or set MUJOCO_GL\n",
    )


def test_a_state_task_loads_no_renderer_and_leaves_the_variable_alone() -> None:
    program = (
        "import os, sys, numpy\nfrom vqbet.tasks import TASKS\n"
        "for name in ('kitchen', 'kitchen_image'): TASKS[name].world().reset(numpy.arange(1))\n"
        "print('MUJOCO_GL' in os.environ, [name for name in sys.modules if name.startswith(('OpenGL', 'mujoco.glfw'))])"
    )
    assert drawing(program).stdout == "False []\n"
