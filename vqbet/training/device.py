"""Choices that a training makes for its device before the first step: precision, compiler, kernels of the optimiser.

Without a GPU nothing is chosen: float32, not compiled, the same bits on every machine of a kind. All processes of a
training choose the same, and a checkpoint is resumed only where the choice is the same again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vqbet.contract import TrainingError
from vqbet.training.recipe import Precision, Stored

VARIABLE = "VQBET_COMPILE"
WORTH_STEPS = 20_000  # fewest steps of a training that is compiled unasked: compiling takes a minute or two
FUSED = ("cpu", "cuda")  # devices on which AdamW updates all weights in one kernel

Computed = Callable[[Mapping[str, Any]], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True, slots=True)
class Ran:
    """The way in which a training ran.

    device: type of the device, such as "cpu" or "cuda". precision: of products. compiled: whether the loss was. fused:
    whether the optimiser updated all weights in one kernel. processes: their number on all machines together.
    """

    device: str
    precision: Stored
    compiled: bool
    fused: bool
    processes: int

    @property
    def reduced(self) -> bool:
        """Return whether products were computed in less than float32."""
        return self.precision != "fp32"

    def tags(self) -> dict[str, str]:
        """Return the fields as texts, and the name of the GPU where there is one."""
        gpu = {"gpu": torch.cuda.get_device_name()} if self.device == "cuda" else {}
        return {name: str(value).lower() for name, value in asdict(self).items()} | gpu


def precision(wanted: Precision, device: torch.device) -> Stored:
    """Return the precision of products on a device: "auto" is bfloat16 on a GPU that computes in it, else float32."""
    if wanted != "auto":
        return wanted
    able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if able else "fp32"


def visible() -> torch.device:
    """Return the device that a training in one process would run on."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def worth_compiling(model: nn.Module, steps: int, device: torch.device) -> bool:
    """Return whether to compile: as $VQBET_COMPILE says, else for long trainings on a GPU. Raises TrainingError.

    A model whose shapes depend on the data is never compiled: the compiler would begin again at each new size.
    """
    asked = os.environ.get(VARIABLE, "")
    if asked not in ("", "0", "1"):
        raise TrainingError(f"environment variable {VARIABLE}: expected 0 or 1, got {asked!r}")
    if getattr(model, "varying_shapes", False):
        return False
    return asked == "1" if asked else device.type == "cuda" and steps >= WORTH_STEPS


class Loss(nn.Module):
    """`model.loss` as a `forward`, so that wrapping it averages gradients over processes, in a precision."""

    def __init__(self, model: nn.Module, chosen: Stored) -> None:
        super().__init__()
        self.model, self.halved = model, chosen == "bf16"
        self.computed: Computed
        self.as_written()

    def as_written(self) -> None:
        """Compute the loss without a compiler."""
        self.computed = self.model.loss  # type: ignore[assignment]  # nn.Module does not declare it

    def forward(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        if not self.halved:
            return self.computed(batch)
        device = next(self.model.parameters()).device.type
        with torch.autocast(device, torch.bfloat16):
            loss, metrics = self.computed(batch)
        return loss.float(), {name: value.float() for name, value in metrics.items()}

    def compile_for(self, batch: Mapping[str, Any]) -> str:
        """Compile the loss for batches of this shape; return "", or why it cannot be and is computed as before.

        Forward and backward pass are tried on `batch`, since the compiler begins its work there. Afterwards weights,
        buffers and random numbers are as before.
        """
        buffers = [(value, value.clone()) for value in self.model.buffers()]
        refusal = ""
        options = {"fallback_random": True}  # the same dropout and noise as without a compiler
        with _random_kept(self.model):
            try:
                self.computed = torch.compile(self.model.loss, dynamic=False, options=options)  # type: ignore[arg-type]
                self(batch)[0].backward()
            except Exception as error:  # a compiler fails in many ways; a fault of the model comes again in step 1
                self.as_written()
                refusal = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        with torch.no_grad():
            for value, before in buffers:
                value.copy_(before)
        self.zero_grad()
        return refusal


def _random_kept(model: nn.Module) -> AbstractContextManager[None]:
    """Return a context after which the random numbers of CPU and the model's device are as before."""
    device = next(model.parameters()).device
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def checked(model: nn.Module, batch: Mapping[str, Any], ran: Ran, seed: int) -> dict[str, float]:
    """Return the loss of a batch in float32 and in the precision trained in, by name: what the precision costs.

    Both with the same random numbers and without dropout. Leaves the model in eval mode.
    """
    found, model = {}, model.eval()
    kinds: tuple[Stored, ...] = ("fp32", ran.precision)
    with torch.no_grad(), _random_kept(model):
        for kind in kinds:
            torch.manual_seed(seed)
            found[f"loss_{kind}"] = float(Loss(model, kind)(batch)[0])
    return found
