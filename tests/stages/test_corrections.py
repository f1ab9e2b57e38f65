"""`demos.corrections` reaches the windows of tokenizer and prior, and is refused where nothing would be left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tests.support.synthetic import synthetic
from vqbet import config
from vqbet.contract import Demonstrations
from vqbet.stages import fitting, prior, tokenizer

PARAMS = config.task(Path(__file__).parents[2] / "params.yaml", "blockpush")  # chunks of 3 actions


def corrected(steps: int) -> Demonstrations:
    """Six episodes, in the first of which a person acted for some steps; of no known task."""
    demos = synthetic(6)
    return replace(demos, intervention=np.arange(len(demos.action)) < steps)


def test_the_prior_learns_from_the_windows_that_are_asked_for() -> None:
    demos = corrected(5)
    torch.manual_seed(0)
    parts = tokenizer.build(PARAMS.tokenizer, demos)
    parts.trained_steps += 1
    _, every = prior.build(PARAMS.prior, parts, demos, (), wanted=())
    _, only = prior.build(PARAMS.prior, parts, demos, (), wanted=(), corrections="only")
    assert len(every) == len(demos.action)
    assert len(only) == len(demos.action) - demos.lengths[0] + 5


def test_corrections_too_short_for_a_chunk_are_a_sentence() -> None:
    demos = corrected(2)
    alone = replace(
        demos,
        observation=demos.observation[: demos.lengths[0]],
        action=demos.action[: demos.lengths[0]],
        episode_ends=demos.episode_ends[:1],
        intervention=corrected(2).intervention[: demos.lengths[0]],  # type: ignore[index]
    )
    assert list(fitting.unfit(PARAMS.tokenizer, alone)) == []
    (sentence,) = fitting.unfit(PARAMS.tokenizer, alone, "only")
    assert sentence.startswith("chunk: no person acted for 3 steps on end")
