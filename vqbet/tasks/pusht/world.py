"""Push-T: a round finger pushes a T over a table until it covers its goal. Many episodes at once.

The physics is gym-pusht's (pymunk, 100 Hz, a PD controller, Diffusion Policy's constants) and agrees with it to the
last bit. The speed comes from everything around it: no callbacks, no drawing, and the coverage of all episodes in one
expression (`vqbet.tasks.pusht.geometry`). Where gym-pusht leaves a choice, VQ-BeT (arXiv 2403.03181) is followed: the
observation is nine keypoints and the finger, and an episode always lasts `max_steps`, whatever is covered.

With `goal_poses` every episode requests one of them instead of the one goal of gym-pusht. This is VQ-BeT's
goal-conditioned Push-T, whose goals are poses that demonstrations pass through (`demonstrated_poses`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pymunk
from gym_pusht.envs.pusht import PushTEnv
from gymnasium.utils import seeding
from jaxtyping import Bool, Float, Int, UInt8

from vqbet.contract import GOAL_PICTURES, Demonstrations, Pictures, Spec, WorldError, goal_channels
from vqbet.tasks.checks import refuse, told
from vqbet.tasks.pusht.camera import pictures
from vqbet.tasks.pusht.geometry import GOAL_POSE, KEYPOINTS_PX, WALLS, WINDOW_PX, coverage, placed
from vqbet.tasks.pusht.picture import draw
from vqbet.tasks.pusht.spec import CAMERA, GOAL, SEEN, SPEC

SUBSTEP_S = 0.01
SUBSTEPS = 10
STIFFNESS, DAMPING = 100.0, 20.0  # of the PD controller that moves the finger
SUCCESS_COVERAGE = 0.95
SEGMENT = 5  # steps: VQ-BeT's goal is the last pose of a random segment of a demonstration
GOAL_STREAM = 1  # joined with a seed to draw a goal, so that starts are the same with and without goals

START_PX = ((50, 450), (50, 450), (100, 400), (100, 400))  # agent x, y, block x, y, upper ends excluded


def demonstrated_poses(demos: Demonstrations) -> Float[np.ndarray, "M 3"]:
    """Return the block poses (x px, y px, angle rad) of `demonstrated_states`. Raises likewise."""
    return demonstrated_states(demos, SPEC)[:, 2:]


def demonstrated_states(demos: Demonstrations, spec: Spec) -> Float[np.ndarray, "M 5"]:
    """Return all states (agent x, y, block x, y in px, angle in rad) that end a segment of SEGMENT steps.

    The first SEGMENT - 1 poses of a demonstration end no segment. Raises WorldError for demonstrations of another
    world, without states, or without such poses.
    """
    differences = spec.differences(demos.spec)
    if differences:
        raise WorldError("pusht: goals: these demonstrations are of another spec: " + "; ".join(differences))
    if demos.state is None or demos.stateless.all():
        raise WorldError("pusht: goals: these demonstrations hold no states to take poses from; import with states")
    step = np.arange(len(demos.state)) - np.repeat(demos.episode_starts, demos.lengths)
    states = demos.state[(step >= SEGMENT - 1) & ~np.repeat(demos.stateless, demos.lengths), :5]
    if not len(states):
        raise WorldError(f"pusht: goals: expected a demonstration of {SEGMENT} steps or more, got none")
    return states


@dataclass(frozen=True, slots=True)
class Table:
    """Physics of one episode: four walls, the finger (kinematic) and the block, as gym-pusht builds them."""

    space: pymunk.Space
    agent: pymunk.Body
    block: pymunk.Body

    @classmethod
    def build(cls) -> Table:
        space = pymunk.Space()
        space.gravity = 0, 0
        space.damping = 0.0
        space.add(*[PushTEnv.add_segment(space, start, end, 2) for start, end in WALLS])
        agent = PushTEnv.add_circle(space, (256, 400), 15)
        block, _ = PushTEnv.add_tee(space, (256, 300), 0)
        return cls(space, agent, block)

    def draw_start(self, seed: int) -> None:
        """Set the start that gym-pusht's `reset(seed)` draws, its order of assignments and settling substep included.

        There the position is set before the angle, which then turns the block about its centre of gravity. So the block
        does not start at the drawn position. Use `place` to restore a recorded state.
        """
        generator, _ = seeding.np_random(seed)
        agent_x, agent_y, block_x, block_y = (float(generator.integers(*range_px)) for range_px in START_PX)
        self.agent.position = agent_x, agent_y
        self.block.position = block_x, block_y
        self.block.angle = generator.uniform(-np.pi, np.pi)
        self.space.step(SUBSTEP_S)

    def place(self, agent_x: float, agent_y: float, block_x: float, block_y: float, angle: float) -> None:
        """Set exactly this state, at rest: the angle first (it moves the block), and no physics afterwards."""
        self.block.angle = angle
        self.block.position = block_x, block_y
        self.agent.position = agent_x, agent_y
        for body in (self.agent, self.block):
            body.velocity = 0.0, 0.0
            body.angular_velocity = 0.0
            self.space.reindex_shapes_for_body(body)

    def advance(self, velocities: list[tuple[float, float]]) -> None:
        """Simulate one substep for each velocity of the finger, px/s."""
        agent, step = self.agent, self.space.step
        for velocity in velocities:
            agent.velocity = velocity
            step(SUBSTEP_S)

    def state(self) -> tuple[float, ...]:
        """Return agent x, agent y, block x, block y (px) and the block's angle (rad, not wrapped)."""
        return *self.agent.position, *self.block.position, self.block.angle


class PushT:
    """Push-T behind `contract.Env`; with `camera`, behind `contract.SeenEnv`.

    Metrics: "final_coverage" (of the current state), "max_coverage" and "success" (over the states after a step:
    coverage above 0.95 at least once), "score" = final coverage, which is VQ-BeT's measure. Coverage is of gym-pusht's
    goal or, with `goal_poses`, of the pose that the episode requests. Actions are clipped to the
    window. With `camera`, a goal is a picture.
    """

    def __init__(
        self,
        *,
        max_steps: int = 300,
        goal_poses: Float[np.ndarray, "M 3"] | None = None,
        goal_agents: Float[np.ndarray, "M 2"] | None = None,
        camera: bool = False,
    ) -> None:
        """goal_poses: x, y (px) and angle (rad) of the block. Raises WorldError unless they are finite poses.

        camera: the world of `SEEN`, whose observation is the finger alone, beside gym-pusht's picture. goal_agents:
        where the finger is in the pictures of its goals.
        """
        self.spec = SEEN if camera else SPEC
        self.max_steps = max_steps
        self.goal = () if goal_poses is None else (GOAL_PICTURES,) if camera else GOAL
        self._goal_poses = GOAL_POSE[None] if goal_poses is None else np.array(goal_poses, np.float64)
        self._goal_agents = np.zeros((len(self._goal_poses), 2)) if goal_agents is None else np.asarray(goal_agents)
        shape, poses = (max(1, len(self._goal_poses)), 3), self._goal_poses
        if poses.shape != shape or not np.isfinite(poses).all():
            raise WorldError(f"pusht: goals: expected finite poses of shape (M, 3), got {told(poses)}")
        self._tables: list[Table] = []
        self._start(np.zeros(0, np.int64))

    def reset(self, seeds: Int[np.ndarray, " E"]) -> Float[np.ndarray, "E 20"]:
        """Start one episode per seed where gym-pusht's `reset(seed)` would start it. Raises WorldError."""
        seeds = _checked(seeds)
        self._start(seeds)
        for table, seed in zip(self._tables, seeds, strict=True):
            table.draw_start(int(seed))
        return self._begin()

    def restore(
        self, state: Float[np.ndarray, "E 5"], seeds: Int[np.ndarray, " E"] | None = None
    ) -> Float[np.ndarray, "E 20"]:
        """Start one episode per recorded state (agent x, y, block x, y in px, angle in rad), at rest.

        `seeds` select the goals, if any; without, seeds 0, 1, 2 ... do. Raises WorldError for another shape or a number
        that is not finite.
        """
        state = np.asarray(state, np.float64)
        if state.ndim != 2 or state.shape[1] != 5 or not np.isfinite(state).all():
            raise WorldError(f"pusht: restore: expected finite states of shape (E, 5), got {told(state)}")
        seeds = np.arange(len(state)) if seeds is None else _checked(seeds)
        if len(seeds) != len(state):
            raise WorldError(f"pusht: restore: expected one seed for each of {len(state)} states, got {len(seeds)}")
        self._start(seeds)
        for table, row in zip(self._tables, state.tolist(), strict=True):
            table.place(*row)
        return self._begin()

    def step(
        self, action: Float[np.ndarray, "B 2"], rows: Int[np.ndarray, " B"]
    ) -> tuple[Float[np.ndarray, "B 20"], Bool[np.ndarray, " B"]]:
        """Simulate 0.1 s for the episodes in `rows`. Raises WorldError for invalid actions or rows."""
        action, rows = np.asarray(action, np.float64), np.asarray(rows)
        refuse("pusht", action, rows, channels=2, steps=self._steps, ended=self._steps >= self.max_steps)
        target = np.clip(action, 0.0, WINDOW_PX)
        velocities = self._controlled(target, rows)
        for row, moves in zip(rows.tolist(), velocities.tolist(), strict=True):
            self._tables[row].advance(moves)
        self._velocity[rows] = velocities[:, -1]
        self._target[rows] = target
        self._steps[rows] += 1
        state = np.array([self._tables[row].state() for row in rows.tolist()]).reshape(-1, 5)
        moved = (state[:, 2:] != self._state[rows, 2:]).any(axis=1)
        self._state[rows] = state
        if moved.any():
            self._coverage[rows[moved]] = self._covered(rows[moved])
        self._best[rows] = np.maximum(self._best[rows], self._coverage[rows])
        return self._observed(rows), self._steps[rows] >= self.max_steps

    def state(self) -> Float[np.ndarray, "E 5"]:
        """Return agent x, y, block x, y (px) and the block's angle (rad, not wrapped) of every episode."""
        return self._state.copy()

    def goals(self) -> Float[np.ndarray, "E C"]:
        """Return the keypoints (px) of the pose that each episode requests; C is 18, or 0 without or with pictures."""
        keypoints = placed(KEYPOINTS_PX, self._asked).reshape(-1, KEYPOINTS_PX.size)
        return keypoints[:, : len(goal_channels(self.goal))].astype(np.float32)

    def metrics(self) -> dict[str, np.ndarray]:
        """Return score, success, final_coverage and max_coverage of every episode so far."""
        return {
            "score": np.clip(self._coverage, 0.0, 1.0),
            "success": self._best > SUCCESS_COVERAGE,
            "final_coverage": self._coverage.copy(),
            "max_coverage": self._best.copy(),
        }

    def cameras(self, rows: Int[np.ndarray, " B"]) -> Pictures:
        """Return the picture of the running episodes in `rows`, over gym-pusht's own goal as in demonstrations."""
        return {CAMERA.name: pictures(self._state[rows])}

    def goal_cameras(self) -> Pictures:
        """Return the picture of the state that each episode requests."""
        return {CAMERA.name: pictures(np.concatenate([self._goal_agents[self._picks], self._asked], axis=1))}

    def render(self, row: int) -> UInt8[np.ndarray, "320 320 3"]:
        """Return an RGB picture of one episode: goal, block, finger, its last target, and the coverage."""
        return draw(self._state[row], self._target[row], self._coverage[row], goal=self._asked[row])

    def _start(self, seeds: Int[np.ndarray, " E"]) -> None:
        count = len(seeds)
        self._tables = [Table.build() for _ in range(count)]
        self._picks = self._picked(seeds)
        self._asked = self._goal_poses[self._picks]  # (E, 3)
        self._state = np.zeros((count, 5))
        self._velocity = np.zeros((count, 2))
        self._target = np.full((count, 2), np.nan)
        self._steps = np.zeros(count, np.int64)
        self._coverage = np.zeros(count)
        self._best = np.zeros(count)

    def _begin(self) -> Float[np.ndarray, "E 20"]:
        self._state = np.array([table.state() for table in self._tables]).reshape(-1, 5)
        rows = np.arange(len(self._tables))
        self._coverage = self._covered(rows)
        return self._observed(rows)

    def _picked(self, seeds: Int[np.ndarray, " E"]) -> Int[np.ndarray, " E"]:
        """Return the index of the goal pose that each seed requests."""
        if not self.goal:
            return np.zeros(len(seeds), np.int64)
        count = len(self._goal_poses)
        return np.array([np.random.default_rng([int(seed), GOAL_STREAM]).integers(count) for seed in seeds], np.int64)

    def _covered(self, rows: Int[np.ndarray, " B"]) -> Float[np.ndarray, " B"]:
        return coverage(self._state[rows, 2:], self._asked[rows] if self.goal else GOAL_POSE)

    def _controlled(self, target: Float[np.ndarray, "B 2"], rows: Int[np.ndarray, " B"]) -> np.ndarray:
        """Return the finger's velocity in each substep, (B, SUBSTEPS, 2) px/s.

        Nothing pushes a kinematic body, so its whole motion is known before the physics runs.
        """
        position, velocity = self._state[rows, :2], self._velocity[rows]
        velocities = np.empty((len(rows), SUBSTEPS, 2))
        for index in range(SUBSTEPS):
            acceleration = STIFFNESS * (target - position) + DAMPING * (0.0 - velocity)
            velocity = velocity + acceleration * SUBSTEP_S
            position = position + velocity * SUBSTEP_S
            velocities[:, index] = velocity
        return velocities

    def _observed(self, rows: Int[np.ndarray, " B"]) -> Float[np.ndarray, "B 20"]:
        if self.spec.cameras:
            return self._state[rows, :2].astype(np.float32)
        keypoints = placed(KEYPOINTS_PX, self._state[rows, 2:]).reshape(-1, KEYPOINTS_PX.size)
        return np.concatenate([keypoints, self._state[rows, :2]], axis=1).astype(np.float32)


def asking(demos: Demonstrations) -> PushT:
    """Return the world whose goals are poses that these demonstrations pass through."""
    return PushT(goal_poses=demonstrated_poses(demos))


def asking_pictures(demos: Demonstrations) -> PushT:
    """Return the world that asks for pictures of states that these demonstrations pass through."""
    states = demonstrated_states(demos, SEEN)
    return PushT(goal_poses=states[:, 2:], goal_agents=states[:, :2], camera=True)


def _checked(seeds: np.ndarray) -> Int[np.ndarray, " E"]:
    seeds = np.asarray(seeds)
    if seeds.ndim != 1 or not np.issubdtype(seeds.dtype, np.integer) or (seeds < 0).any():
        raise WorldError(f"pusht: expected whole, non-negative seeds of shape (E,), got {seeds!r}")
    return seeds
