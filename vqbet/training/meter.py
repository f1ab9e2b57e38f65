"""Means of loss and metrics over the steps of a training, read from the device once per row of the history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from vqbet.contract import TrainingError


@final
class Meter:
    """Means of loss and metrics; refuses non-finite numbers. Reads the device only once per row."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.step = 0
        self.names: list[str] = []
        self.rows: list[dict[str, float]] = []
        self.fresh: list[Tensor] = []  # one (metrics,) per step, of this process, not yet read from the device
        self.settled: list[list[float]] = []  # per step since the last row of the history, means over all processes

    def add(self, step: int, loss: Tensor, metrics: Mapping[str, Tensor]) -> None:
        names = ["loss", *metrics]
        if self.names and names != self.names:
            raise TrainingError(f"step {step}: loss() must give the same metrics each step: {self.names}, then {names}")
        self.step, self.names = step, names
        self.fresh.append(torch.stack([value.detach() for value in (loss, *metrics.values())]))

    def settle(self) -> None:
        """Read the added values. Raises TrainingError naming the first step with a non-finite number."""
        if not self.fresh:
            return
        values = self.accelerator.reduce(torch.stack(self.fresh), "mean").double().cpu().numpy()
        first = self.step - len(values) + 1
        for step, row in enumerate(values, first):
            if not np.isfinite(row).all():
                shown = ", ".join(f"{name} {value:.6g}" for name, value in zip(self.names, row, strict=True))
                raise TrainingError(
                    f"step {step}: not finite: {shown}; the checkpoint before is kept; check the data's limits, "
                    "or lower lr or clip"
                )
        self.settled += values.tolist()
        self.fresh.clear()

    def row(self, rate: float) -> None:
        """Add the means since the last row to the history."""
        self.settle()
        means = np.mean(self.settled, axis=0).tolist()
        self.rows.append({"step": self.step, "lr": rate} | dict(zip(self.names, means, strict=True)))
        self.settled = []

    def state(self) -> dict[str, Any]:
        return {"names": self.names, "rows": self.rows, "settled": self.settled}

    def restore(self, step: int, state: Mapping[str, Any]) -> None:
        self.step, self.names, self.rows, self.settled = step, state["names"], state["rows"], state["settled"]
