"""Franka Kitchen: a seven-joint arm opens, turns and moves things in a kitchen. Many episodes at once, on all cores.

Model, start, limits, noise and completion rule are read from gymnasium-robotics' FrankaKitchen-v1 (Relay Policy
Learning, arXiv 1910.11956; D4RL, arXiv 2004.07219), and an episode agrees with it to the last bit, noise included. The
batch is new: MuJoCo runs outside Python's lock, so as many threads as there are cores step the rows. As in VQ-BeT
(arXiv 2403.03181) all seven tasks count by default, each once, and the score is out of four.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from vqbet.contract import GOAL_PICTURES, Demonstrations, Pictures, Spec, WorldError, goal_channels
from vqbet.tasks.checks import refuse, told
from vqbet.tasks.kitchen import picture
from vqbet.tasks.kitchen.camera import pictures
from vqbet.tasks.kitchen.completion import DEMONSTRATED
from vqbet.tasks.kitchen.reference import TASKS, mujoco, reference
from vqbet.tasks.kitchen.spec import ARM, CAMERA, CONTROL_HZ, GOAL, SEEN, SPEC

SUBSTEPS = 40  # of 0.002 s
ENOUGH = 4  # tasks for a full score: as many as one demonstration shows

# Columns of a row: the state of MuJoCo and, last, the warm start of its solver.
POSITION, VELOCITY, PHYSICS, ROW = slice(0, 30), slice(30, 59), slice(0, 59), 88
OBSERVED = np.r_[0:9, 30:39, 9:30, 39:59]  # the observation's order: of the arm, then of the objects
STORED = int(mujoco.mjtState.mjSTATE_QPOS | mujoco.mjtState.mjSTATE_QVEL | mujoco.mjtState.mjSTATE_WARMSTART)
GOAL_STREAM = 1  # joined with a seed to draw a goal, so that noise is the same with and without goals


class Physics:
    """Control steps of independent rows, `threads` of them at a time."""

    def __init__(self, model: mujoco.MjModel, threads: int) -> None:
        self._model, self._threads = model, threads
        self._data: list[mujoco.MjData] = []
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="kitchen") if threads > 1 else None

    def advance(self, state: Float[np.ndarray, "B 88"], control: Float[np.ndarray, "B 9"]) -> list[int]:
        """Advance every row of `state` by one control step, in place; return the rows that became unstable."""
        workers = min(self._threads, len(state))
        self._data += [mujoco.MjData(self._model) for _ in range(workers - len(self._data))]
        waiting, unstable = deque(range(len(state))), deque[int]()

        def work(data: mujoco.MjData) -> None:
            while True:
                try:
                    row = waiting.popleft()
                except IndexError:
                    return
                if not self._advance(data, state[row], control[row]):
                    unstable.append(row)

        if self._pool is None or workers < 2:
            for data in self._data[:workers]:
                work(data)
        else:
            list(self._pool.map(work, self._data[:workers]))  # the list raises the exceptions of the threads
        return sorted(unstable)

    def _advance(self, data: mujoco.MjData, state: Float[np.ndarray, " 88"], control: Float[np.ndarray, " 9"]) -> bool:
        """Advance one row in place. Return False where MuJoCo gave up and reset the kitchen."""
        mujoco.mj_setState(self._model, data, state, STORED)
        data.ctrl[:] = control
        mujoco.mj_step(self._model, data, SUBSTEPS)
        mujoco.mj_getState(self._model, data, state, STORED)
        warned = data.warning.number.any()
        if warned:
            mujoco.mj_resetData(self._model, data)
        return not warned


class Kitchen:
    """Franka Kitchen behind `contract.Env`; with `camera`, behind `contract.SeenEnv`.

    Metrics: "tasks" done, "score" = their share of four (of all, where fewer count), "success" = full score, "mode" =
    the tasks done in their order, joined by ">", and "<task>_s", when each was done for the first time, NaN where not.
    A task stays done, whatever happens to it later. Actions are clipped to [-1, 1]. With `camera`, a goal is a picture.
    """

    max_steps = 280

    def __init__(
        self,
        *,
        tasks: Sequence[str] = TASKS,
        goals: Float[np.ndarray, "M 21"] | None = None,
        observation_noise: float = 1.0,
        threads: int = 0,
        goal_arms: Float[np.ndarray, "M 9"] | None = None,
        camera: bool = False,
    ) -> None:
        """tasks: those that count. goals: configurations of the objects; each episode's seed picks one of them as its
        goal. observation_noise: factor on FrankaKitchen-v1's own. threads: 0 for as many as there are cores; they do
        not change an episode, which depends on its own seed and actions alone.

        camera: the world of `SEEN`, whose observation is the arm alone, beside MuJoCo's picture of the state without
        noise. goal_arms: joint positions of the arm in the pictures of its goals. Raises WorldError.
        """
        unknown = [task for task in tasks if task not in TASKS]
        if unknown or not tasks or len(set(tasks)) != len(tasks):
            raise WorldError(f"kitchen: tasks: expected different ones of {', '.join(TASKS)}; got {list(tasks)}")
        if not (np.isfinite(observation_noise) and observation_noise >= 0):
            raise WorldError(f"kitchen: observation_noise: expected a finite number >= 0, got {observation_noise}")
        self.tasks = tuple(task for task in TASKS if task in tasks)
        self.spec: Spec = SEEN if camera else SPEC
        self.goal = () if goals is None else (GOAL_PICTURES,) if camera else GOAL
        self._offered = np.zeros((1, 0), np.float32) if goals is None else _configurations(goals)
        self._reference = reference()
        resting = np.tile(self._reference.start[: len(ARM)], (len(self._offered), 1))
        self._goal_arms = resting if goal_arms is None else np.asarray(goal_arms, np.float64)
        self._noise = observation_noise * self._reference.noise
        self._physics = Physics(self._reference.model, threads or _cores())
        self._begin(np.zeros((0, ROW)), [], np.zeros(0, np.int64))

    def reset(self, seeds: Int[np.ndarray, " E"]) -> Float[np.ndarray, "E 59"]:
        """Start one episode per seed as FrankaKitchen-v1's `reset(seed)` does: the same start, with its own noise."""
        seeds = _seeds(seeds)
        state = np.zeros((len(seeds), ROW))
        state[:, POSITION] = self._reference.start
        return self._begin(state, [np.random.default_rng(int(seed)) for seed in seeds], seeds)

    def restore(
        self, state: Float[np.ndarray, "E 59"], seeds: Int[np.ndarray, " E"] | None = None
    ) -> Float[np.ndarray, "E 59"]:
        """Start one episode per recorded state: 30 positions, then 29 velocities, in the model's order.

        Without seeds there is no noise, and the goals are those of seeds 0, 1, 2 ... Raises WorldError for another
        shape or a number that is not finite.
        """
        state = np.asarray(state, np.float64)
        if state.ndim != 2 or state.shape[1] != 59 or not np.isfinite(state).all():
            raise WorldError(f"kitchen: restore: expected finite states of shape (E, 59), got {told(state)}")
        numbers = np.arange(len(state)) if seeds is None else _seeds(seeds)
        if len(numbers) != len(state):
            raise WorldError(f"kitchen: restore: expected one seed for each of {len(state)} states, got {len(numbers)}")
        generators = [] if seeds is None else [np.random.default_rng(int(seed)) for seed in numbers]
        return self._begin(np.pad(state, ((0, 0), (0, ROW - 59))), generators, numbers)

    def step(
        self, action: Float[np.ndarray, "B 9"], rows: Int[np.ndarray, " B"]
    ) -> tuple[Float[np.ndarray, "B 59"], Bool[np.ndarray, " B"]]:
        """Simulate 0.08 s for the episodes in `rows`, which end after max_steps or when all tasks are done.

        Raises WorldError for invalid actions or rows, and where the simulation became unstable.
        """
        action, rows = np.asarray(action, np.float64), np.asarray(rows)
        refuse("kitchen", action, rows, channels=9, steps=self._steps, ended=self._ended)
        state = self._state[rows]
        unstable = self._physics.advance(state, self._controlled(action, rows))
        if unstable:
            row = rows[unstable[0]]
            raise WorldError(
                f"kitchen: the simulation of episode {row} became unstable in step {self._steps[row] + 1}; "
                f"its last action was {action[unstable[0]].round(3).tolist()}"
            )
        self._state[rows] = state
        self._steps[rows] += 1
        self._judge(rows)
        self._ended[rows] = (self._when[rows] >= 0).all(axis=1) | (self._steps[rows] >= self.max_steps)
        return self._observe(rows), self._ended[rows]

    def suppose(self, position: Float[np.ndarray, "B 9"], rows: Int[np.ndarray, " B"]) -> None:
        """Count the next actions of these episodes from these joint positions instead of the last observed ones.

        In replays the servos then follow the same targets as when the positions were recorded.
        """
        self._known[rows] = position

    def state(self) -> Float[np.ndarray, "E 59"]:
        """Return positions and velocities of every episode; `restore` accepts them. The solver's memory is left out."""
        return self._state[:, PHYSICS].copy()

    def goals(self) -> Float[np.ndarray, "E C"]:
        """Return the goal of each episode: the `goal` channels of one given configuration; no columns without goals, or
        where goals are pictures."""
        return self._goals[:, : len(goal_channels(self.goal))].copy()

    def metrics(self) -> dict[str, np.ndarray]:
        """Return score, success, tasks, mode and the time at which each task was done, of every episode so far."""
        done = self._when >= 0
        seconds = np.where(done, self._when / CONTROL_HZ, np.nan)
        count, enough = done.sum(axis=1), min(ENOUGH, len(self.tasks))
        modes = [self._mode(when) for when in self._when]
        return {
            "score": np.minimum(count, enough) / enough,
            "success": count >= enough,
            "mode": np.array(modes, dtype=f"<U{len('>'.join(TASKS))}"),
            "tasks": count.astype(np.float64),
            **{f"{task.replace(' ', '_')}_s": seconds[:, index] for index, task in enumerate(self.tasks)},
        }

    def cameras(self, rows: Int[np.ndarray, " B"]) -> Pictures:
        """Return the picture of the running episodes in `rows`. Raises WorldError where MuJoCo cannot draw."""
        return {CAMERA.name: pictures(self._state[rows, POSITION])}

    def goal_cameras(self) -> Pictures:
        """Return the picture of the configuration that each episode requests. Raises WorldError likewise."""
        return {CAMERA.name: pictures(np.concatenate([self._goal_arms[self._picks], self._goals], axis=1))}

    def render(self, row: int) -> UInt8[np.ndarray, "320 320 3"]:
        """Return an RGB picture of one episode: arm and kitchen, and below, a lamp for each task."""
        if not 0 <= row < len(self._state):
            raise WorldError(f"kitchen: no episode {row}; there are {len(self._state)}")
        lamps = dict(zip(self.tasks, (self._when[row] >= 0).tolist(), strict=True))
        return picture.draw(self._reference.model, self._state[row, POSITION], lamps)

    def _begin(self, state: np.ndarray, generators: list[np.random.Generator], seeds: np.ndarray) -> np.ndarray:
        count = len(state)
        self._state, self._generators = state, generators
        self._steps = np.zeros(count, np.int64)
        self._ended = np.zeros(count, np.bool_)
        self._when = np.full((count, len(self.tasks)), -1, np.int64)
        self._known = np.zeros((count, 9))  # the arm as last observed, noise included: the reference of actions
        picks = [np.random.default_rng([int(seed), GOAL_STREAM]).integers(len(self._offered)) for seed in seeds]
        self._picks = np.array(picks, np.int64)
        self._goals = self._offered[self._picks]
        return self._observe(np.arange(count))

    def _controlled(self, action: np.ndarray, rows: np.ndarray) -> Float[np.ndarray, "B 9"]:
        """Return joint positions for the servos: the observed arm position plus the commanded velocity for one step."""
        speed = np.clip(np.clip(action, -1.0, 1.0) * self._reference.speed, *self._reference.speeds)
        step_s = SUBSTEPS * self._reference.model.opt.timestep
        return np.clip(self._known[rows] + speed * step_s, *self._reference.reach)

    def _observe(self, rows: np.ndarray) -> Float[np.ndarray, "B 59"]:
        seen = self._state[rows][:, OBSERVED]
        if self._generators:
            seen += self._noise * np.array([self._generators[row].uniform(-1, 1, 59) for row in rows]).reshape(-1, 59)
        self._known[rows] = seen[:, :9]
        return seen[:, : len(self.spec.observation)].astype(np.float32)

    def _judge(self, rows: np.ndarray) -> None:
        """Record which tasks are done for the first time, by FrankaKitchen-v1's rule on positions without noise."""
        position = self._state[rows, POSITION]
        for column, task in enumerate(self.tasks):
            indices, goal = self._reference.wanted[task]
            near = np.linalg.norm(position[:, indices] - goal, axis=1) < self._reference.near
            first = rows[near & (self._when[rows, column] < 0)]
            self._when[first, column] = self._steps[first]

    def _mode(self, when: np.ndarray) -> str:
        order = np.argsort(when, kind="stable")
        return ">".join(self.tasks[index] for index in order if when[index] >= 0)


def asking(demos: Demonstrations) -> Kitchen:
    """Return the world in which the demonstrated tasks count and the goals are the ends of these demonstrations."""
    return Kitchen(tasks=DEMONSTRATED, goals=goal_configurations(demos))


def asking_pictures(demos: Demonstrations) -> Kitchen:
    """Return the world of `asking` in which goals are pictures of the ends of these demonstrations, the arm included.

    Raises WorldError for another world's, or where none holds states.
    """
    differences = SEEN.differences(demos.spec)
    if differences:
        raise WorldError("kitchen_image: goals: these demonstrations are of another spec: " + "; ".join(differences))
    if demos.state is None or demos.stateless.all():
        raise WorldError("kitchen_image: goals: these demonstrations hold no states to draw; import them with states")
    ends = demos.state[demos.episode_ends[~demos.stateless] - 1, POSITION]
    arms, objects = ends[:, : len(ARM)], ends[:, len(ARM) :]
    return Kitchen(tasks=DEMONSTRATED, goals=objects, goal_arms=arms, camera=True)


def goal_configurations(demos: Demonstrations) -> Float[np.ndarray, "M 21"]:
    """Return the positions of the objects at the end of each demonstration. Raises WorldError for another world's."""
    differences = SPEC.differences(demos.spec)
    if differences:
        raise WorldError("kitchen: goals: these demonstrations are of another spec: " + "; ".join(differences))
    return demos.observation[demos.episode_ends - 1, 18:39]


def _configurations(goals: np.ndarray) -> np.ndarray:
    goals = np.asarray(goals, np.float32)
    if goals.ndim != 2 or goals.shape[1] != len(GOAL) or not len(goals) or not np.isfinite(goals).all():
        raise WorldError(f"kitchen: goals: expected finite configurations of shape (M, {len(GOAL)}), got {told(goals)}")
    return goals


def _seeds(seeds: np.ndarray) -> np.ndarray:
    seeds = np.asarray(seeds)
    if seeds.ndim != 1 or not np.issubdtype(seeds.dtype, np.integer) or (seeds < 0).any():
        raise WorldError(f"kitchen: expected whole, non-negative seeds of shape (E,), got {seeds!r}")
    return seeds


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
