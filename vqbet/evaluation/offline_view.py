"""The evaluation on held-out episodes as a page shows it: rows, cells, and which of them beat the policy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vqbet.evaluation import records
from vqbet.evaluation.offline import REFERENCES

MEANINGS = {
    "previous": "the action before, again",
    "measured": "the measured value of the channel",
    "linear": "ridge regression on what the policy observes",
    "nearest": "the actions at the most similar training step",
    "mean": "of all training actions",
}
PICTURES = ("horizon", "calibration", "predicted")


def shown(folder: Path) -> dict[str, Any] | None:
    """Return the content of the page from folder/offline.json and its pictures; None where there is no such file.

    Raises GateError where a file is damaged or a picture is missing.
    """
    from markupsafe import Markup

    path = folder / "offline.json"
    if not path.is_file():
        return None
    found = records.parse(records.load(path), str(path))
    parts = []
    for name, part in found["sets"].items():
        drawn = {each: Markup(records.load(folder / "pictures" / f"{name}-{each}.svg")) for each in PICTURES}
        parts.append(_part(found, name, part) | {"pictures": drawn})
    return {"chunk": found["chunk"], "acts": found["acts"], "parts": parts}


def _part(found: Mapping[str, Any], name: str, part: Mapping[str, Any]) -> dict[str, Any]:
    rows, beaten, rebuilt = part["predictions"], part["beaten"], part["tokenizer"]["mean_error_over_std"]
    references = [each for each in REFERENCES if each in rows]
    worst = int(np.argmax(rebuilt))
    return {
        "name": name,
        "episodes": part["episodes"],
        "steps": part["steps"],
        "beaten": sorted({*beaten["next"], *beaten["last"]}),
        "references": references,
        "rows": [
            {
                "name": each,
                "meaning": MEANINGS.get(each, ""),
                "next": row["next_mean"],
                "last": row["last_mean"],
                "next_beats": each in beaten["next"],
                "last_beats": each in beaten["last"],
            }
            for each, row in sorted(rows.items(), key=lambda item: _place(item[0]))
        ],
        "channels": [_channel(found, part, references, place) for place in range(len(found["channels"]))],
        "codes": part["codes"],
        "tokenizer": part["tokenizer"],
        "rebuilt": float(np.mean(rebuilt)),
        "worst": rebuilt[worst],
        "worst_channel": found["channels"][worst],
    }


def _place(name: str) -> tuple[int, str]:
    """Return the place of a row: the policy's first, then the references in their order."""
    return (REFERENCES.index(name) + 1 if name in REFERENCES else 0, name)


def _channel(found: Mapping[str, Any], part: Mapping[str, Any], references: list[str], place: int) -> dict[str, Any]:
    """Return the row of one action channel: errors in physical units, of the policy and of each reference."""
    cells = []
    for when in ("next", "last"):
        mine = part["predictions"]["policy"][when][place]
        for name in ("policy", *references):
            value = part["predictions"][name][when][place]
            cells.append({"value": value, "beats": value is not None and value < mine})
    cells.append({"value": part["tokenizer"]["mean_error"][place], "beats": False})
    return {"name": found["channels"][place], "unit": found["units"][place], "cells": cells}
