"""Export of VQ-BeT as an ONNX graph: normalisers, prior, draw of codes, tokenizer; and one of its encoder, if any.

Needs the extra `export`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vqbet.contract import BundleError
from vqbet.policies.in_onnx import CAMERA, FEATURES, GraphShape
from vqbet.policies.vqbet import VQBeT

OPSET = 23  # the first with attention as one operator
ROWS = 3  # of the example that is traced; the batch of the graph is free


def graph(planner: VQBeT) -> bytes:
    """Return the ONNX file of `planner.plan`; its batch B is free. Equal planners give equal bytes.

    Inputs: observation (B, T, D + F) float32, of which the last F are features of pictures, uniform (B, draws) float64,
    and goal (B, G, C) float32 where there is one. Outputs: chunk (B, H, A) float32, codes (B, Q) int64, signals (B, S)
    float32 where the planner returns them, and sums (B,) float64 of each row's logits, which are finite where all
    logits are. Raises BundleError where the extra is not installed.
    """
    expected = shape(planner)
    return _exported(_Graph(planner), _example(planner), list(expected.inputs()), list(expected.outputs()))


def eyes(planner: VQBeT) -> bytes:
    """Return the ONNX file of `planner.see`, of a policy with cameras, whose graph begins with the uint8 pictures.

    Inputs: camera/<name> (B, height, width, 3) uint8 of each camera. Output: features (B, F) float32. It is a file of
    its own, so that a picture is encoded once and not in each of the T plans that see it. Raises as `graph`.
    """
    shown = [torch.zeros(ROWS, *camera.shape, dtype=torch.uint8) for camera in planner.cameras]
    return _exported(_Eyes(planner), (shown,), [CAMERA + camera.name for camera in planner.cameras], [FEATURES])


def _exported(module: nn.Module, example: tuple[Any, ...], inputs: list[str], outputs: list[str]) -> bytes:
    onnx, batch = _installed(), torch.export.Dim("batch", min=1)
    shapes = torch.utils._pytree.tree_map(lambda _: {0: batch}, example)
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            module.eval(),
            example,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    model = program.model_proto  # type: ignore[union-attr]  # None only without dynamo
    _anonymous(model)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def shape(planner: VQBeT) -> GraphShape:
    """Return the numbers of the planner's graph."""
    with torch.no_grad():
        _, _, *rest = _Graph(planner)(*_example(planner))
    signals = rest[0].shape[1] if len(rest) == 2 else 0
    sizes = (planner.window, planner.chunk, planner.channels, planner.goal_steps, planner.draws, planner.tags)
    return GraphShape(*sizes, signals, planner.features)


class _Graph(nn.Module):
    """The planner as a module, whose tensors become those of the graph."""

    def __init__(self, planner: VQBeT) -> None:
        super().__init__()
        self.planner, self.prior = planner, planner.prior

    def forward(self, observation: Tensor, uniform: Tensor, goal: Tensor | None = None) -> tuple[Tensor, ...]:
        sums: list[Float[Tensor, " B"]] = []

        def summed(logits: Tensor, rows: int) -> None:
            sums.append(logits.double().view(rows, -1).sum(1))  # float64: finite logits have a finite sum

        drawn = self.planner.drawn(observation, goal, uniform, summed)
        return (*drawn, sum(sums[1:], sums[0]))


class _Eyes(nn.Module):
    """The encoder as a module over the pictures of all cameras, in their order."""

    def __init__(self, planner: VQBeT) -> None:
        super().__init__()
        assert planner.prior.encoder is not None, "a policy without cameras has no eyes"
        self.encoder = planner.prior.encoder

    def forward(self, pictures: list[Tensor]) -> Tensor:
        names = [camera.name for camera in self.encoder.cameras]
        found: Tensor = self.encoder(dict(zip(names, pictures, strict=True)))
        return found


def _example(planner: VQBeT) -> tuple[Tensor, ...]:
    observation, _, goal = planner.channels
    given = (
        torch.zeros(ROWS, planner.window, observation + planner.features),
        torch.full((ROWS, planner.draws), 0.5, dtype=torch.float64),
    )
    return (*given, torch.zeros(ROWS, planner.goal_steps, goal)) if planner.goal_steps else given


def _installed() -> Any:
    try:
        import_module("onnxscript")
        return import_module("onnx")
    except ImportError as error:
        raise BundleError(f"export needs {error.name}, which is not here: pip install 'vqbet[export]'") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Withhold the exporter's remarks about torchvision, which is not needed, and about names of dimensions."""
    exporter = logging.getLogger("torch.onnx")
    before = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        exporter.setLevel(before)


def _anonymous(model: Any) -> None:
    """Remove what the exporter notes about this machine: files and lines of code behind each operator."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.ClearField("doc_string")
