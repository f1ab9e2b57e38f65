"""Push-T: a finger pushes a T onto its goal. The demonstrations are by people."""

from __future__ import annotations

from vqbet.tasks.pusht import mirror
from vqbet.tasks.pusht.geometry import GOAL_KEYPOINTS_PX
from vqbet.tasks.pusht.spec import GOAL, SPEC
from vqbet.tasks.task import Code, Importer, Score, Task

TASK = Task(
    spec=SPEC,
    importer=Importer(Code("vqbet.tasks.pusht.importer:load"), format="replay buffer, Zarr v2"),
    world=Code("vqbet.tasks.pusht.world:PushT"),
    goal_world=Code("vqbet.tasks.pusht.world:asking"),
    replay=Code("vqbet.tasks.pusht.replay:replay"),
    goal=GOAL,
    mirror=mirror.image,
    goal_frame=GOAL_KEYPOINTS_PX,
    validation=Code("vqbet.tasks.pusht.validation:knowledge"),
    tracks={"agent": ("agent_x", "agent_y")},
    score=Score(beside=("final_coverage", "max_coverage")),
)
