"""Trainable policies from parameters: VQ-BeT and every baseline, on the same windows and in the same loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vqbet import tasks
from vqbet.comparison.policies.bc import BehaviorCloning, BehaviorCloningShape
from vqbet.comparison.policies.beso import Beso, BesoShape
from vqbet.comparison.policies.bet import BeT, BeTShape
from vqbet.comparison.policies.diffusion import DiffusionPolicy
from vqbet.comparison.policies.diffusion_cnn import CNNShape
from vqbet.comparison.policies.diffusion_transformer import TransformerShape
from vqbet.config import EncoderParams
from vqbet.contract import Demonstrations
from vqbet.coordinates import views
from vqbet.demos import goals
from vqbet.demos.goals import GoalWindows
from vqbet.demos.windows import Windows, complete_chunks
from vqbet.models.spaces import Spaces
from vqbet.models.tokenizer import Tokenizer
from vqbet.policies.actor import Actor, Planner, understood
from vqbet.stages import bundle, eyes, prior
from vqbet.training.recipe import Recipe, seed_everything

if TYPE_CHECKING:
    from vqbet.config import TaskParams

Chosen = Mapping[str, Any]
# Policy name in the comparison's params.yaml -> kind in a bundle, class, shape class.
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
    """An untrained model, its windows, its recipe by number of steps, and the actor of the trained model."""

    kind: str
    model: nn.Module
    windows: Windows | GoalWindows
    recipe: Callable[[int], Recipe]
    actor: Callable[[], Actor]


def vqbet(
    params: TaskParams, demos: Demonstrations, tokenizer: Tokenizer, goal: tuple[str, ...], *, root: Path = prior.HERE
) -> Trainable:
    """Return VQ-BeT on a trained tokenizer, from the task's sections prior and bundle. Seeds everything.

    root: the project, at which a relative path of an encoder's weights begins.
    """
    chosen = params.prior
    seed_everything(chosen.seed)
    model, windows = prior.build(chosen, tokenizer, demos, goal, wanted=params.demos.views, root=root)

    def recipe(steps: int) -> Recipe:
        return replace(prior.recipe(chosen), steps=steps, warmup=round(chosen.warmup / chosen.steps * steps))

    def actor() -> Actor:
        terms = prior.terms(demos.spec.task, goal, params.demos.views)
        return bundle.acting(model, params.bundle, demos.spec, terms)

    return Trainable("vqbet", model, windows, recipe, actor)


def baseline(
    policy: str,
    chosen: Chosen,
    demos: Demonstrations,
    *,
    goal: tuple[str, ...],
    goal_steps: int,
    seed: int,
    root: Path = prior.HERE,
) -> Trainable:
    """Return the baseline named in MODELS; `chosen`: its section of the parameters. Seeds everything.

    root: as in `vqbet`.
    """
    kind, model_class, shape_class = MODELS[policy]
    shape = dict(chosen["shape"])
    seed_everything(seed)
    wanted, spec = views.flagged(chosen), demos.spec
    demos = views.seen(demos, wanted, tasks.of(spec))
    noise = {name: chosen[name] for name in ("observation_noise", "goal_noise") if name in chosen}
    seeing = EncoderParams.model_validate(chosen["encoder"]) if "encoder" in chosen else None
    encoder = None if seeing is None else eyes.encoder(seeing, spec.cameras, root)
    spaces = Spaces.fit(demos, goal, unseen=chosen["unseen"], encoder=encoder, **noise)
    model = model_class(spaces, shape_class(**shape, goal_steps=goal_steps), **chosen["options"])
    chunk = shape.get("horizon", shape.get("chunk", 1))
    windows = goals.windows(
        demos,
        window=shape["window"],
        chunk=chunk,
        goal=goal,
        goal_steps=goal_steps,
        ends_only="goal_frame" in wanted,
    )
    if isinstance(model, BeT):
        model.fit(complete_chunks(demos, chunk), torch.Generator().manual_seed(seed))

    def recipe(steps: int) -> Recipe:
        training = chosen["training"]
        return Recipe(**{**training, "steps": steps, "warmup": round(training["warmup"] * steps), "seed": seed})

    def actor() -> Actor:
        planner: Planner = model.eval()
        return Actor(spec, planner, execute=chosen["execute"], **understood(prior.terms(spec.task, goal, wanted)))

    return Trainable(kind, model, windows, recipe, actor)
