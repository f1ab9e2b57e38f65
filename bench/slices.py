"""Usual loading of windows in this field: a Dataset that slices one window at a time, inside a DataLoader.

A stand-in, written from descriptions of Diffusion Policy's sampler and of the authors' VQ-BeT slicer: windows are
listed in advance, and an item is a slice of each array, with the first and last step repeated outside the episode. The
originals read 141,000 and 27,400 windows/s (2026-11-28, one thread of an AMD EPYC with AVX-512, see docs/log.md).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vqbet.contract import Demonstrations


class Slices(Dataset):
    """Windows of T observations and T + H - 1 actions, with a mask of recorded actions; as many as in `Windows`."""

    def __init__(self, demos: Demonstrations, *, window: int, chunk: int) -> None:
        self.observation, self.action = torch.from_numpy(demos.observation), torch.from_numpy(demos.action)
        self.window, self.length = window, window + chunk - 1
        self.places = [
            (int(start), int(end), step)
            for start, end in zip(demos.episode_starts, demos.episode_ends, strict=True)
            for step in range(start, end)
        ]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, item: int) -> dict[str, Tensor]:
        start, end, now = self.places[item]
        first, last = now - self.window + 1, now - self.window + 1 + self.length
        valid = torch.zeros(self.length, dtype=torch.bool)
        valid[max(start - first, 0) : min(end, last) - first] = True
        return {
            "observation": self._slice(self.observation, first, now + 1, start, end),
            "action": self._slice(self.action, first, last, start, end),
            "valid": valid,
        }

    def _slice(self, values: Tensor, first: int, last: int, start: int, end: int) -> Tensor:
        inside = values[max(first, start) : min(last, end)]
        before, after = max(start - first, 0), max(last - end, 0)
        if not before and not after:
            return inside
        return torch.cat([inside[:1].expand(before, -1), inside, inside[-1:].expand(after, -1)])


def batches(slices: Slices, batch: int) -> Iterator[dict[str, Tensor]]:
    """Yield batches in random order, for endless epochs, in this process."""
    loader = DataLoader(slices, batch_size=batch, shuffle=True, drop_last=True, num_workers=0)
    while True:
        yield from loader
