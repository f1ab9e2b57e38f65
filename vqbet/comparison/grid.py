"""Cells of the comparison: world x policy x with or without goals, ablations, seeds."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vqbet.contract import ConfigError

if TYPE_CHECKING:
    from vqbet.comparison.params import PaperParams, Params, SizeParams
    from vqbet.config import TaskParams
    from vqbet.training.recipe import Precision

VQBET = "vqbet"
SECTIONS = ("tokenizer", "prior", "bundle")  # sections of a task that define VQ-BeT
TOLD = ("goal_as", "goal_noise")  # prior keys ignored without goals
VIEWS = ("mirrored", "goal_frame", "absolute")  # results store each as a flag in tokenizer and prior
OPTIONAL = ("goal_frame", "absolute")  # views whose flag is stored only if true
SHARED = ("unseen", "observation_noise")  # prior keys that apply to every policy of a task
ACTING = ("bundle", "execute")  # parameters of a policy that do not affect its training
EVALUATION = ("data", "observation_noise", "action_noise")  # keys outside a task's sections that an ablation may change


@dataclass(frozen=True, slots=True)
class Cell:
    """One training and its evaluation. `changes`: changed parameters by dotted key."""

    task: str
    policy: str
    goal: bool
    variant: str
    seed: int
    train_s: float
    episodes: int
    changes: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """Name of the cell, usable as a file name."""
        world = f"{self.task}-goals" if self.goal else self.task
        words = [world, self.policy, *([_slug(self.variant)] if self.variant else []), f"s{self.seed}"]
        return ".".join(words)

    def change(self, key: str, default: Any) -> Any:
        return dict(self.changes).get(key, default)

    def section(self, name: str) -> dict[str, Any]:
        """Return the changes of one section, without the section's name."""
        return {key.split(".", 1)[1]: value for key, value in self.changes if key.startswith(f"{name}.")}


def plan(paper: PaperParams) -> list[Cell]:
    """Return every cell of the chosen size in order of importance: main table, ablations, more seeds."""
    size = paper.sizes[paper.size]
    columns, ablations = list(_columns(paper, size)), list(_ablations(paper, size))
    firsts, more = ([cell for cell in found if not cell.seed] for found in (columns, ablations))
    return [*firsts, *more, *(cell for cell in [*columns, *ablations] if cell.seed)]


def resolved(params: Params, cell: Cell) -> dict[str, Any]:
    """Return the parameters of a cell, validated like those of a file; the precision is that of this machine's device.

    Raises ConfigError naming the path of an invalid parameter.
    """
    if cell.policy != VQBET:
        if cell.task not in params.paper.baselines:
            raise ConfigError(
                f"{params.own}: baselines.{cell.task}: missing; without it no baseline can be trained there"
            )
        found = getattr(params.paper.baselines[cell.task], cell.policy).model_dump(mode="json")
        shared = params.task(cell.task)
        names = (*SHARED, "goal_noise") if cell.goal else SHARED
        found["training"]["precision"] = _precision(found["training"]["precision"])
        eyes = shared.prior.encoder
        seeing = {} if eyes is None else {"encoder": eyes.model_dump(mode="json")}
        return found | {name: getattr(shared.prior, name) for name in names} | _flags(shared) | seeing
    task = sections(params, cell)
    found = {name: getattr(task, name).model_dump(mode="json") for name in SECTIONS}
    for name in ("tokenizer", "prior"):
        found[name] |= _flags(task)
    prior = found["prior"]
    prior["precision"] = _precision(prior["precision"])
    prior["warmup"] /= prior.pop("steps")  # a share, as for baselines: the number of steps follows from the time
    if not cell.goal:
        found["prior"] = {name: value for name, value in prior.items() if name not in TOLD}
    return found


def sections(params: Params, cell: Cell) -> TaskParams:
    """Return the task's sections for VQ-BeT with the cell's changes, seed and goals. Raises like `resolved`."""
    from vqbet import config

    task, own = params.task(cell.task), {"tokenizer": {"seed": cell.seed}, "prior": {"seed": cell.seed}}
    own["prior"]["goal_steps"] = params.paper.goal_steps if cell.goal else 0
    found = {}
    for name in ("demos", *SECTIONS):
        path = f"{cell.task}.{name}" + (f", {cell.variant!r}" if cell.variant else "")
        changes = cell.section(name) | own.get(name, {})
        found[name] = config.changed(getattr(task, name), changes, path)
    return config.changed(task, {name: section.model_dump() for name, section in found.items()}, cell.task)


def training_key(cell: Cell, chosen: Mapping[str, Any], digest: str) -> str:
    """Return the sha256 of everything that determines the trained weights, except code and machine speed.

    Cells that differ only in acting or evaluation share the key and are trained once.
    """
    trained = {name: value for name, value in chosen.items() if name not in ACTING}
    return _hash(
        [cell.task, cell.policy, cell.goal, cell.seed, cell.train_s, cell.change("data", 1.0), trained, digest]
    )


def key(cell: Cell, chosen: Mapping[str, Any], first_seed: int, digest: str) -> str:
    """Return the sha256 of everything that determines the cell's result, except the code, which a result stores."""
    return _hash([cell.name, cell.episodes, dict(cell.changes), chosen, first_seed, training_key(cell, chosen, digest)])


def _precision(wanted: Precision) -> str:
    from vqbet.training import device

    return device.precision(wanted, device.visible())


def _flags(task: TaskParams) -> dict[str, bool]:
    """Return the task's views as flags; unused OPTIONAL ones are omitted, so that old results keep their key."""
    flags = {name: name in task.demos.views for name in VIEWS}
    return {name: value for name, value in flags.items() if name not in OPTIONAL or value}


def _hash(facts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _columns(paper: PaperParams, size: SizeParams) -> Iterator[Cell]:
    for seed in range(max(size.seeds, size.main_seeds)):
        for task in paper.tasks:
            for goal, policies in ((False, paper.policies), (True, paper.goal_policies)):
                for policy in policies:
                    main = policy in paper.main
                    if seed < (size.main_seeds if main else size.seeds):
                        changes = _changes(paper.goal_changes) if goal and policy == VQBET else ()
                        episodes = size.main_episodes if main else size.episodes
                        yield Cell(task, policy, goal, "", seed, size.train_s, episodes, changes)


def _ablations(paper: PaperParams, size: SizeParams) -> Iterator[Cell]:
    for seed, task in itertools.product(range(size.ablation_seeds), paper.ablation_tasks):
        for variant, changes in paper.ablations.items():
            yield Cell(task, VQBET, False, variant, seed, size.ablation_s, size.episodes, _changes(changes))


def _changes(changes: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    for name in changes:
        if name not in (*EVALUATION, "demos.views") and name.split(".")[0] not in SECTIONS:
            raise ConfigError(
                f"ablations, goal_changes: cannot change {name!r}: expected tokenizer.*, prior.*, bundle.*, "
                f"demos.views, {', '.join(EVALUATION)}"
            )
    return tuple(sorted(changes.items()))


def _slug(words: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in words.lower()).strip("-")
