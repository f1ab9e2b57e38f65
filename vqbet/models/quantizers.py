"""Quantisers: L numbers of a chunk <-> Q codes of K classes each. Residual VQ, k-means bins, FSQ.

All three have the same form of codes, so that priors over any of them can be compared. `networks` says whether the L
numbers are the output of an encoder or the chunk itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

KMEANS_ITERATIONS = 25  # for centres that training improves
BINS_ITERATIONS = 100  # for centres that are final; BeT's code takes 50, and most data converge earlier
FSQ_MARGIN = 1e-3  # the paper's eps: the reach of tanh beyond the outermost levels
FSQ_SPREAD = 0.75  # levels; at 0.5 two equally frequent values round to the same level


class Quantizer(Protocol):
    """Interface of a quantiser to the tokenizer.

    width: L, the count of numbers per chunk, in and out. networks: True where an encoder and a decoder surround the
    quantiser; otherwise L is the size of a chunk, and nothing is trained after `initialise`.
    """

    width: int
    networks: bool

    def __call__(self, latent: Float[Tensor, "B L"]) -> tuple[Float[Tensor, "B L"], Int[Tensor, "B Q"], Tensor]:
        """Return the quantised numbers (straight-through gradient to `latent`), their codes, and the commitment loss.

        In training mode the quantiser learns from `latent`.
        """

    def encode(self, latent: Float[Tensor, "B L"]) -> Int[Tensor, "B Q"]: ...

    def decode(self, codes: Int[Tensor, "B Q"]) -> Float[Tensor, "B L"]: ...

    def initialise(self, latent: Float[Tensor, "N L"], generator: torch.Generator) -> None:
        """Initialise from data, once, before the first step."""


@final
class ResidualQuantizer(nn.Module):
    """Q codebooks of K codes in L dimensions; each layer quantises the residual of the previous layers.

    Section 3.2 of VQ-BeT (arXiv 2403.03181), codebooks by moving averages (VQ-VAE, arXiv 1711.00937, appendix A.1). One
    layer is plain VQ. `usage[q, k]` is the moving average of the share of a batch assigned to code k of layer q.
    `mass[q, k]` is that of the sum of the assigned vectors over the batch size. A code is mass over usage, so both
    start and decay together.
    """

    networks = True
    codebooks: Float[Tensor, "Q K L"]
    usage: Float[Tensor, "Q K"]
    mass: Float[Tensor, "Q K L"]

    def __init__(self, *, layers: int, codes: int, latent: int, decay: float, revive_below: float) -> None:
        super().__init__()
        self.width, self.decay, self.revive_below = latent, decay, revive_below
        self.register_buffer("codebooks", torch.zeros(layers, codes, latent))
        self.register_buffer("usage", torch.full((layers, codes), 1 / codes))
        self.register_buffer("mass", torch.zeros(layers, codes, latent))

    def forward(self, latent: Float[Tensor, "B L"]) -> tuple[Float[Tensor, "B L"], Int[Tensor, "B Q"], Tensor]:
        codes, residuals, vectors = nearest(self.codebooks, latent)
        straight = latent + (_sum(vectors) - latent).detach()
        commitment = _sum([((seen - vector) ** 2).mean() for seen, vector in zip(residuals, vectors, strict=True)])
        if self.training:
            self.update([seen.detach() for seen in residuals], codes)
        return straight, codes, commitment

    def encode(self, latent: Float[Tensor, "B L"]) -> Int[Tensor, "B Q"]:
        return nearest(self.codebooks, latent)[0]

    def decode(self, codes: Int[Tensor, "B Q"]) -> Float[Tensor, "B L"]:
        return looked_up(self.codebooks, codes)

    @torch.no_grad()
    def update(self, residuals: Sequence[Float[Tensor, "B L"]], codes: Int[Tensor, "B Q"]) -> None:
        """Update the moving averages; codes with less than `revive_below` vectors a batch restart at random residuals.

        Draws from torch's global generator only where a code is dead.
        """
        batch = len(codes)
        for layer, (residual, chosen) in enumerate(zip(residuals, codes.T, strict=True)):
            share = torch.bincount(chosen, minlength=self.usage.shape[1]).to(residual) / batch
            total = torch.zeros_like(self.mass[layer]).index_add_(0, chosen, residual) / batch
            usage = self.usage[layer].lerp_(share, 1 - self.decay)
            mass = self.mass[layer].lerp_(total, 1 - self.decay)
            dead = usage * batch < self.revive_below
            if dead.any():
                picked = torch.randint(batch, (int(dead.sum()),), device=residual.device)
                usage[dead] = 1 / len(usage)
                mass[dead] = residual[picked] / len(usage)
            alive = usage > 0
            self.codebooks[layer, alive] = mass[alive] / usage[alive, None]

    @torch.no_grad()
    def initialise(self, latent: Float[Tensor, "N L"], generator: torch.Generator) -> None:
        """Initialise centres and counts of each layer by k-means of its residuals."""
        layers, codes = self.usage.shape
        centres, counts = residual_kmeans(latent, layers, codes, generator, KMEANS_ITERATIONS)
        self.codebooks.copy_(centres)
        self.usage.copy_(counts / len(latent))
        self.mass.copy_(centres * self.usage[:, :, None])


@final
class KMeansQuantizer(nn.Module):
    """Bins of the chunks themselves, without networks: k-means centres.

    Behavior Transformers (arXiv 2206.11251, section 3.1) has one layer, over single actions. Here each layer after the
    first is k-means of the residual of the previous layers.
    """

    networks = False
    codebooks: Float[Tensor, "Q K HA"]

    def __init__(self, *, layers: int, codes: int, size: int) -> None:
        super().__init__()
        self.width = size
        self.register_buffer("codebooks", torch.zeros(layers, codes, size))

    def forward(self, latent: Float[Tensor, "B HA"]) -> tuple[Float[Tensor, "B HA"], Int[Tensor, "B Q"], Tensor]:
        codes = self.encode(latent)
        return self.decode(codes), codes, latent.new_zeros(())

    def encode(self, latent: Float[Tensor, "B HA"]) -> Int[Tensor, "B Q"]:
        return nearest(self.codebooks, latent)[0]

    def decode(self, codes: Int[Tensor, "B Q"]) -> Float[Tensor, "B HA"]:
        return looked_up(self.codebooks, codes)

    @torch.no_grad()
    def initialise(self, latent: Float[Tensor, "N HA"], generator: torch.Generator) -> None:
        layers, codes, _ = self.codebooks.shape
        self.codebooks.copy_(residual_kmeans(latent, layers, codes, generator, BINS_ITERATIONS)[0])


@final
class ScalarQuantizer(nn.Module):
    """Finite scalar quantisation: each of Q numbers is bounded and rounded to one of K levels (arXiv 2309.15505).

    No codebook and no commitment loss. A code is the index of a level, from 0 to K - 1; level k stands for the number
    (k - K // 2) / (K // 2). For even K the appendix of the paper shifts tanh so that 0 falls onto a level. With K = 2
    this would be an outermost level, where tanh is flat, so 0 stays between the two. `mean` and `scale` are not in the
    paper: they have no effect before `initialise`, and after it they keep a few levels from collapsing into one.
    """

    networks = True
    mean: Float[Tensor, " Q"]
    scale: Float[Tensor, " Q"]

    def __init__(self, *, layers: int, codes: int) -> None:
        super().__init__()
        self.width, self.levels = layers, codes
        self.reach = (codes - 1) * (1 + FSQ_MARGIN) / 2
        self.offset = 0.5 if codes % 2 == 0 else 0.0
        self.shift = math.atanh(self.offset / self.reach) if codes > 2 else 0.0
        self.register_buffer("mean", torch.zeros(layers))
        self.register_buffer("scale", torch.ones(layers))

    def forward(self, latent: Float[Tensor, "B Q"]) -> tuple[Float[Tensor, "B Q"], Int[Tensor, "B Q"], Tensor]:
        bounded = self._bounded(latent)
        codes = self._indices(bounded)
        free = bounded / (self.levels // 2)
        return free + (self.decode(codes) - free).detach(), codes, latent.new_zeros(())

    def encode(self, latent: Float[Tensor, "B Q"]) -> Int[Tensor, "B Q"]:
        return self._indices(self._bounded(latent))

    def decode(self, codes: Int[Tensor, "B Q"]) -> Float[Tensor, "B Q"]:
        return (codes - self.levels // 2) / (self.levels // 2)

    @torch.no_grad()
    def initialise(self, latent: Float[Tensor, "N Q"], generator: torch.Generator) -> None:
        """Centre each number, and scale a deviation below FSQ_SPREAD levels up to FSQ_SPREAD.

        An untrained encoder's numbers are small. Where all of them round to the level at 0, the decoder receives only
        zeros, at which every ReLU of a new network is dead, and never learns.
        """
        deviation = latent.std(0, correction=0)
        varies = deviation > 1e-6
        self.mean.copy_(torch.where(varies, latent.mean(0), 0))
        self.scale.copy_(torch.where(varies, FSQ_SPREAD / (self.reach * deviation), 1).clamp_min(1))

    def _bounded(self, latent: Float[Tensor, "B Q"]) -> Float[Tensor, "B Q"]:
        """Return numbers between -(K // 2) and (K - 1) // 2, or slightly beyond."""
        return ((latent - self.mean) * self.scale + self.shift).tanh() * self.reach - self.offset

    def _indices(self, bounded: Float[Tensor, "B Q"]) -> Int[Tensor, "B Q"]:
        """Return levels, counted from 0. For K above 1000 the margin exceeds half a level, hence the clamp."""
        return (bounded.detach().round().long() + self.levels // 2).clamp(0, self.levels - 1)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Arguments of a quantiser, of which each kind takes those it needs.

    layers Q of codes K, latent L, size H A of a chunk; for moving averages, decay and the use that revives a code.
    """

    layers: int
    codes: int
    latent: int
    size: int
    decay: float
    revive_below: float


def _residual(wanted: Wanted) -> ResidualQuantizer:
    return ResidualQuantizer(
        layers=wanted.layers,
        codes=wanted.codes,
        latent=wanted.latent,
        decay=wanted.decay,
        revive_below=wanted.revive_below,
    )


QUANTIZERS: Mapping[str, Callable[[Wanted], Quantizer]] = {
    "residual": _residual,
    "kmeans": lambda wanted: KMeansQuantizer(layers=wanted.layers, codes=wanted.codes, size=wanted.size),
    "fsq": lambda wanted: ScalarQuantizer(layers=wanted.layers, codes=wanted.codes),
}


def nearest(
    codebooks: Float[Tensor, "Q K L"], latent: Float[Tensor, "B L"]
) -> tuple[Int[Tensor, "B Q"], list[Float[Tensor, "B L"]], list[Float[Tensor, "B L"]]]:
    """Return each layer's nearest code (Euclidean), its residual, and the vector of the code."""
    codes: list[Tensor] = []
    residuals: list[Tensor] = []
    vectors: list[Tensor] = []
    for codebook in codebooks:
        residual = residuals[-1] - vectors[-1] if vectors else latent
        with torch.no_grad():
            chosen = ((codebook**2).sum(1) + residual @ (-2 * codebook).T).argmin(1)
        codes.append(chosen)
        residuals.append(residual)
        vectors.append(codebook.index_select(0, chosen))
    return torch.stack(codes, dim=1), residuals, vectors


def looked_up(codebooks: Float[Tensor, "Q K L"], codes: Int[Tensor, "B Q"]) -> Float[Tensor, "B L"]:
    """Return the sum over layers of the codes' vectors."""
    return _sum([codebook.index_select(0, chosen) for codebook, chosen in zip(codebooks, codes.T, strict=True)])


def residual_kmeans(
    points: Float[Tensor, "N L"], layers: int, codes: int, generator: torch.Generator, iterations: int
) -> tuple[Float[Tensor, "Q K L"], Float[Tensor, "Q K"]]:
    """Return centres and counts by layer: k-means of the points, then of their residuals, and so on."""
    centres, counts = [], []
    for _ in range(layers):
        found, held = kmeans(points, codes, generator, iterations)
        centres.append(found)
        counts.append(held)
        points = points - found[torch.cdist(points, found).argmin(1)]
    return torch.stack(centres), torch.stack(counts)


def kmeans(
    points: Float[Tensor, "N L"], count: int, generator: torch.Generator, iterations: int = KMEANS_ITERATIONS
) -> tuple[Float[Tensor, "K L"], Float[Tensor, " K"]]:
    """Lloyd's k-means from a k-means++ start (Arthur & Vassilvitskii 2007); returns centres and their point counts.

    Ends when the centres stop moving, or after `iterations`. A centre that lost all its points moves to the point
    farthest from its own centre. With fewer distinct points than centres, the spare centres coincide with others and
    hold no points.
    """
    centres = _spread(points, count, generator)
    for _ in range(iterations):
        before = centres
        distances = torch.cdist(points, centres).min(1)
        counts = torch.bincount(distances.indices, minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, distances.indices, points)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], centres)
        empty = (counts == 0).nonzero()[:, 0]
        if len(empty) and bool(distances.values.max() > 0):
            farthest = distances.values.topk(min(len(empty), len(points))).indices
            centres[empty[: len(farthest)]] = points[farthest]
        if torch.equal(centres, before):
            break
    final = torch.cdist(points, centres).argmin(1)
    return centres, torch.bincount(final, minlength=count).to(points.dtype)


def _spread(points: Float[Tensor, "N L"], count: int, generator: torch.Generator) -> Float[Tensor, "K L"]:
    """k-means++ start: each centre is a point drawn in proportion to its squared distance to the centres before it."""
    apart = torch.empty_like(points)  # reused: fresh memory of this size costs more than the arithmetic
    centres = points[torch.randint(len(points), (1,), generator=generator)]
    distance = torch.sub(points, centres[0], out=apart).square_().sum(1)
    while len(centres) < count:
        weights = distance if bool(distance.sum() > 0) else torch.ones_like(distance)
        chosen = points[torch.multinomial(weights, 1, generator=generator)]
        centres = torch.cat([centres, chosen])
        distance = torch.minimum(distance, torch.sub(points, chosen, out=apart).square_().sum(1))
    return centres


def _sum(values: Sequence[Tensor]) -> Tensor:
    return sum(values, start=torch.zeros((), device=values[0].device))
