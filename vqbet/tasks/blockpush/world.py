"""BlockPush: a planar effector pushes two blocks into two targets, in either pairing and either order.

A clean-room MuJoCo version of the multimodal block pushing task of Implicit Behavioral Cloning (arXiv 2109.00137): the
same observation, action, success rule and layout, on a square table whose frame has its origin at the centre, x to the
right and y away from the effector's start. Blocks slide on the table with dry friction; the effector is an upright
cylinder whose carriage follows its target through a force-limited servo.

Sides "drawn": the block and the target on the left are drawn at random, as published. Sides "fixed": block0 and target0
are always on the left, an easier task. Where a pairing is requested, only blocks in their requested targets count.
"""

from __future__ import annotations

import mujoco
import mujoco.rollout
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from vqbet.contract import Demonstrations, WorldError
from vqbet.tasks.blockpush import picture
from vqbet.tasks.blockpush.spec import CONTROL_HZ, GOAL, MAX_MOVE_M, SPECS, SUCCESS_M, Sides
from vqbet.tasks.checks import refuse

SUBSTEPS = 10  # of 0.01 s
REACH_M = 0.30  # the effector's target stays within +-REACH_M in x and y
FENCE_M = 0.28  # a soft fence holds the blocks' centres within +-FENCE_M
BLOCK_HALF_M = 0.025
EFFECTOR_RADIUS_M = 0.04  # above BLOCK_HALF_M: a pushed face rolls back into line, as a plank does on a log

# A block can slide, turn and lift but not tip. It stands on one contact with torsional friction and an elliptic cone:
# the ellipsoidal limit surface of quasi-static pushing (Howe and Cutkosky 1996). For even pressure under a square of
# side a the largest torque is 0.3826 a mu m g, hence a torsional coefficient of 0.3826 * 0.05 m * 0.4 = 0.0077 m. The
# effector meets blocks at half their height only, so a sphere touches them exactly as an upright cylinder would.
_BLOCK = """
    <body name="{name}">
      <joint class="fence" axis="1 0 0"/><joint class="fence" axis="0 1 0"/>
      <joint axis="0 0 1"/><joint type="hinge" axis="0 0 1"/>
      <geom class="block"/><geom class="foot"/>
    </body>"""
MODEL = f"""
<mujoco model="blockpush">
  <compiler angle="radian"/>
  <option timestep="{1 / (CONTROL_HZ * SUBSTEPS)}" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <default>
    <joint type="slide"/>
    <default class="fence"><joint limited="true" range="-{FENCE_M} {FENCE_M}"/></default>
    <default class="block">
      <geom type="box" size="{BLOCK_HALF_M} {BLOCK_HALF_M} 0.02" mass="0.2" friction="0.3"/>
    </default>
    <default class="foot">
      <geom type="sphere" size="0.02" mass="0" contype="2" conaffinity="0" condim="4" friction="0.4 0.0077"/>
    </default>
  </default>
  <worldbody>
    <geom type="plane" size="1 1 1" pos="0 0 -0.02" contype="0" conaffinity="2" condim="4" friction="0.4 0.0077"/>
    {_BLOCK.format(name="block0")}{_BLOCK.format(name="block1")}
    <body name="effector">
      <joint name="x" axis="1 0 0"/><joint name="y" axis="0 1 0"/>
      <geom type="sphere" size="{EFFECTOR_RADIUS_M}" mass="0.5" friction="0.8" priority="1"/>
    </body>
  </worldbody>
  <actuator>
    <position joint="x" kp="300" kv="24.5" forcerange="-5 5"/>
    <position joint="y" kp="300" kv="24.5" forcerange="-5 5"/>
  </actuator>
</mujoco>
"""


PAIRING_STREAM = 2  # joined with a seed to draw a pairing, so that layouts are the same with and without pairings
PAIRINGS = np.array([[0, 1], [1, 0]])  # the targets of block0 and block1

# Columns of a state row: the state of MuJoCo, the target of the servo, the poses of the targets.
PHYSICS = slice(0, 20)  # position, then velocity: block0 x, y, height, yaw; block1 likewise; effector x, y
BLOCKS = slice(0, 8)
EFFECTOR = slice(8, 10)
SERVO = slice(20, 22)  # effector target x, y
TARGETS = slice(22, 28)  # target0 x, y, yaw; target1 x, y, yaw
STATE = 28
SEEN = [0, 1, 3, 4, 5, 7, 8, 9, 20, 21, 22, 23, 24, 25, 26, 27]  # the observation, before yaws are wrapped
MODES = ("b0-t0", "b0-t1", "b1-t0", "b1-t1")  # the first block to reach a target, and this target


class BlockPush:
    """BlockPush behind `contract.Env`. The result of a row depends on its own state and action alone, bit for bit."""

    max_steps = 350

    def __init__(self, *, sides: Sides = "fixed", asked: bool = False) -> None:
        """asked: each episode requests, by its seed, one of the two PAIRINGS of blocks with targets."""
        self.spec = SPECS[sides]
        self.goal: tuple[str, ...] = GOAL if asked else ()
        self._sides = sides
        self._model = mujoco.MjModel.from_xml_string(MODEL)
        self._data = mujoco.MjData(self._model)
        self._solver = mujoco.rollout.Rollout(nthread=0)  # on the calling thread
        self._begin(np.empty((0, STATE)), np.zeros(0, np.int64))

    def reset(self, seeds: Int[np.ndarray, " E"]) -> Float[np.ndarray, "E 16"]:
        """Start E episodes and return float32 observations; each layout depends on its seed alone."""
        return self._begin(np.array([layout(int(seed), self._sides) for seed in seeds]).reshape(-1, STATE), seeds)

    def restore(
        self, state: Float[np.ndarray, "E 28"], seeds: Int[np.ndarray, " E"] | None = None
    ) -> Float[np.ndarray, "E 16"]:
        """Start E episodes from recorded states; metrics and steps start anew.

        `seeds` select the pairings where they are requested; without, seeds 0, 1, 2 ... do. Raises WorldError for
        invalid states or seeds.
        """
        state = np.asarray(state, np.float64)
        if state.ndim != 2 or state.shape[1] != STATE or not np.isfinite(state).all():
            raise WorldError(f"blockpush: expected finite states of shape (E, {STATE}), got {state.shape}")
        seeds = np.arange(len(state)) if seeds is None else np.asarray(seeds)
        if len(seeds) != len(state):
            raise WorldError(f"blockpush: expected one seed for each of {len(state)} states, got {len(seeds)}")
        return self._begin(state.copy(), seeds)

    def step(
        self, action: Float[np.ndarray, "B 2"], rows: Int[np.ndarray, " B"]
    ) -> tuple[Float[np.ndarray, "B 16"], Bool[np.ndarray, " B"]]:
        """Move the effectors' targets by `action` (metres; a longer move is shortened to MAX_MOVE_M) for 0.1 s.

        Raises WorldError for an action that is not finite or has another shape, and a row that has ended or is unknown.
        """
        move, rows = np.asarray(action, np.float64), np.asarray(rows)
        refuse("blockpush", move, rows, channels=2, steps=self._steps, ended=self._ended)
        state = self._state[rows]
        length = np.sqrt((move**2).sum(axis=1, keepdims=True))
        move = move * (MAX_MOVE_M / np.maximum(length, MAX_MOVE_M))
        state[:, SERVO] = np.clip(state[:, SERVO] + move, -REACH_M, REACH_M)
        state[:, PHYSICS] = self._simulate(state)
        self._state[rows] = state
        self._steps[rows] += 1
        self._judge(rows)
        ended = (self._blocks[rows] == 2) | (self._steps[rows] >= self.max_steps)
        self._ended[rows] = ended
        return self._observe(state), ended

    def state(self) -> Float[np.ndarray, "E 28"]:
        """Return the complete state of every episode, float64; `restore` accepts it."""
        return self._state.copy()

    def goals(self) -> Float[np.ndarray, "E C"]:
        """Return where the blocks shall be: centres (m) of the requested targets; C is 4, or 0 without requests.

        In demonstrations the block pushed first ends about there. The second ends where it came in, at the rim.
        """
        centres = self._state[:, TARGETS].reshape(-1, 2, 3)[..., :2]  # (E, target, xy)
        wanted = np.take_along_axis(centres, PAIRINGS[self._pairing][..., None], axis=1)  # (E, block, xy)
        return wanted.reshape(-1, 4)[:, : len(self.goal)].astype(np.float32)

    def metrics(self) -> dict[str, np.ndarray]:
        """Return score: blocks / 2; blocks: most blocks in distinct targets at once, or in their own where a pairing is
        requested; first_s, both_s: when one and two were, NaN before; mode: the first block to reach a target, and
        this target, whatever was requested."""
        seconds = np.where(self._when < 0, np.nan, self._when / CONTROL_HZ)
        return {
            "score": self._blocks / 2.0,
            "success": self._blocks == 2,
            "mode": self._mode.copy(),
            "blocks": self._blocks.astype(np.float64),
            "first_s": seconds[:, 0],
            "both_s": seconds[:, 1],
        }

    def render(self, row: int) -> UInt8[np.ndarray, "320 320 3"]:
        """Return the table from above, RGB, with the paths of blocks and effector so far."""
        if not 0 <= row < len(self._state):
            raise WorldError(f"blockpush: no episode {row}; there are {len(self._state)}")
        path = self._path[row, : self._steps[row] + 1]
        return picture.draw(
            self._state[row, SEEN[:8]],
            self._state[row, TARGETS].reshape(2, 3),
            path,
            radii_m=(BLOCK_HALF_M, EFFECTOR_RADIUS_M, SUCCESS_M),
            wanted=PAIRINGS[self._pairing[row]] if self.goal else None,  # each pairing is its own inverse
        )

    def _begin(self, state: np.ndarray, seeds: Int[np.ndarray, " E"]) -> np.ndarray:
        count = len(state)
        self._state = state
        self._pairing = np.array([pairing(int(seed)) for seed in seeds] if self.goal else [0] * count, np.int64)
        self._steps = np.zeros(count, np.int64)
        self._ended = np.zeros(count, np.bool_)
        self._blocks = np.zeros(count, np.int64)
        self._mode = np.full(count, "", dtype="<U5")
        self._when = np.full((count, 2), -1, np.int64)
        self._path = np.zeros((count, self.max_steps + 1, 8), np.float32)
        self._judge(np.arange(count))
        return self._observe(state)

    def _simulate(self, state: np.ndarray) -> np.ndarray:
        """Return positions and velocities (B, 20) a control step later. The solver starts cold: rows keep no memory."""
        count = len(state)
        if not count:
            return state[:, PHYSICS]
        initial = np.concatenate([np.zeros((count, 1)), state[:, PHYSICS]], axis=1)  # (B, 21), the first is the clock
        control = np.repeat(state[:, None, SERVO], SUBSTEPS, axis=1)  # (B, SUBSTEPS, 2)
        after, _ = self._solver.rollout(self._model, self._data, initial, control)
        return after[:, -1, 1:]

    def _judge(self, rows: np.ndarray) -> None:
        """Record, for these rows, positions, the blocks in each target, and the first events."""
        state, steps = self._state[rows], self._steps[rows]
        self._path[rows, steps] = state[:, SEEN[:8]]
        blocks = state[:, BLOCKS].reshape(-1, 2, 1, 4)[..., :2]  # (B, 2, 1, xy)
        targets = state[:, TARGETS].reshape(-1, 1, 2, 3)[..., :2]  # (B, 1, 2, xy)
        inside = ((blocks - targets) ** 2).sum(axis=-1) <= SUCCESS_M**2  # (B, block, target)
        paired = np.stack([inside[:, [0, 1], places].sum(axis=1) for places in PAIRINGS], axis=1)  # (B, pairing)
        placed = paired[np.arange(len(rows)), self._pairing[rows]] if self.goal else paired.max(axis=1)
        flat = inside.reshape(-1, 4)
        for row in np.flatnonzero(flat.any(axis=1) & (self._mode[rows] == "")):
            self._mode[rows[row]] = MODES[flat[row].argmax()]
        for column in (0, 1):
            now = (placed > column) & (self._when[rows, column] < 0)
            self._when[rows[now], column] = steps[now]
        self._blocks[rows] = np.maximum(self._blocks[rows], placed)

    @staticmethod
    def _observe(state: np.ndarray) -> np.ndarray:
        seen = state[:, SEEN]
        yaw = seen[:, 2:6:3]
        seen[:, 2:6:3] = yaw - 2 * np.pi * np.floor(yaw / (2 * np.pi) + 0.5)
        return seen.astype(np.float32)


def asking(demos: Demonstrations, *, sides: Sides = "fixed") -> BlockPush:
    """Return the world that requests a pairing in each episode, by its seed; demonstrations are not used."""
    return BlockPush(sides=sides, asked=True)


def layout(seed: int, sides: Sides = "fixed") -> Float[np.ndarray, " 28"]:
    """Return the initial state of the episode with this seed: two blocks side by side, two targets beyond them.

    The drawn layout is the fixed one, where the blocks may have changed places, and the targets may.
    """
    if seed < 0:
        raise WorldError(f"blockpush: expected a seed of 0 or more, got {seed}")
    rng = np.random.default_rng(seed)
    state = np.zeros(STATE)
    for name, y, spread, stride in ((BLOCKS, -0.08, 0.03, 4), (TARGETS, 0.17, 0.02, 3)):
        poses = state[name].reshape(2, stride)  # a view
        poses[:, :2] = np.array([[-0.12, y], [0.12, y]]) + rng.uniform(-spread, spread, size=(2, 2))
        poses[:, -1] = rng.uniform(-np.pi / 4, np.pi / 4, size=2)  # of a square: every orientation there is
    state[EFFECTOR] = state[SERVO] = rng.uniform([-0.15, -0.28], [0.15, -0.22])
    if sides == "drawn":
        for name, changed in zip((BLOCKS, TARGETS), rng.integers(2, size=2), strict=True):
            state[name] = np.roll(state[name].reshape(2, -1), changed, axis=0).ravel()
    return state


def pairing(seed: int) -> int:
    """Return the index into PAIRINGS that the episode with this seed requests."""
    return int(np.random.default_rng([seed, PAIRING_STREAM]).integers(len(PAIRINGS)))
