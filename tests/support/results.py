"""Result of the comparison, in the form that a cell writes."""

from __future__ import annotations

from typing import Any

from vqbet.comparison.results import Result


def made(score: list[float], **fields: Any) -> Result:
    """Return a result of VQ-BeT on Push-T; an episode with score 1 is a success. fields: values that replace fields."""
    given: dict[str, Any] = {
        "key": "k" * 64,
        "task": "pusht",
        "goal": False,
        "policy": "vqbet",
        "variant": "",
        "seed": 0,
        "size": "small",
        "first_seed": 3_000_000,
        "train_s": 300.0,
        "tokenizer_s": 20.0,
        "steps": 4000,
        "batch": 256,
        "samples_per_s": 9000.0,
        "parameters": 1_160_000,
        "act_ms": {"batch_1": 1.3, "action_1": 0.3, "batch_64": 5.0, "action_64": 1.1},
        "score": score,
        "success": [value == 1 for value in score],
        "modes": {},
        "metrics": {"mean_max_coverage": 0.8},
        "made_with": {"device": "cpu", "threads": 2, "code": "c", "git_commit": "abc"},
    }
    return Result(**{**given, **fields})
