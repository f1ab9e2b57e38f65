"""Stand-in for a training step of the authors' VQ-BeT on Push-T, for a comparison with ours on the same machine.

Written from a description of the authors' computation, not from their code. Each of the T positions is supervised, and
passes the GPT's output layer of 256 features and both heads of 1024 units. The offset head returns the vectors of all
Q K codes, from which those of sampled codes are gathered. The tokenizer's network decodes the sampled codes. Two AdamW
optimisers; no clipping, weight average or dropout. Windows come one by one from a Dataset (`bench.slices`). The GPT's
blocks are our own, so the stand-in lacks any peculiarity of theirs.

The authors' step with its loader takes 772 ms on one thread (2026-11-28, AMD EPYC with AVX-512, see docs/log.md), and
took 804 (median 865) on two cores of a processor without AVX-512. The stand-in, with AVX-512 on a machine in use, took
969 (991) on one core and 644 (720) on two, best of three runs. Its loader reads 70,000 windows/s, theirs 27,400
(2026-11-28), so the stand-in lacks about 11 ms of loading per step.
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
    """Model whose `step(batch)` makes one training step and returns the loss."""

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
