"""From parameters to what trains and then acts: VQ-BeT and every baseline, on the same windows, by the same loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import nn

from vqbet.contract import Demonstrations
from vqbet.demos import goals
from vqbet.demos.goals import GoalWindows
from vqbet.demos.windows import Windows
from vqbet.policies.acting import Actor, Planner
from vqbet.policies.bc import BehaviorCloning, BehaviorCloningShape
from vqbet.policies.beso import Beso, BesoShape
from vqbet.policies.bet import BeT, BeTShape
from vqbet.policies.diffusion import DiffusionPolicy
from vqbet.policies.diffusion_cnn import CNNShape
from vqbet.policies.diffusion_transformer import TransformerShape
from vqbet.policies.spaces import Spaces
from vqbet.policies.vqbet import VQBeT
from vqbet.prior import Objective, Prior, PriorShape
from vqbet.recipe import Recipe, seed_everything
from vqbet.tokenizer import Tokenizer

Chosen = Mapping[str, Any]
# A policy's name in params.yaml -> its kind in a bundle, its class, its shape.
MODELS: Mapping[str, tuple[str, Any, Any]] = {
    "bc": ("bc", BehaviorCloning, BehaviorCloningShape),
    "bet": ("bet", BeT, BeTShape),
    "diffusion_cnn": ("diffusion_cnn", DiffusionPolicy, CNNShape),
    "diffusion_transformer": ("diffusion_transformer", DiffusionPolicy, TransformerShape),
    "beso": ("beso", Beso, BesoShape),
    "cfg_beso": ("beso", Beso, BesoShape),
}


@dataclass(frozen=True, slots=True)
class Trainable:
    """A model that was not trained yet, its windows, its recipe at a number of steps, and how it acts afterwards."""

    kind: str
    model: nn.Module
    windows: Windows | GoalWindows
    recipe: Callable[[int], Recipe]
    actor: Callable[[], Actor]


def vqbet(chosen: Chosen, demos: Demonstrations, tokenizer: Tokenizer, goal: tuple[str, ...]) -> Trainable:
    """VQ-BeT over a trained tokenizer; `chosen` holds the sections prior and bundle. Seeds everything."""
    prior, acting = chosen["prior"], chosen["bundle"]
    seed_everything(prior["seed"])
    spaces = Spaces.fit(demos, goal, unseen=prior["unseen"])
    model = Prior(
        tokenizer,
        spaces.observation,
        PriorShape(**_of(PriorShape, prior)),
        Objective(**_of(Objective, prior)),
        goal=spaces.goal,
    )
    chunk = tokenizer.shape.chunk
    windows = goals.windows(
        demos, window=prior["window"], chunk=chunk, goal=goal, goal_steps=prior["goal_steps"]
    )  # fmt: skip

    def recipe(steps: int) -> Recipe:
        share = prior["warmup"] / prior["steps"]
        return Recipe(**{**_of(Recipe, prior), "steps": steps, "warmup": round(share * steps)})

    def actor() -> Actor:
        planner = VQBeT(model, temperature=acting["temperature"], argmax=acting["argmax"])
        return Actor(demos.spec, planner, execute=acting["execute"], goal=goal)

    return Trainable("vqbet", model, windows, recipe, actor)


def baseline(
    policy: str, chosen: Chosen, demos: Demonstrations, *, goal: tuple[str, ...], goal_steps: int, seed: int
) -> Trainable:
    """A baseline by its name in MODELS; `chosen` is its section of params.yaml. Seeds everything."""
    kind, model_class, shape_class = MODELS[policy]
    shape = dict(chosen["shape"])
    seed_everything(seed)
    spaces = Spaces.fit(demos, goal, unseen=chosen["unseen"], observation_noise=chosen["observation_noise"])
    model = model_class(spaces, shape_class(**shape, goal_steps=goal_steps), **chosen["options"])
    chunk = shape.get("horizon", shape.get("chunk", 1))
    windows = goals.windows(demos, window=shape["window"], chunk=chunk, goal=goal, goal_steps=goal_steps)
    if isinstance(model, BeT):
        model.fit(complete_chunks(demos, chunk), torch.Generator().manual_seed(seed))

    def recipe(steps: int) -> Recipe:
        training = chosen["training"]
        return Recipe(**{**training, "steps": steps, "warmup": round(training["warmup"] * steps), "seed": seed})

    def actor() -> Actor:
        planner: Planner = model.eval()
        return Actor(demos.spec, planner, execute=chosen["execute"], goal=goal)

    return Trainable(kind, model, windows, recipe, actor)


def complete_chunks(demos: Demonstrations, chunk: int) -> np.ndarray:
    """Every chunk of H actions that lies within its episode, in physical units, (M, H, A)."""
    windows = Windows(demos, window=1, chunk=chunk)
    batch = windows.gather(np.arange(len(windows)))
    return batch["action"][batch["valid"].all(axis=1)]


def _of(kind: Any, values: Chosen) -> dict[str, Any]:
    return {field.name: values[field.name] for field in fields(kind)}
