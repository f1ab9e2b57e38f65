"""The tokenizer: a residual VQ-VAE that turns a chunk of H actions into Q codes and back.

Section 3.2 of VQ-BeT (arXiv 2403.03181); EMA codebooks as in VQ-VAE (arXiv 1711.00937, appendix A.1). Codebooks start
from k-means on data and dead codes are revived, which the authors' code leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from vqbet.contract import TrainingError
from vqbet.nets import MLP, restore, tensors
from vqbet.normalizer import Normalizer

KMEANS_POINTS = 16384
KMEANS_ITERATIONS = 25


@dataclass(frozen=True, slots=True)
class TokenizerShape:
    """chunk H actions, Q layers of K codes, L latent dimensions, width of the hidden layers."""

    chunk: int
    layers: int
    codes: int
    latent: int
    hidden: int


class ResidualQuantizer(nn.Module):
    """Q codebooks of K codes in L dimensions; each layer quantises what the layers before it left over.

    `usage[q, k]` is the moving average of the share of a batch that code k of layer q received, `mass[q, k]` that of
    the sum of those vectors over the batch's size; a code is their ratio, so both start and decay together.
    """

    codebooks: Float[Tensor, "Q K L"]
    usage: Float[Tensor, "Q K"]
    mass: Float[Tensor, "Q K L"]

    def __init__(self, *, layers: int, codes: int, latent: int, decay: float, revive_below: float) -> None:
        super().__init__()
        self.decay, self.revive_below = decay, revive_below
        self.register_buffer("codebooks", torch.zeros(layers, codes, latent))
        self.register_buffer("usage", torch.full((layers, codes), 1 / codes))
        self.register_buffer("mass", torch.zeros(layers, codes, latent))

    def encode(self, latent: Float[Tensor, "B L"]) -> tuple[Int[Tensor, "B Q"], Float[Tensor, "Q B L"]]:
        """Nearest code of each layer (Euclidean), and the residual that each layer saw."""
        codes, residuals = [], []
        residual = latent
        for codebook in self.codebooks:
            nearest = ((codebook**2).sum(1) - 2 * residual @ codebook.T).argmin(1)
            codes.append(nearest)
            residuals.append(residual)
            residual = residual - codebook[nearest]
        return torch.stack(codes, dim=1), torch.stack(residuals)

    def decode(self, codes: Int[Tensor, "B Q"]) -> Float[Tensor, "B L"]:
        return sum(
            (codebook[chosen] for codebook, chosen in zip(self.codebooks, codes.T, strict=True)),
            start=torch.zeros((), device=codes.device),
        )

    @torch.no_grad()
    def update(self, residuals: Float[Tensor, "Q B L"], codes: Int[Tensor, "B Q"]) -> None:
        """One step of the moving averages; codes below `revive_below` vectors a batch restart at random residuals.

        Draws from torch's global generator, and only where a code is dead.
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
        """k-means of each layer's residuals, with the counts that belong to them."""
        for layer in range(len(self.codebooks)):
            centres, counts = kmeans(latent, self.codebooks.shape[1], generator)
            self.codebooks[layer] = centres
            self.usage[layer] = counts / len(latent)
            self.mass[layer] = centres * self.usage[layer, :, None]
            latent = latent - centres[torch.cdist(latent, centres).argmin(1)]


@final
class Tokenizer(nn.Module):
    """Chunks of actions <-> codes, in normalised units; the normaliser of the actions travels with it."""

    single_process = True  # k-means and revived codes would differ from process to process
    trained_steps: Int[Tensor, ""]

    def __init__(
        self,
        normalizer: Normalizer,
        shape: TokenizerShape,
        *,
        reconstruction_weight: float = 1.0,
        commitment_weight: float = 5.0,
        decay: float = 0.99,
        revive_below: float = 1.0,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.reconstruction_weight, self.commitment_weight = reconstruction_weight, commitment_weight
        self.normalizer = normalizer
        size = shape.chunk * normalizer.channels
        self.encoder = MLP(size, shape.hidden, shape.latent)
        self.decoder = MLP(shape.latent, shape.hidden, size)
        self.quantizer = ResidualQuantizer(
            layers=shape.layers, codes=shape.codes, latent=shape.latent, decay=decay, revive_below=revive_below
        )
        self.register_buffer("trained_steps", torch.zeros((), dtype=torch.int64))

    def initialise(self, chunks: Float[np.ndarray, "N H A"], generator: torch.Generator) -> None:
        """Start the codebooks from k-means on chunks in physical units; once, before the first training step."""
        picked = torch.randperm(len(chunks), generator=generator)[:KMEANS_POINTS]
        with torch.no_grad():
            self.quantizer.initialise(self._latent(self._normalize(chunks)[picked]), generator)

    def loss(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruction L1 and commitment of each window's last chunk, where it is complete; updates the codebooks.

        batch: "action" (B, T+H-1, A) in physical units and "valid" (B, T+H-1), as `Windows` gathers them. Over an epoch
        of windows every chunk comes once. Raises TrainingError where a batch holds no complete chunk.
        """
        length = self.shape.chunk
        complete = torch.as_tensor(batch["valid"])[:, -length:].all(1)
        chunks = self._normalize(torch.as_tensor(batch["action"])[:, -length:][complete])
        if not len(chunks):
            raise TrainingError(
                f"tokenizer: a batch of {len(complete)} windows holds no complete chunk of {length} actions"
            )
        latent = self._latent(chunks)
        codes, residuals = self.quantizer.encode(latent)
        quantized = self.quantizer.decode(codes)
        rebuilt = self._rebuild(latent + (quantized - latent).detach())
        reconstruction = (rebuilt - chunks).abs().mean()
        steps = [self.quantizer.codebooks[layer][codes[:, layer]] for layer in range(self.shape.layers)]
        commitment = sum(((seen - step) ** 2).mean() for seen, step in zip(residuals, steps, strict=True))
        loss = self.reconstruction_weight * reconstruction + self.commitment_weight * commitment
        if self.training:
            self.quantizer.update(residuals.detach(), codes)
            self.trained_steps += 1
        used = [codes[:, layer].unique().numel() for layer in range(self.shape.layers)]
        return loss, {
            "reconstruction": reconstruction.detach(),
            "commitment": commitment.detach(),
            "codes_used": torch.tensor(min(used), dtype=torch.float32),
        }

    @torch.no_grad()
    def encode(self, chunk: Float[Tensor, "B H A"]) -> Int[Tensor, "B Q"]:
        return self.quantizer.encode(self._latent(chunk))[0]

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "B Q"]) -> Float[Tensor, "B H A"]:
        return self._rebuild(self.quantizer.decode(codes))

    def health(self, chunks: Float[np.ndarray, "N H A"]) -> dict[str, Any]:
        """How well chunks in physical units survive encode and decode, and how the codes are used; JSON-clean.

        Errors are absolute and per channel; `*_over_std` divides by the standard deviation of the channel.
        """
        rebuilt, codes = [], []
        for part in self._normalize(chunks).split(16384):
            codes.append(self.encode(part))
            rebuilt.append(self.normalizer.unnormalize(self.decode(codes[-1])))
        error = np.abs(torch.cat(rebuilt).numpy() - chunks).reshape(-1, chunks.shape[-1])
        std = np.asarray(chunks, np.float64).reshape(-1, chunks.shape[-1]).std(axis=0)
        mean, p99 = error.mean(axis=0, dtype=np.float64), np.quantile(error, 0.99, axis=0)
        book = torch.cat(codes).numpy()
        shares = np.stack([np.bincount(column, minlength=self.shape.codes) for column in book.T]) / len(book)
        entropy = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=1)
        return {
            "trained_steps": int(self.trained_steps),
            "chunks": len(chunks),
            "codes": self.shape.codes,
            "mean_error": mean.tolist(),
            "p99_error": p99.tolist(),
            "mean_error_over_std": np.divide(mean, std, out=np.zeros_like(mean), where=std > 0).tolist(),
            "p99_error_over_std": np.divide(p99, std, out=np.zeros_like(mean), where=std > 0).tolist(),
            "codes_used": (shares > 0).sum(axis=1).tolist(),
            "perplexity": np.exp(entropy).tolist(),
            "usage": np.round(shares, 6).tolist(),
            "combinations_used": len(np.unique(book, axis=0)),
        }

    def arguments(self) -> dict[str, Any]:
        """What `from_components` needs beside the tensors; JSON-clean."""
        return {**asdict(self.shape), "channels": self.normalizer.channels}

    def components(self) -> dict[str, dict[str, np.ndarray]]:
        return {"tokenizer": tensors(self, without=("normalizer",)), "normalizer": tensors(self.normalizer)}

    @classmethod
    def from_components(
        cls, arguments: Mapping[str, Any], components: Mapping[str, Mapping[str, np.ndarray]]
    ) -> Tokenizer:
        """The exact inverse of `arguments` and `components`. Raises BundleError where tensors do not fit."""
        shape = {name: value for name, value in arguments.items() if name != "channels"}
        tokenizer = cls(Normalizer(arguments["channels"]), TokenizerShape(**shape))
        restore(tokenizer, components["tokenizer"], component="tokenizer", without=("normalizer",))
        restore(tokenizer.normalizer, components["normalizer"], component="normalizer (action)")
        return tokenizer.eval()

    def _normalize(self, chunks: Tensor | np.ndarray) -> Float[Tensor, "B H A"]:
        return self.normalizer.normalize(torch.as_tensor(chunks))

    def _latent(self, chunks: Float[Tensor, "B H A"]) -> Float[Tensor, "B L"]:
        return self.encoder(rearrange(chunks, "b h a -> b (h a)"))

    def _rebuild(self, latent: Float[Tensor, "B L"]) -> Float[Tensor, "B H A"]:
        return rearrange(self.decoder(latent), "b (h a) -> b h a", h=self.shape.chunk)


def check_health(health: Mapping[str, Any], *, max_mean_error: float, max_p99_error: float, min_used: float) -> None:
    """Raises TrainingError, one sentence with every way in which a tokenizer is unfit for a prior.

    The errors are limits on `*_over_std` of every channel, `min_used` on the share of codes used in every layer.
    """
    found = []
    if health["trained_steps"] == 0:
        found.append("it was never trained")
    for name, limit in (("mean_error_over_std", max_mean_error), ("p99_error_over_std", max_p99_error)):
        found += [
            f"{name} of action channel {channel} is {value:.3f}, expected at most {limit:g}"
            for channel, value in enumerate(health[name])
            if not value <= limit
        ]
    found += [
        f"layer {layer} uses {used} of {health['codes']} codes, expected at least {min_used:.0%}"
        for layer, used in enumerate(health["codes_used"])
        if used < min_used * health["codes"]
    ]
    if found:
        raise TrainingError(
            "tokenizer is unhealthy: " + "; ".join(found) + ". Train longer, or give it more codes or a shorter chunk"
        )


def kmeans(
    points: Float[Tensor, "N L"], count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "K L"], Float[Tensor, " K"]]:
    """Lloyd's k-means from a k-means++ start (Arthur & Vassilvitskii 2007): centres and how many points each holds.

    A centre that lost all its points moves to the point farthest from its own centre. Where there are fewer distinct
    points than centres, the spare ones coincide with others and hold no points.
    """
    centres = points[torch.randint(len(points), (1,), generator=generator)]
    distance = (points - centres[0]).square().sum(1)
    while len(centres) < count:
        weights = distance if bool(distance.sum() > 0) else torch.ones_like(distance)
        chosen = points[torch.multinomial(weights, 1, generator=generator)]
        centres = torch.cat([centres, chosen])
        distance = torch.minimum(distance, (points - chosen).square().sum(1))
    for _ in range(KMEANS_ITERATIONS):
        nearest = torch.cdist(points, centres).min(1)
        counts = torch.bincount(nearest.indices, minlength=count)
        sums = torch.zeros_like(centres).index_add_(0, nearest.indices, points)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], centres)
        empty = (counts == 0).nonzero()[:, 0]
        if len(empty) and bool(nearest.values.max() > 0):
            farthest = nearest.values.topk(min(len(empty), len(points))).indices
            centres[empty[: len(farthest)]] = points[farthest]
    final = torch.cdist(points, centres).argmin(1)
    return centres, torch.bincount(final, minlength=count).to(points.dtype)
