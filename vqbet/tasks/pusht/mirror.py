"""Mirror symmetry of Push-T: reflection in the axis of its goal, which is a diagonal of its window."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from vqbet.contract import ConfigError, Demonstrations
from vqbet.coordinates.mirror import Mirrored
from vqbet.tasks.pusht.geometry import WINDOW_PX
from vqbet.tasks.pusht.spec import CAMERA


def image(demos: Demonstrations) -> Mirrored:
    """Return the mirror images of observation, action and pictures.

    A keypoint of the image lies at a point of the T that is not observed. Its position follows from all keypoints,
    since the T is rigid. Raises ConfigError for demonstrations with keypoints and without states.
    """
    points = demos.observation.astype(np.float64).reshape(len(demos.observation), -1, 2)  # keypoints, then the finger
    if points.shape[1] > 1:
        points = np.concatenate([_keypoint_weights(demos) @ points[:, :-1], points[:, -1:]], axis=1)
    seen = _over_the_diagonal(points).reshape(len(points), -1)
    return Mirrored(seen, _over_the_diagonal(demos.action), {CAMERA.name: flipped})


def flipped(pictures: UInt8[np.ndarray, "M height width 3"]) -> UInt8[np.ndarray, "M width height 3"]:
    """Return the mirror images of pictures of the window."""
    return pictures.transpose(0, 2, 1, 3)[:, ::-1, ::-1]


def _keypoint_weights(demos: Demonstrations) -> Float[np.ndarray, "K K"]:
    """Return weights of all keypoints whose sum is the mirror image on the T of each keypoint, wherever the T is.

    The place of a keypoint on the T is taken from the demonstrations: the median over the steps of its position in the
    frame of the recorded pose, whose second axis is the symmetry axis of the T.
    """
    if demos.state is None or demos.stateless.all():
        raise ConfigError(f"{demos.spec.task}: its demonstrations have no states, without which there is no mirror")
    posed = ~np.repeat(demos.stateless, demos.lengths)
    x, y, angle = demos.state[posed, 2:].T
    away = demos.observation[posed, :-2].reshape(len(x), -1, 2) - np.stack([x, y], axis=1)[:, None]
    cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
    across = np.median(cosine * away[..., 0] + sine * away[..., 1], axis=0)
    along = np.median(cosine * away[..., 1] - sine * away[..., 0], axis=0)
    places = np.stack([across, along, np.ones_like(along)])  # (3, K)
    return (places * [[-1.0], [1.0], [1.0]]).T @ np.linalg.pinv(places).T


def _over_the_diagonal(points: Float[np.ndarray, "*N 2"]) -> Float[np.ndarray, "*N 2"]:
    """Return points reflected in the diagonal from the lower left to the upper right corner; y points down."""
    return WINDOW_PX - points[..., ::-1]
