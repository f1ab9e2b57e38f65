"""Stage: encode every picture once, where the encoder is frozen, so that the prior trains on features and no pictures.

The output of a task without a frozen encoder says so and holds no features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from vqbet import tasks
from vqbet.contract import Advance, ConfigError, Demonstrations
from vqbet.coordinates import views
from vqbet.demos import features, held_out, store
from vqbet.demos.features import Features
from vqbet.models.encoders import Encoder, seen
from vqbet.stages import artifacts, eyes, fitting
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

if TYPE_CHECKING:
    from vqbet.config import TaskParams

PART = 64  # pictures that are read at a time


def run(paths: Paths, params: TaskParams, watch: Watch) -> dict[str, float]:
    chosen, pictures = params.prior.encoder, 0
    if chosen is None or not chosen.frozen:
        features.write(paths.features, {"encoder": ""}, {}, lambda arrays: None)
    else:
        demos = held_out.learned(store.read(paths.store, fetch=paths.fetch), params.demos.learned()).train
        for line in fitting.blind(chosen, demos.spec):
            raise ConfigError(f"{paths.task}.prior.{line}")
        demos = views.seen(demos, params.demos.views, tasks.of(demos.spec))
        encoder = eyes.encoder(chosen, demos.spec.cameras, paths.root)
        shape, pictures = (len(demos.observation), encoder.features // len(demos.cameras)), len(demos.observation)
        with watch.bar(f"features {paths.task}") as advance:
            features.write(
                paths.features,
                eyes.facts(encoder, params.demos, demos),
                dict.fromkeys(demos.cameras, shape),
                lambda arrays: _encode(encoder, demos, arrays, advance),
            )
    metrics = {"pictures": float(pictures)}
    artifacts.write_json(paths.metrics("features"), metrics)
    return metrics


def _encode(encoder: Encoder, demos: Demonstrations, arrays: Mapping[str, Features], advance: Advance) -> None:
    count = len(demos.observation)
    for first in range(0, count, PART):
        rows = np.arange(first, min(first + PART, count))
        found = seen(encoder, {name: frames[rows] for name, frames in demos.cameras.items()})
        for camera, part in zip(encoder.cameras, np.split(found, len(encoder.cameras), axis=1), strict=True):
            arrays[camera.name][rows] = part
        advance(int(rows[-1]) + 1, count, {})
