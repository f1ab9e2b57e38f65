"""The networks: an MLP, a minGPT-style decoder, and how a module's tensors leave and enter a bundle.

The decoder is GPT-2's (Radford et al. 2019) without its vocabulary: pre-LayerNorm, causal, learned positions and
tanh-GELU.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from vqbet.contract import BundleError


class MLP(nn.Sequential):
    """inputs -> hidden -> hidden -> outputs with ReLU between; orthogonal weights, zero biases."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        sizes = [inputs, hidden, hidden, outputs]
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise(sizes):
            linear = nn.Linear(fan_in, fan_out)
            nn.init.orthogonal_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
        super().__init__(*layers[:-1])


class Attention(nn.Module):
    """Causal multi-head self-attention. Dropout acts on its output, not on the attention weights."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B T W"], visible: Bool[Tensor, "B 1 T T"] | None) -> Float[Tensor, "B T W"]:
        q, k, v = rearrange(self.qkv(x), "b t (three heads w) -> three b heads t w", three=3, heads=self.heads)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=visible is None)  # (B, heads, T, w)
        return self.dropout(self.out(rearrange(y, "b heads t w -> b t (heads w)")))


class Block(nn.Module):
    """Attention and a four times wider MLP, each behind a LayerNorm and added to the residual stream."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.norm_mlp = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B T W"], visible: Bool[Tensor, "B 1 T T"] | None) -> Float[Tensor, "B T W"]:
        x = x + self.attention(self.norm_attention(x), visible)
        hidden = F.gelu(self.expand(self.norm_mlp(x)), approximate="tanh")
        return x + self.dropout(self.contract(hidden))


class Decoder(nn.Module):
    """A causal transformer over T <= window observation vectors; gives a feature vector for each.

    Weights N(0, 0.02), those that end on the residual stream N(0, 0.02 / sqrt(2 depth)), biases zero (GPT-2).
    """

    def __init__(self, inputs: int, *, window: int, depth: int, heads: int, width: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.position = nn.Parameter(torch.zeros(window, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.apply(_initialise)
        nn.init.normal_(self.position, std=0.02)
        for name, parameter in self.named_parameters():
            if name.endswith(("attention.out.weight", "contract.weight")):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * depth))

    def forward(
        self, observation: Float[Tensor, "B T D"], visible: Bool[Tensor, "B 1 T T"] | None = None
    ) -> Float[Tensor, "B T W"]:
        """`visible[b, 0, i, j]`: may position i look at position j; causal where it is None."""
        x = self.dropout(self.embed(observation) + self.position[: observation.shape[1]])
        for block in self.blocks:
            x = block(x, visible)
        return self.norm(x)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def tensors(module: nn.Module, *, without: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Parameters and buffers as arrays of their own, by name; `without` names submodules that go elsewhere."""
    return {
        name: value.detach().cpu().numpy().copy()
        for name, value in module.state_dict().items()
        if name.split(".")[0] not in without
    }


def restore(
    module: nn.Module, values: Mapping[str, np.ndarray], *, component: str, without: tuple[str, ...] = ()
) -> None:
    """The inverse of `tensors`. Raises BundleError, naming component and tensor, where the two do not fit exactly."""
    own = {name: value for name, value in module.state_dict().items() if name.split(".")[0] not in without}
    if missing := sorted(own.keys() - values.keys()):
        raise BundleError(f"{component}: tensor {missing[0]!r} is missing ({len(missing)} missing in all)")
    if unknown := sorted(values.keys() - own.keys()):
        raise BundleError(f"{component}: unknown tensor {unknown[0]!r} ({len(unknown)} unknown in all)")
    for name, target in own.items():
        value = torch.from_numpy(np.array(values[name]))
        if value.shape != target.shape or value.dtype != target.dtype:
            raise BundleError(
                f"{component}: tensor {name!r}: expected {target.dtype} {tuple(target.shape)}, "
                f"got {value.dtype} {tuple(value.shape)}; the component belongs to another model"
            )
        if not torch.isfinite(value).all():
            raise BundleError(f"{component}: tensor {name!r} holds values that are not finite")
        target.copy_(value)
