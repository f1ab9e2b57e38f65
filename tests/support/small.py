"""Helpers shared by the tests of several policies: a small task, windows of it, training, acting, bundles."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vqbet.contract import Channel, Policy, Spec
from vqbet.demos.goals import GoalWindows
from vqbet.demos.windows import Windows
from vqbet.models.normalizer import Normalizer
from vqbet.models.spaces import Spaces
from vqbet.policies import POLICIES, Kinds, build
from vqbet.policies.actor import Actor
from vqbet.policies.draws import uniforms
from vqbet.training.loop import Trained, train
from vqbet.training.recipe import Recipe

D, A, G, C = 5, 2, 2, 3
WANTED = ("o0", "o3", "o4")  # the channels of a goal
SEEDS = np.arange(100, 106)
GOALS = np.random.default_rng(6).normal(size=(6, C)).astype(np.float32)
Batch = dict[str, np.ndarray]
Fault = Callable[[dict[str, Any], dict[str, dict[str, np.ndarray]]], object]
FAULTS: list[tuple[Fault, str]] = [  # for the bundle of any policy with a shape and one model
    (lambda a, c: c.pop("model"), "components missing: model"),
    (lambda a, c: c.pop("normalizer"), "components missing: normalizer"),
    (lambda a, c: c["model"].update(wing=np.zeros(1)), "model: unknown tensor 'wing'"),
    (lambda a, c: c["normalizer"].pop("action.low"), r"normalizer \(action\): tensor 'low' is missing"),
    (lambda a, c: a["shape"].update(wings=2), "arguments are not those of this version: .*wings"),
]


# --- a task, and windows of it ---------------------------------------------------------------------------------------


def limited(low: float, high: float) -> Spec:
    """Return a spec with D observation channels o0, o1, ... and A action channels between these limits."""
    return Spec(
        task="fake",
        observation=tuple(Channel(f"o{index}", "m", -3.0, 3.0) for index in range(D)),
        action=tuple(Channel(f"a{index}", "px", low, high) for index in range(A)),
        control_hz=10.0,
        action_kind="absolute",
        frame="table",
    )


def between(low: float, high: float, channels: int) -> Normalizer:
    """Return a normalizer fitted to these two numbers in every channel."""
    return Normalizer.fit(np.array([[low] * channels, [high] * channels], np.float32))


def spaces(goal: bool = False, low: float = 0.0, high: float = 500.0) -> Spaces:
    """Return spaces with observations from -3 to 3, actions from `low` to `high` and, if any, goals from -2 to 2."""
    return Spaces(between(-3.0, 3.0, D), between(low, high, A), between(-2.0, 2.0, C) if goal else None)


def windows(count: int = 16, seed: int = 0, *, window: int, chunk: int, low: float = 0.0, high: float = 500.0) -> Batch:
    """Return random windows with goals, all of them valid, in the form of `GoalWindows`."""
    rng = np.random.default_rng(seed)
    return {
        "observation": rng.normal(size=(count, window, D)).astype(np.float32),
        "action": rng.uniform(low, high, (count, window + chunk - 1, A)).astype(np.float32),
        "valid": np.ones((count, window + chunk - 1), bool),
        "goal": rng.normal(size=(count, G, C)).astype(np.float32),
    }


def alike(action: np.ndarray, window: int, goal: np.ndarray | None = None) -> Batch:
    """Return windows with these actions (B, T+H-1, A) and goals, and equal observations."""
    batch = {
        "observation": np.ones((len(action), window, D), np.float32),
        "action": action.astype(np.float32),
        "valid": np.ones(action.shape[:2], bool),
    }
    return batch if goal is None else batch | {"goal": goal}


def part(batch: Batch, rows: slice | list[int]) -> Batch:
    """Return some windows of a batch."""
    return {name: value[rows] for name, value in batch.items()}


def untold(batch: Batch) -> Batch:
    """Return a batch without its goals."""
    return {name: value for name, value in batch.items() if name != "goal"}


# --- training --------------------------------------------------------------------------------------------------------


def learn(policy: nn.Module, batch: Batch, steps: int = 300, lr: float = 3e-3) -> dict[str, float]:
    """Train with Adam on one batch, with a learning rate that falls to 0; return the metrics of the last step."""
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


def three_steps(policy: nn.Module, source: Windows | GoalWindows, folder: Path) -> Trained:
    """Train three steps in the loop that trains every policy, without weight decay: only gradients move weights."""
    recipe = Recipe(steps=3, batch=8, lr=1e-3, warmup=1, min_lr=0.1, weight_decay=0.0, clip=1.0, ema=0.9, seed=0)
    return train(
        policy, source.gather, len(source), recipe, folder=folder, fingerprint="test", track=lambda step, metrics: None
    )


def mean_of_halves(policy: nn.Module, batch: Batch) -> Tensor:
    """Return the mean of the losses of a batch's first and second half."""
    half = len(batch["valid"]) // 2
    return torch.stack([policy.loss(part(batch, rows))[0] for rows in (slice(half), slice(half, None))]).mean()


# --- acting ----------------------------------------------------------------------------------------------------------


def draws(policy: nn.Module, count: int) -> Tensor:
    """Return the random numbers (count, draws) of a plan for the seeds 0, 1, ..."""
    return torch.from_numpy(uniforms(np.arange(count), np.zeros(count, np.int64), policy.draws))


def planned(policy: nn.Module, batch: Batch, uniform: Tensor | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return chunks (B, H, A) and tags (B, Q) for observations, goals and random numbers, by default `draws`."""
    count = len(batch["observation"])
    goal = batch["goal"] if policy.goal_steps else None
    uniform = draws(policy, count) if uniform is None else uniform
    chunk, tags, _ = policy.eval().plan(batch["observation"], goal, uniform)
    assert chunk.shape == (count, policy.chunk, policy.channels[1])
    assert tags.shape == (count, policy.tags)
    assert tags.dtype == np.int64
    return chunk, tags


def plan(policy: nn.Module, batch: Batch, uniform: Tensor | None = None) -> np.ndarray:
    """Return the chunks of `planned`, for a policy without tags."""
    assert policy.tags == 0
    return planned(policy, batch, uniform)[0]


def observations(steps: int = 10, episodes: int = 6, seed: int = 0) -> np.ndarray:
    """Return Gaussian noise as observations (steps, episodes, D)."""
    return np.random.default_rng(seed).normal(size=(steps, episodes, D)).astype(np.float32)


def play(policy: Policy, stream: np.ndarray, seeds: np.ndarray = SEEDS, goals: np.ndarray | None = None) -> np.ndarray:
    """Return actions (steps, episodes, A) for a stream of observations, from the first step of every episode."""
    policy.reset(seeds, goals)
    return np.stack([policy.act(observed, np.arange(len(seeds))) for observed in stream])


# --- to a bundle and back --------------------------------------------------------------------------------------------


def rebuilt(kind: str, actor: Actor, kinds: Kinds = POLICIES) -> Actor:
    """Return the actor rebuilt from its bundle's content, with equal arguments and bitwise equal tensors."""
    components = actor.components()
    again = build(kind, actor.spec, json.loads(json.dumps(actor.arguments(), allow_nan=False)), components, kinds=kinds)
    assert again.arguments() == actor.arguments()
    assert again.components().keys() == components.keys()
    for name, tensors in again.components().items():
        assert tensors.keys() == components[name].keys()
        assert all(value.tobytes() == components[name][key].tobytes() for key, value in tensors.items())
    return again


def build_with(fault: Fault, kind: str, actor: Actor, kinds: Kinds = POLICIES) -> None:
    """Build from the content of this actor's bundle, with a fault planted in its arguments or components."""
    arguments = json.loads(json.dumps(actor.arguments()))
    components = {name: dict(tensors) for name, tensors in actor.components().items()}
    fault(arguments, components)
    build(kind, actor.spec, arguments, components, kinds=kinds)
