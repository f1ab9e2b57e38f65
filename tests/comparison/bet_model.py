"""A small Behavior Transformer, windows for it, and how it plans."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from tests.support import small
from tests.support.small import A, Batch
from vqbet.comparison.policies.bet import BeT, BeTShape

T, H, K = 4, 3, 6
SHAPE = BeTShape(window=T, bins=K, depth=2, heads=2, width=16, dropout=0.0, chunk=H)
SMALL = replace(SHAPE, depth=1)
SPEC = small.limited(-1e6, 1e6)
windows = partial(small.windows, window=T, chunk=H)


def chunks(count: int = 300, length: int = H) -> np.ndarray:
    return np.random.default_rng(3).uniform(0, 500, (count, length, A)).astype(np.float32)


def unfitted(shape: BeTShape = SHAPE, **settings: Any) -> BeT:
    torch.manual_seed(0)
    return BeT(small.spaces(goal=shape.goal_steps > 0), shape, **settings)


def fitted(shape: BeTShape = SHAPE, points: np.ndarray | None = None, **settings: Any) -> BeT:
    """With a head large enough for logits and offsets that differ from observation to observation."""
    policy = unfitted(shape, **settings)
    policy.fit(chunks(length=shape.chunk) if points is None else points, torch.Generator().manual_seed(0))
    with torch.no_grad():
        policy.head.weight.mul_(10)
    return policy


def plan(policy: BeT, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Chunks (B, H, A) and bins (B,)."""
    chunk, tags = small.planned(policy, batch)
    return chunk, tags[:, 0]
