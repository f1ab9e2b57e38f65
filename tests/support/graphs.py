"""A small ONNX graph with the inputs and outputs of an exported policy, built in milliseconds, and its folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.support.small import A, D
from tests.support.untrained import SPEC, H, K, Q, T
from vqbet.bundle import Bundle
from vqbet.policies import exported
from vqbet.policies.actor import Actor
from vqbet.policies.in_onnx import GraphShape, InOnnx

SHAPE = GraphShape(window=T, chunk=H, channels=(D, A, 0), goal_steps=0, draws=Q, tags=Q, signals=0)
DIGEST = "ab" * 32


def graph(window: int = T) -> bytes:
    """Return a graph whose chunk is the mean of the observations times 1, 2, ..., whose codes are floor(K u)."""
    from onnx import TensorProto, checker, helper, numpy_helper

    def constant(name: str, value: np.ndarray) -> object:
        return numpy_helper.from_array(value, name)

    def typed(name: str, kind: int, shape: list[object]) -> object:
        return helper.make_tensor_value_info(name, kind, ["batch", *shape])

    nodes = [
        helper.make_node("ReduceMean", ["observation", "within"], ["mean"], keepdims=1),
        helper.make_node("Mul", ["mean", "factors"], ["chunk"]),
        helper.make_node("Mul", ["uniform", "codes_count"], ["scaled"]),
        helper.make_node("Floor", ["scaled"], ["floored"]),
        helper.make_node("Cast", ["floored"], ["codes"], to=TensorProto.INT64),
        helper.make_node("Cast", ["chunk"], ["double"], to=TensorProto.DOUBLE),
        helper.make_node("ReduceSum", ["double", "within"], ["sums"], keepdims=0),
    ]
    factors = np.arange(1, H * A + 1, dtype=np.float32).reshape(1, H, A)
    constants = [
        constant("within", np.array([1, 2])),
        constant("factors", factors),
        constant("codes_count", np.array(float(K))),
    ]
    inputs = [typed("observation", TensorProto.FLOAT, [window, D]), typed("uniform", TensorProto.DOUBLE, [Q])]
    outputs = [
        typed("chunk", TensorProto.FLOAT, [H, A]),
        typed("codes", TensorProto.INT64, [Q]),
        typed("sums", TensorProto.DOUBLE, []),
    ]
    made = helper.make_graph(nodes, "small", inputs, outputs, constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def actor(execute: str = "first") -> Actor:
    return Actor(SPEC, InOnnx(graph(), SHAPE), execute=execute)


def written(folder: Path, *, guard: dict[str, np.ndarray] | None = None, shape: GraphShape = SHAPE) -> Path:
    """Write an exported policy with this graph to `folder`, as if made of a bundle with the digest DIGEST."""
    made = actor()
    components = {"guard": guard} if guard else {}
    bundle = Bundle(folder, DIGEST, "vqbet", SPEC, made.arguments(), components, {})
    exported.write(folder, made, bundle, graph(), shape, {"plans": 1, "scenes": "generated", "apart": 0.0})
    return folder
