"""Demonstrations with pictures for tests: a bright dot that follows the first two observed numbers, with noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tests.support.synthetic import LIMIT, synthetic
from vqbet.contract import Camera, Demonstrations


def pictured(
    episodes: int = 6, *, cameras: Sequence[Camera] = (Camera("top", 24, 32),), seed: int = 0
) -> Demonstrations:
    """Return synthetic demonstrations with an array of pictures of each camera; equal for equal seeds."""
    demos = synthetic(episodes, seed=seed)
    frames = {
        camera.name: _seen(demos.observation[:, :2], camera, np.random.default_rng([seed, order]), order)
        for order, camera in enumerate(cameras)
    }
    return replace(demos, spec=replace(demos.spec, cameras=tuple(cameras)), cameras=frames)


def _seen(position: np.ndarray, camera: Camera, random: np.random.Generator, order: int) -> np.ndarray:
    """Return pictures (N, height, width, 3): a red dot of 5 px before a ground that each camera has its own of."""
    ground = np.linspace((60, 90, 120), (150, 120, 60), camera.width)[None] * np.ones((camera.height, 1, 1))
    ground = np.roll(ground[:, ::-1] if order % 2 else ground, 40 * order, axis=2)
    pictures = ground + random.integers(0, 6, size=(len(position), *camera.shape))
    across = np.clip((position / LIMIT + 1) / 2, 0, 1) * (camera.height - 5, camera.width - 5)
    for picture, (down, right) in zip(pictures, across.astype(int), strict=True):
        picture[down : down + 5, right : right + 5] = (230, 40, 20)
    return pictures.astype(np.uint8)
