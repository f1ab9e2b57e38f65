"""Familiarity of pictures: how far they lie from those of the demonstrations, as a share of what is allowed.

The distance is Mahalanobis's between thumbnails, with one Gaussian for all demonstrations, and is averaged over the
newest pictures, since a camera that was moved stays moved. What is allowed is the most of demonstrations that were held
out of the Gaussian. (The policy's own features, as in Lee et al. 2018, arXiv 1807.03888, saw next to nothing:
docs/log.md, 2026-11-30.) `serving.guard` refuses above 1. Mean and spread of each colour and the detail of a picture
have limits, too, which the robot compares at every step. numpy only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import final

import numpy as np
from jaxtyping import Float, Int, UInt8

from vqbet.contract import SLACK, Camera, Demonstrations

GRID = 16  # thumbnails have so many rows and columns of means of each colour
RUN = 20  # newest pictures over which distances are averaged
FOLDS = 8  # of episodes, each held out once
LEVELS = (0.5, 0.9, 0.99, 0.999)  # quantiles kept of the averages of those held out
RIDGE = 0.1  # of the mean variance, added to every variance: what never moved in training may move a little
PICTURES, BATCH = 4096, 256  # most steps whose pictures are compared, and at once
STILL_STEPS = 16384  # most steps that are searched for pictures that stand still
STILL_MARGIN, LEAST_STILL = 2.0, 5  # times the longest standstill of training is allowed, control steps at least
LOOKS = ("mean red", "mean green", "mean blue", "spread of red", "spread of green", "spread of blue", "detail")
SIDE = 48  # most pixels of a side that are looked at
LEAST_LOOK = 5.0  # of 255, by which the range of a colour in training is widened at least: lamps and sensors vary
LEAST_DETAIL = 0.25  # the same for detail, as a share of the most detail in training: it is small beside a colour
SIGNAL = "camera_"  # before a camera's name, of the signal that is its share

Tensors = dict[str, Float[np.ndarray, "..."]]  # float64


@final
@dataclass(frozen=True, slots=True, eq=False)
class Familiarity:
    """Gaussian of one camera's thumbnails, F = 3 GRID^2. most: average distance that is allowed."""

    mean: Float[np.ndarray, " F"]
    whitening: Float[np.ndarray, "F F"]
    most: float

    @classmethod
    def of(cls, small: Float[np.ndarray, "B F"], most: float = 1.0) -> Familiarity:
        """Return the Gaussian of thumbnails."""
        mean = small.mean(0)
        spread = np.cov(small, rowvar=False, bias=True)
        ridge = RIDGE * np.trace(spread) / len(mean) + 1.0  # at least one of the 256 levels
        whitening = np.linalg.inv(np.linalg.cholesky(spread + ridge * np.eye(len(mean)))).T
        return cls(mean, whitening, most)

    def share(self, small: Float[np.ndarray, "*B F"]) -> Float[np.ndarray, "*B"]:
        """Return the distances of thumbnails as shares of the one that is allowed."""
        return np.linalg.norm((small - self.mean) @ self.whitening, axis=-1) / self.most


@final
class Acquaintance:
    """Average of the shares of one robot's newest pictures of one camera; one of each for an episode."""

    def __init__(self, known: Familiarity) -> None:
        self._known = known
        self._shares: deque[float] = deque(maxlen=RUN)

    def see(self, pictures: UInt8[np.ndarray, "B height width 3"]) -> None:
        """Add new pictures."""
        self._shares.extend(self._known.share(thumbnails(pictures)).tolist())

    @property
    def share(self) -> float:
        """Return the average; 0 before the first picture."""
        return fsum(self._shares) / max(len(self._shares), 1)


def fitted(demos: Demonstrations) -> Tensors:
    """Return the part of the component `guard` that is about cameras.

    camera.<name>.mean (F,), .whitening (F, F); .distance (4,): quantiles LEVELS of averages over the first 1 to RUN
    pictures of runs that were held out; .most (1,): the average that is allowed. limit.camera_low, limit.camera_high
    (cameras x LOOKS,): range of `looks` in training, widened by SLACK of it and by LEAST_LOOK or LEAST_DETAIL at least.
    limit.camera_still (cameras,): STILL_MARGIN times the most control steps of an episode in which a picture stood
    still while the observation changed, LEAST_STILL at least.
    """
    runs = _runs(demos)
    steps = np.concatenate(runs)
    fold = np.concatenate([np.full(len(run), number) for number, run in zip(_folds(demos, runs), runs, strict=True)])
    cameras, found = demos.spec.cameras, Tensors()
    seen: list[np.ndarray] = []
    for camera in cameras:
        shown = [demos.cameras[camera.name][each] for each in np.split(steps, range(BATCH, len(steps), BATCH))]
        seen.append(np.concatenate([looks(each) for each in shown]))
        small = np.concatenate([thumbnails(each) for each in shown])
        known, away = Familiarity.of(small), np.zeros(len(small))
        for number in np.unique(fold):
            others = small[fold != number]
            away[fold == number] = (Familiarity.of(others) if len(others) else known).share(small[fold == number])
        each_run = np.split(away, np.cumsum([len(run) for run in runs])[:-1])
        averages = np.concatenate([np.cumsum(run) / np.arange(1, len(run) + 1) for run in each_run])
        named = {"mean": known.mean, "whitening": known.whitening, "distance": np.quantile(averages, LEVELS)}
        found |= {f"camera.{camera.name}.{name}": value for name, value in named.items()}
        found[f"camera.{camera.name}.most"] = averages.max(keepdims=True)
    low, high = (np.concatenate([of(each, axis=0) for each in seen]) for of in (np.min, np.max))
    detail = np.tile([look == "detail" for look in LOOKS], len(cameras))
    room = np.maximum(SLACK * (high - low), np.where(detail, LEAST_DETAIL * high, LEAST_LOOK))
    found |= {"limit.camera_low": np.maximum(low - room, 0.0), "limit.camera_high": np.minimum(high + room, 255.0)}
    longest = np.array([_longest_still(demos, camera) for camera in cameras])
    return found | {"limit.camera_still": np.maximum(STILL_MARGIN * longest, LEAST_STILL)}


def thumbnails(pictures: UInt8[np.ndarray, "*B height width 3"]) -> Float[np.ndarray, "*B F"]:
    """Return the mean of each colour in GRID x GRID fields, of 255; fewer pixels than fields are repeated."""
    height, width = pictures.shape[-3:-1]
    rows, columns = (np.arange(GRID) * side // GRID for side in (height, width))
    sums = np.add.reduceat(pictures.astype(np.float32), rows, axis=-3)
    sums = np.add.reduceat(sums, columns, axis=-2).astype(np.float64)
    sizes = [np.maximum(np.diff(starts, append=side), 1) for starts, side in ((rows, height), (columns, width))]
    return (sums / np.multiply.outer(*sizes)[..., None]).reshape(*pictures.shape[:-3], -1)


def looks(picture: UInt8[np.ndarray, "*B height width 3"]) -> Float[np.ndarray, "*B 7"]:
    """Return mean and standard deviation of each colour over at most SIDE x SIDE pixels, and the detail; 0 to 255.

    Detail is the mean difference of green between neighbours in SIDE rows at most: a lens out of focus has little.
    """
    rows, columns = (-(-side // SIDE) for side in picture.shape[-3:-1])
    pixels = picture[..., ::rows, ::columns, :].astype(np.float64)
    pixels = pixels.reshape(*picture.shape[:-3], -1, 3)
    green = picture[..., ::rows, :, 1].astype(np.int16)
    detail = np.abs(np.diff(green, axis=-1)).mean((-2, -1))
    return np.concatenate([pixels.mean(-2), pixels.std(-2), detail[..., None]], axis=-1)


def read(component: Mapping[str, np.ndarray], cameras: Sequence[Camera]) -> dict[str, Familiarity]:
    """Return the Gaussian of each camera, by its name, from a bundle's component `guard`; none where it has none.

    A Gaussian of other features than thumbnails, as of bundles made before there were any, is left out.
    """
    found = {}
    for camera in cameras:
        mean = component.get(f"camera.{camera.name}.mean", np.zeros(0))
        if len(mean) == 3 * GRID**2:
            whitening, most = (component[f"camera.{camera.name}.{name}"] for name in ("whitening", "most"))
            found[camera.name] = Familiarity(mean, whitening, float(most[0]))
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


def _runs(demos: Demonstrations) -> list[Int[np.ndarray, " R"]]:
    """Return runs of at most RUN steps, each of one episode, evenly spread over all that there are."""
    cut = [
        np.arange(start, min(start + RUN, end))
        for first, end in zip(demos.episode_starts.tolist(), demos.episode_ends.tolist(), strict=True)
        for start in range(first, end, RUN)
    ]
    return [cut[place] for place in _spread(len(cut), PICTURES // RUN)]


def _folds(demos: Demonstrations, runs: Sequence[np.ndarray]) -> Int[np.ndarray, " runs"]:
    """Return the fold of each run: runs of one episode are held out together, where there are several episodes."""
    owners = np.searchsorted(demos.episode_ends, [run[0] for run in runs], side="right")
    _, place = np.unique(owners, return_inverse=True)
    return (place if place.any() else np.arange(len(runs))) % FOLDS


def _spread(count: int, most: int) -> Int[np.ndarray, " M"]:
    """Return at most `most` numbers below `count`, evenly spread."""
    return np.arange(min(count, most)) * count // min(count, most)
