"""Familiarity of pictures: how far their features lie from those of the demonstrations, as a share of what is allowed.

The distance is Mahalanobis's in the space of the policy's own features of each camera, with one Gaussian for all
demonstrations (Lee et al. 2018, arXiv 1807.03888, without classes). `serving.guard` refuses above 1. An encoder may be
blind to light and colour, which its normalisation takes away, and to what no demonstration showed; so mean and spread
of each colour and the detail of a picture have limits, too. numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Int, UInt8

from vqbet.contract import SLACK, Camera, Demonstrations
from vqbet.policies.actor import SeeingPlanner

LEVELS = (0.5, 0.9, 0.99, 0.999)  # quantiles kept of the distances in training
MARGIN = 1.25  # times the last of them is allowed; what that finds, and what it does not: docs/log.md, 2026-11-30
RIDGE = 1e-2  # of the mean variance, added to every variance: a feature that never moved in training may move a little
PICTURES, BATCH = 4096, 256  # most steps whose pictures are encoded, and at once
STILL_STEPS = 16384  # most steps that are searched for pictures that stand still
STILL_MARGIN, LEAST_STILL = 2.0, 5  # times the longest standstill of training is allowed, control steps at least
LOOKS = ("mean red", "mean green", "mean blue", "spread of red", "spread of green", "spread of blue", "detail")
GRID = 48  # most pixels of a side that are looked at
LEAST_LOOK = 5.0  # of 255, by which the range of a colour in training is widened at least: lamps and sensors vary
LEAST_DETAIL = 0.25  # the same for detail, as a share of the most detail in training: it is small beside a colour
SIGNAL = "camera_"  # before a camera's name, of the signal that is its share

Tensors = dict[str, Float[np.ndarray, "..."]]  # float64


@final
@dataclass(frozen=True, slots=True, eq=False)
class Familiarity:
    """Gaussian of one camera's features. most: distance that is allowed."""

    mean: Float[np.ndarray, " F"]
    whitening: Float[np.ndarray, "F F"]
    most: float

    def share(self, features: Float[np.ndarray, "*B F"]) -> Float[np.ndarray, "*B"]:
        """Return distances as shares of the one that is allowed; infinity where a feature is no number."""
        away = np.linalg.norm((features - self.mean) @ self.whitening, axis=-1) / self.most
        return np.where(np.isfinite(away), away, np.inf)


def fitted(planner: SeeingPlanner, demos: Demonstrations) -> Tensors:
    """Return the part of the component `guard` that is about cameras.

    camera.<name>.mean (F,), .whitening (F, F); .distance (4,): quantiles LEVELS of the distances in training; .most
    (1,): the distance that is allowed. limit.camera_low, limit.camera_high (cameras x LOOKS,): range of `looks` in
    training, widened by SLACK of it and by LEAST_LOOK or LEAST_DETAIL at least. limit.camera_still (cameras,):
    STILL_MARGIN times the most control steps of an episode in which a picture stood still while the observation
    changed, LEAST_STILL at least.
    """
    steps = _spread(len(demos.action), PICTURES)
    encoded = [
        planner.see({name: frames[steps[first : first + BATCH]] for name, frames in demos.cameras.items()})
        for first in range(0, len(steps), BATCH)
    ]
    features = np.concatenate(encoded).astype(np.float64)
    found: Tensors = {}
    for camera, own in zip(planner.cameras, np.split(features, len(planner.cameras), axis=1), strict=True):
        mean = own.mean(0)
        spread = np.cov(own, rowvar=False, bias=True).reshape(len(mean), -1)
        ridge = RIDGE * np.trace(spread) / len(mean) + np.finfo(np.float32).tiny
        whitening = np.linalg.inv(np.linalg.cholesky(spread + ridge * np.eye(len(mean)))).T
        distance = np.linalg.norm((own - mean) @ whitening, axis=1)
        levels = np.maximum(np.quantile(distance, LEVELS), 1e-6)
        named = {"mean": mean, "whitening": whitening, "distance": levels, "most": MARGIN * levels[-1:]}
        found |= {f"camera.{camera.name}.{name}": value for name, value in named.items()}
    seen = np.concatenate(
        [_looked(demos, planner, steps[first : first + BATCH]) for first in range(0, len(steps), BATCH)]
    )
    low, high = seen.min(0), seen.max(0)
    detail = np.tile([look == "detail" for look in LOOKS], len(planner.cameras))
    room = np.maximum(SLACK * (high - low), np.where(detail, LEAST_DETAIL * high, LEAST_LOOK))
    found |= {"limit.camera_low": np.maximum(low - room, 0.0), "limit.camera_high": np.minimum(high + room, 255.0)}
    longest = np.array([_longest_still(demos, camera) for camera in planner.cameras])
    return found | {"limit.camera_still": np.maximum(STILL_MARGIN * longest, LEAST_STILL)}


def looks(picture: UInt8[np.ndarray, "*B height width 3"]) -> Float[np.ndarray, "*B 7"]:
    """Return mean and standard deviation of each colour over at most GRID x GRID pixels, and the detail; 0 to 255.

    Detail is the mean difference of green between neighbours in GRID rows at most: a lens out of focus has little.
    """
    rows, columns = (-(-side // GRID) for side in picture.shape[-3:-1])
    pixels = picture[..., ::rows, ::columns, :].astype(np.float64)
    pixels = pixels.reshape(*picture.shape[:-3], -1, 3)
    green = picture[..., ::rows, :, 1].astype(np.int16)
    detail = np.abs(np.diff(green, axis=-1)).mean((-2, -1))
    return np.concatenate([pixels.mean(-2), pixels.std(-2), detail[..., None]], axis=-1)


def _looked(demos: Demonstrations, planner: SeeingPlanner, steps: Int[np.ndarray, " B"]) -> Float[np.ndarray, "B L"]:
    return np.concatenate([looks(demos.cameras[camera.name][steps]) for camera in planner.cameras], axis=1)


def read(component: Mapping[str, np.ndarray], cameras: Sequence[Camera]) -> list[Familiarity]:
    """Return the Gaussian of each camera from a bundle's component `guard`; none where it has none."""
    if any(f"camera.{camera.name}.mean" not in component for camera in cameras):
        return []
    found = []
    for camera in cameras:
        mean, whitening, most = (component[f"camera.{camera.name}.{name}"] for name in ("mean", "whitening", "most"))
        found.append(Familiarity(mean, whitening, float(most[0])))
    return found


def _longest_still(demos: Demonstrations, camera: Camera) -> int:
    """Return the most consecutive steps at which a picture was the one before, though the observation was another."""
    frames, longest, left = demos.cameras[camera.name], 0, STILL_STEPS
    episodes = _spread(len(demos.lengths), max(1, STILL_STEPS // max(1, int(demos.lengths.max()))))
    for first, end in zip(demos.episode_starts[episodes], demos.episode_ends[episodes], strict=True):
        last, run = None, 0
        for start in range(int(first), int(min(end, first + left)), BATCH):
            pictures = frames[np.arange(start, min(start + BATCH, end))]
            for offset, picture in enumerate(pictures):
                if last is None or not np.array_equal(picture, last):
                    last, run = picture, 0
                elif (demos.observation[start + offset] != demos.observation[start + offset - 1]).any():
                    run += 1
                longest = max(longest, run)
        left = max(0, left - int(end - first))
    return longest


def _spread(count: int, most: int) -> Int[np.ndarray, " M"]:
    """Return at most `most` numbers below `count`, evenly spread."""
    return np.arange(min(count, most)) * count // min(count, most)
