"""Stage: train the residual VQ-VAE on action chunks. An unhealthy tokenizer stops the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vqbet import bundle, checkpoint, train
from vqbet.contract import Demonstrations, TrainingError
from vqbet.demos import store
from vqbet.demos.windows import Windows
from vqbet.normalizer import Normalizer
from vqbet.recipe import Recipe, seed_everything
from vqbet.stages import files, sources
from vqbet.stages.paths import Paths
from vqbet.stages.watch import Watch
from vqbet.tokenizer import Tokenizer, TokenizerShape, check_health

if TYPE_CHECKING:
    from vqbet.config import TaskParams, TokenizerParams


def run(paths: Paths, params: TaskParams, watch: Watch) -> dict[str, float]:
    chosen = params.tokenizer
    demos = store.read(paths.store)
    windows = Windows(demos, window=1, chunk=chosen.chunk)
    chunks = complete_chunks(windows)
    if len(chunks) < chosen.codes:
        raise TrainingError(
            f"{paths.task}.tokenizer.codes: {chosen.codes} codes for {len(chunks)} chunks of data; use fewer codes"
        )
    seed_everything(chosen.seed)
    tokenizer = Tokenizer(
        Normalizer.fit(demos.action),
        TokenizerShape(chosen.chunk, chosen.layers, chosen.codes, chosen.latent, chosen.hidden),
        reconstruction_weight=chosen.reconstruction_weight,
        commitment_weight=chosen.commitment_weight,
        decay=chosen.decay,
        revive_below=chosen.revive_below,
    )
    tokenizer.initialise(chunks, torch.Generator().manual_seed(chosen.seed))
    code = sources.digest(__name__)
    with watch.bar(f"tokenizer {paths.task}") as advance:
        trained = train.train(
            tokenizer,
            windows.gather,
            len(windows),
            recipe(chosen),
            folder=paths.scratch("checkpoints/tokenizer"),
            fingerprint=f"{demos.digest}:{code}:{chosen.model_dump_json()}",
            track=watch.track,
            progress=advance,
        )
    health = tokenizer.eval().health(chunks)
    files.write_curves(paths.plot("tokenizer"), trained.history)
    files.write_json(paths.health, described(health, demos))
    check_health(health, **chosen.health.model_dump())
    bundle.write(
        paths.tokenizer,
        kind="tokenizer",
        spec=demos.spec,
        arguments=tokenizer.arguments(),
        components=tokenizer.components(),
        provenance={"code": code, "data": demos.digest, "params": chosen.model_dump(mode="json")},
    )
    checkpoint.clear(paths.scratch("checkpoints/tokenizer"))
    metrics = {
        "mean_error_over_std": max(health["mean_error_over_std"]),
        "p99_error_over_std": max(health["p99_error_over_std"]),
        **{f"codes_used_{layer}": float(used) for layer, used in enumerate(health["codes_used"])},
        **{f"perplexity_{layer}": value for layer, value in enumerate(health["perplexity"])},
        "combinations_used": float(health["combinations_used"]),
    }
    files.write_json(paths.metrics("tokenizer"), metrics)
    return metrics


def recipe(chosen: TokenizerParams) -> Recipe:
    """Constant learning rate, no clipping that would bite, no averaging: as the paper's code trains it."""
    return Recipe(
        steps=chosen.steps,
        batch=chosen.batch,
        lr=chosen.lr,
        warmup=0,
        min_lr=1.0,
        weight_decay=chosen.weight_decay,
        clip=10.0,
        ema=0.0,
        seed=chosen.seed,
    )


def complete_chunks(windows: Windows) -> np.ndarray:
    """Every chunk of H actions that lies within its episode, in physical units, (M, H, A)."""
    batch = windows.gather(np.arange(len(windows)))
    return batch["action"][batch["valid"].all(axis=1)]


def described(health: dict[str, Any], demos: Demonstrations) -> dict[str, Any]:
    """The health report with the names and units of the channels it speaks of."""
    return {
        **health,
        "channels": [channel.name for channel in demos.spec.action],
        "units": [channel.unit for channel in demos.spec.action],
    }
