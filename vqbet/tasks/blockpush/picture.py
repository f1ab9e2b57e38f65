"""Top view of BlockPush, drawn with OpenCV at three times the size and downsampled, so that edges are smooth."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

SIZE = 320  # pixels
SCALE = 3
VIEW_M = 0.36  # half the side of the visible area
TABLE_M = 0.335  # half the side of the table top
TARGET_HALF_M = 0.05
SHADOW_M = np.array([0.004, -0.005])

Colour = tuple[int, int, int]
FLOOR: Colour = (222, 226, 232)
TABLE: Colour = (250, 250, 248)
SHADOW: Colour = (205, 210, 218)
IDLE: Colour = (164, 171, 181)  # a target without a block
BLOCKS: tuple[Colour, Colour] = ((235, 108, 52), (46, 118, 200))  # block0 orange, block1 blue
EFFECTOR: Colour = (48, 54, 66)


def draw(
    position: Float[np.ndarray, " 8"],
    targets: Float[np.ndarray, "2 3"],
    path: Float[np.ndarray, "steps 8"],
    *,
    radii_m: tuple[float, float, float],
    wanted: Int[np.ndarray, " 2"] | None = None,
) -> UInt8[np.ndarray, "320 320 3"]:
    """Return the scene as RGB. position: x, y, yaw of block0, likewise of block1, x, y of the effector.

    path: positions so far.
    radii_m: half the side of a block, radius of the effector, and how close a block must be to a target to be in it.
    wanted: the block requested in each target, whose colour the target's edge then has.
    """
    half, radius, near = radii_m
    image = np.full((SIZE * SCALE, SIZE * SCALE, 3), FLOOR, np.uint8)
    _square(image, np.zeros(3), TABLE_M, TABLE)
    blocks = position[:6].reshape(2, 3)
    for place, target in enumerate(targets):
        owner = [index for index in (0, 1) if ((blocks[index, :2] - target[:2]) ** 2).sum() <= near**2]
        inner = BLOCKS[owner[0]] if owner else IDLE
        _target(image, target, inner, inner if wanted is None else BLOCKS[wanted[place]])
    _line(image, path[:, 6:8], (214, 217, 223), 1.5)
    for index in (0, 1):
        _line(image, path[:, 3 * index : 3 * index + 2], _pale(BLOCKS[index], 0.55), 2.5)
    for index in (0, 1):
        _square(image, blocks[index] + np.append(SHADOW_M, 0.0), half, SHADOW)
        _square(image, blocks[index], half, BLOCKS[index])
        _square(image, blocks[index], half * 0.72, _pale(BLOCKS[index], 0.18))
    _disc(image, position[6:8] + SHADOW_M, radius, SHADOW)
    _disc(image, position[6:8], radius, EFFECTOR)
    _disc(image, position[6:8], radius * 0.55, _pale(EFFECTOR, 0.3))
    return cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def _target(image: np.ndarray, pose: np.ndarray, inner: Colour, edge: Colour) -> None:
    """Draw an outlined square, tinted inside, with a dot in the middle."""
    _square(image, pose, TARGET_HALF_M, edge)
    _square(image, pose, TARGET_HALF_M - 0.004, _pale(inner, 0.82))
    _disc(image, pose[:2], 0.004, edge)


def _pixels(points: np.ndarray) -> np.ndarray:
    """Return metres on the table as pixels of the large picture, in 1/16 pixel (OpenCV's shift=4)."""
    scale = SIZE * SCALE / (2 * VIEW_M)
    flipped = np.asarray(points, np.float64) * [1, -1]
    return np.rint((flipped + VIEW_M) * scale * 16).astype(np.int32)


def _square(image: np.ndarray, pose: np.ndarray, half: float, colour: Colour) -> None:
    cosine, sine = np.cos(pose[2]), np.sin(pose[2])
    corners = np.array([[-half, -half], [half, -half], [half, half], [-half, half]])
    turned = corners @ np.array([[cosine, sine], [-sine, cosine]]) + pose[:2]
    cv2.fillConvexPoly(image, _pixels(turned), colour, lineType=cv2.LINE_AA, shift=4)


def _disc(image: np.ndarray, centre: np.ndarray, radius: float, colour: Colour) -> None:
    x, y = _pixels(centre).tolist()
    size = round(radius * SIZE * SCALE / (2 * VIEW_M) * 16)
    cv2.circle(image, (x, y), size, colour, -1, lineType=cv2.LINE_AA, shift=4)


def _line(image: np.ndarray, points: np.ndarray, colour: Colour, width: float) -> None:
    cv2.polylines(image, [_pixels(points)], False, colour, round(width * SCALE), lineType=cv2.LINE_AA, shift=4)


def _pale(colour: Colour, share: float) -> Colour:
    red, green, blue = (round(value + (255 - value) * share) for value in colour)
    return red, green, blue
