"""The demonstrations as policies learn from them: mirrored, by positions, in the frame of what they reached.

Each of these views is asked for by a parameter of its name in several sections, and only of worlds made for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from vqbet.contract import ConfigError, Demonstrations
from vqbet.coordinates.action_reference import Counted, absolute
from vqbet.coordinates.goal_frame import framed
from vqbet.coordinates.mirror import Mirror, doubled


class Facts(Protocol):
    """What views need to know of a task's world, each empty where it is not made for one; `tasks.Task` has them."""

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
    """fits: whether a world is made for it. lacks: what is true of all others. of: the demonstrations in this view."""

    lacks: str
    fits: Callable[[Facts], bool]
    of: Callable[[Demonstrations, Facts], Demonstrations]


def _mirrored(demos: Demonstrations, facts: Facts) -> Demonstrations:
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


def asked(section: Mapping[str, Any]) -> frozenset[str]:
    """The names of the views that a section of parameters asks for."""
    return frozenset(name for name in VIEWS if section.get(name))


def refuse(task: str, section: str, wanted: Collection[str], facts: Facts) -> None:
    """Raises ConfigError, naming the parameter in `section` that asks, where the task's world is not made for it."""
    for name, view in VIEWS.items():
        if name in wanted and not view.fits(facts):
            raise ConfigError(f"{task}.{section}.{name}: true: the world of {task!r} {view.lacks}; set it to false")


def seen(demos: Demonstrations, section: str, wanted: Collection[str], facts: Facts) -> Demonstrations:
    """The demonstrations in all the wanted views at once. Raises what `refuse` raises."""
    refuse(demos.spec.task, section, wanted, facts)
    for name, view in VIEWS.items():
        demos = view.of(demos, facts) if name in wanted else demos
    return demos
