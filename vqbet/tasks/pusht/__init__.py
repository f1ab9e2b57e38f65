"""Push-T: a finger pushes a T onto its goal, seen as numbers or through a camera. The demonstrations are by people."""

from __future__ import annotations

from vqbet.contract import GOAL_PICTURES
from vqbet.tasks.pusht import mirror
from vqbet.tasks.pusht.geometry import GOAL_KEYPOINTS_PX
from vqbet.tasks.pusht.spec import GOAL, SEEN, SPEC
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
IMAGE = Task(
    spec=SEEN,
    importer=Importer(Code("vqbet.tasks.pusht.importer:load_seen"), format="replay buffer, Zarr v2"),
    world=Code("vqbet.tasks.pusht.world:PushT", {"camera": True}),
    goal_world=Code("vqbet.tasks.pusht.world:asking_pictures"),
    replay=Code("vqbet.tasks.pusht.replay:replay"),
    goal=(GOAL_PICTURES,),
    mirror=mirror.image,
    validation=Code("vqbet.tasks.pusht.validation:moved"),
    tracks=TASK.tracks,
    score=TASK.score,
)
