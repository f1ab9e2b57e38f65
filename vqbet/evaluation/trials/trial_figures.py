"""Figure of an unblinded session as inline SVG: every trial in its order. Colours of the rubric's stages.

Drawn by hand, since each mark has words of its own. Equal input returns equal text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from vqbet.evaluation.trials.trial_plan import TrialPlan

Row = Mapping[str, Any]  # of the trials in a `trial_summary`

SCALE = ((207, 90, 90), (226, 176, 74), (47, 143, 91))  # RGB of credit 0, 1/2 and 1
PALE = ' opacity="0.35"'
LABEL, MARK, GAP = 72, 20, 4  # pixels: of the names of the arms, of a mark, between marks


def colour(credit: float) -> str:
    """Return the colour of a credit in 0..1: red, amber, green."""
    low, high = (SCALE[0], SCALE[1]) if credit < 0.5 else (SCALE[1], SCALE[2])
    share = 2 * credit if credit < 0.5 else 2 * credit - 1
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(low, high, strict=True))


def legend(plan: TrialPlan) -> dict[str, str]:
    """Return the colour of each stage of the rubric, in its order."""
    return {grade.name: colour(grade.credit) for grade in plan.rubric}


def order(arms: Sequence[str], trials: Sequence[Row]) -> dict[int, str]:
    """Draw each block that was begun: a column per trial in the order in which they ran, a row per arm.

    A mark is filled as high as its credit, and paler where the trial does not count; an invalid trial is a crossed
    frame.
    """
    blocks: dict[int, list[Row]] = {}
    for row in trials:
        blocks.setdefault(row["block"], []).append(row)
    return {block: _block(arms, part) for block, part in sorted(blocks.items())}


def _block(arms: Sequence[str], part: Sequence[Row]) -> str:
    step = MARK + GAP
    width, bottom = LABEL + step * len(part), step * len(arms)
    parts = []
    for line, arm in enumerate(arms):
        middle = line * step + MARK // 2
        parts.append(f'<text x="0" y="{middle + 4}" font-size="12" fill="currentColor">{escape(arm)}</text>')
        parts.append(f'<line class="axis" x1="{LABEL}" y1="{middle}" x2="{width - GAP}" y2="{middle}"/>')
    for column, row in enumerate(part):
        parts.append(_mark(row, LABEL + column * step, arms.index(row["arm"]) * step))
    parts += [
        f'<text class="tick" x="{LABEL + column * step + MARK / 2:.0f}" y="{bottom + 10}" text-anchor="middle">'
        f"{part[column]['number']}</text>"
        for column in sorted({0, len(part) - 1})
    ]
    return _svg(width, bottom + 14, f"trials {part[0]['number']} to {part[-1]['number']} in order", parts)


def _mark(row: Row, x: int, y: int) -> str:
    said = f"trial {row['number']}, {row['code']}: {row['arm']}, pair {row['pair'] + 1}"
    if row["state"] != "graded":
        title = f"<title>{escape(', '.join(filter(None, (said, row['state'], row['reason']))))}</title>"
        return (
            f'<g class="invalid">{title}<rect x="{x + 1}" y="{y + 1}" width="{MARK - 2}" height="{MARK - 2}" rx="3"/>'
            f'<path d="M{x + 6} {y + 6}l{MARK - 12} {MARK - 12}m0 -{MARK - 12}l-{MARK - 12} {MARK - 12}"/></g>'
        )
    height = round(MARK * (0.25 + 0.75 * row["credit"]), 1)
    words = (said, row["stage"], row["tag"], "" if row["counts"] else "does not count")
    return (
        f"<g{'' if row['counts'] else PALE}><title>{escape(', '.join(filter(None, words)))}</title>"
        f'<rect class="track" x="{x}" y="{y}" width="{MARK}" height="{MARK}" rx="3"/>'
        f'<rect x="{x}" y="{y + MARK - height:g}" width="{MARK}" height="{height:g}" rx="3" '
        f'fill="{colour(row["credit"])}"/></g>'
    )


def _svg(width: float, height: float, said: str, parts: Sequence[str]) -> str:
    return (
        f'<svg width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(said)}">{"".join(parts)}</svg>'
    )
