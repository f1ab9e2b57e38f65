"""Small VQ-BeT that sees two cameras, untrained and with the same weights every time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from tests.support import small, untrained
from tests.support.small import A, D
from vqbet.contract import Camera
from vqbet.models.encoders import Encoder, EncoderShape
from vqbet.models.normalizer import Normalizer
from vqbet.models.prior import Objective, Prior, PriorShape
from vqbet.policies.actor import Actor
from vqbet.policies.vqbet import VQBeT

CAMERAS = (Camera("top", 40, 48), Camera("wrist", 36, 36))
SPEC = replace(small.limited(-0.8, 0.8), cameras=CAMERAS)
T, H = 3, 4


def prior(*, supervise: str = "all", unseen: bool = False) -> Prior:
    torch.manual_seed(0)
    shape = PriorShape(window=T, depth=1, heads=2, width=16, head_hidden=0, dropout=0.0, sequential=False)
    data = np.array([[-3.0] * D, [3.0] * D], np.float32)
    seen = Normalizer.fit(data, SPEC.observation, unseen=["*"] if unseen else [])
    encoder = Encoder(CAMERAS, EncoderShape(features=6, crop=0.9, shift=2, keypoints=8))
    codes = untrained.tokenizer(Normalizer(A), chunk=H)
    return untrained.scaled(Prior(codes, seen, shape, Objective(supervise=supervise), encoder=encoder))


def actor(execute: str = "chunk") -> Actor:
    return Actor(SPEC, VQBeT(prior(), argmax=True), execute=execute)


def pictures(*lead: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return random pictures of both cameras, in smooth blots, so that different ones have different features."""
    rng = np.random.default_rng(seed)
    return {
        camera.name: np.repeat(
            np.repeat(rng.integers(0, 256, (*lead, camera.height // 4, camera.width // 4, 3), np.uint8), 4, -3), 4, -2
        )
        for camera in CAMERAS
    }


def windows(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    batch = small.untold(small.windows(count, seed, window=T, chunk=H, low=-1.0, high=1.0))
    return batch | {f"camera/{name}": each for name, each in pictures(count, T, seed=seed).items()}
