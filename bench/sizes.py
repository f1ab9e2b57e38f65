"""Every policy at its paper's size, with random weights, for the benchmarks of this folder.

VQ-BeT, MLP-BC and Diffusion Policy have the channels of Push-T (20 in, 2 out). BeT and BESO have those of Kitchen and
BlockPush, as in their authors' code; BESO's goals have as many channels as its observation. No size of MLP-BC was
published, so this one is ours. Nothing is trained, since time does not depend on the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vqbet.comparison.policies.bc import BehaviorCloning, BehaviorCloningShape
from vqbet.comparison.policies.beso import Beso, BesoShape
from vqbet.comparison.policies.bet import BeT, BeTShape
from vqbet.comparison.policies.diffusion import DiffusionPolicy
from vqbet.comparison.policies.diffusion_cnn import CNNShape
from vqbet.comparison.policies.diffusion_transformer import TransformerShape
from vqbet.contract import Channel, Spec
from vqbet.models.normalizer import Normalizer
from vqbet.models.prior import Objective, Prior, PriorShape
from vqbet.models.spaces import Spaces
from vqbet.models.tokenizer import Tokenizer, TokenizerShape
from vqbet.policies.actor import Actor, Execute
from vqbet.policies.vqbet import VQBeT

VQBET = "VQ-BeT"
CODES = TokenizerShape(chunk=5, layers=2, codes=16, latent=512, hidden=128)
GPT = PriorShape(
    window=5, depth=6, heads=6, width=120, head_hidden=1024, dropout=0.0, sequential=False
)  # dropout: 0.1 in the authors' configuration, but never active in their code
MLP = BehaviorCloningShape(window=5, chunk=5, depth=3, hidden=512, dropout=0.1)


@dataclass(frozen=True, slots=True)
class Sized:
    """Builder of a model, its numbers of channels (observation, action, goal), and its mode of execution."""

    build: Callable[[], Any]
    channels: tuple[int, int, int]
    execute: Execute = "first"

    def actor(self) -> Actor:
        observation, action, goal = self.channels
        channels = tuple(Channel(f"channel{index}", "px", -1.0, 1.0) for index in range(observation))
        spec = Spec("bench", channels, channels[:action], 10.0, "absolute", "table")
        model = self.build().eval()
        planner = VQBeT(model) if isinstance(model, Prior) else model
        return Actor(spec, planner, execute=self.execute, goal=tuple(channel.name for channel in channels[:goal]))


def vqbet(
    code: TokenizerShape = CODES,
    shape: PriorShape = GPT,
    objective: Objective | None = None,
    *,
    channels: tuple[int, int, int] = (20, 2, 0),
) -> Prior:
    """Return an untrained VQ-BeT. channels: of observation, action and goal; by default Push-T's."""
    torch.manual_seed(0)
    observation, action, goal = channels
    tokenizer = Tokenizer(Normalizer(action), code)
    tokenizer.initialise(_chunks(code.chunk, action), torch.Generator().manual_seed(0))
    tokenizer.trained_steps.fill_(1)
    return Prior(tokenizer, Normalizer(observation), shape, objective, goal=Normalizer(goal) if goal else None)


def bet(observation: int, action: int, shape: BeTShape, *, acting_window: int) -> BeT:
    model = BeT(_spaces(observation, action), shape, acting_window=acting_window)
    model.fit(_chunks(shape.chunk, action), torch.Generator().manual_seed(0))
    return model


def parameters(actor: Actor) -> int:
    """Return the number of learned values of a policy, without the statistics of its data."""
    return sum(
        value.size for name, part in actor.components().items() if name != "normalizer" for value in part.values()
    )


def _spaces(observation: int, action: int, goal: int = 0) -> Spaces:
    torch.manual_seed(0)
    return Spaces(Normalizer(observation), Normalizer(action), Normalizer(goal) if goal else None)


def _chunks(length: int, action: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (2000, length, action)).astype(np.float32)


SIZES = {
    VQBET: Sized(vqbet, (20, 2, 0)),
    "MLP-BC": Sized(lambda: BehaviorCloning(_spaces(20, 2), MLP), (20, 2, 0)),
    "BeT, Kitchen": Sized(
        lambda: bet(60, 9, BeTShape(window=10, bins=64, depth=6, heads=6, width=120, dropout=0.1), acting_window=3),
        (60, 9, 0),
    ),
    "BeT, BlockPush": Sized(
        lambda: bet(16, 2, BeTShape(window=5, bins=24, depth=4, heads=4, width=72, dropout=0.1), acting_window=3),
        (16, 2, 0),
    ),
    "Diffusion, CNN": Sized(lambda: DiffusionPolicy(_spaces(20, 2), CNNShape(2, 16, 8)), (20, 2, 0), "chunk"),
    "Diffusion, transformer": Sized(
        lambda: DiffusionPolicy(_spaces(20, 2), TransformerShape(2, 16, 8)), (20, 2, 0), "chunk"
    ),
    "BESO, Kitchen": Sized(lambda: Beso(_spaces(30, 9, 30), BesoShape(4, 6, 6, 360, 0.3, goal_steps=2)), (30, 9, 30)),
    "BESO, BlockPush": Sized(
        lambda: Beso(_spaces(10, 2, 10), BesoShape(5, 4, 12, 240, 0.05, goal_steps=1)), (10, 2, 10)
    ),
}
