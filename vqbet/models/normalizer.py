"""Min-max normalisation per channel, the map between physical units and a model's numbers.

A normaliser is fitted once, on the training demonstrations, and saved with the weights; loading a model never refits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vqbet.contract import BundleError, Channel, TrainingError
from vqbet.models.nets import restore, tensors

STILL = (
    0.002  # of the physical range; in Franka Kitchen, channels at rest span less than 0.0009, moving ones over 0.0036
)


@final
class Normalizer(nn.Module):
    """Affine map of each of C channels from [low, high] to [-1, 1], float32.

    A channel that is constant in the data normalises to 0 for any value and un-normalises to the constant: a model has
    learnt nothing about other values.
    """

    low: Float[Tensor, " C"]
    high: Float[Tensor, " C"]
    half_range: Float[Tensor, " C"]  # physical units per normalised unit; 0 for a constant channel
    middle: Float[Tensor, " C"]  # of the range, in physical units
    scale: Float[Tensor, " C"]  # normalised units per physical unit; 0 for a constant channel

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("low", torch.full((channels,), -1.0))
        self.register_buffer("high", torch.full((channels,), 1.0))
        for name in ("half_range", "middle", "scale"):
            self.register_buffer(name, torch.empty(channels), persistent=False)
        self._derive()
        self.register_load_state_dict_post_hook(Normalizer._derive)

    @classmethod
    def fit(
        cls, data: Float[np.ndarray, "... C"], channels: Sequence[Channel] = (), *, unseen: Sequence[str] = ()
    ) -> Normalizer:
        """Fit to the minimum and maximum of each channel. Raises TrainingError on empty or non-finite data.

        A channel that spans less than STILL of its physical range in `channels` shows only sensor noise. It counts as
        constant: stretched to [-1, 1], the first real motion would be huge. A channel whose name matches a pattern of
        `unseen` counts as constant too; TrainingError where a pattern matches none.
        """
        flat = np.asarray(data, np.float32).reshape(-1, data.shape[-1])
        if not len(flat):
            raise TrainingError("normaliser: expected at least one step of data, got none")
        low, high = flat.min(axis=0), flat.max(axis=0)
        broken = np.flatnonzero(~np.isfinite(low) | ~np.isfinite(high))
        if len(broken):
            raise TrainingError(f"normaliser: channels {broken.tolist()} hold values that are not finite; validate")
        if channels:
            still = high - low < STILL * np.array([channel.high - channel.low for channel in channels], np.float32)
            still |= _hidden(channels, unseen)
            low, high = np.where(still, (low + high) / 2, low), np.where(still, (low + high) / 2, high)
        normalizer = cls(flat.shape[1])
        normalizer.low.copy_(torch.from_numpy(low))
        normalizer.high.copy_(torch.from_numpy(high))
        normalizer._derive()
        return normalizer

    @property
    def channels(self) -> int:
        return len(self.low)

    def normalize(self, value: Float[Tensor, "... C"]) -> Float[Tensor, "... C"]:
        return (value - self.low - self.half_range) * self.scale

    def unnormalize(self, value: Float[Tensor, "... C"]) -> Float[Tensor, "... C"]:
        return value * self.half_range + self.middle

    def _derive(self, _missing_and_unexpected: object = None) -> None:
        """Compute half_range, middle and scale from low and high, once instead of at every action."""
        half = (self.high - self.low) / 2
        resolution = 4 * torch.finfo(torch.float32).eps * torch.maximum(self.low.abs(), self.high.abs())
        half = torch.where(half > resolution, half, torch.zeros_like(half))
        self.half_range.copy_(half)
        self.middle.copy_(self.low + half)
        self.scale.copy_(torch.where(half > 0, 1 / half, torch.zeros_like(half)))


def _hidden(channels: Sequence[Channel], unseen: Sequence[str]) -> Bool[np.ndarray, " C"]:
    fits = np.array([[fnmatchcase(channel.name, pattern) for channel in channels] for pattern in unseen], bool)
    for pattern, found in zip(unseen, fits, strict=True):
        if not found.any():
            names = ", ".join(channel.name for channel in channels)
            raise TrainingError(f"unseen: {pattern!r} fits no observed channel; there are {names}")
    return np.logical_or.reduce(fits.reshape(-1, len(channels)), axis=0)


def packed(**normalizers: Normalizer | None) -> dict[str, np.ndarray]:
    """Return "<name>.low" and "<name>.high" of all normalisers that are not None, as one component."""
    return {
        f"{name}.{key}": value
        for name, normalizer in normalizers.items()
        if normalizer is not None
        for key, value in tensors(normalizer).items()
    }


def unpack(values: Mapping[str, np.ndarray], **normalizers: Normalizer | None) -> None:
    """Load the statistics of `packed`. Raises BundleError where the component holds anything else."""
    present = {name: normalizer for name, normalizer in normalizers.items() if normalizer is not None}
    if unknown := sorted(key for key in values if key.split(".")[0] not in present):
        raise BundleError(f"normalizer: unknown tensor {unknown[0]!r}")
    for name, normalizer in present.items():
        own = {key.split(".", 1)[1]: value for key, value in values.items() if key.split(".")[0] == name}
        restore(normalizer, own, component=f"normalizer ({name})")
