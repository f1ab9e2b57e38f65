"""Mirror augmentation: in a world that is mirror symmetric, each demonstration makes two.

The mirror of a task maps observations and actions, and leaves the dynamics unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from vqbet.contract import ConfigError, Demonstrations

Mirrored = tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "N A"]]  # observation and action
Mirror = Callable[[Demonstrations], Mirrored]


def doubled(demos: Demonstrations, mirror: Mirror) -> Demonstrations:
    """Return the demonstrations followed by the mirror image of each of them, without states.

    Raises ConfigError for demonstrations with cameras: a mirrored picture is not what the camera would see.
    """
    if demos.cameras:
        raise ConfigError(
            f"{demos.spec.task}: the view 'mirrored' is of numbers alone, and the demonstrations have pictures of "
            f"{', '.join(map(repr, demos.cameras))}; take 'mirrored' from demos.views, or ingest without cameras"
        )
    observation, action = mirror(demos)
    return replace(
        demos,
        observation=np.concatenate([demos.observation, observation.astype(np.float32)]),
        action=np.concatenate([demos.action, action.astype(np.float32)]),
        time_s=np.tile(demos.time_s, 2),
        episode_ends=np.concatenate([demos.episode_ends, demos.episode_ends + len(demos.action)]),
        columns={name: np.tile(column, 2) for name, column in demos.columns.items()},
        state=None,
        intervention=None if demos.intervention is None else np.tile(demos.intervention, 2),
    )
