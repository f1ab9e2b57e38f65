"""Encoders of pictures from parameters, and the features that a frozen one has made.

An encoder begins with random weights, or with those of a file that `vqbet weights` wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vqbet import bundle
from vqbet.contract import BundleError, Camera, ConfigError, Demonstrations
from vqbet.demos import features
from vqbet.demos.features import Features
from vqbet.models.encoders import Encoder, EncoderShape
from vqbet.stages.paths import Paths

if TYPE_CHECKING:
    from vqbet.config import DemosParams, EncoderParams, WeightsParams

PICKED = ("exclude", "held_out", "held_out_sessions")  # of section `demos`: the episodes that are learned from
MEND = "copy the file there, or make it: vqbet weights <file of torchvision's resnet18> -o <file>"


def encoder(chosen: EncoderParams, cameras: Sequence[Camera], root: Path) -> Encoder:
    """Return the encoder that training begins with. root: the project, at which a relative path of weights begins.

    Raises ConfigError, beginning with the parameter, where the file of weights is missing, has another sha256, or is of
    another network.
    """
    eyes = Encoder(cameras, chosen.into(EncoderShape))
    if chosen.weights is not None:
        values = weights(chosen.weights, root)
        try:
            eyes.begin(values, where=f"{root / chosen.weights.file}")
        except BundleError as error:
            raise ConfigError(
                f"encoder.weights: {error}; expected weights of kind {chosen.kind!r} from `vqbet weights`"
            ) from error
    return eyes


def cached(paths: Paths, chosen: DemosParams, encoder: Encoder, demos: Demonstrations) -> dict[str, Features]:
    """Return the features of the demonstrations, in all views, by camera, as the stage `features` wrote them.

    Raises StoreError where they are not those of this encoder and these demonstrations.
    """
    mend = f"encode them again: dvc repro features@{paths.task}"
    counts = dict.fromkeys(demos.cameras, len(demos.observation))
    return features.read(paths.features, facts(encoder, chosen, demos), counts, mend)


def facts(encoder: Encoder, chosen: DemosParams, demos: Demonstrations) -> dict[str, Any]:
    """Return everything that decides the features of demonstrations."""
    learned = chosen.model_dump(mode="json", include=set(PICKED))
    return {"encoder": encoder.digest(), "demonstrations": demos.digest, "views": sorted(chosen.views), **learned}


def weights(chosen: WeightsParams, root: Path) -> dict[str, np.ndarray]:
    """Return the tensors of the file by name. Raises ConfigError as `encoder`."""
    try:
        sha256, values = bundle.read_tensors(root / chosen.file, MEND)
    except BundleError as error:
        raise ConfigError(f"encoder.weights.file: {error}") from error
    if sha256 != chosen.sha256:
        raise ConfigError(
            f"encoder.weights.sha256: expected {chosen.sha256}, and {root / chosen.file} has {sha256}; bring the file "
            "back, or write this sha256 into params.yaml if it was replaced on purpose"
        )
    return values
