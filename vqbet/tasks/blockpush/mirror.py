"""Mirror symmetry of BlockPush with sides drawn: reflection in the line between left and right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from vqbet.contract import Channel, Demonstrations
from vqbet.coordinates.mirror import Mirrored


def image(demos: Demonstrations) -> Mirrored:
    """Return observation and action with left and right exchanged: sideways components and angles change their sign."""
    return Mirrored(demos.observation * _signs(demos.spec.observation), demos.action * _signs(demos.spec.action))


def _signs(channels: Sequence[Channel]) -> Float[np.ndarray, " D"]:
    return np.array([-1.0 if channel.name.endswith(("_x", "_dx", "_yaw")) else 1.0 for channel in channels])
