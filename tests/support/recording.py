"""Recorded episodes for tests: every number says its recording and its step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.support.synthetic import CONTROL_HZ, synthetic_spec
from vqbet.contract import Spec
from vqbet.serving.handshake import Handshake
from vqbet.serving.recorder import Recorder

DIGEST = "d" * 64


def handshake(spec: Spec | None = None) -> Handshake:
    return Handshake(DIGEST, "synthetic@champion", spec or synthetic_spec(), window=2, chunk=3, execute="first")


def numbers(seed: int, steps: int, spec: Spec) -> dict[str, np.ndarray]:
    """Return the observations and actions of an episode, a function of its seed alone, within +-0.9."""
    random = np.random.default_rng(seed)
    return {
        "observation": random.uniform(-0.9, 0.9, (steps, len(spec.observation))).astype(np.float32),
        "action": random.uniform(-0.9, 0.9, (steps, len(spec.action))).astype(np.float32),
    }


def record(
    recorder: Recorder, *, seed: int = 0, steps: int = 5, success: bool | None = True, at: Any = None, **fields: Any
) -> Path:
    """Record an episode of `numbers`. fields: arguments of every step; at: by step, arguments of that step alone."""
    made = numbers(seed, steps, recorder.handshake.spec)
    recorder.start(seed=seed)
    for step in range(steps):
        action = made["action"][step]
        said: dict[str, Any] = {"asked": action, "sent": action, "time_s": 100 + step / CONTROL_HZ, **fields}
        recorder.step(observation={"state": made["observation"][step]}, **{**said, **(at or {}).get(step, {})})
    return recorder.finish(success=success)
