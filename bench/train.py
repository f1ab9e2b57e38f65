"""Overhead of the training loop: samples/s, and milliseconds per step of the same work without the loop.

    OMP_NUM_THREADS=1 python -m bench.train

Compares three loops over the same batches: forward and backward alone; a handwritten loop that adds clipping, AdamW and
the weight average; and `vqbet.training.loop.train`. Overhead is the extra time of the third over the second, in
percent. The loops alternate for a few rounds; the fastest round of each counts. Times are processor times of this
process, so that other processes matter less.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vqbet.training.loop import train
from vqbet.training.recipe import Recipe, groups, order, seed_everything

COUNT, ROUNDS = 50_000, 4
RECIPE = Recipe(steps=1000, batch=256, lr=1e-3, warmup=10, min_lr=0.1, weight_decay=0.01, clip=1.0, ema=0.999, seed=0)


class Regression(nn.Module):
    """MLP of the size of a laptop's tokenizer, with 20 inputs and 10 outputs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(20, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
        )

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        error = self.net(batch["x"]) - batch["y"]
        loss = (error**2).mean()
        return loss, {"squared": loss, "absolute": error.abs().mean()}


def gatherer() -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    numbers = np.random.Generator(np.random.Philox(0))
    x = numbers.normal(size=(COUNT, 20)).astype(np.float32)
    y = numbers.normal(size=(COUNT, 10)).astype(np.float32)
    return lambda index: {"x": x[index], "y": y[index]}


def bare(model: Regression, gather: Callable[[np.ndarray], dict[str, np.ndarray]], recipe: Recipe, full: bool) -> float:
    """Return the seconds of `recipe.steps` handwritten steps. full: include clipping, optimiser and weight average."""
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(groups(model, recipe.weight_decay), lr=recipe.lr, fused=True)
    average = [torch.zeros_like(weight) for weight in weights]
    batches = [order(recipe.seed, COUNT, recipe.batch, step) for step in range(recipe.steps)]
    started = time.process_time()
    for index in batches:
        loss, _ = model.loss({name: torch.as_tensor(value) for name, value in gather(index).items()})
        loss.backward()
        if full:
            nn.utils.clip_grad_norm_(weights, recipe.clip)
            optimizer.step()
            torch._foreach_lerp_(average, [weight.detach() for weight in weights], 1 - recipe.ema)
        optimizer.zero_grad()
    return time.process_time() - started


def looped(model: Regression, gather: Callable[[np.ndarray], dict[str, np.ndarray]], recipe: Recipe) -> float:
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        train(model, gather, COUNT, recipe, folder=Path(folder), fingerprint="bench", track=ignore, progress=ignore)
        return time.process_time() - started


def ignore(*anything: object) -> None:
    """Ignore all progress."""


def main() -> None:
    gather = gatherer()
    print(f"{'model':>14} {'fwd+bwd':>9} {'by hand':>9} {'train()':>9} {'overhead':>9} {'samples/s':>10}")
    for width, batch, steps in ((64, 256, 1000), (128, 1024, 400), (256, 2048, 100)):
        recipe = replace(RECIPE, batch=batch, steps=steps)
        times = []
        for _ in range(ROUNDS):
            seed_everything(0)
            one, two, three = Regression(width), Regression(width), Regression(width)
            row = bare(one, gather, recipe, False), bare(two, gather, recipe, True), looped(three, gather, recipe)
            times.append(row)
        alone, by_hand, loop = np.min(times, axis=0) / recipe.steps * 1e3
        print(
            f"{f'{width} x {batch}':>14} {alone:8.3f}m {by_hand:8.3f}m {loop:8.3f}m {loop / by_hand - 1:8.1%} "
            f"{batch / loop * 1e3:10,.0f}"
        )


if __name__ == "__main__":
    main()
