"""The demonstrations as policies learn from them: mirrored, by positions, in the frame of what they reached.

A task's parameter `demos.views` names those it wants; a world must be made for each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from vqbet.contract import ConfigError, Demonstrations
from vqbet.coordinates import demonstrated_frame, demonstrated_positions, mirror


@dataclass(frozen=True, slots=True)
class View:
    """tasks: those whose world it is for. lacks: what is true of all others. of: the demonstrations in this view."""

    tasks: Collection[str]
    lacks: str
    of: Callable[[Demonstrations], Demonstrations]


VIEWS: Mapping[str, View] = {  # in the order in which they are applied
    "mirrored": View(mirror.MIRRORS, "does not look the same in a mirror", mirror.doubled),
    "absolute": View(
        demonstrated_positions.COUNTED,
        "has no commands that count from what is observed",
        demonstrated_positions.absolute,
    ),
    "goal_frame": View(demonstrated_frame.AT, "does not look the same moved and turned", demonstrated_frame.framed),
}


def flagged(flags: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the views whose flag is set, as provenance and results of before have them."""
    return frozenset(name for name in VIEWS if flags.get(name))


def refuse(task: str, wanted: Collection[str]) -> None:
    """Raises ConfigError naming the parameter and every wanted view that the task's world is not made for."""
    unfit = [
        f"{name}: the world of {task!r} {view.lacks}; it is for {', '.join(sorted(view.tasks))}"
        for name, view in VIEWS.items()
        if name in wanted and task not in view.tasks
    ]
    if unfit:
        raise ConfigError(f"{task}.demos.views: {'; '.join(unfit)}; take it from the list")


def seen(demos: Demonstrations, wanted: Collection[str]) -> Demonstrations:
    """The demonstrations in all the wanted views at once. Raises what `refuse` raises."""
    refuse(demos.spec.task, wanted)
    for name, view in VIEWS.items():
        demos = view.of(demos) if name in wanted else demos
    return demos
