"""The tokenizer converts a chunk of H actions into Q codes and back: a quantiser between an encoder and a decoder.

With the residual quantiser this is section 3.2 of VQ-BeT (arXiv 2403.03181). Unlike in the authors' code, codebooks
start from k-means on data and dead codes are revived. The other kinds in `vqbet.models.quantizers` are for comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from vqbet.contract import BundleError, TrainingError
from vqbet.models.nets import MLP, restore, tensors
from vqbet.models.normalizer import Normalizer
from vqbet.models.quantizers import QUANTIZERS, Wanted

KMEANS_POINTS = 16384
SHOWN = 5  # channels named per limit in a message


@dataclass(frozen=True, slots=True)
class TokenizerShape:
    """chunk H actions, Q layers of K codes, L latent dimensions, width of the hidden layers, kind of the quantiser.

    The meaning of layers and codes depends on the kind (`quantizers`): "residual" (one layer is plain VQ), "kmeans",
    which uses neither latent nor hidden, or "fsq", whose latent dimensions are its Q layers, with K levels each.
    """

    chunk: int
    layers: int
    codes: int
    latent: int
    hidden: int
    kind: str = "residual"


@final
class Tokenizer(nn.Module):
    """Chunks of actions <-> codes, in normalised units. Holds the normaliser of the actions.

    Raises ValueError for a kind that is not in QUANTIZERS.
    """

    single_process = True  # k-means and revived codes would differ between processes
    varying_shapes = True  # of a loss over those chunks of a batch that are complete
    trained_steps: Int[Tensor, ""]

    def __init__(
        self,
        normalizer: Normalizer,
        shape: TokenizerShape,
        *,
        commitment_weight: float = 5.0,
        decay: float = 0.99,
        revive_below: float = 1.0,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.commitment_weight = commitment_weight
        self.normalizer = normalizer
        size = shape.chunk * normalizer.channels
        if shape.kind not in QUANTIZERS:
            raise ValueError(f"tokenizer: expected a kind of {', '.join(QUANTIZERS)}, got {shape.kind!r}")
        quantizer = QUANTIZERS[shape.kind](
            Wanted(shape.layers, shape.codes, shape.latent, size, decay=decay, revive_below=revive_below)
        )
        networks = quantizer.networks
        self.encoder = MLP(size, shape.hidden, quantizer.width) if networks else nn.Identity()
        self.decoder = MLP(quantizer.width, shape.hidden, size) if networks else nn.Identity()
        self.quantizer = quantizer
        self.register_buffer("trained_steps", torch.zeros((), dtype=torch.int64))

    @property
    def trainable(self) -> bool:
        """True where anything is trained after `initialise`."""
        return self.quantizer.networks

    def initialise(self, chunks: Float[np.ndarray, "N H A"], generator: torch.Generator) -> None:
        """Initialise the quantiser from chunks in physical units; once, before the first training step.

        Where nothing is trainable this is the whole training, and counts as one step.
        """
        picked = torch.randperm(len(chunks), generator=generator)[:KMEANS_POINTS]
        with torch.no_grad():
            self.quantizer.initialise(self._latent(self._normalize(chunks)[picked]), generator)
        if not self.trainable:
            self.trained_steps.fill_(1)

    def loss(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return reconstruction L1 plus commitment loss of each window's last chunk, where complete; metrics.

        batch, as gathered by `Windows`: "action" (B, T+H-1, A) in physical units and "valid" (B, T+H-1). An epoch of
        windows holds every chunk once. In training mode the codebooks are updated. Raises TrainingError where a batch
        holds no complete chunk.
        """
        length = self.shape.chunk
        complete = torch.as_tensor(batch["valid"])[:, -length:].all(1)
        chunks = self._normalize(torch.as_tensor(batch["action"])[:, -length:][complete])
        if not len(chunks):
            raise TrainingError(
                f"tokenizer: a batch of {len(complete)} windows holds no complete chunk of {length} actions"
            )
        quantized, codes, commitment = self.quantizer(self._latent(chunks))
        reconstruction = (self._rebuild(quantized) - chunks).abs().mean()
        loss = reconstruction + self.commitment_weight * commitment
        if self.training and self.trainable:
            self.trained_steps += 1
        used = [codes[:, layer].unique().numel() for layer in range(self.shape.layers)]
        return loss, {
            "reconstruction": reconstruction.detach(),
            "commitment": commitment.detach(),
            "codes_used": torch.tensor(min(used), dtype=torch.float32),
        }

    @torch.no_grad()
    def encode(self, chunk: Float[Tensor, "B H A"]) -> Int[Tensor, "B Q"]:
        return self.quantizer.encode(self._latent(chunk))

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "B Q"]) -> Float[Tensor, "B H A"]:
        return self._rebuild(self.quantizer.decode(codes))

    def health(self, chunks: Float[np.ndarray, "N H A"]) -> dict[str, Any]:
        """Return reconstruction errors of chunks in physical units and the usage of the codes; JSON-clean.

        Errors are absolute and per channel; `*_over_std` is divided by the standard deviation of the channel.
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
        """Return the `arguments` of `from_components`; JSON-clean."""
        return {**asdict(self.shape), "channels": self.normalizer.channels}

    def components(self) -> dict[str, dict[str, np.ndarray]]:
        return {"tokenizer": tensors(self, without=("normalizer",)), "normalizer": tensors(self.normalizer)}

    @classmethod
    def from_components(
        cls, arguments: Mapping[str, Any], components: Mapping[str, Mapping[str, np.ndarray]]
    ) -> Tokenizer:
        """Return the tokenizer of these `arguments` and `components`, exactly.

        Older arguments, without a kind or of kind "vq", mean residual. Raises BundleError where tensors do not fit, or
        for an unknown kind.
        """
        shape = {name: value for name, value in arguments.items() if name != "channels"}
        shape["kind"] = "residual" if shape.get("kind", "vq") == "vq" else shape["kind"]
        if shape["kind"] not in QUANTIZERS:
            raise BundleError(f"tokenizer: expected a kind of {', '.join(QUANTIZERS)}, got {shape['kind']!r}")
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


def check_health(
    health: Mapping[str, Any], channels: Sequence[str], *, max_mean_error: float, max_p99_error: float, min_used: float
) -> None:
    """Raise TrainingError, in one line, with every reason why the tokenizer of this `health` is unfit for a prior.

    channels: names of the action channels. max_*_error limits `*_over_std` of every channel, `min_used` the share of
    codes used in every layer.
    """
    found = []
    if health["trained_steps"] == 0:
        found.append("it was never trained")
    for name, limit in (("mean", max_mean_error), ("p99", max_p99_error)):
        values = zip(channels, health[f"{name}_error_over_std"], strict=True)
        beyond = [f"{channel} {value:.3f}" for channel, value in values if not value <= limit]
        if beyond:
            more = f" and {len(beyond) - SHOWN} more" if len(beyond) > SHOWN else ""
            found.append(
                f"{name} error over standard deviation is {', '.join(beyond[:SHOWN])}{more}, expected at most {limit:g}"
            )
    found += [
        f"layer {layer} uses {used} of {health['codes']} codes, expected at least {min_used:.0%}"
        for layer, used in enumerate(health["codes_used"])
        if used < min_used * health["codes"]
    ]
    if found:
        raise TrainingError(
            "tokenizer is unhealthy: " + "; ".join(found) + ". Train longer, or give it more codes or a shorter chunk"
        )
