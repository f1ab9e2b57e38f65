"""Plane geometry of Push-T: the T, its goal, its nine keypoints, and the share of the goal that it covers.

Lengths are px of the 512 x 512 window, y points down, angles are radians. The T is the one of gym-pusht: a bar of
120 x 30 and a stem of 30 x 90 below it, in a frame whose origin is the middle of the bar's outer edge.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

WINDOW_PX = 512.0
AGENT_RADIUS_PX = 15.0
WALLS = (((5, 506), (5, 5)), ((5, 5), (506, 5)), ((506, 5), (506, 506)), ((5, 506), (506, 506)))  # ends, px
GOAL_POSE = np.array([256.0, 256.0, np.pi / 4])  # x, y, angle

# Lower and upper corner of the bar and of the stem.
PARTS_PX = np.array([[[-60.0, 0.0], [60.0, 30.0]], [[-15.0, 30.0], [15.0, 120.0]]])

# Corners of both parts in turn, so that each is one closed polygon: (2, 4, 2).
CORNERS_PX = np.stack([PARTS_PX[:, [0, 1, 1, 0], 0], PARTS_PX[:, [0, 0, 1, 1], 1]], axis=-1)

# The outline of the whole T, once around.
OUTLINE_PX = np.array([[-60, 0], [60, 0], [60, 30], [15, 30], [15, 120], [-15, 120], [-15, 30], [-60, 30]], np.float64)

# The points of the block that Diffusion Policy and VQ-BeT observe: pixels of a drawn T chosen by farthest-point
# sampling, moved by numpy's default_rng(0).uniform(0, 1). Recovered from the published data (to 1e-6 px), then made
# exact with that generator.
KEYPOINTS_PX = np.array(
    [
        [9.269786713763871, 90.04097352393619],
        [-60.983472364471474, -1.1867297607997276],
        [60.91275557727772, -1.3933642242328201],
        [-0.2705034390160016, 25.54362499146542],
        [-14.064927576212233, 122.81585355412153],
        [39.002738500170146, 32.857404276587566],
        [-39.966414424694534, 32.729655446429945],
        [-16.82434437939744, 62.86317892234989],
        [23.54146122024909, -1.7002881094626152],
    ]
)


def placed(points: Float[np.ndarray, "P 2"], pose: Float[np.ndarray, "B 3"]) -> Float[np.ndarray, "B P 2"]:
    """Return points of a body's own frame, placed where the body is at each pose (x px, y px, angle rad)."""
    cosine, sine = np.cos(pose[:, 2, None]), np.sin(pose[:, 2, None])
    x, y = points[:, 0], points[:, 1]
    return np.stack([pose[:, :1] + cosine * x - sine * y, pose[:, 1:2] + sine * x + cosine * y], axis=-1)


# Keypoints x, y, x, y, ... of the T at its goal. Saved policies contain these numbers, rounded to 1e-4 px.
GOAL_KEYPOINTS_PX = tuple(placed(KEYPOINTS_PX, GOAL_POSE[None]).round(4).reshape(-1).tolist())


def coverage(
    pose: Float[np.ndarray, "B 3"], goal: Float[np.ndarray, " 3"] | Float[np.ndarray, "B 3"] = GOAL_POSE
) -> Float[np.ndarray, " B"]:
    """Return the share of a goal's area that a block at each pose covers, 0..1.

    goal: one pose for all blocks, or one for each. In its frame both parts of the goal are upright rectangles. The area
    of a polygon inside the rectangle [x0, x1] x [y0, y1] is the sum over its edges of the integral of
    clamp(y(x), y0, y1) dx for x within [x0, x1] (Green's theorem; exact for any simple polygon), and each of these
    integrals is elementary.
    """
    block = placed(CORNERS_PX.reshape(8, 2), pose) - goal[..., None, :2]  # (B, 8, 2)
    cosine, sine = np.cos(goal[..., 2, None]), np.sin(goal[..., 2, None])
    x = (cosine * block[..., 0] + sine * block[..., 1]).reshape(-1, 1, 2, 4)  # (B, 1, block part, corner)
    y = (cosine * block[..., 1] - sine * block[..., 0]).reshape(-1, 1, 2, 4)
    (x0, y0), (x1, y1) = PARTS_PX.transpose(1, 2, 0)[..., None, None]  # each (goal part, 1, 1)

    x_next, y_next = np.roll(x, -1, axis=-1), np.roll(y, -1, axis=-1)
    slope = _ratio(y_next - y, x_next - x)
    start, end = np.clip(x, x0, x1), np.clip(x_next, x0, x1)
    y_start, y_end = y + (start - x) * slope, y + (end - x) * slope
    integral = (start - end) * _mean_clamped(y_start, y_end, y0, y1)  # (B, goal part, block part, edge)
    size = PARTS_PX[:, 1] - PARTS_PX[:, 0]
    return np.maximum(integral.sum(axis=(1, 2, 3)), 0.0) / size.prod(axis=1).sum()


def _mean_clamped(p: np.ndarray, q: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the mean of clamp(y, low, high) for y running evenly from p to q."""
    least, most = np.minimum(p, q), np.maximum(p, q)
    below = np.clip(_ratio(low - least, most - least), 0, 1)
    above = np.clip(_ratio(most - high, most - least), 0, 1)
    between = (np.clip(least, low, high) + np.clip(most, low, high)) / 2
    return below * low + above * high + (1 - below - above) * between


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return numerator / denominator, or 0 for a denominator that is 0 or so small that products could overflow."""
    shape = np.broadcast_shapes(numerator.shape, denominator.shape)
    return np.divide(numerator, denominator, out=np.zeros(shape), where=np.abs(denominator) > 1e-100)
