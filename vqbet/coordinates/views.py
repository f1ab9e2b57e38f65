"""The demonstrations as policies learn from them: mirrored, by positions, in the frame of what they reached.

Each of these views is asked for by a parameter of its name in several sections, and only of worlds made for it.
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


def asked(section: Mapping[str, Any]) -> frozenset[str]:
    """The names of the views that a section of parameters asks for."""
    return frozenset(name for name in VIEWS if section.get(name))


def refuse(task: str, section: str, wanted: Collection[str]) -> None:
    """Raises ConfigError, naming the parameter in `section` that asks, where the task's world is not made for it."""
    for name, view in VIEWS.items():
        if name in wanted and task not in view.tasks:
            raise ConfigError(
                f"{task}.{section}.{name}: true: the world of {task!r} {view.lacks}; it is for "
                f"{', '.join(sorted(view.tasks))}; set it to false"
            )


def seen(demos: Demonstrations, section: str, wanted: Collection[str]) -> Demonstrations:
    """The demonstrations in all the wanted views at once. Raises what `refuse` raises."""
    refuse(demos.spec.task, section, wanted)
    for name, view in VIEWS.items():
        demos = view.of(demos) if name in wanted else demos
    return demos
