"""Charts as inline SVG without dates or random ids, in the page's text colour. Equal input returns equal text."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"  # placeholder of the page's text colour until the SVG is written
COLOURS = ("#3f83c9", "#e0812f", "#3fa06a", "#a866b5", "#c8a72b", "#cf5a5a", "#5bb0b0", "#8c7460")
UNDECIDED = "#98a1ad"
POINTS = 60  # of one path in a chart
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "font.size": 9,
    "path.simplify": True,
    "path.simplify_threshold": 0.5,
}


def curves(rows: Mapping[str, Sequence[float]], *, name: str) -> str:
    """Draw one small chart per metric over the steps of a training, with a log axis where a metric spans decades."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    metrics = [metric for metric in rows if metric != "step"]
    columns = min(4, max(len(metrics), 1))
    lines = math.ceil(len(metrics) / columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 1.95 * lines), layout="constrained")
        for index, metric in enumerate(metrics):
            axes = figure.add_subplot(lines, columns, index + 1)
            values = np.asarray(rows[metric])
            axes.plot(rows["step"], values, color=COLOURS[0], linewidth=1.4)
            axes.set_title(metric.replace("_", " "))
            grid(axes)
            if len(values) and values.min() > 0 and values.max() > 30 * values.min():
                axes.set_yscale("log")
        return svg(figure, name)


def code_usage(usage: Float[np.ndarray, "Q K"], *, name: str) -> str:
    """Draw a heat map of the usage of each code of each layer, relative to uniform usage."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    layers, codes = usage.shape
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 0.9 + 0.42 * layers), layout="constrained")
        axes = figure.add_subplot()
        axes.pcolormesh(
            np.arange(codes + 1), np.arange(layers + 1), usage * codes, cmap="Blues", vmin=0,
            vmax=max(2.0, float(usage.max()) * codes), edgecolors="face", linewidth=0.1,
        )  # fmt: skip
        if codes <= 32:
            for layer, code in np.ndindex(layers, codes):
                share = usage[layer, code]
                dark = share > 0.55 * usage.max()
                axes.text(
                    code + 0.5, layer + 0.5, f"{100 * share:.1f}", ha="center", va="center", fontsize=7,
                    color="#ffffff" if dark else "#1c2430",
                )  # fmt: skip
        axes.invert_yaxis()
        axes.set_yticks(np.arange(layers) + 0.5, [f"layer {layer}" for layer in range(layers)])
        every = math.ceil(codes / 32)
        axes.set_xticks(np.arange(0, codes, every) + 0.5, [str(code) for code in range(0, codes, every)])
        axes.set_xlabel("code, with its share of all chunks in %")
        for spine in axes.spines.values():
            spine.set_visible(False)
        return svg(figure, name)


def trajectories(
    panels: Mapping[str, Sequence[Float[np.ndarray, "T 2"]]], groups: Sequence[str], *, unit: str, name: str
) -> str:
    """Draw one panel per track and one line per episode, coloured by the episode's group, with a dot at its end."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    names = sorted(set(groups), key=lambda group: (group == "", group))
    colours = {group: COLOURS[index % len(COLOURS)] if group else UNDECIDED for index, group in enumerate(names)}
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 11 / max(len(panels), 2) + 1.0), layout="constrained")
        first = None
        for index, (title, paths) in enumerate(panels.items()):
            axes = figure.add_subplot(1, max(len(panels), 2), index + 1, sharex=first, sharey=first)
            first = first or axes
            for path, group in zip(map(_thinned, paths), groups, strict=True):
                axes.plot(path[:, 0], path[:, 1], color=colours[group], linewidth=0.8, alpha=0.45)
            ends = np.array([path[-1] for path in paths])
            axes.scatter(ends[:, 0], ends[:, 1], s=5, c=[colours[group] for group in groups], linewidths=0, zorder=3)
            axes.set_title(title)
            axes.set_aspect("equal", adjustable="box")
            axes.set_xlabel(f"x ({unit})")
            grid(axes)
        for group in names:
            axes.plot(
                [], [], color=colours[group], linewidth=3, label=f"{group or 'none'} ({list(groups).count(group)})"
            )
        figure.legend(loc="outside lower left", ncols=min(len(names), 6), frameon=False)
        return svg(figure, name)


def _thinned(path: Float[np.ndarray, "T 2"]) -> Float[np.ndarray, "T2 2"]:
    """Return at most POINTS points of a path, first and last included, to keep the page small."""
    return path[np.linspace(0, len(path) - 1, min(len(path), POINTS)).round().astype(int)]


def grid(axes: Axes) -> None:
    """Add faint grid lines and small tick labels."""
    axes.grid(color=INK, alpha=0.12, linewidth=0.5)
    axes.tick_params(length=2, width=0.5, labelsize=8)


def svg(figure: Figure, name: str) -> str:
    """Return the <svg> element of a figure. `name` distinguishes its ids from those of other figures on the page."""
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context({**STYLE, "svg.hashsalt": name, "svg.id": name}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing, bbox_inches="tight", pad_inches=0.05)
    drawn = text.getvalue()
    drawn = re.sub(r' xmlns(:\w+)?="[^"]*"', "", drawn[drawn.index("<svg") :])
    drawn = re.sub(r' id="((?:figure|axes|patch|line2d|xtick|ytick|matplotlib|text|legend)[^"]*)"', "", drawn)
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    return drawn.replace(INK, "currentColor")
