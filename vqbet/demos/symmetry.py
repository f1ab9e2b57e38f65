"""The demonstrations as policies learn from them: in the mirror of their world, in the frame of what they reached.

Both are asked for by parameters of the same names in several sections, and only of worlds that look the same so.
"""

from __future__ import annotations

from vqbet.contract import ConfigError, Demonstrations
from vqbet.demos import frames, mirror


def refuse(task: str, section: str, *, mirrored: bool, goal_frame: bool) -> None:
    """Raises ConfigError, naming the parameter in `section` that asks, where the task's world is not made for it."""
    asked = {
        "mirrored": (mirrored, mirror.MIRRORS, "in a mirror"),
        "goal_frame": (goal_frame, frames.AT, "moved and turned"),
    }
    for name, (wanted, tasks, how) in asked.items():
        if wanted and task not in tasks:
            raise ConfigError(
                f"{task}.{section}.{name}: true: the world of {task!r} does not look the same {how}; those that do: "
                f"{', '.join(sorted(tasks))}; set it to false"
            )


def seen(demos: Demonstrations, section: str, *, mirrored: bool, goal_frame: bool) -> Demonstrations:
    """The demonstrations with what is asked for done to them. Raises what `refuse` raises."""
    refuse(demos.spec.task, section, mirrored=mirrored, goal_frame=goal_frame)
    if mirrored:
        demos = mirror.doubled(demos)
    return frames.framed(demos) if goal_frame else demos
