"""Figures of the evaluation on held-out episodes, as inline SVG: errors by horizon, calibration, predicted chunks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vqbet.contract import Channel
from vqbet.pages.figures import COLOURS, INK, STYLE, grid, svg

CHANNELS = 6  # drawn of an episode: those that move most


def horizon(rows: Mapping[str, Mapping[str, Any]], control_hz: float, *, name: str) -> str:
    """Draw the error of each prediction over how far ahead it is, in seconds; `rows` as of `offline.table`."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(5.3, 3.0), layout="constrained")
        axes = figure.add_subplot()
        for index, (label, row) in enumerate(rows.items()):
            errors = np.array(row["horizon"])
            style = {"linewidth": 2.2} if label == "policy" else {"linewidth": 1.2, "linestyle": "--"}
            ahead = np.arange(len(errors)) / control_hz
            axes.plot(ahead, errors, label=label, marker=".", color=COLOURS[index % len(COLOURS)], **style)
        axes.set_xlabel("seconds ahead")
        axes.set_ylabel("error / deviation")
        axes.set_ylim(bottom=0)
        grid(axes)
        figure.legend(loc="outside lower center", ncols=4, frameon=False)
        return svg(figure, name)


def reliability(layers: Sequence[Sequence[Mapping[str, float]]], *, name: str) -> str:
    """Draw how often the likeliest code was right over its probability, a line per layer; dotted: calibrated."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(5.3, 3.0), layout="constrained")
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
        for layer, rows in enumerate(layers):
            at = [row["predicted"] for row in rows]
            colour = COLOURS[layer % len(COLOURS)]
            axes.plot(at, [row["right"] for row in rows], marker="o", color=colour, label=f"layer {layer}")
        axes.set_xlabel("probability of the likeliest code")
        axes.set_ylabel("share that was right")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        grid(axes)
        figure.legend(loc="outside lower center", ncols=4, frameon=False)
        return svg(figure, name)


def chunks(
    demonstrated: Float[np.ndarray, "T A"],
    predicted: Float[np.ndarray, "M H A"],
    starts: Int[np.ndarray, " M"],
    channels: Sequence[Channel],
    control_hz: float,
    *,
    name: str,
) -> str:
    """Draw the demonstrated actions of an episode and the chunks predicted at the steps `starts`, physical units."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    moving = np.argsort(-np.ptp(demonstrated, axis=0) / [max(c.high - c.low, 1e-12) for c in channels], kind="stable")
    drawn = np.sort(moving[:CHANNELS])
    columns = min(2, len(drawn))
    lines = math.ceil(len(drawn) / columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 0.6 + 1.7 * lines), layout="constrained")
        for place, channel in enumerate(drawn):
            axes = figure.add_subplot(lines, columns, place + 1)
            time_s = np.arange(len(demonstrated)) / control_hz
            axes.plot(time_s, demonstrated[:, channel], color=INK, linewidth=1.4, label="demonstrated")
            for start, chunk in zip(starts, predicted, strict=True):
                ahead = (start + np.arange(len(chunk))) / control_hz
                label = "predicted, from its first observation on" if start == starts[0] else None
                axes.plot(ahead, chunk[:, channel], color=COLOURS[1], linewidth=1.2, label=label)
                axes.plot(ahead[0], chunk[0, channel], ".", color=COLOURS[1], markersize=4)
            unit = f" [{channels[channel].unit}]" if channels[channel].unit else ""
            axes.set_title(f"{channels[channel].name}{unit}")
            grid(axes)
        figure.axes[-1].set_xlabel("seconds")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=2, frameon=False)
        return svg(figure, name)
