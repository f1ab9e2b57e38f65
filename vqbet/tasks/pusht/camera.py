"""Camera of Push-T: the 96 x 96 picture that gym-pusht and Diffusion Policy observe, drawn with OpenCV.

They draw 512 x 512 pixels without smoothing, corners at whole pixels, and shrink them with bilinear interpolation. The
same is done here, on a table with walls and goal that is drawn once; a picture takes a quarter of a millisecond.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from vqbet.tasks.pusht.geometry import AGENT_RADIUS_PX, CORNERS_PX, GOAL_POSE, WALLS, WINDOW_PX, placed
from vqbet.tasks.pusht.spec import CAMERA

WALL_PX, EDGE_PX, RIM_PX = 4, 4, 4  # widths of the walls, of the block's outline and of the finger's rim
# Names of the colours in pygame; a shape is filled with 1.2 times its colour and outlined in it.
WHITE, LIGHT_GREEN, LIGHT_GREY = (255, 255, 255), (144, 238, 144), (211, 211, 211)
SLATE, SLATE_LIGHT = (119, 136, 153), (143, 163, 184)
ROYAL, ROYAL_LIGHT = (65, 105, 225), (78, 126, 255)


def pictures(state: Float[np.ndarray, "B 5"]) -> UInt8[np.ndarray, "B 96 96 3"]:
    """Return states (agent x, y, block x, y in px, angle in rad) as RGB pictures, over gym-pusht's own goal."""
    found = np.empty((len(state), *CAMERA.shape), np.uint8)
    corners = placed(CORNERS_PX.reshape(8, 2), state[:, 2:]).reshape(-1, 2, 4, 2).round().astype(np.int32)
    agent = state[:, :2].round().astype(int).tolist()
    for row, block in enumerate(corners):
        picture = TABLE.copy()
        cv2.circle(picture, agent[row], int(AGENT_RADIUS_PX), ROYAL, -1)
        cv2.circle(picture, agent[row], int(AGENT_RADIUS_PX) - RIM_PX, ROYAL_LIGHT, -1)
        for part in block:
            cv2.fillConvexPoly(picture, part, SLATE_LIGHT)
            cv2.polylines(picture, [part], True, SLATE, EDGE_PX)
        cv2.resize(picture, (CAMERA.width, CAMERA.height), dst=found[row])
    return found


def _table(goal: Float[np.ndarray, " 3"]) -> UInt8[np.ndarray, "512 512 3"]:
    side = int(WINDOW_PX)
    picture = np.full((side, side, 3), WHITE, np.uint8)
    for part in placed(CORNERS_PX.reshape(8, 2), goal[None]).reshape(2, 4, 2).round().astype(np.int32):
        cv2.fillConvexPoly(picture, part, LIGHT_GREEN)
    for start, end in WALLS:
        cv2.line(picture, start, end, LIGHT_GREY, WALL_PX)
    return picture


TABLE = _table(GOAL_POSE)
