"""Formatting of the comparison's numbers, and summaries in words of a table's intervals for VQ-BeT."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from vqbet.comparison import results
from vqbet.comparison.results import VQBET, CellResult, Difference, World
from vqbet.statistics import Interval

CLOSE = 1.1  # largest ratio of measured training times that count as equal


def said(cells: Mapping[str, CellResult]) -> str:
    """Return a summary of VQ-BeT against the others, losses first. cells: by policy."""
    if VQBET not in cells:
        return "VQ-BeT itself was not run yet here: nothing to compare."
    ours = cells[VQBET]
    others = [cell for policy, cell in cells.items() if policy != VQBET]
    if not others:
        return "No other policy was run yet here: nothing to compare."
    sentences = below(cells)
    for sign, words in ((1, "VQ-BeT is above"), (0, "VQ-BeT cannot be told apart from")):
        named = [_with_time(ours, other) for other in others if results.relation(ours.score, other.score) == sign]
        if named:
            sentences.append(f"{words} {listed(named)} in {ours.world.measure}.")
    if len({_machine(cell) for cell in cells.values()}) > 1:
        sentences.append("These rows were made on different hardware (below): equal time is not equal work here.")
    return " ".join(sentences)


def below(cells: Mapping[str, CellResult]) -> list[str]:
    """Return a sentence for each policy that beats VQ-BeT in a metric; none without VQ-BeT. cells: by policy."""
    if VQBET not in cells:
        return []
    others = (cell for policy, cell in cells.items() if policy != VQBET)
    return [sentence for other in others if (sentence := _below(cells[VQBET], other))]


def _below(ours: CellResult, other: CellResult) -> str:
    """Return a sentence on the metrics in which VQ-BeT is below `other`, by disjoint intervals; empty if none."""
    world, found = ours.world, []
    if results.relation(ours.score, other.score) < 0:
        found.append(f"in {world.measure}, {measured(ours.score, world)} against {measured(other.score, world)}")
    if results.relation(ours.success, other.success) < 0:
        found.append(f"in {world.success}, {percent(ours.success)} against {percent(other.success)}")
    if not found:
        return ""
    times = f"{minutes(ours)} against {minutes(other)} min"
    budget = {
        0: " at equal training time" + (f" (measured: {times})" if _ratio(ours, other) > CLOSE else ""),
        1: f", although VQ-BeT was trained for longer ({times})",
        -1: f", which was trained for longer ({times})",
    }[_longer(ours, other)]
    return f"**VQ-BeT is below {other.name}{budget}**: {'; '.join(found)}."


def _with_time(ours: CellResult, other: CellResult) -> str:
    words = {0: "", 1: " (trained for less time)", -1: " (trained for more time)"}
    return other.name + words[_longer(ours, other)]


def _longer(ours: CellResult, other: CellResult) -> int:
    """Return 1 if VQ-BeT was trained for longer than the other, -1 if for less, 0 if equally; a size has one time."""
    if ours.first.size == other.first.size or _ratio(ours, other) <= CLOSE:
        return 0
    return 1 if ours.average("train_s") > other.average("train_s") else -1


def _ratio(one: CellResult, other: CellResult) -> float:
    """Return the ratio of the longer to the shorter measured training time."""
    times = sorted(cell.average("train_s") for cell in (one, other))
    return times[1] / max(times[0], 1e-9)


def _machine(cell: CellResult) -> tuple[str, ...]:
    """Return the devices and thread counts on which the cell was trained."""
    made = [result.made_with for result in cell.results]
    return tuple(sorted({f"{one.get('device')}, {one.get('threads')}" for one in made}))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def emphasised(words: str, mark: str) -> str:
    """Return an estimate with its interval, marked according to `page.marked`."""
    estimate, _, interval = words.partition(" (")
    return {"bold": f"**{estimate}** ({interval}", "close": f"{words} ≈", "": words}[mark]


def measured(score: Interval, world: World) -> str:
    """Return a score with its interval, in the world's own unit."""
    scaled, digits = world.scaled(score), world.digits
    return f"{scaled.estimate:.{digits}f} ({scaled.low:.{digits}f} to {scaled.high:.{digits}f})"


def percent(share: Interval) -> str:
    return f"{100 * share.estimate:.0f} % ({100 * share.low:.0f} to {100 * share.high:.0f})"


def signed(between: Interval, digits: int) -> str:
    """Return a signed difference with its interval."""
    one, low, high = (
        f"{round(value, digits) + 0.0:+.{digits}f}" for value in (between.estimate, between.low, between.high)
    )
    return f"{one} ({low} to {high})"


def spread(between: Difference, world: World) -> str:
    """Return the lowest and highest difference of a training seed."""
    low, high = (f"{value:+.{world.digits}f}" for value in (min(between.by_seed), max(between.by_seed)))
    return f"{low} to {high}" if len(between.by_seed) > 1 else "one seed"


def seeds(cell: CellResult) -> str:
    """Return the lowest and highest mean of a seed, in the world's own unit."""
    low, high = (f"{cell.world.top * value:.{cell.world.digits}f}" for value in cell.seeds)
    return f"{low} to {high}" if len(cell.results) > 1 else "one seed"


def plain(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def minutes(cell: CellResult) -> str:
    return f"{cell.average('train_s') / 60:.1f}"


def amount(cell: CellResult) -> str:
    """Return size, seeds and episodes."""
    counts = [len(result.score) for result in cell.results]
    episodes = f"{len(counts)} × {counts[0]}" if len(set(counts)) == 1 else " + ".join(map(str, counts))
    return f"{cell.first.size}, {episodes}"


def listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def letter(index: int) -> str:
    return "abcdefgh"[index]
