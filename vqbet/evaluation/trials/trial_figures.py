"""Figure of an unblinded session as inline SVG: every trial in its order. Colours of the rubric's stages.

Drawn by hand, since each mark has words of its own. Equal input returns equal text.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from vqbet.evaluation.trials.trial_plan import TrialPlan
from vqbet.evaluation.trials.trial_session import Trial

SCALE = ((207, 90, 90), (226, 176, 74), (47, 143, 91))  # RGB of credit 0, 1/2 and 1
LABEL, MARK, GAP = 72, 20, 4  # pixels: of the names of the arms, of a mark, between marks


def colour(credit: float) -> str:
    """Return the colour of a credit in 0..1: red, amber, green."""
    low, high = (SCALE[0], SCALE[1]) if credit < 0.5 else (SCALE[1], SCALE[2])
    share = 2 * credit if credit < 0.5 else 2 * credit - 1
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(low, high, strict=True))


def legend(plan: TrialPlan) -> dict[str, str]:
    """Return the colour of each stage of the rubric, in its order."""
    return {grade.name: colour(grade.credit) for grade in plan.rubric}


def order(plan: TrialPlan, trials: Sequence[Trial]) -> dict[int, str]:
    """Draw each block that was begun: a column per trial in the order in which they ran, a row per arm.

    A mark is filled as high as its credit; an invalid trial is a crossed frame.
    """
    blocks: dict[int, list[tuple[int, Trial]]] = {}
    for number, trial in enumerate(trials, start=1):
        blocks.setdefault(trial.slot.block, []).append((number, trial))
    return {block: _block(plan, part) for block, part in sorted(blocks.items())}


def _block(plan: TrialPlan, part: Sequence[tuple[int, Trial]]) -> str:
    step, rows = MARK + GAP, list(plan.arms)
    width, bottom = LABEL + step * len(part), step * len(rows)
    parts = []
    for row, arm in enumerate(rows):
        middle = row * step + MARK // 2
        parts.append(f'<text x="0" y="{middle + 4}" font-size="12" fill="currentColor">{escape(arm)}</text>')
        parts.append(f'<line class="axis" x1="{LABEL}" y1="{middle}" x2="{width - GAP}" y2="{middle}"/>')
    for column, (number, trial) in enumerate(part):
        parts.append(_mark(plan, number, trial, LABEL + column * step, rows.index(trial.slot.arm) * step))
    parts += [
        f'<text class="tick" x="{LABEL + column * step + MARK / 2:.0f}" y="{bottom + 10}" text-anchor="middle">'
        f"{part[column][0]}</text>"
        for column in sorted({0, len(part) - 1})
    ]
    return _svg(width, bottom + 14, f"trials {part[0][0]} to {part[-1][0]} in order", parts)


def _mark(plan: TrialPlan, number: int, trial: Trial, x: int, y: int) -> str:
    said = f"trial {number}, {trial.code}: {trial.slot.arm}, pair {trial.slot.pair + 1}, "
    if trial.state != "graded":
        why = f"invalid: {trial.reason}" if trial.reason else trial.state
        title = f"<title>{escape(said + why)}</title>"
        return (
            f'<g class="invalid">{title}<rect x="{x + 1}" y="{y + 1}" width="{MARK - 2}" height="{MARK - 2}" rx="3"/>'
            f'<path d="M{x + 6} {y + 6}l{MARK - 12} {MARK - 12}m0 -{MARK - 12}l-{MARK - 12} {MARK - 12}"/></g>'
        )
    credit = plan.grade(trial.stage).credit
    height = round(MARK * (0.25 + 0.75 * credit), 1)
    return (
        f"<g><title>{escape(', '.join(filter(None, (said + trial.stage, trial.tag))))}</title>"
        f'<rect class="track" x="{x}" y="{y}" width="{MARK}" height="{MARK}" rx="3"/>'
        f'<rect x="{x}" y="{y + MARK - height:g}" width="{MARK}" height="{height:g}" rx="3" fill="{colour(credit)}"/>'
        "</g>"
    )


def _svg(width: float, height: float, said: str, parts: Sequence[str]) -> str:
    return (
        f'<svg width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(said)}">{"".join(parts)}</svg>'
    )
