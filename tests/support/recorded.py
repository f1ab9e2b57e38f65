"""Short demonstrations recorded in one of the worlds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vqbet.contract import Demonstrations, Env

Act = Callable[[np.ndarray], np.ndarray]  # observations (E, D) -> actions (E, A)


def recorded(env: Env, observation: np.ndarray, act: Act, steps: int) -> Demonstrations:
    """Record `steps` steps of every episode that has just begun in `env`; every other episode counts as a success."""
    rows, taken = np.arange(len(observation)), []
    for _ in range(steps):
        action = act(observation).astype(np.float32)
        taken.append((observation, action, env.state()))
        observation, _ = env.step(action, rows)
    seen, done, states = (
        np.stack(values, axis=1).reshape(len(rows) * steps, -1) for values in zip(*taken, strict=True)
    )
    return Demonstrations(
        spec=env.spec,
        observation=seen,
        action=done,
        time_s=np.tile(np.arange(steps) / env.spec.control_hz, len(rows)),
        episode_ends=steps * (1 + rows),
        columns={"success": rows % 2 == 0},
        state=states,
        digest="data",
    )
