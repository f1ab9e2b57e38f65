"""Page of one episode: its cameras, its channels over time, and the codes of its chunks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from vqbet.contract import Channel, Demonstrations
from vqbet.demos.validation.sheets import strip
from vqbet.pages import figures, page

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWN = 16  # channels, those that move most within their limits
SHOWN = 8  # pictures of a camera
HEIGHT = 128  # px of each


def render(
    demos: Demonstrations,
    episode: int,
    codes: Int[np.ndarray, "M Q"] | None,
    films: Mapping[str, str],
) -> str:
    """Return the page of an episode. codes: of the chunks from its first step on. films: by camera, beside the page."""
    from markupsafe import Markup

    start, end = int(demos.episode_starts[episode]), int(demos.episode_ends[episode])
    steps = np.unique(np.linspace(start, end - 1, SHOWN).round().astype(np.int64))
    return page.render(
        "demos/episode.html.j2",
        task=demos.spec.task,
        episode=episode,
        success=bool(demos.columns["success"][episode]),
        steps=end - start,
        seconds=(end - start) / demos.spec.control_hz,
        rate=demos.spec.control_hz,
        source=str(demos.columns["source"][episode]),
        session=str(demos.columns["session"][episode]),
        strips={name: strip(frames[steps], HEIGHT) for name, frames in demos.cameras.items()},
        films=films,
        channels=Markup(_channels(demos, start, end)),
        codes=Markup(_codes(codes, demos.spec.control_hz)) if codes is not None else "",
        marked=demos.intervention is not None and bool(demos.intervention[start:end].any()),
    )


def _channels(demos: Demonstrations, start: int, end: int) -> str:
    """Draw the channels that move most: an action beside the observed channel of its name, then other observations."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    spec, time_s = demos.spec, np.arange(end - start) / demos.spec.control_hz
    observed = {channel.name: number for number, channel in enumerate(spec.observation)}
    acted = {channel.name: number for number, channel in enumerate(spec.action)}
    panels: list[tuple[Channel, Float[np.ndarray, " T"] | None, Float[np.ndarray, " T"] | None]] = [
        (
            channel,
            demos.observation[start:end, observed[channel.name]] if channel.name in observed else None,
            demos.action[start:end, number],
        )
        for number, channel in enumerate(spec.action)
    ]
    panels += [
        (channel, demos.observation[start:end, number], None)
        for number, channel in enumerate(spec.observation)
        if channel.name not in acted
    ]
    moved = [max(float(np.ptp(part)) for part in parts if part is not None) for _, *parts in panels]
    shares = [move / max(channel.high - channel.low, 1e-12) for move, (channel, *_) in zip(moved, panels, strict=True)]
    chosen = sorted(np.argsort([-share for share in shares], kind="stable")[:DRAWN].tolist())
    lines = math.ceil(len(chosen) / 2)
    with rc_context(figures.STYLE):
        figure = Figure(figsize=(11, 0.4 + 1.45 * lines), layout="constrained")
        for place, number in enumerate(chosen):
            channel, seen, done = panels[number]
            axes = figure.add_subplot(lines, 2, place + 1)
            if seen is not None:
                axes.plot(time_s, seen, color=figures.INK, linewidth=1.2)
            if done is not None:
                axes.plot(time_s, done, color=figures.COLOURS[1], linewidth=1.2)
            _limits(axes, channel)
            if demos.intervention is not None:
                _shade(axes, demos.intervention[start:end], demos.spec.control_hz)
            axes.set_title(channel.name + (f" [{channel.unit}]" if channel.unit else ""))
            figures.grid(axes)
        figure.axes[-1].set_xlabel("seconds")
        return figures.svg(figure, "channels")


def _limits(axes: Axes, channel: Channel) -> None:
    """Draw the limits that lie within a third of the drawn range beyond it."""
    low, high = axes.get_ylim()
    margin = (high - low) / 3
    for limit in (channel.low, channel.high):
        if low - margin <= limit <= high + margin:
            axes.axhline(limit, color=figures.COLOURS[5], linestyle="--", linewidth=0.8)


def _shade(axes: Axes, marked: np.ndarray, control_hz: float) -> None:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marked.astype(np.int8), [0]])))
    for first, last in edges.reshape(-1, 2).tolist():
        axes.axvspan(first / control_hz, last / control_hz, color=figures.COLOURS[2], alpha=0.15, linewidth=0)


def _codes(codes: Int[np.ndarray, "M Q"], control_hz: float) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    time_s = np.arange(len(codes)) / control_hz
    with rc_context(figures.STYLE):
        figure = Figure(figsize=(11, 0.4 + 1.1 * codes.shape[1]), layout="constrained")
        for layer in range(codes.shape[1]):
            axes = figure.add_subplot(codes.shape[1], 1, layer + 1)
            axes.plot(time_s, codes[:, layer], ".", color=figures.COLOURS[layer % len(figures.COLOURS)], markersize=3)
            axes.set_title(f"layer {layer}")
            figures.grid(axes)
        figure.axes[-1].set_xlabel("seconds")
        return figures.svg(figure, "codes")
