"""Results of the comparison: one JSON file per trained and evaluated cell, pooled over seeds and compared.

Numbers only; `page` writes the page and `figures` draws the figures.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from vqbet import statistics
from vqbet.contract import GateError
from vqbet.evaluation import records
from vqbet.statistics import Interval

VQBET = "vqbet"
AS_IT_IS = "as it is"  # the unchanged variant that others are compared with, at equal training time
DATA = re.compile(r"data (\d+(?:\.\d+)?) %")  # variants that see only a share of the demonstrations
ADVICE = "remove it, `make paper` makes it again"
WHOLE = ("demonstrations", "seed", "first_seed", "steps", "batch", "parameters")
NUMBERS = ("train_s", "tokenizer_s", "samples_per_s")
WORDS = ("key", "task", "policy", "variant", "size")
TABLES = ("changes", "act_ms", "modes", "metrics", "made_with", "params")


@dataclass(frozen=True, slots=True)
class World:
    """Name and unit of a world: a score of 1 is `top` of `measure`, printed with `digits` decimals.

    beside: title and metric of an additional column; without a metric, the entropy of the modes in bits.
    """

    title: str
    measure: str
    top: float
    digits: int
    success: str
    beside: tuple[str, str]

    def scaled(self, interval: Interval) -> Interval:
        """Convert an interval of scores (or of score differences) to the world's own unit."""
        return Interval(self.top * interval.estimate, self.top * interval.low, self.top * interval.high)


WORLDS: Mapping[str, World] = {
    "pusht": World("PushT", "final coverage", 1.0, 3, "success at 0.95", ("max coverage", "mean_max_coverage")),
    "kitchen": World("Kitchen", "tasks of 4", 4.0, 2, "all 4 tasks", ("order entropy, bits", "")),
    "pusht_image": World(
        "PushT, seen by a camera", "final coverage", 1.0, 3, "success at 0.95", ("max coverage", "mean_max_coverage")
    ),
    "blockpush_drawn": World(
        "BlockPush, sides drawn", "blocks of 2", 2.0, 2, "both blocks", ("mode entropy, bits", "")
    ),
    "blockpush": World("BlockPush, sides fixed", "blocks of 2", 2.0, 2, "both blocks", ("mode entropy, bits", "")),
}

# Name of each policy without goals and with goals; empty if the policy is not evaluated in that setting.
POLICIES: Mapping[str, tuple[str, str]] = {
    VQBET: ("VQ-BeT", "VQ-BeT"),
    "bc": ("MLP-BC", "GCBC"),
    "bet": ("BeT", "C-BeT"),
    "diffusion_cnn": ("Diffusion Policy (CNN)", ""),
    "diffusion_transformer": ("Diffusion Policy (transformer)", ""),
    "beso": ("", "C-BESO"),
    "cfg_beso": ("", "CFG-BESO"),
}


def world(task: str) -> World:
    """Return the world of a task; one that is not in WORLDS is measured by its score."""
    return WORLDS.get(task, World(task, "score", 1.0, 3, "success", ("mode entropy, bits", "")))


def policy_name(policy: str, goal: bool) -> str:
    return POLICIES.get(policy, ("", ""))[goal] or policy


def policies(goal: bool) -> list[str]:
    """Return the policies that are compared with goals or without goals."""
    return [policy for policy, names in POLICIES.items() if names[goal]]


@dataclass(frozen=True, slots=True)
class Result:
    """One policy, trained once with one seed and evaluated once. `score` and `success` hold one number per episode.

    variant: name of the ablation, empty for the policy as configured. act_ms, on one thread: batch_1 and batch_64, the
    median of a call; action_1 and action_64, the mean per executed action. modes: number of episodes by mode, without
    episodes that ended in none. made_with: device, threads, versions, code.
    """

    key: str  # sha256 of everything that determines the result
    task: str
    goal: bool
    policy: str
    variant: str
    seed: int
    size: str
    first_seed: int
    train_s: float
    tokenizer_s: float  # contained in train_s
    steps: int
    batch: int
    samples_per_s: float
    parameters: int
    act_ms: Mapping[str, float]
    score: Sequence[float]
    success: Sequence[bool]
    modes: Mapping[str, int]  # episodes per mode
    metrics: Mapping[str, float]  # means of the world's own metrics
    made_with: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)  # changes of the variant, by dotted key
    demonstrations: int = 0  # training episodes

    def to_json(self) -> dict[str, Any]:
        value = asdict(self)
        value["score"] = [round(float(score), 5) for score in self.score]
        value["success"] = "".join("1" if success else "0" for success in self.success)
        return value

    @classmethod
    def from_json(cls, value: Any, where: str) -> Result:
        """Return the result parsed from the output of `to_json`. Raises GateError naming the invalid field."""
        names = {item.name for item in fields(cls)}
        if not isinstance(value, dict) or set(value) != names:
            raise GateError(f"{where}: is no result of this version: {ADVICE}")
        for wrong, what in _wrong(value):
            raise GateError(f"{where}: {wrong}: expected {what}, got {str(value[wrong])[:60]!r}: {ADVICE}")
        return cls(**{**value, "success": [letter == "1" for letter in value["success"]]})


def _wrong(value: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield each invalid field and a description of valid values."""
    yield from ((key, "text") for key in WORDS if not isinstance(value[key], str))
    yield from ((key, "a whole number >= 0") for key in WHOLE if type(value[key]) is not int or value[key] < 0)
    yield from ((key, "a number >= 0") for key in NUMBERS if not _number(value[key]) or value[key] < 0)
    yield from ((key, "an object") for key in TABLES if not isinstance(value[key], dict))
    if type(value["goal"]) is not bool:
        yield "goal", "true or false"
    if isinstance(value["modes"], dict) and not all(
        type(count) is int and count > 0 for count in value["modes"].values()
    ):
        yield "modes", "a number of episodes for each"
    scores, letters = value["score"], value["success"]
    if not isinstance(scores, list) or not scores or not all(_number(score) and 0 <= score <= 1 for score in scores):
        yield "score", "one number in 0..1 per episode, at least one"
    elif not isinstance(letters, str) or not set(letters) <= {"0", "1"} or len(letters) != len(scores):
        yield "success", f"{len(scores)} letters 0 or 1"


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


@dataclass(frozen=True, slots=True)
class CellResult:
    """Results of one policy in one world at one size, pooled over seeds."""

    results: tuple[Result, ...]

    @property
    def first(self) -> Result:
        return self.results[0]

    @property
    def world(self) -> World:
        return world(self.first.task)

    @property
    def place(self) -> tuple[str, bool]:
        """The task, and whether it is goal-conditioned."""
        return self.first.task, self.first.goal

    @property
    def name(self) -> str:
        """Display name of the policy."""
        return policy_name(self.first.policy, self.first.goal)

    @property
    def unchanged(self) -> bool:
        """True for the cell that ablations are compared with."""
        return self.first.variant == AS_IT_IS

    @property
    def seen(self) -> float | None:
        """Share of the demonstrations, 0..1, of a data ablation; None for all others."""
        found = DATA.fullmatch(self.first.variant)
        return 1.0 if self.unchanged else float(found[1]) / 100 if found else None

    @property
    def episodes(self) -> int:
        return sum(len(result.score) for result in self.results)

    @property
    def score(self) -> Interval:
        """Interval of the mean score over all episodes of all seeds."""
        return statistics.mean_interval(np.concatenate([np.asarray(result.score, float) for result in self.results]))

    @property
    def measured(self) -> Interval:
        """The score in the world's own unit."""
        return self.world.scaled(self.score)

    @property
    def success(self) -> Interval:
        pooled = np.concatenate([np.asarray(result.success, bool) for result in self.results])
        return statistics.wilson(int(pooled.sum()), len(pooled))

    @property
    def seeds(self) -> tuple[float, float]:
        """Lowest and highest mean score of a training seed."""
        means = [float(np.mean(result.score)) for result in self.results]
        return min(means), max(means)

    @property
    def modes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for result in self.results:
            for mode, count in result.modes.items():
                found[mode] = found.get(mode, 0) + count
        return found

    @property
    def entropy_bits(self) -> float:
        """Entropy of the modes in bits, over the episodes that have a mode."""
        return statistics.mode_entropy([mode for mode, count in self.modes.items() for _ in range(count)])

    def mean(self, name: str) -> float:
        """Return the mean of a metric of the world; NaN if there is no such metric."""
        values = [result.metrics.get(name, np.nan) for result in self.results]
        return float(np.mean(values))

    def average(self, name: str) -> float:
        """Return the mean over seeds of a field of Result."""
        return float(np.mean([getattr(result, name) for result in self.results]))

    def act_ms(self, name: str) -> float:
        """Return the mean over seeds of an entry of `Result.act_ms`; NaN if it was not measured."""
        return float(np.mean([result.act_ms.get(name, np.nan) for result in self.results]))


def read(folder: Path) -> list[Result]:
    """Return all results below `folder`, by name. Raises GateError naming an invalid or misplaced file."""
    found = []
    for path in sorted(folder.glob("*/*.json")):
        result = Result.from_json(records.parse(records.load(path), str(path)), str(path))
        if result.size != path.parent.name:
            raise GateError(f"{path}: is a result of size {result.size!r}: {ADVICE}")
        found.append(result)
    return found


def every(results: Iterable[Result], sizes: Sequence[str]) -> list[CellResult]:
    """Return results grouped by world, policy, variant and size, in the order of `sizes`; omits other sizes.

    Raises GateError if a seed appears twice, since its episodes would count twice.
    """
    groups: dict[tuple[str, bool, str, str, str], list[Result]] = {}
    for result in results:
        if result.size in sizes:
            which = (result.task, result.goal, result.policy, result.variant, result.size)
            groups.setdefault(which, []).append(result)
    for which, group in groups.items():
        if len({result.seed for result in group}) < len(group):
            seeds = sorted(result.seed for result in group)
            raise GateError(f"results: {which}: expected one result per seed, got seeds {seeds}: remove all but one")
    found = [CellResult(tuple(sorted(group, key=lambda result: result.seed))) for group in groups.values()]
    return sorted(found, key=lambda cell: list(sizes).index(cell.first.size))


def cells(results: Iterable[Result], sizes: Sequence[str]) -> list[CellResult]:
    """Return results grouped by world, policy and variant, each at its largest size; `sizes` is ascending."""
    largest: dict[tuple[str, bool, str, str], CellResult] = {}
    for cell in every(results, sizes):
        largest[cell.first.task, cell.first.goal, cell.first.policy, cell.first.variant] = cell
    return list(largest.values())


def order(cell: CellResult) -> tuple[Any, ...]:
    """Return the sort key of a cell: by world, without goals first, by policy; unknown names come last."""
    worlds, policies = list(WORLDS), list(POLICIES)
    task, policy = cell.first.task, cell.first.policy
    return (
        worlds.index(task) if task in worlds else len(worlds),
        task,
        cell.first.goal,
        policies.index(policy) if policy in policies else len(policies),
        policy,
        cell.first.variant,
    )


def relation(one: Interval, other: Interval) -> int:
    """Return -1 if `one` lies below `other`, 1 if above, 0 if they overlap and cannot be distinguished."""
    return int(one.low > other.high) - int(one.high < other.low)


def leaders(intervals: Sequence[Interval]) -> set[int]:
    """Return the indices of the intervals that overlap the highest one, including the highest itself."""
    highest = max(interval.estimate for interval in intervals)
    bar = min(interval.low for interval in intervals if interval.estimate == highest)
    return {index for index, interval in enumerate(intervals) if interval.high >= bar}


@dataclass(frozen=True, slots=True)
class Difference:
    """Difference of mean scores, over the episodes of all training seeds and for each training seed."""

    interval: Interval
    by_seed: tuple[float, ...]

    @property
    def side(self) -> int:
        """-1 below, 1 above; 0 if the interval contains zero or a training seed has the opposite sign."""
        for side, end in ((1, self.interval.low), (-1, -self.interval.high)):
            if end > 0 and all(side * each > 0 for each in self.by_seed):
                return side
        return 0

    def scaled(self, world: World) -> Difference:
        """Convert the difference to the world's own unit."""
        return Difference(world.scaled(self.interval), tuple(world.top * each for each in self.by_seed))


def difference(cell: CellResult, reference: CellResult) -> Difference | None:
    """Return the difference paired by training seed and episode seed; None if there are no common seeds."""
    others = {(result.seed, result.first_seed): result.score for result in reference.results}
    pairs = [
        (np.asarray(result.score[:count], float), np.asarray(other[:count], float))
        for result in cell.results
        if (other := others.get((result.seed, result.first_seed))) is not None
        for count in [min(len(result.score), len(other))]
    ]
    if not pairs:
        return None
    ours, theirs = (np.concatenate(arms) for arms in zip(*pairs, strict=True))
    by_seed = tuple(float(one.mean() - other.mean()) for one, other in pairs)
    return Difference(statistics.paired_difference(ours, theirs), by_seed)


def compared(variants: Iterable[CellResult], sized: Iterable[CellResult]) -> list[tuple[CellResult, Difference | None]]:
    """Return each variant with its difference from the unchanged policy at the same size, in the world's unit.

    sized: cells at every size. Sorted by difference, lowest first; None, sorted last, if the unchanged policy was not
    run. The unchanged policy itself is omitted.
    """
    unchanged = {(cell.place, cell.first.policy, cell.first.size): cell for cell in sized if cell.unchanged}
    found = []
    for cell in (cell for cell in variants if not cell.unchanged):
        reference = unchanged.get((cell.place, cell.first.policy, cell.first.size))
        between = difference(cell, reference) if reference is not None else None
        found.append((cell, None if between is None else between.scaled(cell.world)))
    return sorted(
        found, key=lambda row: (math.inf if row[1] is None else row[1].interval.estimate, row[0].first.variant)
    )
