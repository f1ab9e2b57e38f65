"""Stage: fit a quantiser to action chunks and train the networks around it. An unhealthy tokenizer stops the graph.

The last checkpoint stays in the stage's scratch folder, outside DVC's outs. If only the limits of health changed, the
stage checks the same tokenizer against the new limits and takes no training step.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vqbet import bundle, tasks
from vqbet.contract import Demonstrations, PipelineError, TrainingError
from vqbet.coordinates import views
from vqbet.demos import held_out, store
from vqbet.demos.windows import Corrections, Windows, complete_chunks
from vqbet.models.normalizer import Normalizer
from vqbet.models.tokenizer import Tokenizer, TokenizerShape, check_health
from vqbet.stages import artifacts, code_version, fitting
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.training import checkpoint, loop
from vqbet.training.recipe import Recipe, seed_everything

if TYPE_CHECKING:
    from vqbet.config import TaskParams, TokenizerParams

ACCEPTED = "accepted.json"  # beside the checkpoints: the health limits that their tokenizer has met
FITTED_ON = 16384  # windows behind the single row of curves of a fit without training


def run(paths: Paths, params: TaskParams, watch: Watch) -> dict[str, float]:
    chosen = params.tokenizer
    demos = held_out.learned(store.read(paths.store, fetch=paths.fetch), params.demos.learned()).train
    views.refuse(paths.task, params.demos.views, tasks.of(demos.spec))
    refuse_unfit(paths.task, chosen, demos, params.demos.corrections)
    code, folder = code_version.digest(__name__, paths.task), paths.scratch("checkpoints/tokenizer")
    _forget_if_accepted(folder, chosen)
    made = fit(
        chosen,
        demos,
        wanted=params.demos.views,
        corrections=params.demos.corrections,
        folder=folder,
        fingerprint=f"{demos.digest}:{code}:{params.demos.learned()}:{json.dumps(made_with(chosen))}",
        watch=watch,
    )
    tokenizer = made.tokenizer
    recorded = views.seen(demos, set(params.demos.views) - {"mirrored"}, tasks.of(demos.spec))
    health = tokenizer.health(complete_chunks(recorded, chosen.chunk, params.demos.corrections))
    artifacts.write_curves(paths.plot("tokenizer"), made.history)
    artifacts.write_json(paths.health, described(health, recorded))
    channels = [channel.name for channel in recorded.spec.action]
    check_health(health, channels, **chosen.health.model_dump())
    bundle.write(
        paths.tokenizer,
        kind="tokenizer",
        spec=demos.spec,
        arguments=tokenizer.arguments(),
        components=tokenizer.components(),
        provenance={"code": code, "data": demos.digest, "params": made_with(chosen), **params.demos.learned()},
    )
    metrics = {
        "mean_error_over_std": max(health["mean_error_over_std"]),
        "p99_error_over_std": max(health["p99_error_over_std"]),
        **{f"codes_used_{layer}": float(used) for layer, used in enumerate(health["codes_used"])},
        **{f"perplexity_{layer}": value for layer, value in enumerate(health["perplexity"])},
        "combinations_used": float(health["combinations_used"]),
    }
    artifacts.write_json(paths.metrics("tokenizer"), metrics)
    artifacts.write_json(folder / ACCEPTED, chosen.health.model_dump())
    return metrics


def _forget_if_accepted(folder: Path, chosen: TokenizerParams) -> None:
    """Remove the checkpoints if their tokenizer has met exactly these limits. A stage that DVC runs again for another
    reason, or with --force, then trains again."""
    note = folder / ACCEPTED
    with suppress(PipelineError):
        if artifacts.read_object(note) == chosen.health.model_dump():
            checkpoint.clear(folder)
    note.unlink(missing_ok=True)


def made_with(chosen: TokenizerParams) -> dict[str, Any]:
    """Return the parameters that determine a trained tokenizer: the section without the limits of health."""
    return chosen.model_dump(mode="json", exclude={"health"})


@dataclass(frozen=True, slots=True)
class Fit:
    """Fitted and trained tokenizer, its curves, and the duration in seconds by `loop.clock`."""

    tokenizer: Tokenizer
    history: list[dict[str, float]]
    seconds: float


def fit(
    chosen: TokenizerParams,
    demos: Demonstrations,
    *,
    wanted: Collection[str],
    folder: Path,
    fingerprint: str,
    watch: Watch,
    corrections: Corrections = "all",
) -> Fit:
    """Initialise codebooks from data if the kind has any, then train if it has networks; checkpoints go to `folder`.

    wanted: views of the demonstrations to learn from. Raises ConfigError where the task does not support one of them.
    """
    began = loop.clock()
    demos = views.seen(demos, wanted, tasks.of(demos.spec))
    windows = Windows(demos, window=1, chunk=chosen.chunk, corrections=corrections, pictures=False)
    seed_everything(chosen.seed)
    tokenizer = build(chosen, demos)
    chunks = complete_chunks(demos, chosen.chunk, corrections)
    tokenizer.initialise(chunks, torch.Generator().manual_seed(chosen.seed))
    if not tokenizer.trainable:
        history = [fitted(tokenizer, windows)]
        watch.track(1, history[0])
        return Fit(tokenizer.eval(), history, loop.clock() - began)
    with watch.bar(f"tokenizer {demos.spec.task}") as advance:
        trained = loop.train(
            tokenizer,
            windows.gather,
            len(windows),
            recipe(chosen),
            folder=folder,
            fingerprint=fingerprint,
            track=watch.track,
            progress=advance,
        )
    watch.note(trained.ran.tags())
    if trained.resumed_from == trained.steps:
        watch.say(f"tokenizer {demos.spec.task}: nothing but its limits changed, so it is judged again, not trained")
    return Fit(tokenizer.eval(), trained.history, loop.clock() - began)


def refuse_unfit(task: str, chosen: TokenizerParams, demos: Demonstrations, corrections: Corrections = "all") -> None:
    """Raise TrainingError, naming the parameter, where the data does not suffice for the parameters."""
    for sentence in fitting.unfit(chosen, demos, corrections):
        raise TrainingError(f"{task}.tokenizer.{sentence}")


def build(chosen: TokenizerParams, demos: Demonstrations) -> Tokenizer:
    """Return an untrained tokenizer, with only its normalizer fitted to the actions."""
    return Tokenizer(
        Normalizer.fit(demos.action, demos.spec.action),
        chosen.into(TokenizerShape),
        commitment_weight=chosen.commitment_weight,
        decay=chosen.decay,
        revive_below=chosen.revive_below,
    )


def fitted(tokenizer: Tokenizer, windows: Windows) -> dict[str, float]:
    """Return the single row of curves of a tokenizer without training: its loss on windows spread over the data."""
    index = np.linspace(0, len(windows) - 1, min(len(windows), FITTED_ON)).astype(np.int64)
    loss, metrics = tokenizer.eval().loss(windows.gather(index))
    return {"step": 1.0, "lr": 0.0, "loss": float(loss)} | {name: float(value) for name, value in metrics.items()}


def recipe(chosen: TokenizerParams) -> Recipe:
    """Return the recipe of the paper's code: constant learning rate, no effective clipping, no averaging."""
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


def described(health: dict[str, Any], demos: Demonstrations) -> dict[str, Any]:
    """Return the health report with the names and units of its channels."""
    return {
        **health,
        "channels": [channel.name for channel in demos.spec.action],
        "units": [channel.unit for channel in demos.spec.action],
    }
