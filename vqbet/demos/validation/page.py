"""HTML page of a validation report: one file that loads nothing, with histograms drawn as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from vqbet.demos.validation.sheets import Sheet
from vqbet.pages import page
from vqbet.pages.page import number

SENTENCES = {
    "expect_table_row_count_to_equal": "has {value} rows",
    "expect_column_values_to_not_be_null": "is never missing",
    "expect_column_values_to_be_in_set": "is one of {value_set}",
    "expect_column_values_to_be_unique": "never repeats",
    "expect_compound_columns_to_be_unique": "{column_list} never repeat together",
    "expect_column_pair_values_a_to_be_greater_than_b": "{column_A} ≥ {column_B}",
}


def render(report: Mapping[str, Any], sheets: Sequence[Sheet] = ()) -> str:
    """Return the page of `Report.to_json()`; equal reports and sheets give equal text."""
    return page.render(
        "demos/validation/page.html.j2",
        report=report,
        sheets=sheets,
        sentence=sentence,
        histogram=histogram,
        track=track,
        rows=rows,
    )


def rows(table: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return a table of columns as a list of rows."""
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def sentence(entry: Mapping[str, Any]) -> str:
    """Return the condition of one expectation in words."""
    arguments = entry["arguments"]
    where = f" where {entry['where']}" if entry["where"] else ""
    pattern = SENTENCES.get(entry["expectation"])
    if pattern is None:
        low, high = arguments.get("min_value"), arguments.get("max_value")
        below = "<" if arguments.get("strict_min") else "≤"
        if low == high:
            return f"is {number(low)}{where}"
        subject = "mean" if "mean" in entry["expectation"] else "value"
        left = "" if low is None else f"{number(low)} {below} "
        right = "" if high is None else f" ≤ {number(high)}"
        return f"{left}{subject}{right}{where}"
    listed = {key: ", ".join(map(str, value)) if isinstance(value, list) else value for key, value in arguments.items()}
    return pattern.format(**listed) + where


def histogram(
    bins: Mapping[str, Any], *, width: int, height: int, bounds: Sequence[float] = (), ticks: bool = False
) -> dict[str, Any]:
    """Return positions of a histogram's bars, dashed bounds and tick labels, in pixels of a width x height box."""
    low, high, counts = bins["low"], bins["high"], bins["counts"]
    if not counts:
        low, high = 0.0, 1.0
    inside = [bound for bound in bounds if low - 0.3 * (high - low) <= bound <= high + 0.3 * (high - low)]
    left, right = min([low, *inside]), max([high, *inside])
    scale = width / (right - left)
    foot = height - (16 if ticks else 0)
    top = max(counts, default=1)
    step = (high - low) / max(len(counts), 1) * scale
    bars = [
        {
            "x": _px((low - left) * scale + place * step),
            "y": _px(foot - foot * count / top),
            "w": _px(max(step - 1, 0.6)),
            "h": _px(foot * count / top),
        }
        for place, count in enumerate(counts)
        if count
    ]
    marks = _round_numbers(left, right) if ticks else []
    return {
        "width": width,
        "height": height,
        "foot": _px(foot),
        "bars": bars,
        "bounds": [_px((bound - left) * scale) for bound in inside],
        "ticks": [{"x": _px((mark - left) * scale), "label": number(mark)} for mark in marks],
    }


def track(row: Mapping[str, Any], *, width: int) -> dict[str, str] | None:
    """Return positions of a channel's range and mean within its limits; None unless limits and values are finite."""
    low, high = row["low"], row["high"]
    if None in (low, high, row["minimum"], row["maximum"]):
        return None
    left, right = min(low, row["minimum"]), max(high, row["maximum"])

    def at(value: float) -> float:
        return (value - left) / (right - left) * width

    return {
        "x": _px(at(row["minimum"])),
        "w": _px(max(at(row["maximum"]) - at(row["minimum"]), 1.5)),
        "mean": _px(at(row["mean"])),
        "low": _px(at(low)),
        "high": _px(at(high) - at(low)),
    }


def _round_numbers(low: float, high: float) -> list[float]:
    """Return four to ten multiples of 1, 2 or 5 times a power of ten between low and high."""
    size = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = size * max(factor for factor in (1, 2, 5) if factor * size <= (high - low) / 4)
    return [step * place for place in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _px(value: float) -> str:
    return f"{value:.1f}"
