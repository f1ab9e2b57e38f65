"""The published Franka Kitchen demonstrations: 19 episodes by people, 12.5 Hz, four tasks each, always in one order.

Relay Policy Learning (arXiv 1910.11956), "kitchen/complete" of D4RL (arXiv 2004.07219) as Minari recorded it anew in
gymnasium-robotics' FrankaKitchen-v1, in the replay buffer layout of Diffusion Policy. The data sets are CC BY 4.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from vqbet.contract import Channel, Demonstrations, Spec
from vqbet.demos.importers import replay_buffer

FIELDS = {"state": (59,), "action": (9,)}
CONTROL_HZ = 12.5
MAX_UNPACKED_BYTES = 2**30
PUBLISHED = {"1f2641c0bf91b8d9ef4a2ce6dab41244377c86bb4e05891496fb715b178148ca": "kitchen_complete"}  # by content
STATE = np.r_[0:9, 18:39, 9:18, 39:59]  # a recorded row (arm, then objects) in the model's order: positions, velocities

# FrankaKitchen-v1's goals: the positions of a task, in the model's order, and how close they must come together.
GOALS: Mapping[str, Mapping[int, float]] = {
    "microwave": {22: -0.75},
    "kettle": {23: -0.23, 24: 0.75, 25: 1.62, 26: 0.99, 27: 0.0, 28: 0.0, 29: -0.06},
    "light switch": {17: -0.69, 18: -0.05},
    "slide cabinet": {19: 0.37},
}
NEAR = 0.3


def load(source: Path) -> Demonstrations:
    """The demonstrations at `source`: the .zarr folder, a folder with it, or a zip of either.

    observation (N, 59) float32: positions, then velocities of the arm's nine joints; positions, then velocities of the
    objects. action (N, 9) float32: joint velocities, as shares of 2 rad/s and 2 m/s. state (N, 59) float64: 30
    positions, then 29 velocities, in the model's order; what was recorded is what was observed, so both hold the
    world's observation noise.

    The buffer has no labels. `success` says that each of the four tasks was done at some step of the episode.

    Raises StoreError for anything that is not such a buffer. Values that are not finite are the business of validation.
    """
    arrays = replay_buffer.load(source, FIELDS, max_bytes=MAX_UNPACKED_BYTES)
    ends, state = arrays["episode_ends"], arrays["state"].astype(np.float64)[:, STATE]
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    successes = np.all(np.logical_or.reduceat(done(state), starts), axis=1)
    return Demonstrations(
        spec=spec(),
        observation=arrays["state"].astype(np.float32),
        action=arrays["action"].astype(np.float32),
        time_s=replay_buffer.time_s(ends, CONTROL_HZ),
        episode_ends=ends,
        columns=replay_buffer.columns(spec(), arrays, successes, published=PUBLISHED),
        state=state,
    )


def done(state: Float[np.ndarray, "N 59"]) -> Bool[np.ndarray, "N 4"]:
    """Whether each task of GOALS is done in each state."""
    distances = [
        np.linalg.norm(state[:, list(positions)] - list(positions.values()), axis=1) for positions in GOALS.values()
    ]
    return np.stack(distances, axis=1) < NEAR


def spec() -> Spec:
    """What the data means; the same words as the simulated world's, channel by channel.

    Positions reach as far as the model's joints, and a little further, since stops give way and sensors err.
    """
    revolute = [(-3.0, 3.0), (-1.87, 1.87), (-3.0, 3.0), (-3.18, -0.3), (-3.0, 3.0), (-1.76, 2.22), (-3.0, 3.0)]
    arm = [Channel(f"robot_joint{index}", "rad", *stops) for index, stops in enumerate(revolute, start=1)]
    arm += [Channel(f"robot_finger{index}", "m", -0.02, 0.06) for index in (1, 2)]
    objects = []
    for index, burner in enumerate(("bottom_right", "bottom_left", "top_right", "top_left"), start=1):
        objects += [Channel(f"knob{index}", "rad", -1.8, 0.2), Channel(f"{burner}_burner", "m", -0.1, 0.1)]
    objects += [
        Channel("light_switch", "rad", -0.9, 0.2),
        Channel("light", "m", -0.15, 0.1),
        Channel("slide_cabinet", "m", -0.1, 0.54),
        Channel("left_hinge_cabinet", "rad", -1.8, 0.2),
        Channel("right_hinge_cabinet", "rad", -0.2, 1.8),
        Channel("microwave_door", "rad", -2.3, 0.2),
        *(Channel(f"kettle_{axis}", "m", -5.0, 5.0) for axis in "xyz"),
    ]
    turn = [Channel(f"kettle_q{axis}", "1", -1.1, 1.1) for axis in "wxyz"]
    spin = [Channel(f"kettle_turn_{axis}", "rad", 0.0, 0.0) for axis in "xyz"]
    observation = [Channel(f"{joint.name}_position", joint.unit, joint.low, joint.high) for joint in arm]
    observation += [*map(_velocity, arm), *objects, *turn, *map(_velocity, objects + spin)]
    action = tuple(Channel(f"{joint.name}_command", f"of 2 {joint.unit}/s", -1.0, 1.0) for joint in arm)
    return Spec("kitchen", tuple(observation), action, CONTROL_HZ, "relative", "kitchen")


def _velocity(position: Channel) -> Channel:
    fastest = {"rad": 50.0, "m": 20.0}[position.unit]
    return Channel(f"{position.name}_velocity", f"{position.unit}/s", -fastest, fastest)
