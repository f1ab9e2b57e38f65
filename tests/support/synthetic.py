"""Synthetic demonstrations for tests: small, smooth, bimodal, and valid for training."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from vqbet.contract import Channel, Demonstrations, Spec

CONTROL_HZ = 10.0
SHORTEST, LONGEST = 30, 60  # steps per episode, both included
LIMIT = 1.5  # every channel stays within +-1.1


def synthetic(episodes: int = 20, seed: int = 0, D: int = 4, A: int = 2) -> Demonstrations:
    """Return episodes that pass an obstacle, half on its left and half on its right; equal for equal seeds.

    The action is the next position (absolute, metres). The first observation channels are the position, the others
    smooth functions of the position that depend on D and A alone. `state` is the position in float64, before noise.
    """
    random = np.random.default_rng(seed)
    lengths = random.integers(SHORTEST, LONGEST, size=episodes, endpoint=True)
    modes = random.permutation(np.arange(episodes) % 2) * 2.0 - 1.0
    paths = [_path(random, length=int(length), mode=mode, A=A) for length, mode in zip(lengths, modes, strict=True)]
    state = np.concatenate([path[:-1] for path in paths])
    observation = _observe(state, D=D) + random.normal(scale=0.005, size=(len(state), D))
    action = np.concatenate([path[1:] for path in paths]) + random.normal(scale=0.002, size=state.shape)
    return Demonstrations(
        spec=synthetic_spec(D=D, A=A),
        observation=observation.astype(np.float32),
        action=action.astype(np.float32),
        time_s=np.concatenate([np.arange(length) / CONTROL_HZ for length in lengths]),
        episode_ends=np.cumsum(lengths, dtype=np.int64),
        columns={
            "session": np.array([f"session-{episode // 10}" for episode in range(episodes)]),
            "operator": np.array([("ada", "grace")[episode % 2] for episode in range(episodes)]),
            "source": np.full(episodes, "synthetic"),
            "seed": np.arange(episodes, dtype=np.int64) + seed * 1_000_000,
            "success": np.ones(episodes, dtype=bool),
            "task": np.full(episodes, "synthetic"),
        },
        state=state,
    )


def synthetic_spec(D: int = 4, A: int = 2) -> Spec:
    """Return the spec of `synthetic` demonstrations."""
    return Spec(
        task="synthetic",
        observation=tuple(Channel(f"feature_{index}", "m", -LIMIT, LIMIT) for index in range(D)),
        action=tuple(Channel(f"target_{index}", "m", -LIMIT, LIMIT) for index in range(A)),
        control_hz=CONTROL_HZ,
        action_kind="absolute",
        frame="table",
    )


def _path(random: np.random.Generator, *, length: int, mode: float, A: int) -> Float[np.ndarray, "length+1 A"]:
    """Return positions from one side of the table to the other, with a bulge to the side given by `mode` (+-1)."""
    progress = np.linspace(0.0, 1.0, length + 1)[:, None]
    ahead = np.arange(A) % 2 == 0
    sideways = ~ahead if A > 1 else ahead
    start = np.where(ahead, -0.8, 0.0) + random.uniform(-0.1, 0.1, size=A)
    goal = np.where(ahead, 0.8, 0.0)
    return (1 - progress) * start + progress * goal + 0.5 * mode * sideways * np.sin(np.pi * progress)


def _observe(position: Float[np.ndarray, "N A"], *, D: int) -> Float[np.ndarray, "N D"]:
    mixing = np.random.default_rng(D).uniform(-2.0, 2.0, size=(position.shape[1], D))
    features = np.sin(position @ mixing + np.arange(D))
    shown = min(D, position.shape[1])
    features[:, :shown] = position[:, :shown]
    return features
