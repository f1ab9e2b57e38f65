"""Knowledge for validating Franka Kitchen demonstrations: which tasks are done, and how commands move the arm."""

from __future__ import annotations

from dataclasses import replace

from vqbet.demos.validation.knowledge import Goal, Knowledge, Known
from vqbet.tasks.kitchen.completion import STATE, done
from vqbet.tasks.kitchen.spec import SPEC

SLOPES = (0.074, 0.052, 0.075, 0.073, 0.092, 0.064, 0.101)  # of joints 1 to 7, whose servos follow velocities
STRENGTHS = (0.99, 0.88, 0.98, 0.98, 0.99, 0.71, 1.00)


def knowledge() -> Knowledge:
    """Return the four tasks as a goal, and what `moved` returns."""
    observed = tuple(channel.name for channel in SPEC.observation)
    return replace(moved(), goal=Goal(observed, lambda seen: done(seen[:, STATE]), kept=True))


def moved() -> Knowledge:
    """Return how joints follow commands, without the fingers, which touch the kettle."""
    return Knowledge(
        references=tuple(
            Known(f"robot_joint{joint}_command", f"robot_joint{joint}_position", 0, slope, strength)
            for joint, slope, strength in zip(range(1, 8), SLOPES, STRENGTHS, strict=True)
        )
    )
