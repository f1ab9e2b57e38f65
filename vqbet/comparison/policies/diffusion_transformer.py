"""Noise-predicting transformer of Diffusion Policy (arXiv 2303.04137, section 3.1), with cross-attention to a memory.

The memory has one token each for the denoising step, the goal observations and the observations, encoded by an MLP.
Noisy actions attend to the memory, and causally to each other. Pre-LayerNorm decoder layers (arXiv 1706.03762,
section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vqbet.contract import TrainingError
from vqbet.models.nets import Attention


@dataclass(frozen=True, slots=True)
class TransformerShape:
    """window T observations; horizon H predicted actions, of which execute_steps are executed before the next plan.

    depth, heads, width: of the decoder. dropout: on the outputs of attention and MLPs. goal_steps G; 0: unconditional.
    Push-T in the paper: depth 8, heads 4, width 256, dropout 0.01.
    """

    window: int
    horizon: int
    execute_steps: int
    depth: int = 8
    heads: int = 4
    width: int = 256
    dropout: float = 0.01
    goal_steps: int = 0


@final
class NoiseTransformer(nn.Module):
    """Prediction of the noise in noisy chunks. Weights and positions N(0, 0.02), biases zero.

    Every layer has its own keys and values of the memory, computed for all layers in one product (`_memory`). The keys
    and values of a token do not depend on other tokens: while acting, each is computed once, not per denoising step.
    """

    def __init__(self, shape: TransformerShape, channels: tuple[int, int, int]) -> None:
        super().__init__()
        observation, action, goal = channels
        width = shape.width
        if width % shape.heads or width % 2:
            raise TrainingError(
                f"width {width}: expected an even multiple of heads ({shape.heads}); change one of them"
            )
        self.heads, self.step_width = shape.heads, width
        self.embed_action = nn.Linear(action, width)
        self.embed_observation = nn.Linear(observation, width)
        self.embed_goal = nn.Linear(goal, width) if shape.goal_steps else None
        self.position = nn.Parameter(torch.empty(shape.horizon, width))
        self.position_memory = nn.Parameter(torch.empty(1 + shape.goal_steps + shape.window, width))
        self.encoder = nn.Sequential(nn.Linear(width, 4 * width), nn.Mish(), nn.Linear(4 * width, width))
        self.keys_values = nn.Linear(width, shape.depth * 2 * width)
        self.layers = nn.ModuleList(Layer(width, shape.heads, shape.dropout) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, action)
        self.apply(_initialise)
        nn.init.normal_(self.position, std=0.02)
        nn.init.normal_(self.position_memory, std=0.02)

    def timed(self, step: Float[Tensor, "S W"]) -> Float[Tensor, "S 1 L2W"]:
        """Return keys and values of the token of each denoising step, given its embedding."""
        return self._memory(step[:, None] + self.position_memory[:1])

    def seen(
        self, observation: Float[Tensor, "B T D"], goal: Float[Tensor, "B G C"] | None
    ) -> Float[Tensor, "B G+T L2W"]:
        """Return keys and values of goals and observations."""
        tokens = self.embed_observation(observation)
        if self.embed_goal is not None:
            tokens = torch.cat([self.embed_goal(goal), tokens], dim=1)
        return self._memory(tokens + self.position_memory[1:])

    def forward(
        self, noisy: Float[Tensor, "B H A"], timed: Float[Tensor, "B 1 L2W"], seen: Float[Tensor, "B G+T L2W"]
    ) -> Float[Tensor, "B H A"]:
        memory = rearrange(
            torch.cat([timed, seen], dim=1), "b m (l n h w) -> l n b h m w", l=len(self.layers), n=2, h=self.heads
        )
        x = self.embed_action(noisy) + self.position
        for layer, (keys, values) in zip(self.layers, memory, strict=True):
            x = layer(x, keys, values)
        return self.head(self.norm(x))

    def _memory(self, tokens: Float[Tensor, "B M W"]) -> Float[Tensor, "B M L2W"]:
        return self.keys_values(self.encoder(tokens))


class Layer(nn.Module):
    """Causal self-attention, cross-attention to the memory, and a four times wider MLP, each after a LayerNorm."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.norm_memory = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "B H W"], keys: Float[Tensor, "B heads M w"], values: Float[Tensor, "B heads M w"]
    ) -> Float[Tensor, "B H W"]:
        x = x + self.attention(self.norm_attention(x))
        query = rearrange(self.query(self.norm_memory(x)), "b t (h w) -> b h t w", h=self.heads)
        found = F.scaled_dot_product_attention(query, keys, values)
        x = x + self.dropout(self.out(rearrange(found, "b h t w -> b t (h w)")))
        return x + self.dropout(self.contract(F.gelu(self.expand(self.norm_mlp(x)))))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
