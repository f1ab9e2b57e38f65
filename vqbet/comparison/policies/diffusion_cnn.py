"""U-Net over the time axis of a chunk, the noise-predicting CNN of Diffusion Policy (arXiv 2303.04137, section 3.1).

Observations, goal and denoising step scale and shift the channels of every residual block (FiLM, arXiv 1709.07871).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vqbet.contract import TrainingError


@dataclass(frozen=True, slots=True)
class CNNShape:
    """window T observations; horizon H predicted actions, of which execute_steps are executed before the next plan.

    width: width of the first level; each next level has half the time steps and twice the width. kernel: odd kernel
    size. groups: groups of GroupNorm. step_width: width of the denoising step's embedding. goal_steps G; 0:
    unconditional. Push-T in the paper: width 256 and 3 levels, so 256, 512 and 1024.
    """

    window: int
    horizon: int
    execute_steps: int
    width: int = 256
    levels: int = 3
    kernel: int = 5
    groups: int = 8
    step_width: int = 256
    goal_steps: int = 0


@final
class UNet(nn.Module):
    """Prediction of the noise in noisy chunks.

    Scales and shifts of all blocks are one linear map of Mish([step, goal, observation]), split into a sum of a step
    term and an observation term: while acting, the latter is computed only once, not at each denoising step.
    """

    def __init__(self, shape: CNNShape, channels: tuple[int, int, int]) -> None:
        super().__init__()
        _check(shape)
        observation, action, goal = channels
        self.step_width = shape.step_width
        self.step = nn.Sequential(
            nn.Linear(shape.step_width, 4 * shape.step_width),
            nn.Mish(),
            nn.Linear(4 * shape.step_width, shape.step_width),
        )
        widths = [shape.width * 2**level for level in range(shape.levels)]
        sizes = {"kernel": shape.kernel, "groups": shape.groups}
        self.down, self.shrink = nn.ModuleList([Pair(action, widths[0], **sizes)]), nn.ModuleList()
        for narrow, wide in itertools.pairwise(widths):
            self.shrink.append(Convolution(narrow, narrow, 3, stride=2, padding=1))
            self.down.append(Pair(narrow, wide, **sizes))
        self.middle = Pair(widths[-1], widths[-1], **sizes)
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for wide, narrow in itertools.pairwise(reversed(widths)):
            self.up.append(Pair(2 * wide, narrow, **sizes))
            self.grow.append(nn.ConvTranspose1d(narrow, narrow, 4, stride=2, padding=1))
        self.last = _convolution(widths[0], widths[0], **sizes)
        self.head = Convolution(widths[0], action, 1)
        self.sizes = [2 * module.outputs for module in self.modules() if isinstance(module, ResidualBlock)]
        self.film_step = nn.Linear(shape.step_width, sum(self.sizes))
        self.film_seen = nn.Linear(shape.goal_steps * goal + shape.window * observation, sum(self.sizes), bias=False)

    def timed(self, step: Float[Tensor, "S W"]) -> Float[Tensor, "S F"]:
        """Return the contribution of each denoising step, given its embedding, to scales and shifts."""
        return self.film_step(F.mish(self.step(step)))

    def seen(self, observation: Float[Tensor, "B T D"], goal: Float[Tensor, "B G C"] | None) -> Float[Tensor, "B F"]:
        """Return the contribution of goals and observations to scales and shifts."""
        known = observation.flatten(1) if goal is None else torch.cat([goal.flatten(1), observation.flatten(1)], dim=1)
        return self.film_seen(F.mish(known))

    def forward(
        self, noisy: Float[Tensor, "B H A"], timed: Float[Tensor, "B F"], seen: Float[Tensor, "B F"]
    ) -> Float[Tensor, "B H A"]:
        film = iter((timed + seen)[:, :, None].split(self.sizes, dim=1))
        x = self.down[0](noisy.transpose(1, 2), film)
        passed = []  # skip connections to `up` of the same level; as in the authors' code, none from the first
        for shrink, down in zip(self.shrink, self.down[1:], strict=True):
            x = down(shrink(x), film)
            passed.append(x)
        x = self.middle(x, film)
        for up, grow in zip(self.up, self.grow, strict=True):
            x = grow(up(torch.cat([x, passed.pop()], dim=1), film))
        return self.head(self.last(x)).transpose(1, 2)


class Pair(nn.Module):
    """Two residual blocks, each of which takes the next scales and shifts from `film`."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, groups: int) -> None:
        super().__init__()
        self.one = ResidualBlock(inputs, outputs, kernel=kernel, groups=groups)
        self.two = ResidualBlock(outputs, outputs, kernel=kernel, groups=groups)

    def forward(self, x: Float[Tensor, "B inputs L"], film: Iterator[Tensor]) -> Float[Tensor, "B C L"]:
        return self.two(self.one(x, next(film)), next(film))


class ResidualBlock(nn.Module):
    """Convolution, scale and shift, convolution, plus the input (through a convolution of size 1 if widths differ)."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, groups: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.first = _convolution(inputs, outputs, kernel=kernel, groups=groups)
        self.second = _convolution(outputs, outputs, kernel=kernel, groups=groups)
        self.shortcut = Convolution(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Float[Tensor, "B inputs L"], film: Float[Tensor, "B 2C 1"]) -> Float[Tensor, "B C L"]:
        scale, shift = film.chunk(2, dim=1)
        return self.second(self.first(x) * scale + shift) + self.shortcut(x)


class Convolution(nn.Conv1d):
    """`nn.Conv1d` that computes a few short rows on a CPU as one matrix product, which reads the weights in memory
    order: equal up to rounding, and up to four times faster at batch 1."""

    FEW = 32  # rows times steps of output

    def forward(self, x: Float[Tensor, "B I L"]) -> Float[Tensor, "B O L"]:
        kernel, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        few = len(x) * x.shape[2] <= self.FEW * stride
        if torch.is_grad_enabled() or x.device.type != "cpu" or not few:
            return super().forward(x)
        patches = F.pad(x, (padding, padding)).unfold(2, kernel, stride)  # (B, I, L, kernel)
        return F.linear(patches.transpose(1, 2).flatten(2), self.weight.flatten(1), self.bias).transpose(1, 2)


def _convolution(inputs: int, outputs: int, *, kernel: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        Convolution(inputs, outputs, kernel, padding=kernel // 2), nn.GroupNorm(groups, outputs), nn.Mish()
    )


def _check(shape: CNNShape) -> None:
    """Raise TrainingError naming the invalid number."""
    shortest = 2 ** (shape.levels - 1)
    if shape.horizon % shortest:
        raise TrainingError(
            f"horizon {shape.horizon}: {shape.levels} levels halve it {shape.levels - 1} times: expected a multiple "
            f"of {shortest}; take {-(-shape.horizon // shortest) * shortest}, or fewer levels"
        )
    if shape.width % shape.groups or shape.kernel % 2 == 0 or shape.step_width % 2:
        raise TrainingError(
            f"width {shape.width} must be a multiple of groups ({shape.groups}), kernel {shape.kernel} odd and "
            f"step_width {shape.step_width} even; change what is not"
        )
