"""A stand-in for a training step of the authors' VQ-BeT on Push-T, to compare ours with on the same machine.

Written from a description of what their code computes, never from the code: each of the T positions is supervised, and
goes through the GPT's output layer to 256 features and through both heads of 1024 units; the offset head gives the
vectors of all Q K codes, from which those of sampled codes are gathered; sampled codes are decoded by the tokenizer's
network; two AdamW optimisers, no clipping, no average of the weights, no dropout. Windows come one by one from a
Dataset (`bench.slices`). The GPT's blocks are our own, so what is particular to theirs is not in it.

The authors' step with its loader took 1,232 ms at least (median 1,469) on one core of a processor without AVX-512 and
804 (865) on two. This one, with AVX-512 and on a machine in use, took 969 (991) on one and 644 (720) on two in the
best of three runs. Its loader gives 70,000 windows a second, theirs 4,800: those 100 ms a step are not in it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vqbet.models.nets import Decoder, DecoderShape
from vqbet.models.tokenizer import Tokenizer

WIDTH, FEATURES, HIDDEN, LR = 120, 256, 1024, 5.5e-5
CODE_WEIGHTS, OFFSET_WEIGHT, GAMMA = (5.0, 0.5), 10.0, 2.0


def head(outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs)
    )


class StandIn:
    """`step(batch)` trains once and gives the loss."""

    def __init__(self, tokenizer: Tokenizer, *, observation: int, window: int) -> None:
        self.tokenizer = tokenizer.requires_grad_(False).eval()
        shape = tokenizer.shape
        self.layers, self.codes, self.chunk = shape.layers, shape.codes, shape.chunk
        self.size = shape.chunk * tokenizer.normalizer.channels
        self.gpt = nn.Sequential(
            Decoder(observation, DecoderShape(window=window, depth=6, heads=6, width=WIDTH, dropout=0.0)),
            nn.Linear(WIDTH, FEATURES, bias=False),
        )
        self.code_head = head(self.layers * self.codes)
        self.offset_head = head(self.layers * self.codes * self.size)
        first = [*self.gpt.parameters(), *self.code_head.parameters()]
        self.optimizers = [
            torch.optim.AdamW(first, lr=LR, weight_decay=2e-4),
            torch.optim.AdamW(self.offset_head.parameters(), lr=LR, weight_decay=2e-4),
        ]

    def step(self, batch: dict[str, Tensor]) -> float:
        loss = self.loss(batch["observation"], batch["action"])
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return float(loss.detach())

    def loss(self, observation: Tensor, action: Tensor) -> Tensor:
        features = self.gpt(observation).flatten(0, 1)  # (B T, 256)
        target = action.unfold(1, self.chunk, 1).transpose(2, 3).flatten(0, 1)  # (B T, H, A)
        true = self.tokenizer.encode(target)
        logits = self.code_head(features).view(-1, self.layers, self.codes)
        sampled = torch.multinomial(logits.softmax(2).flatten(0, 1), 1).view(-1, self.layers)
        table = self.offset_head(features).view(-1, self.layers, self.codes, self.size)
        offset = table[torch.arange(len(table))[:, None], torch.arange(self.layers), sampled].sum(1)
        chunk = self.tokenizer.decode(sampled) + offset.view_as(target)
        total = OFFSET_WEIGHT * (chunk - target).abs().mean()
        for layer, weight in enumerate(CODE_WEIGHTS):
            log_p = -F.cross_entropy(logits[:, layer], true[:, layer], reduction="none")
            total = total - weight * ((1 - log_p.exp()) ** GAMMA * log_p).mean()
        return total
