"""Push-T through its camera: a small untrained policy that sees, and a few demonstrations with pictures."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import torch

from tests.support import untrained
from tests.support.recorded import recorded
from tests.support.synthetic import synthetic
from vqbet.contract import Demonstrations, Spec
from vqbet.models.encoders import Encoder, EncoderShape
from vqbet.models.normalizer import Normalizer
from vqbet.models.prior import Objective, Prior, PriorShape
from vqbet.policies.actor import Actor
from vqbet.policies.vqbet import VQBeT
from vqbet.tasks import TASKS
from vqbet.tasks.pusht.camera import pictures

TASK = "pusht_image"
SPEC = TASKS[TASK].spec
T, H, EPISODES, STEPS = 2, 4, 6, 20


@cache
def demonstrations() -> Demonstrations:
    """Return episodes of random targets, each of which is approached for some steps."""
    env, rng = TASKS[TASK].world(), np.random.default_rng(0)
    made = recorded(env, env.reset(np.arange(EPISODES)), lambda seen: rng.uniform(100, 400, (len(seen), 2)), STEPS)
    columns = {**synthetic(EPISODES).columns, "task": np.full(EPISODES, TASK)}
    return replace(made, columns=columns, cameras={"image": pictures(made.state)})


def actor(execute: str = "chunk", *, argmax: bool = True, spec: Spec = SPEC) -> Actor:
    """Return an untrained policy; `spec`: of another task with one camera."""
    torch.manual_seed(0)
    sides = (spec.action, spec.observation)
    limits = [np.array([[getattr(one, end) for one in side] for end in ("low", "high")], np.float32) for side in sides]
    action, seen = (Normalizer.fit(values, side) for values, side in zip(limits, sides, strict=True))
    codes = untrained.tokenizer(action, chunk=H, scale=100.0)
    shape = PriorShape(window=T, depth=1, heads=2, width=16, head_hidden=0, dropout=0.0, sequential=False)
    encoder = Encoder(spec.cameras, EncoderShape(features=8, keypoints=8))
    prior = Prior(codes, seen, shape, Objective(), encoder=encoder)
    return Actor(spec, VQBeT(prior, argmax=argmax), execute=execute)
