"""ResNet-18 (arXiv 1512.03385) with GroupNorm (arXiv 1803.08494) instead of BatchNorm, without its classifier.

GroupNorm has no statistics of batches: a picture's features do not depend on those beside it, and averaged weights fit.
Modules have torchvision's names, so that its published weights can be converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vqbet.contract import TrainingError

GROUP = 16  # channels that are normalised together
EPSILON = 1e-5  # of torchvision's BatchNorm
WIDTHS = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which is a 1 x 1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1), _norm(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1), _norm(outputs)
        changes = stride != 1 or inputs != outputs
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), _norm(outputs))
        self.downsample = shortcut if changes else nn.Identity()

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D h2 w2"]:
        y = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(y)) + self.downsample(x)).relu()


@final
class ResNet18(nn.Module):
    """Pictures (B, 3, h, w), scaled to ImageNet's statistics -> maps (B, 512, h / 32, w / 32); 11.2 M weights."""

    channels = WIDTHS[-1]
    statistics = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and standard deviation of colours in ImageNet

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, WIDTHS[0], 7, 2, 3), _norm(WIDTHS[0])
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = (WIDTHS[0], *WIDTHS[:-1])
        for number, (before, after) in enumerate(zip(inputs, WIDTHS, strict=True), 1):
            stride = 1 if number == 1 else 2
            self.add_module(
                f"layer{number}", nn.Sequential(BasicBlock(before, after, stride), BasicBlock(after, after, 1))
            )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(_bias(module))

    def forward(self, x: Float[Tensor, "B 3 h w"]) -> Float[Tensor, "B 512 h2 w2"]:
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        for number in range(1, len(WIDTHS) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return x

    @torch.no_grad()
    def load_torchvision(self, values: Mapping[str, Tensor]) -> None:
        """Load the tensors of torchvision's resnet18 (its names; "fc.*" and "num_batches_tracked" are ignored).

        The statistics of a BatchNorm are folded into the convolution before it: weight / std, and -mean / std as its
        bias, so that GroupNorm receives what BatchNorm's affine part did; that part becomes GroupNorm's. Raises
        TrainingError, naming the tensor, where one is missing, unknown, misshapen or not finite.
        """
        left = {
            name: value
            for name, value in values.items()
            if not name.startswith("fc.") and not name.endswith(".num_batches_tracked")
        }
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv2d):
                norm = _norm_of(name)
                bias, weight = _bias(module), _taken(left, f"{name}.weight", module.weight)
                std = (_taken(left, f"{norm}.running_var", bias).clamp_min(0) + EPSILON).sqrt()
                bias.copy_(-_taken(left, f"{norm}.running_mean", bias) / std)
                module.weight.copy_(weight / std[:, None, None, None])
            elif isinstance(module, nn.GroupNorm):
                module.weight.copy_(_taken(left, f"{name}.weight", module.weight))
                module.bias.copy_(_taken(left, f"{name}.bias", module.bias))
        if left:
            raise TrainingError(
                f"weights: unknown tensor {min(left)!r} ({len(left)} unknown in all); expected those of torchvision's "
                "resnet18"
            )


def _bias(convolution: nn.Conv2d) -> Tensor:
    assert convolution.bias is not None, "made with a bias"
    return convolution.bias


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // GROUP, channels)


def _norm_of(name: str) -> str:
    """Return the name of the norm after a convolution: bn1 of conv1, downsample.1 of downsample.0."""
    place, _, own = name.rpartition(".")
    norm = "1" if own == "0" else own.replace("conv", "bn")
    return f"{place}.{norm}" if place else norm


def _taken(values: dict[str, Tensor], name: str, like: Tensor) -> Tensor:
    if name not in values:
        raise TrainingError(f"weights: tensor {name!r} is missing; expected those of torchvision's resnet18")
    value = values.pop(name)
    if value.shape != like.shape or not value.is_floating_point() or not value.isfinite().all():
        raise TrainingError(
            f"weights: tensor {name!r}: expected finite numbers of shape {tuple(like.shape)}, got {value.dtype} "
            f"{tuple(value.shape)}; expected those of torchvision's resnet18"
        )
    return value.to(like.dtype)
