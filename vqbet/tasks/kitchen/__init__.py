"""Franka Kitchen: a seven-joint arm does four tasks in a kitchen, seen as numbers or through a camera.

The demonstrations are by people.
"""

from __future__ import annotations

from vqbet.contract import GOAL_PICTURES
from vqbet.tasks.kitchen.spec import ARM, CONTROL_HZ, FULL_SPEED, GOAL, SEEN, SPEC
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
IMAGE = Task(
    spec=SEEN,
    importer=Importer(Code("vqbet.tasks.kitchen.seen:load"), format="replay buffer, Zarr v2"),
    world=Code("vqbet.tasks.kitchen.world:Kitchen", {"camera": True}),
    goal_world=Code("vqbet.tasks.kitchen.world:asking_pictures"),
    goal=(GOAL_PICTURES,),
    action_reference=TASK.action_reference,
    validation=Code("vqbet.tasks.kitchen.validation:moved"),
)
