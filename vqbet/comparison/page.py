"""The comparison as a Markdown page: tables, summaries in words, and figures. Equal results produce equal pages.

Cells without a result are marked as not run. If VQ-BeT is below a baseline, the page says so first.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from vqbet.comparison import figures, published, results, words
from vqbet.comparison.results import AS_IT_IS, VQBET, CellResult, Difference, Result
from vqbet.contract import GateError
from vqbet.files import atomic
from vqbet.statistics import Interval

NOT_RUN = "not run yet"
CODE = ("code", "git_commit")  # keys of made_with that change with every commit
AMOUNT = "size, seeds × episodes"
Place = tuple[str, bool]
Cells = Mapping[tuple[Place, str], CellResult]

OPENING = """# Results

VQ-BeT and the policies it is compared with. Every policy of a world is trained for the same time (VQ-BeT's tokenizer
included), on the same demonstrations, and plays episodes of the same seeds.

This page is written by `make paper` (`python -m vqbet.comparison`; `--help` lists its options) from the files in
{folder}; a cell without a file is "not run yet" here. The command makes the missing cells first. Its parameters, each
with a comment, are in [vqbet/comparison/params.yaml](../vqbet/comparison/params.yaml); VQ-BeT's own are those of the
task in [params.yaml](../params.yaml).

How to read it. Every row says its size, seeds of training and episodes. An interval, as in 0.725 (0.681 to 0.765), is
of 95 %, over the episodes, pooled over seeds: with one seed it says nothing about training again; "over seeds" is the
lowest and the highest mean of a seed. **Bold** is the best of a column, where its interval lies above all others; where
it does not, ≈ marks those that cannot be told apart from the best. Only rows of a table's largest size are marked, and
only columns with intervals. Times of acting are on one thread, for one episode: the median of a call, and the mean per
executed action. The paper's numbers are those of [VQ-BeT](https://arxiv.org/abs/2403.03181), read second-hand, and have
no intervals; the notes below the tables say what stands between them and ours.
"""

CAPTIONS: Mapping[str, tuple[str, str]] = {
    "time.png": ("Score against time per action", "Up and to the left is better. Bars are 95 % intervals."),
    "training.png": ("Score against training time", "One point per size; bars are 95 % intervals."),
    "modes.png": (
        "Modes",
        "Shares of the episodes by mode, and their entropy. Kitchen: the tasks done, in their order, by their first "
        "letters, the rarer orders grey. BlockPush: which block was in a target first, and in which. Hatched: none.",
    ),
    "ablations.png": (
        "Ablations",
        "Paired difference from the unchanged policy at equal training time, with its 95 % interval and a tick for "
        "each of several training seeds: red lies below zero, blue above, grey on both sides.",
    ),
    "data.png": ("Share of the demonstrations", "At equal training time; bars are 95 % intervals."),
}


def write(page: Path, pictures: Path, found: Sequence[Result], sizes: Sequence[str], *, left_out: int = 0) -> None:
    """Write the page and its figures for results at `sizes` (ascending). Raises GateError on failure.

    left_out: number of results that are not in `found` because they are of other parameters.
    """
    sized, largest = results.every(found, sizes), results.cells(found, sizes)
    drawn = figures.write(pictures, largest, sized)
    where = Path(os.path.relpath(pictures, page.parent)).as_posix()
    addresses = {name: f"{where}/{name}" for name in drawn}
    atomic.write(page, text(found, sizes, addresses, folder=f"[{where}]({where})", left_out=left_out), GateError)


def text(
    found: Sequence[Result], sizes: Sequence[str], pictures: Mapping[str, str], *, folder: str, left_out: int = 0
) -> str:
    """Return the page. pictures: name -> address of the figures that were drawn."""
    sized, largest = results.every(found, sizes), sorted(results.cells(found, sizes), key=results.order)
    main = {(cell.place, cell.first.policy): cell for cell in largest if not cell.first.variant}
    variants = [cell for cell in largest if cell.first.variant]
    tasks = dict.fromkeys(task for task, _ in [*published.SCORES, *(place for place, _ in main)])
    parts = [
        OPENING.format(folder=folder),
        _sizes(found, sizes, left_out),
        *(_world(task, main, sized, sizes) for task in tasks),
        "## Score, time and modes\n",
        *(_picture(name, pictures) for name in ("time.png", "training.png", "modes.png")),
        _times(main),
        _ablations([cell for cell in variants if cell.seen is None or cell.unchanged], sized, main),
        _picture("ablations.png", pictures),
        _data([cell for cell in variants if cell.seen is not None], sized, main),
        _picture("data.png", pictures),
        _trainings(largest),
        _made_with(found, sizes),
    ]
    return "\n".join(part for part in parts if part)


def _sizes(found: Sequence[Result], sizes: Sequence[str], old: int) -> str:
    rows = []
    for size in sizes:
        of_size = [result for result in found if result.size == size]
        hours = math.fsum(result.train_s for result in of_size) / 3600
        rows.append([size, str(len(of_size)) if of_size else NOT_RUN, f"{hours:.1f}" if of_size else ""])
    others = sum(result.size not in sizes for result in found)
    more = f"\n{others} results of other sizes are not shown.\n" if others else ""
    more += f"\n{old} results of other parameters than today's are not shown: to be made again.\n" if old else ""
    return words.table(["size", "results", "training, hours in all"], rows) + more


def _world(task: str, main: Cells, sized: Sequence[CellResult], sizes: Sequence[str]) -> str:
    title = results.world(task).title
    parts = [f"## {title}\n"]
    for goal in (False, True):
        parts += [
            f"### {title}, {'goal-conditioned' if goal else 'unconditional'}\n",
            _policies(task, goal, main, sized, sizes),
        ]
    if task in published.COMPARED:
        parts.append(f"{published.COMPARED[task]}\n")
    return "\n".join(parts)


def _policies(task: str, goal: bool, main: Cells, sized: Sequence[CellResult], sizes: Sequence[str]) -> str:
    """Return a table and its summary in words, including smaller sizes at which VQ-BeT is below others."""
    place = task, goal
    policies = dict.fromkeys([*results.policies(goal), *(policy for at, policy in main if at == place)])
    cells = {policy: main[place, policy] for policy in policies if (place, policy) in main}
    top = max((sizes.index(cell.first.size) for cell in cells.values()), default=0)
    ranked = {policy: cell for policy, cell in cells.items() if cell.first.size == sizes[top]}
    scores = marked({policy: cell.score for policy, cell in ranked.items()})
    successes = marked({policy: cell.success for policy, cell in ranked.items()})
    notes: list[str] = []
    rows = []
    for policy in policies:
        title, paper = results.policy_name(policy, goal), _paper(place, policy, notes)
        if policy in cells:
            marks = scores.get(policy, ""), successes.get(policy, "")
            rows.append([title, *_scores(cells[policy], *marks), paper, *_costs(cells[policy])])
        else:
            rows.append([title, NOT_RUN, "", "", paper, *[""] * 6])
    world = results.world(task)
    head = ["policy", world.measure, world.beside[0], world.success, "the paper's", "over seeds", AMOUNT]
    costs = ["trained, min", "parameters, M", "ms per call", "ms per action"]
    parts = [words.table([*head, *costs], rows)]
    parts += [f"<sup>{words.letter(index)}</sup> {published.NOTES[note]}.\n" for index, note in enumerate(notes)]
    parts.append(words.said(cells) + "\n")
    here = [cell for cell in sized if cell.place == place and not cell.first.variant]
    for size in sizes[:top]:
        less = {cell.first.policy: cell for cell in here if cell.first.size == size}
        if sentences := words.below(less):
            parts.append(f"With less training ({size}): {' '.join(sentences)}\n")
    return "\n".join(parts)


def marked(intervals: Mapping[str, Interval]) -> dict[str, str]:
    """Return the marks: "bold" for the one interval above all others, or "close" for those overlapping the highest."""
    if len(intervals) < 2:
        return {}
    names = list(intervals)
    leading = [names[index] for index in sorted(results.leaders(list(intervals.values())))]
    return dict.fromkeys(leading, "bold" if len(leading) == 1 else "close")


def _scores(cell: CellResult, score: str, success: str) -> list[str]:
    metric = cell.world.beside[1]
    entropy = cell.entropy_bits if cell.modes else math.nan
    return [
        words.emphasised(words.measured(cell.score, cell.world), score),
        words.plain(cell.mean(metric), 3) if metric else words.plain(entropy, 2),
        words.emphasised(words.percent(cell.success), success),
    ]


def _costs(cell: CellResult) -> list[str]:
    return [
        words.seeds(cell),
        words.amount(cell),
        words.minutes(cell),
        f"{cell.average('parameters') / 1e6:.2f}",
        words.plain(cell.act_ms("batch_1"), 2),
        words.plain(cell.act_ms("action_1"), 2),
    ]


def _paper(place: Place, policy: str, notes: list[str]) -> str:
    """Return the paper's number with the letter of its note, which is added to `notes`."""
    if place not in published.SCORES:
        return "none"
    found = published.SCORES[place].get(policy)
    if found is None:
        return "not found"
    if not found.note:
        return f"{found.value:.2f}"
    if found.note not in notes:
        notes.append(found.note)
    return f"{found.value:.2f} <sup>{words.letter(notes.index(found.note))}</sup>"


def _times(main: Cells) -> str:
    """Return the table of call times beside the paper's, as multiples of VQ-BeT's time because hardware differs."""
    rows = []
    for place, theirs in published.CALL_MS.items():
        ours = {policy: main[place, policy].act_ms("batch_1") for policy in theirs if (place, policy) in main}
        for policy, paper in theirs.items():
            title = f"{results.world(place[0]).title}{', goals' if place[1] else ''}"
            here, base = ours.get(policy), ours.get(VQBET, math.nan)
            mine = [NOT_RUN, ""] if here is None else [words.plain(here, 2), _times_of(here, base)]
            paper_s = [f"{paper:g}", _times_of(paper, theirs[VQBET])]
            rows.append([title, results.policy_name(policy, place[1]), *mine, *paper_s])
    head = ["world", "policy", "ms per call", "times VQ-BeT's", "the paper's ms", "times its VQ-BeT's"]
    about = "Hardware differs, so the multiples are what to compare; Diffusion Policy took ten steps in the paper.\n"
    return f"## Time of a call, beside the paper's\n\n{about}\n{words.table(head, rows)}"


def _times_of(value: float, base: float) -> str:
    return "" if math.isnan(base) or base <= 0 else f"{value / base:.1f}"


def _ablations(variants: Sequence[CellResult], sized: Sequence[CellResult], main: Cells) -> str:
    about = (
        f"Each row changes one thing of VQ-BeT, or of the world it acts in. Differences are from {AS_IT_IS!r} at the "
        "same size, so at the same training time, paired by seed and episode; 'over seeds' are the lowest and the "
        "highest difference of a training seed. Bold are those whose interval excludes zero and whose seeds all lie on "
        "one side of it. With one seed expect about one false positive in 20 rows, and more where seeds differ a lot: "
        "these intervals do not include the variance from seed to seed.\n"
    )
    return _variants("Ablations", about, variants, sized, main)


def _data(variants: Sequence[CellResult], sized: Sequence[CellResult], main: Cells) -> str:
    about = f"As ablations: every row was trained for the same time, and {AS_IT_IS!r} has seen all demonstrations.\n"
    return _variants("Share of the demonstrations", about, variants, sized, main)


def _variants(title: str, about: str, variants: Sequence[CellResult], sized: Sequence[CellResult], main: Cells) -> str:
    """Return a table per world; variants that only other worlds have are marked as not run."""
    names = sorted({cell.first.variant for cell in variants})
    if set(names) <= {AS_IT_IS}:
        return f"## {title}\n\n{title}: {NOT_RUN}.\n"
    parts = [f"## {title}\n\n{about}"]
    for place in dict.fromkeys(cell.place for cell in variants):
        here = [cell for cell in variants if cell.place == place]
        world = here[0].world
        compared = sorted(results.compared(here, sized), key=lambda row: -(row[0].seen or 0.0))  # stable: of data only
        rows = [_variant(cell, None) for cell in here if cell.unchanged]
        rows += [_variant(cell, between) for cell, between in compared]
        ran = {cell.first.variant for cell in here}
        rows += [[name, NOT_RUN, *[""] * 5] for name in names if name not in ran]
        head = ["variant", world.measure, "difference", "over seeds", world.success, AMOUNT, "trained, min"]
        heading = f"### {title}: {world.title}{', goal-conditioned' if place[1] else ''}\n"
        parts += [heading, words.table(head, rows), f"{_changed(compared)} {_again(main.get((place, VQBET)))}\n"]
    return "\n".join(parts)


def _variant(cell: CellResult, between: Difference | None) -> list[str]:
    if between is None:
        differences = ["" if cell.unchanged else f"{AS_IT_IS!r} {NOT_RUN}", ""]
    else:
        told = words.signed(between.interval, cell.world.digits)
        differences = [words.emphasised(told, "bold" if between.side else ""), words.spread(between, cell.world)]
    title = cell.first.variant if cell.first.policy == VQBET else f"{cell.name}: {cell.first.variant}"
    score, success = words.measured(cell.score, cell.world), words.percent(cell.success)
    return [title, score, *differences, success, words.amount(cell), words.minutes(cell)]


def _changed(compared: Sequence[tuple[CellResult, Difference | None]]) -> str:
    known = [(cell.first.variant, between) for cell, between in compared if between is not None]
    sentences = []
    for lead, side in (("Worse than", -1), ("Better than", 1), ("Not to be told apart from", 0)):
        names = [name for name, between in known if between.side == side]
        sentences += [f"{lead} {AS_IT_IS!r}: {words.listed(names)}."] if names else []
    return " ".join(sentences)


def _again(cell: CellResult | None) -> str:
    """Return a sentence on the seed-to-seed variation of VQ-BeT, from the world's own table."""
    if cell is None or len(cell.results) < 2:
        return f"How much training again changes VQ-BeT here was {NOT_RUN}."
    return f"Trained with different seeds, VQ-BeT itself has {words.seeds(cell)} ({words.amount(cell)})."


def _trainings(cells: Sequence[CellResult]) -> str:
    rows = [
        [
            f"{cell.world.title}{', goals' if cell.first.goal else ''}",
            cell.name + (f": {cell.first.variant}" if cell.first.variant else ""),
            words.amount(cell),
            f"{cell.average('steps'):.0f}",
            f"{cell.average('batch'):.0f}",
            f"{cell.average('samples_per_s'):.0f}",
            f"{cell.average('tokenizer_s'):.0f}",
        ]
        for cell in cells
    ]
    head = ["world", "policy", AMOUNT, "steps", "batch", "samples/s", "tokenizer, s"]
    if not rows:
        return ""
    about = "Means over seeds; the tokenizer's time is part of the training time."
    folded = f"<details><summary>{len(rows)} rows</summary>\n\n{words.table(head, rows)}\n</details>"
    return f"## Trainings\n\n{about}\n\n{folded}\n"


def _made_with(found: Sequence[Result], sizes: Sequence[str]) -> str:
    """Return the table of hardware and versions, each combination once, with its commits."""
    groups: dict[str, list[Result]] = {}
    for result in (result for result in found if result.size in sizes):
        known = sorted((name, value) for name, value in result.made_with.items() if name not in CODE)
        groups.setdefault(", ".join(f"{name} {value}" for name, value in known), []).append(result)
    rows = []
    for facts, group in sorted(groups.items()):
        commits = sorted({str(result.made_with.get("git_commit", ""))[:8] or "none" for result in group})
        named = sorted({result.size for result in group}, key=list(sizes).index)
        rows.append([facts, ", ".join(named), str(len(group)), ", ".join(commits)])
    head = ["hardware and versions", "sizes", "results", "git commits"]
    return f"## Hardware and versions\n\n{words.table(head, rows)}" if rows else ""


def _picture(name: str, pictures: Mapping[str, str]) -> str:
    if name not in pictures:
        return ""
    title, caption = CAPTIONS[name]
    return f"![{title}]({pictures[name]})\n\n*{title}.* {caption}\n"
