"""Replay of recorded actions from recorded first states, to prove that demonstrations were recorded in this world.

An action moves a joint's servo relative to the last observed position of the joint, so a replay is a closed loop: a
difference of 0.001 rad at the first contact grows, and a few episodes fail. There are three ways of replaying.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Int

from vqbet.contract import Demonstrations, WorldError
from vqbet.tasks.kitchen.world import Kitchen

Way = Literal["targets", "actions", "seed"]
RECORDED_SEED = 123  # of FrankaKitchen-v1's reset before every published episode: explains the initial noise
EXACT = 1e-6  # rad and m: precision of a joint's position in float32
ARM, KETTLE = slice(0, 9), slice(32, 35)  # positions among the observation's channels


def replay(
    env: Kitchen,
    demos: Demonstrations,
    episodes: Int[np.ndarray, " E"],
    *,
    way: Way = "targets",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Play each episode's actions to its end.

    way: "targets" starts from the recorded states and counts each action from the recorded arm position, so that the
    servos follow the same targets as in the recording. "actions" starts from the same states and counts each action
    from the current arm position. "seed" does likewise, but starts from the world's own start with the seed of the
    recording, and so with its noise.

    Returns one array of length E for each of: tasks, mode (number of tasks done, and their order); arm_rad, kettle_m
    (largest difference over the steps between observed and recorded joint positions, for fingers in m, and between
    positions of the kettle); exact_steps (number of observations of the arm, from the first on, that are within EXACT
    of the recorded ones). progress(step, steps) is called after every step. Raises WorldError where the demonstrations
    have no states, have another spec, or outlast the world.
    """
    episodes = np.asarray(episodes, np.int64)
    starts, lengths = demos.episode_starts[episodes], demos.lengths[episodes]
    observation = _started(env, demos, episodes, way)
    rows, longest = np.arange(len(episodes)), int(lengths.max(initial=0))
    arm_rad, kettle_m = np.zeros(len(rows)), np.zeros(len(rows))
    exact_steps, exact = np.zeros(len(rows), np.int64), np.ones(len(rows), np.bool_)
    for step in range(longest):
        recorded = demos.observation[starts[rows] + step].astype(np.float64)
        arm = np.abs(observation - recorded)[:, ARM].max(axis=1)
        kettle = np.linalg.norm((observation - recorded)[:, KETTLE], axis=1)
        arm_rad[rows], kettle_m[rows] = np.maximum(arm_rad[rows], arm), np.maximum(kettle_m[rows], kettle)
        exact[rows] &= arm <= EXACT
        exact_steps[rows] += exact[rows]
        if way == "targets":
            env.suppose(recorded[:, ARM], rows)
        observation, ended = env.step(demos.action[starts[rows] + step], rows)
        running = ~ended & (lengths[rows] > step + 1)
        rows, observation = rows[running], observation[running]
        if progress:
            progress(step + 1, longest)
    metrics = env.metrics()
    measured = {"arm_rad": arm_rad, "kettle_m": kettle_m, "exact_steps": exact_steps}
    return {name: metrics[name] for name in ("tasks", "mode")} | measured


def _started(env: Kitchen, demos: Demonstrations, episodes: np.ndarray, way: Way) -> np.ndarray:
    differences = env.spec.differences(demos.spec)
    if differences:
        raise WorldError("kitchen: replay: these demonstrations are of another spec: " + "; ".join(differences))
    longest = demos.lengths[episodes].max(initial=0)
    if longest > env.max_steps:
        raise WorldError(f"kitchen: replay: an episode has {longest} steps, the world ends after {env.max_steps}")
    if way == "seed":
        return env.reset(np.full(len(episodes), RECORDED_SEED))
    if demos.state is None or demos.stateless[episodes].any():
        raise WorldError("kitchen: replay: these demonstrations hold no states to start from; import them with states")
    return env.restore(demos.state[demos.episode_starts[episodes]])
