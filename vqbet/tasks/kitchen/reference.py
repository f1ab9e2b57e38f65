"""Properties of FrankaKitchen-v1, read from gymnasium-robotics, and MuJoCo, imported without OpenGL.

MuJoCo loads OpenGL when it is imported, by $MUJOCO_GL. Physics needs none, so it is imported here as if it were
disabled. The camera, where there is one, loads the renderer on its own (`vqbet.tasks.kitchen.camera`).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO

import numpy as np
from jaxtyping import Float

TASKS = ("bottom burner", "top burner", "light switch", "slide cabinet", "hinge cabinet", "microwave", "kettle")


@contextmanager
def _without_opengl() -> Iterator[None]:
    chosen = os.environ.get("MUJOCO_GL")
    os.environ["MUJOCO_GL"] = "disabled"
    try:
        yield
    finally:
        del os.environ["MUJOCO_GL"]
        if chosen is not None:
            os.environ["MUJOCO_GL"] = chosen


with _without_opengl():
    import mujoco

__all__ = ["TASKS", "Reference", "mujoco", "reference"]


@dataclass(frozen=True, slots=True)
class Reference:
    """Properties of the world in gymnasium-robotics."""

    model: mujoco.MjModel
    start: Float[np.ndarray, " 30"]
    noise: Float[np.ndarray, " 59"]  # half the width of an observation's uniform noise
    speed: Float[np.ndarray, " 9"]  # of an action of 1
    speeds: Float[np.ndarray, "2 9"]  # smallest and largest joint velocity that is commanded
    reach: Float[np.ndarray, "2 9"]  # smallest and largest joint position that is commanded
    wanted: Mapping[str, tuple[np.ndarray, np.ndarray]]  # task -> indices of positions, target values
    near: float  # distance from the targets below which a task is done, Euclidean over metres and radians


@functools.cache
def reference() -> Reference:
    """Return the properties of FrankaKitchen-v1, which is built once per process."""
    with redirect_stderr(StringIO()):  # importing prints a notice about other worlds
        from gymnasium_robotics.envs.franka_kitchen import kitchen_env as source

    world = source.KitchenEnv()
    robot, objects = world.robot_env, world.object_noise_ratio
    return Reference(
        model=world.model,
        start=robot.init_qpos.copy(),
        noise=np.concatenate(
            [
                robot.robot_noise_ratio * robot.robot_pos_noise_amp[:9],
                robot.robot_noise_ratio * robot.robot_vel_noise_amp[:9],
                objects * robot.robot_pos_noise_amp[8:],
                objects * robot.robot_vel_noise_amp[9:],
            ]
        ),
        speed=robot.act_rng.copy(),
        speeds=robot.robot_vel_bound[:9].T.copy(),
        reach=robot.robot_pos_bound[:9].T.copy(),
        wanted={task: (source.OBS_ELEMENT_INDICES[task], source.OBS_ELEMENT_GOALS[task]) for task in TASKS},
        near=source.BONUS_THRESH,
    )
