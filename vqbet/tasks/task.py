"""Task: a data set, the knowledge about it, and the evaluation of policies trained on it."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from vqbet.contract import Demonstrations, Env, Spec

if TYPE_CHECKING:
    from vqbet.coordinates.action_reference import Counted
    from vqbet.coordinates.mirror import Mirror
    from vqbet.demos.validation.knowledge import Knowledge

Progress = Callable[[int, int], None]  # progress(done, total)
Oracle = Callable[[int, int, Progress | None], Demonstrations]  # oracle(episodes, seed, progress)


@final
@dataclass(frozen=True, slots=True)
class Code:
    """Function or class named as `module:name`, which is imported when it is called.

    `arguments` are passed to every call by keyword. A task names heavy or rarely needed code this way, so that a task
    can be imported without it, and a stage that does not call it does not depend on it.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def module(self) -> str:
        return self.name.partition(":")[0]

    def __call__(self, *given: Any, **named: Any) -> Any:
        return pkgutil.resolve_name(self.name)(*given, **self.arguments, **named)


@final
@dataclass(frozen=True, slots=True)
class Importer:
    """Reader of a task's published data. format: the format of the data, as recorded with its source."""

    read: Callable[[Path], Demonstrations]
    format: str


@final
@dataclass(frozen=True, slots=True)
class Score:
    """Labels for a score on the screen: its name, its largest value, and further metrics to show beside it."""

    name: str = "score"
    top: int = 1
    beside: tuple[str, ...] = ()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Description of a task. Only `spec` is required: a task without a world is trained and validated like any other.

    Source of demonstrations
        importer: reads published data. oracle: generates demonstrations from a number of episodes and a seed.
    Evaluation
        world: makes the simulator. goal_world: makes the simulator that requests a goal in each episode, which may come
        from demonstrations. replay: plays recorded actions in a world, to prove that they were recorded there.
    Knowledge about the world, each empty where there is none
        goal: the observed channels that make a goal, GOAL_PICTURES if pictures do. mirror: maps
        observations and actions to their mirror image.
        goal_frame: values of the channels of `goal` at the world's own goal, x before y; observations and actions must
        be points of a plane, and the dynamics invariant to translation and rotation.
        action_reference: per command, the observed channel it is relative to, and the distance a command of 1 moves.
        validation: makes the knowledge that demonstrations are checked against.
    Presentation
        tracks: by name, the pair of observed channels that draws a path. score: labels for the score.
    """

    spec: Spec
    importer: Importer | None = None
    oracle: Oracle | None = None
    world: Callable[[], Env] | None = None
    goal_world: Callable[[Demonstrations], Env] | None = None
    replay: Callable[..., dict[str, np.ndarray]] | None = None
    goal: tuple[str, ...] = ()
    mirror: Mirror | None = None
    goal_frame: tuple[float, ...] = ()
    action_reference: Counted = ()
    validation: Callable[[], Knowledge] = Code("vqbet.demos.validation.knowledge:Knowledge")
    tracks: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    score: Score = Score()

    @property
    def name(self) -> str:
        return self.spec.task

    @property
    def modules(self) -> dict[str, str]:
        """Return, by field, the module of each function that the task names, without importing any of them."""
        named = {
            "importer": self.importer and self.importer.read,
            "oracle": self.oracle,
            "world": self.world,
            "goal_world": self.goal_world,
            "replay": self.replay,
            "mirror": self.mirror,
            "validation": self.validation,
        }
        return {name: module(function) for name, function in named.items() if function is not None}


def module(function: Callable[..., Any]) -> str:
    """Return the module whose code decides the result of `function`."""
    return function.module if isinstance(function, Code) else function.__module__
