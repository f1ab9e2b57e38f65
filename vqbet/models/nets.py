"""An MLP, a minGPT-style decoder, and the conversion of a module's tensors to and from the arrays of a bundle.

The decoder is GPT-2 (Radford et al. 2019) without a vocabulary: pre-LayerNorm, causal, learned positions and tanh-GELU.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vqbet.contract import BundleError

SHORT = 32  # positions
GoalAs = Literal["tokens", "features"]


class MLP(nn.Sequential):
    """Multi-layer perceptron inputs -> hidden -> hidden -> outputs with ReLU, orthogonal weights and zero biases.

    hidden 0: one linear layer, inputs -> outputs. `forward` equals that of nn.Sequential, with in-place ReLU.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        sizes = [inputs, hidden, hidden, outputs] if hidden else [inputs, outputs]
        layers: list[nn.Module] = []
        products = []
        for fan_in, fan_out in itertools.pairwise(sizes):
            linear = nn.Linear(fan_in, fan_out)
            nn.init.orthogonal_(linear.weight)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU()]
            products.append((linear.weight, linear.bias))
        super().__init__(*layers[:-1])
        self.products = products

    def forward(self, x: Float[Tensor, "... inputs"]) -> Float[Tensor, "... outputs"]:
        weight, bias = self.products[-1]
        return F.linear(self.hidden(x), weight, bias)

    def hidden(self, x: Float[Tensor, "... inputs"]) -> Float[Tensor, "... hidden"]:
        """Return the input of the last linear layer."""
        for weight, bias in self.products[:-1]:
            x = F.linear(x, weight, bias).relu_()
        return x


class Attention(nn.Module):
    """Causal multi-head self-attention. Dropout acts on its output, not on the attention weights."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B T W"]) -> Float[Tensor, "B T W"]:
        if x.shape[1] == 1:  # a single position attends only to itself
            return self._single(x)
        q, k, v = self._split(self.qkv(x), 3)
        y = attended(q, k, v, causal=True)
        return self.dropout(self.out(y.transpose(1, 2).flatten(2)))

    def last(self, x: Float[Tensor, "B T W"]) -> Float[Tensor, "B 1 W"]:
        """Return the last position of `forward`; the queries of the others are not computed."""
        if x.shape[1] == 1:
            return self._single(x)
        width = x.shape[2]
        (q,) = self._split(F.linear(x[:, -1:], self.qkv.weight[:width], self.qkv.bias[:width]), 1)
        k, v = self._split(F.linear(x, self.qkv.weight[width:], self.qkv.bias[width:]), 2)
        y = attended(q, k, v)
        return self.dropout(self.out(y.transpose(1, 2).flatten(2)))

    def _single(self, x: Float[Tensor, "B 1 W"]) -> Float[Tensor, "B 1 W"]:
        width = x.shape[2]
        return self.dropout(self.out(F.linear(x, self.qkv.weight[2 * width :], self.qkv.bias[2 * width :])))

    def _split(self, x: Float[Tensor, "B T nW"], count: int) -> Float[Tensor, "n B heads T w"]:
        batch, length, _ = x.shape
        return x.view(batch, length, count, self.heads, -1).permute(2, 0, 3, 1, 4)


def attended(
    q: Float[Tensor, "B heads T w"],
    k: Float[Tensor, "B heads S w"],
    v: Float[Tensor, "B heads S w"],
    *,
    causal: bool = False,
) -> Float[Tensor, "B heads T w"]:
    """Scaled dot-product attention; `causal` restricts each position to itself and those before it.

    On a CPU, up to SHORT positions are trained by plain matrix products: forward and backward of 512 windows of 5 take
    8 ms on one core and 5 ms on two. PyTorch's kernel takes 10 ms, and 25 ms on two, as its threads wait on each other.
    """
    if k.shape[2] > SHORT or q.device.type != "cpu" or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    scores = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)  # (B, heads, T, S)
    if causal:
        visible = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
        scores = scores.masked_fill(~visible, -torch.inf)
    return scores.softmax(3) @ v


class Block(nn.Module):
    """Attention and an MLP of four times the width, each after a LayerNorm and added to the residual stream."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.norm_mlp = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B T W"]) -> Float[Tensor, "B T W"]:
        return self._mlp(x + self.attention(self.norm_attention(x)))

    def last(self, x: Float[Tensor, "B T W"]) -> Float[Tensor, "B 1 W"]:
        """Return the last position of the causal `forward`."""
        return self._mlp(x[:, -1:] + self.attention.last(self.norm_attention(x)))

    def _mlp(self, x: Float[Tensor, "B T W"]) -> Float[Tensor, "B T W"]:
        hidden = F.gelu(self.expand(self.norm_mlp(x)), approximate="tanh")
        return x + self.dropout(self.contract(hidden))


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """Dimensions of a `Decoder`: window of T observations, depth, heads, width, goal_steps G (0: unconditional)."""

    window: int
    depth: int
    heads: int
    width: int
    dropout: float
    goal_steps: int = 0


class Decoder(nn.Module):
    """Causal transformer over G goal vectors and T <= window observation vectors; returns features of the T.

    goal_as "tokens": goals precede the observations, so every observation attends to them (VQ-BeT, section 3.4).
    "features": all goals are joined to each observation, so there are T tokens, not G + T. Weights are N(0, 0.02),
    those that project onto the residual stream N(0, 0.02 / sqrt(2 depth)), biases zero (GPT-2).
    """

    def __init__(self, inputs: int, shape: DecoderShape, *, goal_inputs: int = 0, goal_as: GoalAs = "tokens") -> None:
        super().__init__()
        width = shape.width
        self.conditional = shape.goal_steps > 0
        self.goal_tokens = shape.goal_steps if goal_as == "tokens" else 0
        self.embed = nn.Linear(inputs, width)
        if self.conditional:
            self.embed_goal = nn.Linear(goal_inputs if self.goal_tokens else shape.goal_steps * goal_inputs, width)
        self.position = nn.Parameter(torch.zeros(self.goal_tokens + shape.window, width))
        self.dropout = nn.Dropout(shape.dropout)
        self.blocks = nn.ModuleList(Block(width, shape.heads, shape.dropout) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(width)
        self.heads, self.weights = shape.heads, [tuple(block.parameters()) for block in self.blocks]
        self.apply(_initialise)
        nn.init.normal_(self.position, std=0.02)
        for name, parameter in self.named_parameters():
            if name.endswith(("attention.out.weight", "contract.weight")):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * shape.depth))

    def forward(
        self, observation: Float[Tensor, "B T D"], goal: Float[Tensor, "B G C"] | None = None
    ) -> Float[Tensor, "B T W"]:
        x = self.dropout(self._tokens(observation, goal))
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, self.goal_tokens :])

    def last(
        self, observation: Float[Tensor, "B T D"], goal: Float[Tensor, "B G C"] | None = None
    ) -> Float[Tensor, "B W"]:
        """Return the features of the last observation; the last block computes one position instead of T.

        Without gradients and dropout they come from the faster `newest`, which is equal up to rounding.
        """
        x = self._tokens(observation, goal)
        if not self.training and not torch.is_grad_enabled():
            return self.norm(newest(x, self.weights, heads=self.heads))
        x = self.dropout(x)
        for block in self.blocks[:-1]:
            x = block(x)
        return self.norm(self.blocks[-1].last(x))[:, 0]  # type: ignore[operator]  # nn.Module does not declare it

    def _tokens(self, observation: Tensor, goal: Tensor | None) -> Float[Tensor, "B G+T W"]:
        x = self.embed(observation)
        if self.goal_tokens:
            x = torch.cat([self.embed_goal(goal), x], dim=1)
        elif self.conditional:  # a linear layer over a concatenation is the sum of one linear layer per part
            x = x + self.embed_goal(goal.flatten(1))[:, None]  # type: ignore[union-attr]  # conditional: never None
        return x + self.position[: x.shape[1]]


def newest(x: Float[Tensor, "B T W"], blocks: Sequence[tuple[Tensor, ...]], *, heads: int) -> Float[Tensor, "B W"]:
    """Return the last position after causal blocks without dropout.

    blocks: for each block, weight and bias of norm, qkv, out, norm_mlp, expand and contract, in this order. Takes
    tensors instead of modules: at width 120 and batch 1, calling modules and looking up their parameters costs as much
    as the products (0.9 and 0.5 ms on one core).
    """
    batch, length, width = x.shape
    x = x.flatten(0, 1)  # (B T, W): products of matrices take fewer operators than of stacks
    for block in blocks:
        norm, shift, qkv, qkv_bias, out, out_bias, norm_mlp, shift_mlp, expand, expand_bias, contract, contract_bias = (
            block
        )
        seen = torch.layer_norm(x, (width,), norm, shift)
        if length == 1:  # a single position attends only to itself
            y = F.linear(seen, qkv[2 * width :], qkv_bias[2 * width :])
        else:
            every = F.linear(seen, qkv, qkv_bias).view(batch, length, 3 * heads, -1).transpose(1, 2)
            q, k, v = every.chunk(3, 1)  # (B, heads, T, w) each
            last = block is blocks[-1]
            if last:
                q, x = q[:, :, -1:], x.view(batch, length, width)[:, -1]
            y = F.scaled_dot_product_attention(q, k, v, is_causal=not last).transpose(1, 2).reshape(-1, width)
        x = x + F.linear(y, out, out_bias)
        seen = torch.layer_norm(x, (width,), norm_mlp, shift_mlp)
        x = x + F.linear(F.gelu(F.linear(seen, expand, expand_bias), approximate="tanh"), contract, contract_bias)
    return x


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def tensors(module: nn.Module, *, without: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Return copies of parameters and buffers as arrays, by name, except those of the submodules in `without`."""
    return {
        name: value.detach().cpu().numpy().copy()
        for name, value in module.state_dict().items()
        if name.split(".")[0] not in without
    }


def restore(
    module: nn.Module, values: Mapping[str, np.ndarray], *, component: str, without: tuple[str, ...] = ()
) -> None:
    """Load the arrays of `tensors` into `module`. Raises BundleError, naming component and tensor, on any mismatch."""
    own = {name: value for name, value in module.state_dict().items() if name.split(".")[0] not in without}
    if missing := sorted(own.keys() - values.keys()):
        raise BundleError(f"{component}: tensor {missing[0]!r} is missing ({len(missing)} missing in all)")
    if unknown := sorted(values.keys() - own.keys()):
        raise BundleError(f"{component}: unknown tensor {unknown[0]!r} ({len(unknown)} unknown in all)")
    fitting = {name: torch.from_numpy(np.array(values[name])) for name in own}
    for name, value in fitting.items():
        target = own[name]
        if value.shape != target.shape or value.dtype != target.dtype:
            raise BundleError(
                f"{component}: tensor {name!r}: expected {target.dtype} {tuple(target.shape)}, "
                f"got {value.dtype} {tuple(value.shape)}; the component belongs to another model"
            )
        if not torch.isfinite(value).all():
            raise BundleError(f"{component}: tensor {name!r} holds values that are not finite")
    module.load_state_dict(fitting, strict=False)
