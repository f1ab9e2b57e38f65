"""Picture of Push-T, drawn in the plane with OpenCV: no display, the same bytes for the same state."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from vqbet.tasks.pusht.geometry import AGENT_RADIUS_PX, GOAL_POSE, OUTLINE_PX, WINDOW_PX, placed

SIDE = 320
SHARPNESS = 3  # drawn this many times larger, then averaged down
SHIFT = 4  # fractional bits of OpenCV's coordinates

PAPER, TABLE, EDGE = (236, 239, 244), (252, 252, 253), (203, 210, 219)
GOAL, GOAL_EDGE = (190, 228, 196), (120, 190, 132)
BLOCK, BLOCK_EDGE = (112, 128, 147), (71, 85, 105)
AGENT, AGENT_EDGE = (65, 105, 225), (37, 63, 150)
TARGET = (220, 68, 55)
BAR, BAR_FULL = (221, 226, 232), (72, 160, 92)


def draw(
    state: Float[np.ndarray, " 5"],
    target: Float[np.ndarray, " 2"],
    covered: float,
    *,
    goal: Float[np.ndarray, " 3"] = GOAL_POSE,
) -> UInt8[np.ndarray, "320 320 3"]:
    """Return the state (agent x, y, block x, y in px, angle in rad) as RGB, over the T at the pose `goal`.

    A red cross marks `target` where it is finite. The bar at the lower edge shows `covered`, 0..1.
    """
    side = SIDE * SHARPNESS
    picture = np.full((side, side, 3), PAPER, np.uint8)
    cv2.rectangle(picture, _point((5, 5)), _point((506, 506)), TABLE, -1, cv2.LINE_AA, SHIFT)
    _polygon(picture, placed(OUTLINE_PX, goal[None])[0], GOAL, GOAL_EDGE)
    _polygon(picture, placed(OUTLINE_PX, state[None, 2:])[0], BLOCK, BLOCK_EDGE)
    _disc(picture, state[:2], AGENT_RADIUS_PX, AGENT_EDGE)
    _disc(picture, state[:2], AGENT_RADIUS_PX - 3.5, AGENT)
    if np.isfinite(target).all():
        for arm in ((9, 9), (9, -9)):
            cv2.line(picture, _point(target - arm), _point(target + arm), TARGET, 5, cv2.LINE_AA, SHIFT)
    cv2.rectangle(picture, _point((5, 5)), _point((506, 506)), EDGE, 2 * SHARPNESS, cv2.LINE_AA, SHIFT)
    _bar(picture, covered)
    return cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def _bar(picture: np.ndarray, covered: float) -> None:
    full = 24 + 464 * min(max(float(covered), 0.0), 1.0)
    cv2.line(picture, _point((24, 490)), _point((488, 490)), BAR, 5 * SHARPNESS, cv2.LINE_AA, SHIFT)
    if full > 24:
        cv2.line(picture, _point((24, 490)), _point((full, 490)), BAR_FULL, 5 * SHARPNESS, cv2.LINE_AA, SHIFT)


def _polygon(picture: np.ndarray, corners: np.ndarray, fill: tuple[int, ...], edge: tuple[int, ...]) -> None:
    points = np.array([_point(corner) for corner in corners], np.int32)
    cv2.fillPoly(picture, [points], fill, cv2.LINE_AA, SHIFT)
    cv2.polylines(picture, [points], True, edge, 2 * SHARPNESS, cv2.LINE_AA, SHIFT)


def _disc(picture: np.ndarray, centre: np.ndarray, radius_px: float, fill: tuple[int, ...]) -> None:
    radius = round(radius_px / WINDOW_PX * SIDE * SHARPNESS * 2**SHIFT)
    cv2.circle(picture, _point(centre), radius, fill, -1, cv2.LINE_AA, SHIFT)


def _point(position_px: tuple[float, float] | np.ndarray) -> tuple[int, int]:
    """Return a position of the window in the picture's fixed-point coordinates."""
    scale = SIDE * SHARPNESS / WINDOW_PX * 2**SHIFT
    return round(float(position_px[0]) * scale), round(float(position_px[1]) * scale)
