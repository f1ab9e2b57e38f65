"""The page of a comparison: one self-contained HTML file with inline SVG, from the content of drift.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from vqbet.pages import page
from vqbet.pages.page import number

DOTS = 30  # channels in the dot plot
WORST = 6  # channels with histograms
LEAST_SHARE = 0.001  # of the errors: lower end of the plot of a tail

Json = Mapping[str, Any]


def render(report: Json) -> str:
    """Return the page for the content of drift.json; equal content returns equal text."""
    ranked = sorted(report["shifts"], key=lambda each: -each["distance"])
    return page.render(
        "drift/page.html.j2",
        report=report,
        badge=badge(report),
        dots=dots(ranked[:DOTS], report),
        hidden=len(ranked[DOTS:]),
        histograms=[(each, bars(each["old_bars"], each["new_bars"], 330, 110)) for each in ranked[:WORST]],
        layers=[(each, bars(each["old"], each["new"], 1060, 120)) for each in report["layers"]],
        tails=[(each, tail(each, report["curve_levels"])) for each in report["tails"]],
        checks=checks(report),
    )


def badge(report: Json) -> tuple[str, str]:
    """Return CSS class and text of the page's badge."""
    asks = {each["asks"] for each in report["exceeded"]}
    if "tokenizer" in asks:
        return "bad", "NEW TOKENIZER NEEDED"
    return ("warn", "TOKENIZER FITS, OBSERVATIONS MOVED") if asks else ("good", "TOKENIZER STILL FITS")


def checks(report: Json) -> list[dict[str, Any]]:
    """Return, per threshold, the largest value: among those that exceed the threshold, if any."""
    kinds = (
        ("max_shift", "standard deviations", report["shifts"], "distance", lambda each: each["name"]),
        ("max_divergence", "bits", report["layers"], "divergence", lambda each: f"layer {each['layer']}"),
        ("max_tail", "times the old p99", report["tails"], "ratio", lambda each: f"tail of {each['name']}"),
    )
    found = []
    for threshold, unit, rows, key, name in kinds:
        exceeded = {each["what"] for each in report["exceeded"] if each["threshold"] == threshold}
        over = [each for each in rows if name(each) in exceeded]
        worst = max(over or rows, key=itemgetter(key))
        found.append(
            {
                "threshold": threshold,
                "limit": report["limits"][threshold],
                "unit": unit,
                "what": name(worst),
                "value": worst[key],
                "p": worst["p"],
                "exceeded": bool(over),
            }
        )
    return found


def dots(shifts: Sequence[Json], report: Json) -> dict[str, Any]:
    """Return pixel positions of each channel's distance and mean shift, the threshold and the axis."""
    limit, exceeded = report["limits"]["max_shift"], {each["what"] for each in report["exceeded"]}
    left, width, row = 250, 780, 22
    top = max([limit * 1.25, *(each["distance"] for each in shifts)])
    foot = 8 + row * len(shifts)

    def at(value: float) -> str:
        return _px(left + value / top * width)

    return {
        "left": left,
        "right": left + width,
        "foot": foot,
        "height": foot + 24,
        "limit": at(limit),
        "ticks": [{"x": at(mark), "label": number(mark)} for mark in _marks(top)],
        "rows": [
            {
                "y": 8 + row * place + row // 2,
                "name": each["name"],
                "x": at(each["distance"]),
                "mean": at(min(abs(each["mean_shift"]), top)),
                "chance": each["p"] > report["chance"]["alpha"],
                "over": each["name"] in exceeded,
            }
            for place, each in enumerate(shifts)
        ],
    }


def bars(old: Sequence[float], new: Sequence[float], width: int, height: int) -> dict[str, Any]:
    """Return shares of both versions in equal steps of the x axis: the old as bars, the new as a step line."""
    top = max(*old, *new, 1e-12)
    step = width / len(old)
    rests = [height - height * share / top for share in new]
    line = " ".join(f"{_px(step * place)},{_px(y)} {_px(step * (place + 1))},{_px(y)}" for place, y in enumerate(rests))
    return {
        "width": width,
        "height": height,
        "old": [
            {
                "x": _px(step * place),
                "y": _px(height - height * share / top),
                "w": _px(step),
                "h": _px(height * share / top),
            }
            for place, share in enumerate(old)
            if share
        ],
        "new": f"0,{height} {line} {width},{height}",
        "middles": [_px(step * (place + 0.5)) for place in range(len(old))],
    }


def tail(each: Json, levels: Sequence[float]) -> dict[str, Any]:
    """Return curves of the share of errors above each size for both versions: x size, y share on a log scale."""
    width, height = 440, 200
    right = max(each["old_curve"][-1], each["new_curve"][-1], 1e-12)
    decades = -math.log10(LEAST_SHARE)

    def up(share: float) -> str:
        return _px(-math.log10(max(share, LEAST_SHARE)) / decades * height)

    def line(curve: Sequence[float]) -> str:
        points = zip(curve, levels, strict=True)
        return " ".join(f"{_px(error / right * width)},{up(1 - level)}" for error, level in points)

    return {
        "width": width,
        "height": height,
        "old": line(each["old_curve"]),
        "new": line(each["new_curve"]),
        "shares": [{"y": up(share), "label": f"{100 * share:g} %"} for share in (1, 0.1, 0.01, 0.001)],
        "ticks": [{"x": _px(mark / right * width), "label": number(mark)} for mark in _marks(right)],
    }


def _marks(top: float) -> list[float]:
    """Return at most six round numbers from 0 up to `top`."""
    size = 10.0 ** math.floor(math.log10(top))
    step = next(size * factor for factor in (0.2, 0.5, 1.0, 2.0) if top / (size * factor) <= 5)
    return [step * place for place in range(math.floor(top / step) + 1)]


def _px(value: float) -> str:
    return f"{value:.1f}"
