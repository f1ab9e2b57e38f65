"""Settings fixed before the first step of a training: seeds, order of windows, learning rate, weight decay."""

from __future__ import annotations

import math
import os
import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import nn

Stored = Literal["fp32", "bf16"]  # a precision that a training can have
Precision = Literal["auto", "fp32", "bf16"]
DECAYED = (nn.Linear, nn.modules.conv._ConvNd)  # their weights decay; embeddings, positions, norms, codebooks do not


@dataclass(frozen=True, slots=True)
class Recipe:
    """Hyperparameters of a training.

    `batch` counts the windows of all processes; `min_lr` is the final fraction of `lr`; `clip` bounds the gradient norm
    (0: off); `ema` is the decay per step of the averaged weights (0: off). `precision` "bf16" computes products in
    bfloat16 and keeps weights in float32; "auto" does so on a GPU that can, see `device.precision`.
    """

    steps: int
    batch: int
    lr: float
    warmup: int
    min_lr: float
    weight_decay: float
    clip: float
    ema: float
    seed: int
    precision: Precision = "fp32"


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch and turn deterministic algorithms on. Call it before the model is built."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_deterministic_debug_mode("error")  # as use_deterministic_algorithms, which imports the compiler as well
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs 9 %
    torch.backends.cudnn.benchmark = False


def order(seed: int, count: int, batch: int, step: int) -> Int[np.ndarray, " batch"]:
    """Return the windows of one step: successive permutations of `count` windows, one per epoch, cut into batches.

    Each window occurs once per epoch, for any batch size and number of processes.
    """
    epoch, place = divmod(step * batch, count)
    parts: list[np.ndarray] = []
    missing = batch
    while missing:
        parts.append(_permutation(seed, epoch, count)[place : place + missing])
        missing -= len(parts[-1])
        epoch, place = epoch + 1, 0
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> Int[np.ndarray, " count"]:
    permutation = np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(count)
    permutation.setflags(write=False)
    return permutation


def learning_rate(recipe: Recipe, step: int) -> float:
    """Return the rate of step 0, 1, ...: linear warm-up to lr, then half a cosine to min_lr * lr at the last step."""
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - 1 - recipe.warmup)
    return recipe.lr * (recipe.min_lr + (1 - recipe.min_lr) * 0.5 * (1 + math.cos(math.pi * done)))


def groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the parameter groups of AdamW: weight decay applies only to the weights of DECAYED modules."""
    owned = {id(module.weight) for module in model.modules() if isinstance(module, DECAYED)}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trainable if id(parameter) in owned], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if id(parameter) not in owned], "weight_decay": 0.0},
    ]
