"""Numbers and pictures of a policy on held-out episodes, for the report and for the metrics of the stage evaluate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vqbet.bundle import Bundle
from vqbet.demos import held_out
from vqbet.evaluation import offline as errors
from vqbet.evaluation import offline_figures
from vqbet.evaluation.offline import References
from vqbet.policies.actor import Actor
from vqbet.stages import offline
from vqbet.stages.offline import Held, Offline

OF_TOKENIZER = (
    "chunks",
    "codes",
    "mean_error",
    "mean_error_over_std",
    "p99_error_over_std",
    "codes_used",
    "perplexity",
)


def measured(actor: Actor, part: Held, references: References, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything about one set of held-out episodes; JSON-clean.

    predictions: rows of `offline.table`: "policy" as it acts, "policy, drawn" or "policy, likeliest" as it would act
    otherwise, and the references. beaten: references that are better than the policy. codes, tokenizer: see
    `offline.coded` and `offline.rebuilt`. scores: of the policy, by episode.
    """
    at, acts = part.moments, getattr(actor.planner, "argmax", False)
    other = "policy, drawn" if acts else "policy, likeliest"
    predicted = {
        "policy": offline.predicted(actor, part.demos, at),
        other: offline.predicted(offline.likeliest(actor, argmax=not acts), part.demos, at),
    } | references.predict(at)
    rows = errors.table(predicted, at, references.deviation)
    error = errors.over_deviation(predicted["policy"], at, references.deviation)
    rebuilt = offline.rebuilt(actor, part.demos, said)
    return {
        "episodes": len(part.numbers),
        "numbers": part.numbers.tolist(),
        "contents": list(part.contents),
        "steps": len(at.chunk),
        "predictions": rows,
        "beaten": errors.beaten(rows, "policy"),
        "scores": [each.score for each in errors.by_episode(error, at.episode, len(part.numbers))],
        "codes": offline.coded(actor, part.demos, said),
        "tokenizer": {name: _short(rebuilt[name]) for name in (*OF_TOKENIZER, "combinations_used")},
    }


def document(actor: Actor, packed: Bundle, sets: Offline, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of offline.json."""
    spec = actor.spec
    return {
        "policy": packed.digest,
        "acts": "likeliest codes" if getattr(actor.planner, "argmax", False) else "drawn codes",
        "control_hz": spec.control_hz,
        "chunk": actor.planner.chunk,
        "channels": [channel.name for channel in spec.action],
        "units": [channel.unit for channel in spec.action],
        "deviation": [_short(value) if np.isfinite(value) else None for value in sets.references.deviation.tolist()],
        "sets": dict(found),
    }


def numbers(found: Mapping[str, Any]) -> dict[str, float]:
    """Return the main numbers of each set for the metrics; names of "sessions" begin with this word."""
    metrics: dict[str, float] = {}
    for part, one in found.items():
        prefix = "" if part == "episodes" else f"{part}_"
        rows = {name.replace(", ", "_"): row for name, row in one["predictions"].items()}
        metrics[f"{prefix}held_out"] = float(one["episodes"])
        metrics |= {
            f"{prefix}error_{name}_{when}": row[f"{when}_mean"] for name, row in rows.items() for when in errors.WHEN
        }
        metrics[f"{prefix}beaten_by"] = float(len(one["beaten"]["next"]))
        metrics[f"{prefix}reconstruction"] = float(np.mean(one["tokenizer"]["mean_error_over_std"]))
        for layer, accuracy in enumerate(one["codes"]["accuracy"]):
            metrics[f"{prefix}code_accuracy_{layer}"] = accuracy
            metrics[f"{prefix}calibration_error_{layer}"] = one["codes"]["calibration_error"][layer]
    return metrics


def pictures(actor: Actor, part: Held, found: Mapping[str, Any], name: str) -> dict[str, str]:
    """Return the figures of a set: "horizon", "calibration", and "predicted" chunks of the episode of median score."""
    spec = actor.spec
    chosen = int(np.argsort(found["scores"], kind="stable")[len(found["scores"]) // 2])
    alone = held_out.chosen(part.demos, np.array([chosen]))
    at = offline.moments(actor, alone, {}, offline.MOST)
    every = np.flatnonzero((at.step - 1) % actor.planner.chunk == 0)
    predicted = offline.predicted(actor, alone, at)[every]
    return {
        "horizon": offline_figures.horizon(found["predictions"], spec.control_hz, name=f"{name}-horizon"),
        "calibration": offline_figures.reliability(found["codes"]["reliability"], name=f"{name}-calibration"),
        "predicted": offline_figures.chunks(
            alone.action, predicted, at.step[every], spec.action, spec.control_hz, name=f"{name}-predicted"
        ),
    }


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return [_short(item) for item in value]
    return round(value, errors.DIGITS) if isinstance(value, float) else value
