"""Franka Kitchen: a seven-joint arm does four tasks in a kitchen. The demonstrations are by people."""

from __future__ import annotations

from vqbet.tasks.kitchen.spec import ARM, CONTROL_HZ, FULL_SPEED, GOAL, SPEC
from vqbet.tasks.task import Code, Importer, Task

TASK = Task(
    spec=SPEC,
    importer=Importer(Code("vqbet.tasks.kitchen.importer:load"), format="replay buffer, Zarr v2"),
    world=Code("vqbet.tasks.kitchen.world:Kitchen"),
    goal_world=Code("vqbet.tasks.kitchen.world:asking"),
    replay=Code("vqbet.tasks.kitchen.replay:replay"),
    goal=GOAL,
    # Servos follow a velocity for one control step, counted from the observed arm position, noise included.
    action_reference=tuple((f"{name}_position", FULL_SPEED / CONTROL_HZ) for name, *_ in ARM),
    validation=Code("vqbet.tasks.kitchen.validation:knowledge"),
)
