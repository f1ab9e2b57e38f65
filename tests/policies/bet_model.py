"""A small Behavior Transformer, windows for it, and the two things one does with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from vqbet.contract import Channel, Spec
from vqbet.normalizer import Normalizer
from vqbet.policies.acting import uniforms
from vqbet.policies.bet import BeT, BeTShape
from vqbet.policies.spaces import Spaces

T, H, D, A, K, G, C = 4, 3, 5, 2, 6, 2, 2
SHAPE = BeTShape(window=T, bins=K, depth=2, heads=2, width=16, dropout=0.0, chunk=H)
SMALL = replace(SHAPE, depth=1)
SPEC = Spec(
    task="fake",
    observation=tuple(Channel(f"o{index}", "m", -3.0, 3.0) for index in range(D)),
    action=tuple(Channel(f"a{index}", "px", -1e6, 1e6) for index in range(A)),
    control_hz=10.0,
    action_kind="absolute",
    frame="table",
)
WANTED = ("o0", "o3")


def between(low: float, high: float, channels: int) -> Normalizer:
    return Normalizer.fit(np.array([[low] * channels, [high] * channels], np.float32))


def chunks(count: int = 300, length: int = H) -> np.ndarray:
    return np.random.default_rng(3).uniform(0, 500, (count, length, A)).astype(np.float32)


def unfitted(shape: BeTShape = SHAPE, **settings: Any) -> BeT:
    torch.manual_seed(0)
    goal = between(-2.0, 2.0, C) if shape.goal_steps else None
    return BeT(Spaces(between(-3.0, 3.0, D), between(0.0, 500.0, A), goal), shape, **settings)


def fitted(shape: BeTShape = SHAPE, points: np.ndarray | None = None, **settings: Any) -> BeT:
    """With a head large enough for logits and offsets that differ from observation to observation."""
    policy = unfitted(shape, **settings)
    policy.fit(chunks(length=shape.chunk) if points is None else points, torch.Generator().manual_seed(0))
    with torch.no_grad():
        policy.head.weight.mul_(10)
    return policy


def windows(count: int = 16, seed: int = 0, length: int = H) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "observation": rng.normal(size=(count, T, D)).astype(np.float32),
        "action": rng.uniform(0, 500, (count, T + length - 1, A)).astype(np.float32),
        "valid": np.ones((count, T + length - 1), bool),
        "goal": rng.normal(size=(count, G, C)).astype(np.float32),
    }


def plan(policy: BeT, batch: dict[str, np.ndarray], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Chunks (B, H, A) and bins (B,)."""
    count = len(batch["observation"])
    drawn = uniforms(np.arange(count) + 1000 * seed, np.zeros(count, np.int64), policy.draws)
    goal = torch.from_numpy(batch["goal"]) if policy.goal_steps else None
    with torch.inference_mode():
        chunk, tags = policy.eval().plan(torch.from_numpy(batch["observation"]), goal, torch.from_numpy(drawn))
    assert tags.shape == (count, policy.tags)
    assert tags.dtype == torch.int64
    return chunk.numpy(), tags[:, 0].numpy()


def learn(policy: BeT, batch: dict[str, np.ndarray], steps: int, lr: float = 3e-3) -> dict[str, float]:
    optimizer = torch.optim.Adam(policy.train().parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        loss, metrics = policy.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    policy.eval()
    return {name: float(value) for name, value in metrics.items()}
