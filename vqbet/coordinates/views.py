"""Views of demonstrations for training: mirrored, with absolute actions, in the frame of the final pose.

The parameter `demos.views` of a task lists its views; the task's world must support each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from vqbet.contract import ConfigError, Demonstrations
from vqbet.coordinates.action_reference import Counted, absolute
from vqbet.coordinates.goal_frame import framed
from vqbet.coordinates.mirror import Mirror, doubled


class Symmetries(Protocol):
    """Symmetries about a task's world that views need, each empty where it is not supported; `tasks.Task` has them."""

    @property
    def goal(self) -> tuple[str, ...]: ...

    @property
    def mirror(self) -> Mirror | None: ...

    @property
    def goal_frame(self) -> tuple[float, ...]: ...

    @property
    def action_reference(self) -> Counted: ...


@dataclass(frozen=True, slots=True)
class View:
    """View. fits: whether a world supports it. lacks: predicate of the other worlds. of: the demonstrations in it."""

    lacks: str
    fits: Callable[[Symmetries], bool]
    of: Callable[[Demonstrations, Symmetries], Demonstrations]


def _mirrored(demos: Demonstrations, facts: Symmetries) -> Demonstrations:
    assert facts.mirror is not None, "such a world is refused before"
    return doubled(demos, facts.mirror)


VIEWS: Mapping[str, View] = {  # in the order in which they are applied
    "mirrored": View("does not look the same in a mirror", lambda facts: facts.mirror is not None, _mirrored),
    "absolute": View(
        "has no commands that count from what is observed",
        lambda facts: bool(facts.action_reference),
        lambda demos, facts: absolute(demos, facts.action_reference),
    ),
    "goal_frame": View(
        "does not look the same moved and turned",
        lambda facts: bool(facts.goal_frame),
        lambda demos, facts: framed(demos, facts.goal, facts.goal_frame),
    ),
}


BLIND = ("goal_frame",)  # views of numbers alone, which pictures do not follow


def flagged(flags: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the views whose flag is set, as in provenance and results of earlier versions."""
    return frozenset(name for name in VIEWS if flags.get(name))


def refuse(task: str, wanted: Collection[str], facts: Symmetries) -> None:
    """Raise ConfigError naming the parameter and every requested view that the task's world does not support."""
    unfit = [
        f"{name}: the world of {task!r} {view.lacks}"
        for name, view in VIEWS.items()
        if name in wanted and not view.fits(facts)
    ]
    if unfit:
        raise ConfigError(f"{task}.demos.views: {'; '.join(unfit)}; take it from the list")


def seen(demos: Demonstrations, wanted: Collection[str], facts: Symmetries) -> Demonstrations:
    """Return the demonstrations in all requested views. Raises as `refuse`."""
    refuse(demos.spec.task, wanted, facts)
    for name, view in VIEWS.items():
        demos = view.of(demos, facts) if name in wanted else demos
    return demos
