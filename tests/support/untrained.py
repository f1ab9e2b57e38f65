"""Small untrained VQ-BeT with the same weights every time, whose chunks differ from code to code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tests.support import small
from tests.support.small import WANTED, A, C, D
from vqbet import bundle
from vqbet.contract import Demonstrations
from vqbet.models.normalizer import Normalizer
from vqbet.models.prior import Prior, PriorShape
from vqbet.models.spaces import Spaces
from vqbet.models.tokenizer import Tokenizer, TokenizerShape
from vqbet.policies.actor import Actor
from vqbet.policies.vqbet import VQBeT

T, H, Q, K = 3, 4, 2, 6
SPEC = small.limited(-0.8, 0.8)
OFFSETS = 3.0  # scale of the offset head, so that chunks differ from code to code


def tokenizer(action: Normalizer, *, chunk: int = H, scale: float = 1.0) -> Tokenizer:
    """Return a tokenizer with codes of Gaussian chunks. scale: their standard deviation in physical units."""
    made = Tokenizer(action, TokenizerShape(chunk=chunk, layers=Q, codes=K, latent=8, hidden=16))
    chunks = scale * np.random.default_rng(0).normal(size=(300, chunk, action.channels))
    made.initialise(chunks.astype(np.float32), torch.Generator())
    made.trained_steps += 1
    return made


def scaled(prior: Prior) -> Prior:
    with torch.no_grad():
        for parameter in prior.offset_head.parameters():
            parameter.mul_(OFFSETS)
    return prior


def build(
    execute: str = "first", *, sequential: bool = False, goal: int = 0, goal_as: str = "tokens", **settings: object
) -> Actor:
    """Return a policy of the small task with `goal` goal observations. settings: arguments of `VQBeT`."""
    torch.manual_seed(0)
    codes = tokenizer(Normalizer(A))
    shape = PriorShape(
        window=T, depth=2, heads=2, width=16, head_hidden=24, dropout=0.3, sequential=sequential, goal_steps=goal,
        goal_as=goal_as,
    )  # fmt: skip
    wanted = small.between(-3.0, 3.0, C) if goal else None
    prior = scaled(Prior(codes, small.between(-3.0, 3.0, D), shape, goal=wanted))
    return Actor(SPEC, VQBeT(prior, **settings), execute=execute, goal=WANTED if goal else ())


def planner(spaces: Spaces, *, window: int = 2, chunk: int = 3, head_hidden: int = 16) -> VQBeT:
    """Return a planner that takes the likeliest codes, so that equal scenes lead to equal actions.

    A goal is one observation.
    """
    torch.manual_seed(0)
    codes = tokenizer(spaces.action, chunk=chunk, scale=float(spaces.action.half_range.max()) / 2)
    shape = PriorShape(
        window=window,
        depth=1,
        heads=2,
        width=16,
        head_hidden=head_hidden,
        dropout=0.0,
        sequential=False,
        goal_steps=int(spaces.goal is not None),
    )
    return VQBeT(scaled(Prior(codes, spaces.observation, shape, goal=spaces.goal)), argmax=True)


def written(
    folder: Path, demos: Demonstrations, *, goal: tuple[str, ...] = (), execute: str = "chunk", **sizes: int
) -> tuple[Actor, str]:
    """Return a policy for the demonstrations' task and the digest of its bundle in `folder`. sizes: of `planner`."""
    actor = Actor(demos.spec, planner(Spaces.fit(demos, goal), **sizes), execute=execute, goal=goal)
    return actor, packed(folder, actor, actor.components())


def packed(folder: Path, actor: Actor, components: dict[str, dict[str, np.ndarray]]) -> str:
    """Write a bundle of the actor with these tensors to `folder` and return its digest."""
    return bundle.write(
        folder, kind="vqbet", spec=actor.spec, arguments=actor.arguments(), components=components, provenance={}
    )
