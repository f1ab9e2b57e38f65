"""Demonstrations in a mirror: in a world that looks the same in one, each of them is two.

A world's mirror maps what is observed and what is done, and then the world moves alike on both sides of it. Push-T's is
the axis of its goal, a diagonal of its window; BlockPush's, with sides drawn, is the line between left and right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from vqbet.contract import Channel, ConfigError, Demonstrations

WINDOW_PX = 512.0  # of Push-T
Mirrored = tuple[Float[np.ndarray, "N D"], Float[np.ndarray, "N A"]]  # observation and action


def doubled(demos: Demonstrations) -> Demonstrations:
    """The demonstrations and then each of them as it looks in the mirror, without states; the task is in MIRRORS."""
    observation, action = MIRRORS[demos.spec.task](demos)
    return replace(
        demos,
        observation=np.concatenate([demos.observation, observation.astype(np.float32)]),
        action=np.concatenate([demos.action, action.astype(np.float32)]),
        time_s=np.tile(demos.time_s, 2),
        episode_ends=np.concatenate([demos.episode_ends, demos.episode_ends + len(demos.action)]),
        columns={name: np.tile(column, 2) for name, column in demos.columns.items()},
        state=None,
    )


def _pusht(demos: Demonstrations) -> Mirrored:
    """In the mirror a keypoint is at a place of the T where there is none, known from all of them: T's are rigid."""
    points = demos.observation.astype(np.float64).reshape(len(demos.observation), -1, 2)  # keypoints, then the finger
    found = np.concatenate([_keypoint_weights(demos) @ points[:, :-1], points[:, -1:]], axis=1)
    return _over_the_diagonal(found).reshape(len(points), -1), _over_the_diagonal(demos.action)


def _keypoint_weights(demos: Demonstrations) -> Float[np.ndarray, "K K"]:
    """Weights of all keypoints that give each one's mirror image on the T, wherever the T is.

    Where keypoints are on the T is read off the demonstrations: of each, the median over the steps of its place in the
    frame of the recorded pose, whose second axis is the T's own axis.
    """
    if demos.state is None:
        raise ConfigError(f"{demos.spec.task}: its demonstrations have no states, without which there is no mirror")
    x, y, angle = demos.state[:, 2:].T
    away = demos.observation[:, :-2].reshape(len(demos.state), -1, 2) - np.stack([x, y], axis=1)[:, None]
    cosine, sine = np.cos(angle)[:, None], np.sin(angle)[:, None]
    across = np.median(cosine * away[..., 0] + sine * away[..., 1], axis=0)
    along = np.median(cosine * away[..., 1] - sine * away[..., 0], axis=0)
    places = np.stack([across, along, np.ones_like(along)])  # (3, K)
    return (places * [[-1.0], [1.0], [1.0]]).T @ np.linalg.pinv(places).T


def _over_the_diagonal(points: Float[np.ndarray, "*N 2"]) -> Float[np.ndarray, "*N 2"]:
    """The diagonal from the lower left to the upper right corner; y points down."""
    return WINDOW_PX - points[..., ::-1]


def _blockpush_drawn(demos: Demonstrations) -> Mirrored:
    """Left is right: what points to the side, and every turn, changes its sign."""
    return demos.observation * _signs(demos.spec.observation), demos.action * _signs(demos.spec.action)


def _signs(channels: Sequence[Channel]) -> Float[np.ndarray, " D"]:
    return np.array([-1.0 if channel.name.endswith(("_x", "_dx", "_yaw")) else 1.0 for channel in channels])


MIRRORS: Mapping[str, Callable[[Demonstrations], Mirrored]] = {"blockpush_drawn": _blockpush_drawn, "pusht": _pusht}
