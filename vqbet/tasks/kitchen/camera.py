"""Camera of Franka Kitchen: MuJoCo's picture, 96 x 96, from where FrankaKitchen-v1 looks at its kitchen.

It is drawn at twice the size and averaged down, which smooths edges. There are no shadows: MuJoCo's take thirty times
as long as everything else where a processor draws.

$MUJOCO_GL chooses the renderer: egl, osmesa, glfw or cgl. Where it is not set, egl is taken on a machine with a GPU if
it works, else osmesa (on a Mac, cgl). It is loaded for the first picture. Two renderers round differently: pictures of
demonstrations and of the world are the same to the bit on one machine only.
"""

from __future__ import annotations

import atexit
import copy
import functools
import hashlib
import importlib
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, final

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from vqbet.contract import WorldError
from vqbet.tasks.kitchen.reference import mujoco, reference
from vqbet.tasks.kitchen.spec import CAMERA

# FrankaKitchen-v1's own camera, see gymnasium_robotics/envs/franka_kitchen/franka_env.py.
DISTANCE_M, AZIMUTH_DEG, ELEVATION_DEG, LOOK_AT_M = 2.2, 70.0, -35.0, (-0.2, 0.5, 2.0)
SHARPNESS = 2  # drawn this many times larger, then averaged down
MAX_SHAPES = 1000
RENDERERS = ("egl", "osmesa", "glfw", "cgl")
GPUS = ("/dev/nvidia0", "/dev/dri/renderD128", "/dev/dxg")
TRY_EGL = "from mujoco.egl import GLContext; GLContext(8, 8).make_current()"


def pictures(position: Float[np.ndarray, "B 30"]) -> UInt8[np.ndarray, "B 96 96 3"]:
    """Return the kitchen in these joint positions (m and rad, in the model's order) as RGB pictures.

    Raises WorldError where MuJoCo cannot draw on this machine.
    """
    found = np.empty((len(position), *CAMERA.shape), np.uint8)
    for row, one in enumerate(position):
        _scene().draw(one, found[row])
    return found


def identity() -> list[str]:
    """Return what determines a picture beside the positions: MuJoCo, the renderer and this code."""
    return [mujoco.__version__, renderer(), hashlib.sha256(Path(__file__).read_bytes()).hexdigest()]


@functools.cache
def renderer() -> str:
    """Return the name of the renderer that this process draws with, which need not work."""
    chosen = os.environ.get("MUJOCO_GL", "")
    if chosen:
        return chosen.lower()
    if platform.system() == "Darwin":
        return "cgl"
    return "egl" if any(map(os.path.exists, GPUS)) and _egl_draws() else "osmesa"


def _egl_draws() -> bool:
    """Return whether EGL works here: tried in another process, since no process can load a second renderer."""
    variables = os.environ | {"MUJOCO_GL": "disabled"}
    return subprocess.run([sys.executable, "-c", TRY_EGL], env=variables, capture_output=True).returncode == 0


@final
class Scene:
    """The kitchen in MuJoCo's renderer. It belongs to the thread that made it, as all of OpenGL does."""

    def __init__(self) -> None:
        """Load the renderer. Raises WorldError where there is none."""
        self._model = copy.copy(reference().model)
        height, width = SHARPNESS * CAMERA.height, SHARPNESS * CAMERA.width
        self._model.vis.global_.offheight, self._model.vis.global_.offwidth = height, width
        self._model.vis.quality.offsamples = self._model.vis.quality.shadowsize = 0
        self._context = _context(width, height)
        self._drawn = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._drawn)
        self._data, self._option = mujoco.MjData(self._model), mujoco.MjvOption()
        self._shapes = mujoco.MjvScene(self._model, maxgeom=MAX_SHAPES)
        self._shapes.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = False
        self._eye = mujoco.MjvCamera()
        self._eye.distance, self._eye.azimuth, self._eye.elevation = DISTANCE_M, AZIMUTH_DEG, ELEVATION_DEG
        self._eye.lookat[:] = LOOK_AT_M
        self._frame = mujoco.MjrRect(0, 0, width, height)
        self._pixels = np.empty((height, width, 3), np.uint8)

    def draw(self, position: Float[np.ndarray, " 30"], out: UInt8[np.ndarray, "96 96 3"]) -> None:
        """Draw the kitchen in these joint positions into `out`."""
        self._context.make_current()  # others may have drawn meanwhile
        model, data = self._model, self._data
        data.qpos[:] = position
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_camlight(model, data)
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(model, data, self._option, None, self._eye, everything, self._shapes)
        mujoco.mjr_render(self._frame, self._shapes, self._drawn)
        mujoco.mjr_readPixels(self._pixels, None, self._frame, self._drawn)
        size = (CAMERA.width, CAMERA.height)
        cv2.resize(self._pixels[::-1], size, dst=out, interpolation=cv2.INTER_AREA)  # OpenGL's first row is the lowest


_OF_THREAD = threading.local()
atexit.register(vars(_OF_THREAD).clear)  # of the main thread, while the renderer's own modules are still there


def _scene() -> Scene:
    if not hasattr(_OF_THREAD, "scene"):
        _OF_THREAD.scene = Scene()
    scene: Scene = _OF_THREAD.scene
    return scene


def _context(width: int, height: int) -> Any:
    """Return an OpenGL context of this size, which this thread then draws into. Raises WorldError."""
    name, reason = renderer(), ""
    try:
        if name not in RENDERERS:
            raise ValueError(f"expected one of {', '.join(RENDERERS)}")
        context = importlib.import_module(f"mujoco.{name}").GLContext(width, height)
        context.make_current()
    except Exception as error:  # of foreign code, which asks a missing library in many ways
        if os.environ.get("MUJOCO_GL"):
            reason = f" with MUJOCO_GL={name} ({error})"
        raise WorldError(
            f"kitchen_image: MuJoCo cannot draw here{reason}: install libosmesa6 (apt-get install libosmesa6) or set "
            f"MUJOCO_GL"
        ) from error
    return context
