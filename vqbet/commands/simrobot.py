"""Simulated robot: a task's world behind the robot's side of the protocol, for rehearsals and CI."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vqbet.contract import Env, ServingError
from vqbet.demos import store
from vqbet.serving import limits, simrobot
from vqbet.serving.client import RemotePolicy, connect
from vqbet.serving.guard import Guard, Limits
from vqbet.serving.recorder import Recorder
from vqbet.serving.simrobot import Drive, Faults, SimulatedRobot
from vqbet.stages import worlds
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

TOKEN = "VQBET_TOKEN"  # environment variable: a token on a command line can be read by everybody on the machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Practice:
    """Settings of a simulated robot. name: of the robot, at the server and in recordings. digest: the only bundle to be
    accepted, "" for any. limits: the robot's own, a file that can only tighten. record: folder of recordings. wait_s:
    for a server that is gone between episodes."""

    server: str
    episodes: int
    seed: int = 0
    faults: Sequence[str] = field(default=())
    realtime: bool = False
    execute: str = ""
    digest: str = ""
    name: str = "simrobot"
    limits: Path | None = None
    record: Path | None = None
    certificate: Path | None = None
    wait_s: float = 0.0


def run(root: Path, task: str, asked: Practice, watch: Watch) -> dict[str, str]:
    """Play episodes and return a table of them. Raises ServingError, WorldError."""
    faults, env = Faults.of(asked.faults), worlds.make(task)
    with _connected(asked, env) as policy:
        if policy.goal:
            env = worlds.make(worlds.name(task, asked=True), store.read(Paths(root, task).store))
        drives = _driven(SimulatedRobot(env, policy, faults, **_equipment(asked, policy)), asked, watch)
        rows = {"policy": f"{policy.handshake.reference}, digest {policy.handshake.digest[:12]}"}
    return rows | simrobot.summary(drives) | ({"recordings": str(asked.record)} if asked.record else {})


def _connected(asked: Practice, env: Env) -> RemotePolicy:
    return connect(
        asked.server,
        digest=asked.digest or None,
        spec=env.spec,
        robot=asked.name,
        token=os.environ.get(TOKEN) or None,
        tls=asked.certificate,
    )


def _equipment(asked: Practice, policy: RemotePolicy) -> dict:
    own = None if asked.limits is None else limits.read(asked.limits)
    recorder = None
    if asked.record is not None:
        recorder = Recorder(asked.record, policy.handshake, robot=asked.name, operator="simulated", session=asked.name)
    return {
        "guard": Guard(Limits.of(policy.handshake, own)) if own else None,
        "recorder": recorder,
        "realtime": asked.realtime,
        "execute": asked.execute or None,
        "wait_s": asked.wait_s,
    }


def _driven(robot: SimulatedRobot, asked: Practice, watch: Watch) -> list[Drive]:
    drives: list[Drive] = []
    with watch.bar("simulated robot") as advance:
        for seed in range(asked.seed, asked.seed + asked.episodes):
            try:
                drives.append(robot.play(seed))
            except ServingError as error:
                raise ServingError(f"episode {len(drives)} of {asked.episodes}, seed {seed}: {error}") from error
            advance(len(drives), asked.episodes, {"success": sum(drive.success for drive in drives)})
    return drives
