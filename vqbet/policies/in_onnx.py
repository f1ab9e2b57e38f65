"""Planner computed by onnxruntime, on one thread: a policy without torch. Needs the extra `serve`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, final

import numpy as np
from jaxtyping import Float

from vqbet.contract import BundleError
from vqbet.policies.actor import Planned, Undecided

OBSERVATION, UNIFORM, GOAL = "observation", "uniform", "goal"  # inputs of a graph
CHUNK, CODES, SUMS = "chunk", "codes", "sums"  # outputs; with SIGNALS of `policies.actor`, "signals" too
FATAL = 4  # onnxruntime's severity: its errors are raised as exceptions besides


@dataclass(frozen=True, slots=True)
class GraphShape:
    """Numbers of a graph, as in `policies.actor.Planner`. signals: S, numbers per plan besides chunk and codes."""

    window: int
    chunk: int
    channels: tuple[int, int, int]
    goal_steps: int
    draws: int
    tags: int
    signals: int

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "channels": list(self.channels)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> GraphShape:
        """Return the shape that `to_json` wrote. Raises KeyError, TypeError or ValueError for anything else."""
        shape = cls(**{**value, "channels": tuple(value["channels"])})
        numbers = (shape.window, shape.chunk, *shape.channels, shape.goal_steps, shape.draws, shape.tags, shape.signals)
        if len(shape.channels) != 3 or any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError(f"expected whole numbers, three of them channels, got {numbers}")
        return shape

    def inputs(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the type and the shape without batch of each input."""
        observation, _, goal = self.channels
        given = {OBSERVATION: ("tensor(float)", (self.window, observation)), UNIFORM: ("tensor(double)", (self.draws,))}
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
    """A `policies.actor.Planner` over the graph of `policies.to_onnx`.

    graph: content of the ONNX file; nothing else is read. Observations beyond 1e19 of their ranges, for which torch's
    layer norms overflow, may be decided here; a session refuses them before. Raises BundleError, naming `where`, for a
    file that onnxruntime does not run or whose inputs and outputs are not those of `shape`.
    """

    def __init__(self, graph: bytes, shape: GraphShape, *, where: str = "graph") -> None:
        self.window, self.chunk, self.channels = shape.window, shape.chunk, shape.channels
        self.goal_steps, self.draws, self.tags = shape.goal_steps, shape.draws, shape.tags
        self._session = _session(graph, where)
        self._outputs = list(shape.outputs())
        for side, expected, found in (
            ("inputs", shape.inputs(), self._session.get_inputs()),
            ("outputs", shape.outputs(), self._session.get_outputs()),
        ):
            got = {one.name: (one.type, tuple(one.shape[1:])) for one in found}
            if got != expected:
                raise BundleError(f"{where}: expected {side} {expected} after the batch, got {got}; export it again")

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


def _session(graph: bytes, where: str) -> Any:
    runtime = _installed()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # as policies act: docs/speed.md
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = FATAL
    try:
        return runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes share no base but this one
        reason = " ".join(str(error).split())[:200]
        raise BundleError(f"{where}: onnxruntime {runtime.__version__} does not run it: {reason}") from error


def _installed() -> Any:
    """Return onnxruntime. Its telemetry is switched off before the import, the only moment that counts."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        return import_module("onnxruntime")
    except ImportError as error:
        raise BundleError(
            "an exported policy needs onnxruntime, which is not here: pip install 'vqbet[serve]'"
        ) from error
