"""Figures of the evaluation on held-out episodes, as inline SVG: errors by horizon, calibration, predicted chunks."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vqbet.contract import Channel
from vqbet.pages.figures import COLOURS, INK, STYLE, grid, svg

CHANNELS = 6  # drawn of an episode: those that move most
SCENE, FADED = "scene", 0.3  # of a film: name of its parts, and their opacity while others stand out


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
    """Draw the demonstrated actions of an episode and the chunks predicted at the steps `starts`, physical units.

    The figure is a film: each chunk stands out while its actions would run, at the speed of the episode, over and over;
    it stands still where the reader's settings ask for less motion.
    """
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
            for scene, (start, chunk) in enumerate(zip(starts, predicted, strict=True)):
                ahead = (start + np.arange(len(chunk))) / control_hz
                label = "predicted, from its first observation on" if start == starts[0] else None
                drawn_now = axes.plot(ahead, chunk[:, channel], color=COLOURS[1], linewidth=1.2, label=label)
                drawn_now += axes.plot(ahead[0], chunk[0, channel], ".", color=COLOURS[1], markersize=4)
                for number, line in enumerate(drawn_now):
                    line.set_gid(f"{name}-{SCENE}{scene}-{place}-{number}")
            unit = f" [{channels[channel].unit}]" if channels[channel].unit else ""
            axes.set_title(f"{channels[channel].name}{unit}")
            grid(axes)
        figure.axes[-1].set_xlabel("seconds")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=2, frameon=False)
        return _film(svg(figure, name), name, starts, len(demonstrated), control_hz)


def _film(picture: str, name: str, starts: Int[np.ndarray, " M"], steps: int, control_hz: float) -> str:
    """Return an SVG whose elements `<name>-scene<k>-...` stand out from step starts[k] to the next start.

    One animated number of the whole figure, of which each part's opacity is a function, keeps all parts at one time.
    """
    picture = re.sub(rf'id="({re.escape(name)}-{SCENE}\d+)-\d+-\d+"', r'class="\1"', picture)
    at, scenes = f"--{name}", range(len(starts))
    keys = [f"{100 * start / steps:.3f}%{{{at}:{scene}}}" for scene, start in zip(scenes, starts.tolist(), strict=True)]
    rules = [
        f"@property {at}{{syntax:'&lt;number&gt;';inherits:true;initial-value:-1}}",
        f"@keyframes {name}{{{''.join(keys)}}}",
        f"#{name}{{animation:{name} {steps / control_hz:.3f}s step-end infinite}}",
        *(f".{name}-{SCENE}{k}{{opacity:max({FADED},1 - max(var({at}) - {k},{k} - var({at})))}}" for k in scenes),
        f"@media (prefers-reduced-motion: reduce){{[class^='{name}-{SCENE}']{{opacity:1}}}}",
    ]
    head, opened, rest = picture.partition(">")
    return f"{head}{opened}<style>{''.join(rules)}</style>{rest}"
