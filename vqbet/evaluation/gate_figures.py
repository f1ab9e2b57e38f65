"""Figures of a verdict as inline SVG: the interval at each look, the outcome of each seed, the power of the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vqbet import statistics
from vqbet.contract import EpisodeRecord
from vqbet.evaluation.interim import Look
from vqbet.evaluation.plan import Plan
from vqbet.pages.figures import COLOURS, INK, STYLE, UNDECIDED, grid, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW = 50  # seeds in a row of the grid


def looked(plan: Plan, found: Sequence[Mapping[str, Any]], *, name: str, unit: str = "episodes") -> str:
    """Draw the interval at each look, and the limit that the interval must exceed. unit: of which a look has some."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(5.3, 2.6), layout="constrained")
        axes = figure.add_subplot()
        for index, (look, check) in enumerate(zip(plan.looks, found, strict=False)):
            colour = {"passed": COLOURS[2], "failed": COLOURS[5]}.get(str(check["state"]), UNDECIDED)
            axes.plot([index, index], [check["low"], check["high"]], color=colour, linewidth=5, solid_capstyle="butt")
            axes.plot(index, check["value"], "o", color=INK, markersize=4)
            axes.annotate(f"{check['state']}", (index, check["high"]), (0, 4), textcoords="offset points", ha="center")
            if index == len(found) - 1:
                said = "undecided" if check["state"] == "undecided" else "decided"
                axes.set_title(f"{check['name']}: {said} after {look} of {plan.most} {unit}")
        axes.axhline(found[0]["limit"], color=INK, linewidth=1, linestyle="--")
        axes.set_xticks(range(len(plan.looks)), [str(look) for look in plan.looks])
        axes.set_xlim(-0.5, len(plan.looks) - 0.5)
        axes.margins(y=0.25)
        axes.set_xlabel("episodes of each policy" if unit == "episodes" else f"{unit} of trials")
        grid(axes)
        return svg(figure, name)


def outcomes(plan: Plan, arms: Mapping[str, Sequence[EpisodeRecord]], *, name: str) -> str:
    """Draw each seed as a square: the candidate's score, or its difference from the champion's score, if any."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    candidate = sorted(arms["candidate"], key=lambda record: record.seed)
    champion = {record.seed: record for record in arms.get("champion", ())}
    values = np.array([record.score - (champion[record.seed].score if champion else 0.0) for record in candidate])
    lines = -(-len(values) // ROW)
    square = np.full(lines * ROW, np.nan)
    square[: len(values)] = values
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 0.9 + 0.22 * lines), layout="constrained")
        axes = figure.add_subplot()
        low, colours = (-1.0, "RdBu") if champion else (0.0, "Blues")
        mesh = axes.pcolormesh(
            square.reshape(lines, ROW), cmap=colours, vmin=low, vmax=1.0, edgecolors="face", linewidth=0.1
        )
        first = plan.slices[0].name
        marked = [index for index, record in enumerate(candidate) if record.slice != first]
        axes.plot(
            [index % ROW + 0.5 for index in marked], [index // ROW + 0.5 for index in marked], ".", color=INK, ms=2
        )
        axes.set_yticks(np.arange(lines) + 0.5, [str(plan.first_seed + ROW * line) for line in range(lines)])
        axes.set_xticks([])
        axes.invert_yaxis()
        axes.tick_params(length=0)
        figure.colorbar(mesh, ax=axes, label="difference" if champion else "score", aspect=8)
        return svg(figure, name)


def power(plan: Plan, comparison: Mapping[str, float], *, name: str) -> str:
    """Draw the power at each look over the true difference, for the observed spread of differences."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    spread = max(comparison["score_spread"], 1e-3)
    limit = 0.0 if plan.question == "better" else -plan.margin
    differences = np.linspace(-3 * plan.margin, 3 * plan.margin, 121)
    with rc_context(STYLE):
        figure = Figure(figsize=(5.3, 2.6), layout="constrained")
        axes = figure.add_subplot()
        for index, look in enumerate(plan.looks):
            chance = Look(plan, look).chance
            found = [
                statistics.mean_power(look, spread=spread, difference=float(difference), limit=limit, alpha=chance)
                for difference in differences
            ]
            axes.plot(
                differences, found, color=COLOURS[0], alpha=(index + 1) / len(plan.looks), label=f"{look} episodes"
            )
        _lines(axes, plan)
        axes.set_title(f"how often the candidate is shown to be {plan.question.replace('_', ' ')}")
        axes.set_xlabel("true difference of scores")
        axes.set_ylim(0, 1.02)
        axes.legend(frameon=False, fontsize=8)
        grid(axes)
        return svg(figure, name)


def _lines(axes: Axes, plan: Plan) -> None:
    """Draw the plan's reference lines: no difference, the margin, error rate and power."""
    for place in (0.0, plan.margin if plan.question == "better" else -plan.margin):
        axes.axvline(place, color=INK, linewidth=0.8, linestyle="--")
    for height in (plan.level, plan.power):
        axes.axhline(height, color=COLOURS[5], linewidth=0.8, linestyle=":")
