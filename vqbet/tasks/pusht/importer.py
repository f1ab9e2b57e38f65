"""Published Push-T demonstrations: 206 episodes by people, 10 Hz, in the replay buffer of Diffusion Policy.

Chi et al., Diffusion Policy (arXiv 2303.04137), `pusht_cchi_v7_replay.zarr`; the data VQ-BeT trains Push-T on.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from vqbet.contract import Demonstrations, StoreError
from vqbet.demos.importers import replay_buffer
from vqbet.demos.sources.declared import SourceFrames
from vqbet.demos.sources.replay_buffer import ReplayBuffer
from vqbet.tasks.pusht.geometry import GOAL_POSE
from vqbet.tasks.pusht.spec import CAMERA, CONTROL_HZ, SEEN, SPEC

PICTURES = "img"
FIELDS = {"state": (5,), "keypoint": (9, 2), "action": (2,)}
CLOSE_PX, CLOSE_RAD = 15.0, np.deg2rad(10)
MAX_UNPACKED_BYTES = 4 * 2**30
PUBLISHED = {"9ea40ea7a99837c8bb67834b0116cabc1b16c0aa19e4d90ed8057fc1cc659a35": "pusht_cchi_v7_replay"}  # by content


def load(source: Path) -> Demonstrations:
    """Return the demonstrations at `source`: the .zarr folder, a folder that contains it, or a zip of either.

    observation (N, 20) float32: nine keypoints x, y, then the finger x, y, in px; action (N, 2) float32: target
    position of the finger, px; state (N, 5) float64: finger x, y, block x, y, angle. Images are not read.

    The buffer has no labels. `success`: the last recorded pose of the block is within 15 px and 10 degrees of its goal,
    as in all published episodes (at most 13.7 px and 9.3 degrees away). This is not the world's own success, a coverage
    of 0.95, which people did not aim at: their replayed actions end between 0.86 and 0.97.

    Raises StoreError for anything that is not such a buffer. Validation checks that values are finite.
    """
    arrays = replay_buffer.load(source, FIELDS, max_bytes=MAX_UNPACKED_BYTES)
    ends, state = arrays["episode_ends"], arrays["state"].astype(np.float64)
    keypoints = arrays["keypoint"].reshape(len(state), -1)
    return Demonstrations(
        spec=SPEC,
        observation=np.concatenate([keypoints, arrays["state"][:, :2]], axis=1).astype(np.float32),
        action=arrays["action"].astype(np.float32),
        time_s=replay_buffer.time_s(ends, CONTROL_HZ),
        episode_ends=ends,
        columns=replay_buffer.columns(SPEC, arrays, arrived(state[ends - 1]), published=PUBLISHED),
        state=state,
    )


def load_seen(source: Path) -> Demonstrations:
    """Return the demonstrations at `source`, as in `load`, as a camera sees them.

    observation (N, 2): the finger; camera "image": data/img (N, 96, 96, 3), decoded where it is asked for. Everything
    else is that of `load`. Raises StoreError likewise.
    """
    demos = load(source)
    buffer = ReplayBuffer(source if source.is_file() else replay_buffer.find(source))
    if PICTURES not in buffer.fields:
        raise StoreError(f"{source}: has no pictures, data/{PICTURES}; there are: {', '.join(buffer.fields)}")
    frames = SourceFrames(buffer, PICTURES, CAMERA, range(len(buffer.episodes)))
    return replace(
        demos,
        spec=SEEN,
        observation=np.ascontiguousarray(demos.observation[:, -len(SEEN.observation) :]),
        columns={**demos.columns, "task": np.full(len(demos.lengths), SEEN.task)},
        cameras={CAMERA.name: frames},
    )


def arrived(state: Float[np.ndarray, "E 5"]) -> Bool[np.ndarray, " E"]:
    """Return whether the block is within CLOSE_PX and CLOSE_RAD of the goal's pose."""
    distance = np.linalg.norm(state[:, 2:4] - GOAL_POSE[:2], axis=1)
    turn = np.abs((state[:, 4] - GOAL_POSE[2] + np.pi) % (2 * np.pi) - np.pi)
    return (distance <= CLOSE_PX) & (turn <= CLOSE_RAD)
