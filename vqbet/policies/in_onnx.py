"""Planner computed by onnxruntime, on one thread: a policy without torch. Needs the extra `serve`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, final

import numpy as np
from jaxtyping import Float

from vqbet.contract import BundleError, Camera, Pictures
from vqbet.policies.actor import Planned, Undecided

OBSERVATION, UNIFORM, GOAL = "observation", "uniform", "goal"  # inputs of a graph
CHUNK, CODES, SUMS = "chunk", "codes", "sums"  # outputs; with SIGNALS of `policies.actor`, "signals" too
CAMERA, FEATURES = "camera/", "features"  # inputs, before a camera's name, and output of a graph of eyes
Ends = Mapping[str, tuple[str, tuple[int, ...]]]  # type and shape without batch, by name
FATAL = 4  # onnxruntime's severity: its errors are raised as exceptions besides


@dataclass(frozen=True, slots=True)
class GraphShape:
    """Numbers of a graph, as in `policies.actor.Planner`. signals: S, numbers per plan besides chunk and codes.

    features: F numbers of the pictures of a step, behind the observation's; of a policy with cameras.
    """

    window: int
    chunk: int
    channels: tuple[int, int, int]
    goal_steps: int
    draws: int
    tags: int
    signals: int
    features: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the shape as JSON; without features it has no key for them, as before there were any."""
        value = {**asdict(self), "channels": list(self.channels)}
        return value if self.features else {key: item for key, item in value.items() if key != "features"}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> GraphShape:
        """Return the shape that `to_json` wrote. Raises KeyError, TypeError or ValueError for anything else."""
        shape = cls(**{**value, "channels": tuple(value["channels"])})
        counts = (shape.goal_steps, shape.draws, shape.tags, shape.signals, shape.features)
        numbers = (shape.window, shape.chunk, *shape.channels, *counts)
        if len(shape.channels) != 3 or any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError(f"expected whole numbers, three of them channels, got {numbers}")
        return shape

    def inputs(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the type and the shape without batch of each input."""
        observation, _, goal = self.channels
        seen = (self.window, observation + self.features)
        given = {OBSERVATION: ("tensor(float)", seen), UNIFORM: ("tensor(double)", (self.draws,))}
        return {**given, GOAL: ("tensor(float)", (self.goal_steps, goal))} if self.goal_steps else given

    def outputs(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the type and the shape without batch of each output."""
        found: dict[str, tuple[str, tuple[int, ...]]] = {
            CHUNK: ("tensor(float)", (self.chunk, self.channels[1])),
            CODES: ("tensor(int64)", (self.tags,)),
        }
        if self.signals:
            found["signals"] = ("tensor(float)", (self.signals,))
        return {**found, SUMS: ("tensor(double)", ())}


@final
class InOnnx:
    """A `policies.actor.Planner`, with `cameras` a `SeeingPlanner`, over the graphs of `policies.to_onnx`.

    graph, eyes: contents of ONNX files; nothing else is read. eyes: of a policy with cameras. Observations beyond 1e19
    of their ranges, for which torch's layer norms overflow, may be decided here; a session refuses them before. Raises
    BundleError, naming `where`, for a file that onnxruntime does not run or whose inputs and outputs are not those of
    `shape`.
    """

    def __init__(
        self,
        graph: bytes,
        shape: GraphShape,
        *,
        eyes: bytes = b"",
        cameras: tuple[Camera, ...] = (),
        where: str = "graph",
    ) -> None:
        self.window, self.chunk, self.channels = shape.window, shape.chunk, shape.channels
        self.goal_steps, self.draws, self.tags = shape.goal_steps, shape.draws, shape.tags
        self.features, self.cameras, self.goal_features = shape.features, cameras, 0  # goals of pictures: not exported
        self._outputs = list(shape.outputs())
        self._session = _session(graph, where, shape.inputs(), shape.outputs())
        if eyes:
            shown = {CAMERA + camera.name: ("tensor(uint8)", camera.shape) for camera in cameras}
            self._eyes = _session(eyes, f"{where}: eyes", shown, {FEATURES: ("tensor(float)", (shape.features,))})

    def see(self, pictures: Pictures) -> Float[np.ndarray, "B F"]:
        """Return the features of pictures, by the names of their cameras."""
        found: np.ndarray = self._eyes.run([FEATURES], {CAMERA + name: each for name, each in pictures.items()})[0]
        return found

    def plan(
        self,
        observation: Float[np.ndarray, "B T D"],
        goal: Float[np.ndarray, "B G C"] | None,
        uniform: Float[np.ndarray, "B draws"],
    ) -> Planned:
        given = {OBSERVATION: observation, UNIFORM: uniform}
        if goal is not None:
            given[GOAL] = goal
        chunk, codes, *signals, sums = self._session.run(self._outputs, given)
        if not (finite := np.isfinite(sums)).all():
            raise Undecided(int(np.argmin(finite)))
        return Planned(chunk, codes, signals[0] if signals else np.zeros((len(codes), 0), np.float32))

    def arguments(self) -> dict[str, Any]:
        """Return nothing: an exported policy is rebuilt from its folder alone (`policies.exported`)."""
        return {}

    def components(self) -> dict[str, dict[str, np.ndarray]]:
        """Return nothing: the tensors are in the graph."""
        return {}


def _session(graph: bytes, where: str, inputs: Ends, outputs: Ends) -> Any:
    """Return a session. Raises BundleError unless the graph runs, and has these inputs and outputs after the batch."""
    runtime = _installed()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # as policies act: docs/speed.md
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = FATAL
    try:
        session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes share no base but this one
        reason = " ".join(str(error).split())[:200]
        raise BundleError(f"{where}: onnxruntime {runtime.__version__} does not run it: {reason}") from error
    for side, expected, found in (
        ("inputs", inputs, session.get_inputs()),
        ("outputs", outputs, session.get_outputs()),
    ):
        got = {one.name: (one.type, tuple(one.shape[1:])) for one in found}
        if got != expected:
            raise BundleError(f"{where}: expected {side} {expected} after the batch, got {got}; export it again")
    return session


def _installed() -> Any:
    """Return onnxruntime. Its telemetry is switched off before the import, the only moment that counts."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        return import_module("onnxruntime")
    except ImportError as error:
        raise BundleError(
            "an exported policy needs onnxruntime, which is not here: pip install 'vqbet[serve]'"
        ) from error
