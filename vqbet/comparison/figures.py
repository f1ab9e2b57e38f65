"""Figures of the comparison as PNG, without date and version, so that equal results produce equal files.

Each policy has one colour and one marker in all figures (Okabe & Ito 2008, safe for colour-blind readers) and is
labelled directly. Figures are nine inches wide, for display at 900 pixels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqbet.comparison import results
from vqbet.comparison.results import VQBET, CellResult, Difference
from vqbet.contract import GateError
from vqbet.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

WIDTH_IN, DPI = 9.0, 160
INK, FAINT, UNDECIDED = "#222222", "#d9d9d9", "#8a8a8a"
BELOW, ABOVE = "#d55e00", "#0072b2"
LOOKS: Mapping[str, tuple[str, str]] = {
    "vqbet": ("#0072b2", "o"),
    "bc": ("#444444", "s"),
    "bet": ("#e69f00", "D"),
    "diffusion_cnn": ("#009e73", "^"),
    "diffusion_transformer": ("#d55e00", "v"),
    "beso": ("#cc79a7", "P"),
    "cfg_beso": ("#56b4e9", "X"),
}
OTHERS = ("#8c7460", "*")
MODE_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#444444")
DARK_MODES = ("#0072b2", "#009e73", "#d55e00", "#444444")  # colours with white labels
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "figure.constrained_layout.wspace": 0.05,
    "figure.constrained_layout.hspace": 0.04,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}
NAME_PT = 8.5
PLACES = [
    (8 * side, up) for up in (0, 9, -9, 16, -16, 23, -23, 30, -30) for side in (1, -1)
]  # offsets of a label from its point

Place = tuple[str, bool]
Panels = list[tuple["Axes", list[CellResult]]]


@dataclass(frozen=True, slots=True)
class Across:
    """Logarithmic horizontal axis of a score figure.

    room: left and right margins, as shares of the range of the points; largest: largest value with a tick label.
    """

    label: str
    of: Callable[[CellResult], float]
    room: tuple[float, float]
    largest: float = math.inf


TIME = Across("ms per executed action, one thread", lambda cell: cell.act_ms("action_1"), (0.25, 0.25))
TRAINING = Across("training, minutes", lambda cell: cell.average("train_s") / 60, (0.1, 1.0))
SHARE = Across("share of the demonstrations, %", lambda cell: 100 * (cell.seen or 0.0), (0.1, 0.3), largest=100)


def write(folder: Path, largest: Sequence[CellResult], sized: Sequence[CellResult]) -> list[str]:
    """Draw the figures that these cells allow into `folder` and return their file names. Removes outdated figures.

    largest: each cell at its largest size; sized: at all sizes. Raises GateError if a file cannot be written.
    """
    from matplotlib import rc_context

    main = [cell for cell in largest if not cell.first.variant]
    pictures: dict[str, Callable[[], Figure | None]] = {
        "time.png": lambda: _time(main),
        "training.png": lambda: _training([cell for cell in sized if not cell.first.variant]),
        "modes.png": lambda: _modes(main),
        "ablations.png": lambda: _ablations(largest, sized),
        "data.png": lambda: _data(sized),
    }
    drawn = []
    for name, draw in pictures.items():
        with rc_context(STYLE):
            figure = draw()
            if figure is None:
                (folder / name).unlink(missing_ok=True)
                continue
            _save(figure, folder / name)
            drawn.append(name)
    return drawn


def _save(figure: Figure, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Software": None}, facecolor="white")
    except OSError as error:
        raise GateError(f"{path}: cannot be written: {error.strerror}") from error


def _time(cells: Sequence[CellResult]) -> Figure | None:
    """Score against the time per executed action; names the policies that were not run."""
    timed = [cell for cell in cells if cell.act_ms("action_1") > 0]
    return _scores(timed, _both(timed), TIME, complete=True)


def _training(cells: Sequence[CellResult]) -> Figure | None:
    """Score against training time, for worlds in which a policy was trained for several times."""
    timed = [cell for cell in cells if cell.average("train_s") > 0]
    counts = Counter((cell.place, cell.first.policy) for cell in timed)
    several = {place for (place, _), count in counts.items() if count > 1}
    return _scores(timed, [place for place in _places(timed) if place in several], TRAINING)


def _data(cells: Sequence[CellResult]) -> Figure | None:
    """Score against the share of the demonstrations, at the largest size with a share below 100 %."""
    tried = {cell.place: cell.first.size for cell in cells if cell.seen is not None and not cell.unchanged}
    shown = [cell for cell in cells if cell.seen is not None and tried.get(cell.place) == cell.first.size]
    return _scores(shown, _places(shown), SHARE)


def _scores(
    cells: Sequence[CellResult], places: Sequence[Place], across: Across, complete: bool = False
) -> Figure | None:
    """One panel per place: scores with intervals, one line per policy, labelled at its end."""
    if not places:
        return None
    figure, panels = _panels(cells, places, 2.75)
    for (axes, found), place in zip(panels, places, strict=True):
        missing = [
            policy for policy in results.policies(place[1]) if policy not in {cell.first.policy for cell in found}
        ]
        if found:
            _axes(axes, found, across)
        if missing and complete:
            names = [results.policy_name(policy, place[1]) for policy in missing]
            _missing(axes, names, len(results.policies(place[1])))
    figure.draw_without_rendering()  # computes the layout, which labels need
    figure.set_layout_engine("none")
    for axes, found in panels:
        _named(axes, found, across)
    return figure


def _axes(axes: Axes, cells: Sequence[CellResult], across: Across) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for line in _by_policy(cells, across):
        _mark(axes, line[0].first.policy, [across.of(cell) for cell in line], [cell.measured for cell in line])
    world = cells[0].world
    logs = [math.log(across.of(cell)) for cell in cells]
    span = max(max(logs) - min(logs), 1.0)
    axes.set_xscale("log")
    axes.set_xlim(math.exp(min(logs) - across.room[0] * span), math.exp(max(logs) + across.room[1] * span))
    axes.set_ylim(-0.03 * world.top, 1.06 * world.top)
    axes.set_ylabel(world.measure)
    axes.set_xlabel(across.label)
    axes.grid(color=FAINT, linewidth=0.5)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value <= across.largest else ""))
    axes.xaxis.set_minor_locator(NullLocator())


def _by_policy(cells: Sequence[CellResult], across: Across) -> list[list[CellResult]]:
    """Return the cells of each policy, from left to right."""
    lines: dict[str, list[CellResult]] = {}
    for cell in sorted(cells, key=across.of):
        lines.setdefault(cell.first.policy, []).append(cell)
    return sorted(lines.values(), key=lambda line: results.order(line[0]))


def _mark(axes: Axes, policy: str, across: Sequence[float], up: Sequence[Interval]) -> None:
    """Draw estimates with intervals, joined by a line; VQ-BeT in front and larger."""
    colour, marker = _look(policy)
    front = policy == VQBET
    estimates = [interval.estimate for interval in up]
    below = [interval.estimate - interval.low for interval in up]
    above = [interval.high - interval.estimate for interval in up]
    axes.errorbar(
        across, estimates, yerr=[below, above], color=colour, marker=marker, markersize=7 if front else 5.5,
        linewidth=1.6 if front else 1.1, elinewidth=1.2, capsize=2, zorder=4 if front else 3,
    )  # fmt: skip


def _named(axes: Axes, cells: Sequence[CellResult], across: Across) -> None:
    """Write each policy's name beside its last point; for TIME at a free place, else at the line's right end."""
    from matplotlib.transforms import Bbox

    ends = sorted((line[-1] for line in _by_policy(cells, across)), key=lambda cell: cell.measured.estimate)
    points = [axes.transData.transform((across.of(cell), cell.measured.estimate)) for cell in ends]
    gap = 1.2 * NAME_PT * DPI / 72
    heights = _apart([float(y) for _, y in points], gap, axes.get_window_extent().y1)
    taken = [Bbox.from_extents(x - 12, y - 12, x + 12, y + 12) for x, y in points]
    for cell, (_, y), height in zip(ends, points, heights, strict=True):
        at = across.of(cell), cell.measured.estimate
        ink = _dark(_look(cell.first.policy)[0])
        place = 8.0, (height - float(y)) * 72 / DPI
        label = axes.annotate(
            cell.name, at, place, textcoords="offset points", va="center", color=ink, fontsize=NAME_PT, zorder=5
        )
        label.set_in_layout(False)
        if across is TIME:
            taken.append(_placed(label, taken))


def _apart(heights: Sequence[float], gap: float, top: float) -> list[float]:
    """Move ascending heights at least `gap` apart, none above `top`."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + gap) if moved else height)
    for index in reversed(range(len(moved))):
        moved[index] = min(moved[index], moved[index + 1] - gap if index + 1 < len(moved) else top)
    return moved


def _placed(label: Annotation, taken: Sequence[Bbox]) -> Bbox:
    """Move a label to the first of PLACES inside its axes without overlap, else the best one; return its box."""
    frame = label.axes.get_window_extent() if label.axes else taken[0]

    def move(place: tuple[float, float]) -> float:
        label.set_position(place)
        label.set_horizontalalignment("left" if place[0] > 0 else "right")
        box = label.get_window_extent()
        outside = max(0.0, box.x1 - frame.x1, frame.x0 - box.x0, box.y1 - frame.y1, frame.y0 - box.y0)
        return 1000 * outside + sum(_overlap(box, other) for other in taken)

    costs = []
    for place in PLACES:
        costs.append(move(place))
        if costs[-1] == 0:
            break
    move(PLACES[costs.index(min(costs))])
    return label.get_window_extent()


def _overlap(one: Bbox, other: Bbox) -> float:
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(width, 0.0) * max(height, 0.0)


def _modes(cells: Sequence[CellResult]) -> Figure | None:
    """Shares of the episodes by mode, one bar per policy, with the entropy."""
    tasks = {cell.first.task for cell in cells if cell.modes}
    shown = [cell for cell in cells if cell.first.task in tasks]
    if not shown:
        return None
    places = _both(shown)
    figure, panels = _panels(shown, places, 2.1)
    for (axes, found), (task, goal) in zip(panels, places, strict=True):
        colours = _mode_colours([cell for cell in shown if cell.first.task == task])
        cell_of = {cell.first.policy: cell for cell in found}
        rows = list(dict.fromkeys([*results.policies(goal), *cell_of]))
        for row, policy in enumerate(rows):
            if policy in cell_of:
                _bar(axes, row, cell_of[policy], colours)
            else:
                axes.text(0, row, "not run yet", va="center", fontsize=8, color=UNDECIDED)
        axes.set_yticks(range(len(rows)), [results.policy_name(policy, goal) for policy in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, 1.32)
        axes.set_xticks([0, 0.5, 1], ["0", "50 %", "100 %"])
        axes.tick_params(axis="y", length=0)
        axes.spines[["left", "bottom"]].set_visible(False)
    return figure


def _mode_colours(cells: Sequence[CellResult]) -> dict[str, str]:
    """Return the colour of each mode of a world; rarer modes beyond MODE_COLOURS are grey."""
    total: dict[str, int] = {}
    for cell in cells:
        for mode, count in cell.modes.items():
            total[mode] = total.get(mode, 0) + count
    names = sorted(total, key=lambda mode: (-total[mode], mode))
    few = sorted(names[: len(MODE_COLOURS)]) if len(names) <= 4 else names[: len(MODE_COLOURS)]
    return {**dict(zip(few, MODE_COLOURS, strict=False)), **dict.fromkeys(names[len(MODE_COLOURS) :], "#bdbdbd")}


def _bar(axes: Axes, row: int, cell: CellResult, colours: Mapping[str, str]) -> None:
    modes, left = cell.modes, 0.0
    for mode, colour in colours.items():
        share = modes.get(mode, 0) / cell.episodes
        if share:
            axes.barh(row, share, 0.72, left, color=colour, edgecolor="white", linewidth=0.6)
        if share > 0.022 * len(_short(mode)):
            ink = "white" if colour in DARK_MODES else INK
            axes.text(left + share / 2, row, _short(mode), ha="center", va="center", fontsize=6.5, color=ink)
        left += share
    if left < 0.9999:
        axes.barh(row, 1 - left, 0.72, left, color="white", edgecolor=FAINT, hatch="////", linewidth=0.6)
    axes.text(1.02, row, f"{cell.entropy_bits:.2f} bits", va="center", fontsize=8)


def _short(mode: str) -> str:
    """Abbreviate an order of tasks to the first three letters of each task."""
    return ">".join(word[:3] for word in mode.split(">")) if ">" in mode else mode


def _ablations(largest: Sequence[CellResult], sized: Sequence[CellResult]) -> Figure | None:
    """Effect of each ablation: paired difference from the unchanged policy, with its interval."""
    variants = [cell for cell in largest if cell.first.variant and cell.seen is None and cell.first.policy == VQBET]
    told = [(cell, between) for cell, between in results.compared(variants, sized) if between is not None]
    if not told:
        return None
    places = _places([cell for cell, _ in told])
    lines = max(sum(cell.place == place for cell, _ in told) for place in places)
    figure, panels = _panels([], places, 0.9 + 0.27 * lines)
    for (axes, _), place in zip(panels, places, strict=True):
        rows = [(cell, between) for cell, between in told if cell.place == place]
        _forest(axes, rows)
        axes.set_xlabel(f"{rows[0][0].world.measure}: difference from {results.AS_IT_IS!r}")
    return figure


def _forest(axes: Axes, rows: Sequence[tuple[CellResult, Difference]]) -> None:
    for line, (_, between) in enumerate(rows):
        interval, colour = between.interval, {-1: BELOW, 0: UNDECIDED, 1: ABOVE}[between.side]
        axes.plot([interval.low, interval.high], [line, line], color=colour, linewidth=1.8, solid_capstyle="butt")
        axes.plot(interval.estimate, line, "o", color=colour, markersize=5)
        if len(between.by_seed) > 1:
            axes.plot(between.by_seed, [line] * len(between.by_seed), "|", color=INK, markersize=5)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [cell.first.variant for cell, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=FAINT, linewidth=0.5)
    axes.spines["left"].set_visible(False)


def _places(cells: Sequence[CellResult]) -> list[Place]:
    """Return the places of the cells, in the order of the page."""
    return list(dict.fromkeys(cell.place for cell in sorted(cells, key=results.order)))


def _both(cells: Sequence[CellResult]) -> list[Place]:
    """Return every world of the cells without goals and with goals, whether run or not."""
    tasks = dict.fromkeys(task for task, _ in _places(cells))
    return [(task, goal) for task in tasks for goal in (False, True)]


def _panels(cells: Sequence[CellResult], places: Sequence[Place], height_in: float) -> tuple[Figure, Panels]:
    """Return a figure and its titled panels, one per place and two in a row, each with the cells of its place."""
    from matplotlib.figure import Figure

    columns, rows = min(len(places), 2), math.ceil(len(places) / 2)
    figure = Figure(figsize=(WIDTH_IN / 2 * columns, height_in * rows), dpi=DPI, layout="constrained")
    drawn = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in drawn[len(places) :]:
        axes.set_visible(False)
    panels = []
    for axes, (task, goal) in zip(drawn, places, strict=False):
        axes.set_title(results.world(task).title + (", goals" if goal else ""))
        here = [cell for cell in cells if cell.place == (task, goal)]
        panels.append((axes, sorted(here, key=results.order)))
    return figure, panels


def _missing(axes: Axes, names: Sequence[str], count: int) -> None:
    """Name those of `count` policies that were not run."""
    if len(names) < count:
        told = ", ".join(names) if len(names) < 3 else f"{len(names)} of {count}"
        axes.set_title(f"not run yet: {told}", loc="right", fontsize=7, fontweight="normal", color=UNDECIDED)
    else:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "not run yet", ha="center", va="center", color=UNDECIDED, transform=axes.transAxes)


def _look(policy: str) -> tuple[str, str]:
    return LOOKS.get(policy, OTHERS)


def _dark(colour: str) -> str:
    """Return a darker shade of a colour that is readable as text on white."""
    return "#" + "".join(f"{int(0.72 * int(colour[place : place + 2], 16)):02x}" for place in (1, 3, 5))
