"""Picture of the kitchen: the model's own shapes, drawn with numpy and OpenCV. No display, no OpenGL.

Triangles are projected by a pinhole camera; in each pixel the nearest one is visible. Static shapes are drawn once.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from vqbet.tasks.kitchen.reference import mujoco

SIDE = 320
SHARPNESS = 2  # drawn this many times larger, then averaged down
PIXELS = SIDE * SHARPNESS
ROUND = 16  # corners of a round shape

# FrankaKitchen-v1's own camera, raised a little so that the lamps below cover nothing.
EYE_M, LOOK_AT_M = np.array([-0.82, -1.20, 3.26]), np.array([-0.2, 0.5, 1.9])
FIELD_OF_VIEW = np.deg2rad(50)
NEAREST_M = 0.05
TO_LIGHT = np.array([-0.40, -0.55, 0.73])
AMBIENT = 0.5

Colour = tuple[int, int, int]
PAPER: Colour = (236, 239, 244)
ROBOT: Colour = (245, 245, 242)
PALETTE: Mapping[str, Colour] = {  # by the name of a material, or its ending
    "kettle_white": (222, 104, 70),
    "wood": (120, 66, 44),
    "wall_blue": (196, 208, 222),
    "blue": (112, 140, 168),
    "marble": (218, 210, 198),
    "metal": (182, 188, 196),
    "black": (78, 82, 92),
    "window": (54, 70, 96),
    "burner": (44, 44, 48),
    "block": (196, 198, 196),
    "white": (226, 231, 237),
}
LIT: Mapping[str, tuple[str, Colour]] = {  # body -> the task that lights it, and the colour
    "lightswitchroot": ("light switch", (255, 214, 64)),
    "Burner 2": ("bottom burner", (244, 92, 44)),
    "Burner 4": ("top burner", (244, 92, 44)),
}
OUTLINE = 0.62  # share of its colour that a pixel keeps at the edge of a shape
INK: Colour = (40, 46, 58)
LAMP_ON, LAMP_OFF = (46, 164, 79), (204, 209, 217)
STRIP_PX = 46


@dataclass(frozen=True, slots=True)
class Shapes:
    """Triangles of the geoms to draw."""

    corners: Float[np.ndarray, "T 3 3"]  # m, in the geom's frame, counter-clockwise seen from outside
    geom: Int[np.ndarray, " T"]
    colour: Float[np.ndarray, "T 3"]


@dataclass(frozen=True, slots=True)
class Canvas:
    """Pixels drawn so far."""

    nearness: Float[np.ndarray, " P"]  # 1 / depth, 0 where empty
    owner: Int[np.ndarray, " P"]  # the visible geom
    colour: UInt8[np.ndarray, "P 3"]

    def copy(self) -> Canvas:
        return Canvas(self.nearness.copy(), self.owner.copy(), self.colour.copy())


def draw(
    model: mujoco.MjModel, position: Float[np.ndarray, " 30"], lamps: Mapping[str, bool]
) -> UInt8[np.ndarray, "320 320 3"]:
    """Return the kitchen in these joint positions as RGB. lamps: for each task, whether it is done."""
    canvas, moving = _still(model).copy(), _shapes(model, moving=True)
    colour = moving.colour.copy()
    for body, (task, bright) in LIT.items():
        if lamps.get(task):
            colour[model.geom_bodyid[moving.geom] == model.body(body).id] = bright
    _paint(canvas, _posed(model, position), Shapes(moving.corners, moving.geom, colour))
    edges = _edges(canvas.owner.reshape(PIXELS, PIXELS)).ravel()
    canvas.colour[edges] = np.rint(canvas.colour[edges] * OUTLINE)
    picture = cv2.resize(canvas.colour.reshape(PIXELS, PIXELS, 3), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    picture[SIDE - STRIP_PX :] = _strip(lamps)
    return picture


@functools.lru_cache(maxsize=2)
def _still(model: mujoco.MjModel) -> Canvas:
    """Return a canvas with everything that is fixed to the world."""
    count = PIXELS * PIXELS
    canvas = Canvas(np.zeros(count), np.full(count, -1, np.int32), np.tile(np.array(PAPER, np.uint8), (count, 1)))
    _paint(canvas, _posed(model, model.qpos0), _shapes(model, moving=False))
    return canvas


@functools.lru_cache(maxsize=2)
def _data(model: mujoco.MjModel) -> mujoco.MjData:
    return mujoco.MjData(model)


def _posed(model: mujoco.MjModel, position: np.ndarray) -> mujoco.MjData:
    """Return data with the pose of every geom; valid until the next call."""
    data = _data(model)
    data.qpos[:] = position
    mujoco.mj_kinematics(model, data)
    return data


def _paint(canvas: Canvas, data: mujoco.MjData, shapes: Shapes) -> None:
    """Draw shapes where they are nearer than the canvas."""
    frame = data.geom_xmat[shapes.geom].reshape(-1, 3, 3)
    corners = np.einsum("tij,tcj->tci", frame, shapes.corners) + data.geom_xpos[shapes.geom][:, None]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.linalg.norm(normal, axis=1)
    facing = ((EYE_M - corners[:, 0]) * normal).sum(axis=1) > 1e-12
    x, y, depth = _projected(corners)
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    keep = np.flatnonzero(facing & (np.abs(area) > 1e-6) & (depth.min(axis=1) > NEAREST_M))
    light = normal[keep] @ TO_LIGHT / length[keep]
    shade = AMBIENT + (1 - AMBIENT) * np.clip(0.5 + 0.5 * light, 0, 1)
    colour = np.rint(shapes.colour[keep] * shade[:, None]).astype(np.uint8)
    triangle, pixel, nearness = _covered(x[keep], y[keep], 1 / depth[keep])
    np.maximum.at(canvas.nearness, pixel, nearness)
    wins = nearness == canvas.nearness[pixel]
    canvas.owner[pixel[wins]] = shapes.geom[keep[triangle[wins]]]
    canvas.colour[pixel[wins]] = colour[triangle[wins]]


def _projected(points: Float[np.ndarray, "T 3 3"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pixels right and down, and depth in metres, each (T, 3)."""
    forward = (LOOK_AT_M - EYE_M) / np.linalg.norm(LOOK_AT_M - EYE_M)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(forward, right), forward])
    across, down, depth = np.moveaxis((points - EYE_M) @ axes.T, -1, 0)
    scale = PIXELS / 2 / np.tan(FIELD_OF_VIEW / 2) / np.where(np.abs(depth) < 1e-9, 1e-9, depth)
    return across * scale + PIXELS / 2, down * scale + PIXELS / 2, depth


def _covered(
    x: Float[np.ndarray, "T 3"], y: Float[np.ndarray, "T 3"], nearness: Float[np.ndarray, "T 3"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return triangle, pixel and nearness for every pixel whose centre is in a (convex) triangle, line by line."""
    triangle, line = _spread(*(np.clip(edge, 0, PIXELS) for edge in (y.min(axis=1), y.max(axis=1))))
    # On the side from one corner to the next, slope_x * x + slope_y * y = level; inside the triangle it is larger.
    following = [1, 2, 0]
    slope_x, slope_y = y - y[:, following], x[:, following] - x
    turned = np.sign(slope_x[:, :1] * slope_y[:, 1:2] - slope_y[:, :1] * slope_x[:, 1:2])
    slope_x, slope_y = slope_x * turned, slope_y * turned
    level = slope_x * x + slope_y * y
    centre = line[:, None] + 0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = (level[triangle] - slope_y[triangle] * centre) / slope_x[triangle]
    left = np.where(slope_x[triangle] > 0, crossing, 0.0).max(axis=1)
    right = np.where(slope_x[triangle] < 0, crossing, PIXELS).min(axis=1)
    span, column = _spread(left, np.clip(right, left, PIXELS))
    across, down, start = _plane(x, y, nearness)
    triangle, line = triangle[span], line[span]
    return (
        triangle,
        line * PIXELS + column,
        across[triangle] * (column + 0.5) + down[triangle] * (line + 0.5) + start[triangle],
    )


def _spread(low: Float[np.ndarray, " S"], high: Float[np.ndarray, " S"]) -> tuple[np.ndarray, np.ndarray]:
    """Return, for every integer n with low <= n + 0.5 < high, the index of its range and n."""
    first = np.ceil(low - 0.5).astype(np.int64)
    count = np.maximum(np.ceil(high - 0.5).astype(np.int64) - first, 0)
    index = np.repeat(np.arange(len(low)), count)
    return index, np.arange(len(index)) + np.repeat(first - np.cumsum(count) + count, count)


def _plane(x: np.ndarray, y: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return across, down, start (T,) such that across * x + down * y + start is `value` at a triangle's corners."""
    x1, x2, y1, y2 = x[:, 1] - x[:, 0], x[:, 2] - x[:, 0], y[:, 1] - y[:, 0], y[:, 2] - y[:, 0]
    v1, v2, area = value[:, 1] - value[:, 0], value[:, 2] - value[:, 0], x1 * y2 - y1 * x2
    across, down = (v1 * y2 - y1 * v2) / area, (x1 * v2 - v1 * x2) / area
    return across, down, value[:, 0] - across * x[:, 0] - down * y[:, 0]


def _edges(owner: Int[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"]:
    edges = np.zeros(owner.shape, np.bool_)
    edges[1:] |= owner[1:] != owner[:-1]
    edges[:, 1:] |= owner[:, 1:] != owner[:, :-1]
    return edges


@functools.lru_cache(maxsize=4)
def _shapes(model: mujoco.MjModel, *, moving: bool) -> Shapes:
    """Return the visible geoms that move, or those that do not; for the arm, the simpler shapes it collides with."""
    corners, owners, colours = [], [], []
    for geom in range(model.ngeom):
        body = model.geom_bodyid[geom]
        if (model.body_weldid[body] != 0) != moving or not _drawn(model, geom):
            continue
        corners.append(_surface(model, geom))
        owners.append(np.full(len(corners[-1]), geom))
        colours.append(np.tile(np.array(_colour(model, geom), np.float64), (len(corners[-1]), 1)))
    return Shapes(np.concatenate(corners), np.concatenate(owners), np.concatenate(colours))


def _drawn(model: mujoco.MjModel, geom: int) -> bool:
    group, kind = model.geom_group[geom], model.geom_type[geom]
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        return bool(group in (1, 3) or model.mesh(model.geom_dataid[geom]).name == "finger_viz")
    return bool(group == 1 or (group == 0 and kind == mujoco.mjtGeom.mjGEOM_CYLINDER))  # the latter carries the arm


def _colour(model: mujoco.MjModel, geom: int) -> Colour:
    if model.geom_matid[geom] < 0:
        return ROBOT
    name = model.mat(model.geom_matid[geom]).name
    return PALETTE.get(name) or next((colour for key, colour in PALETTE.items() if name.endswith(key)), ROBOT)


def _surface(model: mujoco.MjModel, geom: int) -> Float[np.ndarray, "T 3 3"]:
    """Return the triangles of one geom, in its own frame, m."""
    kind, (radius, half, third) = model.geom_type[geom], model.geom_size[geom]
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        first, face = model.mesh_vertadr[mesh], model.mesh_faceadr[mesh]
        vertices = model.mesh_vert[first : first + model.mesh_vertnum[mesh]]
        return vertices[model.mesh_face[face : face + model.mesh_facenum[mesh]]].astype(np.float64)
    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
        quads = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
        return (signs * [radius, half, third])[quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)]
    if kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        return _revolved(np.array([[0, -half], [radius, -half], [radius, half], [0, half]]))
    half = half if kind == mujoco.mjtGeom.mjGEOM_CAPSULE else 0.0
    bow = np.linspace(0, np.pi / 2, 5)
    rim, rise = radius * np.cos(bow), radius * np.sin(bow) + half  # of the upper cap, from its rim to its top
    return _revolved(np.stack([np.r_[rim[::-1], rim], np.r_[-rise[::-1], rise]], axis=1))


def _revolved(profile: Float[np.ndarray, "R 2"]) -> Float[np.ndarray, "T 3 3"]:
    """Return a body of revolution about z. profile: radius and height, from the bottom to the top."""
    turn = np.linspace(0, 2 * np.pi, ROUND + 1)
    radius, height = profile[:, :1], np.broadcast_to(profile[:, 1:], (len(profile), ROUND + 1))
    ring = np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=-1)  # (R, ROUND + 1, 3)
    low, low_next, high, high_next = ring[:-1, :-1], ring[:-1, 1:], ring[1:, :-1], ring[1:, 1:]
    quads = np.stack([low, low_next, high_next, low, high_next, high], axis=2)
    return quads.reshape(-1, 3, 3)


def _strip(lamps: Mapping[str, bool]) -> UInt8[np.ndarray, "height 320 3"]:
    """Return a strip with a lamp and a name for each task, four to a line."""
    strip = np.full((STRIP_PX * SHARPNESS, PIXELS, 3), PAPER, np.uint8)
    for index, (task, done) in enumerate(lamps.items()):
        x, y = (6 + 79 * (index % 4)) * SHARPNESS, (13 + 20 * (index // 4)) * SHARPNESS
        cv2.circle(strip, (x + 4 * SHARPNESS, y), 4 * SHARPNESS, LAMP_ON if done else LAMP_OFF, -1, cv2.LINE_AA)
        at = (x + 11 * SHARPNESS, y + 4 * SHARPNESS)
        cv2.putText(strip, task, at, cv2.FONT_HERSHEY_SIMPLEX, 0.29 * SHARPNESS, INK, SHARPNESS // 2, cv2.LINE_AA)
    return cv2.resize(strip, (SIDE, STRIP_PX), interpolation=cv2.INTER_AREA)
