"""Checks that demonstrations suffice for the parameters of tokenizer and encoder. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from vqbet.contract import Demonstrations, Spec
from vqbet.demos.windows import Corrections, complete_chunks

if TYPE_CHECKING:
    from vqbet.config import EncoderParams, TokenizerParams

LEAST_PX = 32  # of the sides of a picture after its crop, as in models.encoders
FROM_DATA = ("residual", "kmeans")  # codebooks initialised from data, which needs at least `codes` distinct points


def unfit(chosen: TokenizerParams, demos: Demonstrations, corrections: Corrections = "all") -> Iterator[str]:
    """Yield a sentence, beginning with the parameter, for each requirement that the demonstrations cannot meet."""
    longest = int(demos.lengths.max(initial=0))
    if chosen.chunk > longest:
        yield (
            f"chunk: {chosen.chunk} actions, but the longest of {len(demos.lengths)} episodes has {longest}; use a "
            "shorter chunk"
        )
        return
    chunks = complete_chunks(demos, chosen.chunk, corrections)
    if not len(chunks):
        yield f"chunk: no person acted for {chosen.chunk} steps on end; use a shorter chunk, or demos.corrections all"
        return
    found = distinct(chunks)
    if chosen.kind in FROM_DATA and chosen.codes > found:
        yield f"codes: {chosen.codes} codes for {found} distinct chunks of data; use fewer codes"
    elif chosen.health.min_used * chosen.codes > found:
        yield (
            f"health.min_used: {chosen.health.min_used:g} of {chosen.codes} codes cannot be in use: the data has "
            f"{found} distinct chunks, and a chunk has one code in each layer; use fewer codes, or a lower limit"
        )


def blind(encoder: EncoderParams | None, spec: Spec) -> Iterator[str]:
    """Yield a sentence, beginning with the parameter, where cameras and their encoder do not come together."""
    cameras = ", ".join(camera.name for camera in spec.cameras)
    if encoder is None and cameras:
        yield f"encoder: expected one for the cameras of the demonstrations ({cameras}), got none; add the section"
    elif encoder is not None and not cameras:
        yield "encoder: expected none, since the demonstrations have no cameras; remove the section"
    elif encoder is not None:
        for camera in spec.cameras:
            if (least := round(min(camera.height, camera.width) * encoder.crop)) < LEAST_PX:
                yield (
                    f"encoder.crop: {encoder.crop:g} of camera {camera.name!r}, {camera.height} x {camera.width}, are "
                    f"{least} px, and {LEAST_PX} are needed; crop less"
                )


def distinct(chunks: Float[np.ndarray, "N H A"]) -> int:
    """Return the number of distinct chunks."""
    rows = np.ascontiguousarray(chunks.reshape(len(chunks), -1)) + 0.0  # -0.0 becomes 0.0
    return len(np.unique(rows.view(f"V{rows.itemsize * rows.shape[1]}")))
