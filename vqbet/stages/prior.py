"""Stage: train the prior over the frozen tokenizer's codes. Its bundle names the tokenizer it was trained on."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from vqbet import bundle, checkpoint, launch, train
from vqbet.contract import Demonstrations
from vqbet.demos import store
from vqbet.demos.windows import Windows
from vqbet.normalizer import Normalizer
from vqbet.prior import Objective, Prior, PriorShape
from vqbet.recipe import Recipe, seed_everything
from vqbet.stages import files, sources
from vqbet.stages.paths import Paths
from vqbet.stages.watch import Watch
from vqbet.tokenizer import Tokenizer

if TYPE_CHECKING:
    from vqbet.config import PriorParams, TaskParams


def run(paths: Paths, params: TaskParams, watch: Watch) -> dict[str, float]:
    chosen = params.prior
    demos = store.read(paths.store)
    tokenizer = bundle.read(paths.tokenizer)
    bundle.expect(tokenizer, demos.spec)
    seed_everything(chosen.seed)
    model = build(chosen, tokenizer, demos)
    windows = Windows(demos, window=chosen.window, chunk=model.tokenizer.shape.chunk)
    code = sources.digest(__name__)
    with watch.bar(f"prior {paths.task}") as advance:
        trained = train.train(
            model,
            windows.gather,
            len(windows),
            recipe(chosen),
            folder=paths.scratch("checkpoints/prior"),
            fingerprint=f"{tokenizer.digest}:{demos.digest}:{code}:{chosen.model_dump_json()}",
            track=watch.track,
            progress=advance,
        )
    if not launch.is_main():
        return {}
    files.write_curves(paths.plot("prior"), trained.history)
    bundle.write(
        paths.prior,
        kind="prior",
        spec=demos.spec,
        arguments=model.arguments(),
        components=model.eval().components(),
        provenance={
            "code": code,
            "data": demos.digest,
            "tokenizer": tokenizer.digest,
            "params": chosen.model_dump(mode="json"),
        },
    )
    checkpoint.clear(paths.scratch("checkpoints/prior"))
    metrics = {name: value for name, value in trained.history[-1].items() if name != "step"}
    files.write_json(paths.metrics("prior"), metrics)
    return metrics


def build(chosen: PriorParams, tokenizer: bundle.Bundle, demos: Demonstrations) -> Prior:
    """An untrained prior over a trained tokenizer."""
    return Prior(
        Tokenizer.from_components(tokenizer.arguments, tokenizer.components),
        Normalizer.fit(demos.observation),
        PriorShape(**{field.name: getattr(chosen, field.name) for field in fields(PriorShape)}),
        Objective(**{field.name: getattr(chosen, field.name) for field in fields(Objective)}),
    )


def recipe(chosen: PriorParams) -> Recipe:
    return Recipe(**{field.name: getattr(chosen, field.name) for field in fields(Recipe)})
