"""Published Franka Kitchen demonstrations: 19 episodes by people, 12.5 Hz, four tasks each, always in one order.

Relay Policy Learning (arXiv 1910.11956), "kitchen/complete" of D4RL (arXiv 2004.07219) as Minari re-recorded it in
gymnasium-robotics' FrankaKitchen-v1, in the replay buffer layout of Diffusion Policy. The data sets are CC BY 4.0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vqbet.contract import Demonstrations
from vqbet.demos.importers import replay_buffer
from vqbet.tasks.kitchen.completion import STATE, done
from vqbet.tasks.kitchen.spec import CONTROL_HZ, SPEC

FIELDS = {"state": (59,), "action": (9,)}
MAX_UNPACKED_BYTES = 2**30
PUBLISHED = {"1f2641c0bf91b8d9ef4a2ce6dab41244377c86bb4e05891496fb715b178148ca": "kitchen_complete"}  # by content


def load(source: Path) -> Demonstrations:
    """Return the demonstrations at `source`: the .zarr folder, a folder that contains it, or a zip of either.

    observation (N, 59) float32: positions, then velocities of the arm's nine joints; positions, then velocities of the
    objects. action (N, 9) float32: joint velocities, as shares of 2 rad/s and 2 m/s. state (N, 59) float64: 30
    positions, then 29 velocities, in the model's order. Recorded states are the observed ones, so both arrays contain
    the world's observation noise.

    The buffer has no labels. `success`: each of the four tasks was done at some step of the episode.

    Raises StoreError for anything that is not such a buffer. Validation checks that values are finite.
    """
    arrays = replay_buffer.load(source, FIELDS, max_bytes=MAX_UNPACKED_BYTES)
    ends, state = arrays["episode_ends"], arrays["state"].astype(np.float64)[:, STATE]
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    successes = np.all(np.logical_or.reduceat(done(state), starts), axis=1)
    return Demonstrations(
        spec=SPEC,
        observation=arrays["state"].astype(np.float32),
        action=arrays["action"].astype(np.float32),
        time_s=replay_buffer.time_s(ends, CONTROL_HZ),
        episode_ends=ends,
        columns=replay_buffer.columns(SPEC, arrays, successes, published=PUBLISHED),
        state=state,
    )
