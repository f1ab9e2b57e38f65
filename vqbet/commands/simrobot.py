"""Simulated robot: a task's world behind the robot's side of the protocol, for rehearsals and CI."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vqbet import config
from vqbet.contract import Env, ServingError
from vqbet.demos import store
from vqbet.serving import limits, simrobot
from vqbet.serving.client import RemotePolicy, connect
from vqbet.serving.guard import Guard, Limits
from vqbet.serving.recorder import Recorder
from vqbet.serving.simrobot import RETRY_S, Drive, Faults, SimulatedRobot
from vqbet.serving.station import Station
from vqbet.stages import worlds
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.tasks import TASKS

DESK_TOKEN = "VQBET_ROBOT_TOKEN"
TOKEN = "VQBET_TOKEN"  # environment variable: a token on a command line can be read by everybody on the machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Practice:
    """Settings of a simulated robot. name: of the robot, at the server and in recordings. digest: the only bundle to be
    accepted, "" for any. limits: the robot's own, a file that can only tighten. record: folder of recordings. wait_s:
    for a server that is not there, at first or between episodes. camera: record and show pictures of the world. desk:
    of a session of trials, which then says what to play, and where the server is."""

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
    camera: bool = False
    desk: str = ""


def run(root: Path, task: str, asked: Practice, watch: Watch) -> dict[str, str]:
    """Play episodes and return a table of them. Raises ServingError, WorldError."""
    faults, env = Faults.of(asked.faults), _world(root, task)
    station = _station(asked) if asked.desk else None
    if station is not None:
        asked = replace(asked, server=station.server, digest=station.plan)
    with _connected(asked, env) as policy:
        if policy.goal:
            env = worlds.make(worlds.name(task, asked=True), store.read(Paths(root, task).store))
        recorder = _recorder(asked, policy)
        robot = SimulatedRobot(env, policy, faults, recorder=recorder, **_equipment(asked, policy))
        rows = {"policy": f"{policy.handshake.reference}, digest {policy.handshake.digest[:12]}"}
        if station is None:
            drives = _driven(robot, asked, watch)
        else:
            assert recorder is not None
            drives = _tried(robot, station, recorder, watch)
    return rows | simrobot.summary(drives) | ({"recordings": str(asked.record)} if asked.record else {})


def _world(root: Path, task: str) -> Env:
    """Return the world of a task; of a declared one, with the spec of its demonstrations."""
    path = root / "params.yaml"
    if task in TASKS or not path.is_file() or task not in config.sections(path):
        return worlds.make(task)
    params = config.task(path, task)
    return worlds.make(worlds.name(task, asked=False, params=params), store.read(Paths(root, task).store))


def _station(asked: Practice) -> Station:
    if asked.record is None:
        raise ServingError("a trial without a recording cannot count; expected --record with a folder")
    return Station(asked.desk, robot=asked.name, token=os.environ.get(DESK_TOKEN, ""), simulated=True)


def _connected(asked: Practice, env: Env) -> RemotePolicy:
    """Return a connection; where there is no server yet, try again for at most `wait_s`."""
    deadline = time.monotonic() + asked.wait_s
    while True:
        try:
            return connect(
                asked.server,
                digest=asked.digest or None,
                spec=env.spec,
                robot=asked.name,
                token=os.environ.get(TOKEN) or None,
                tls=asked.certificate,
            )
        except ServingError:
            if time.monotonic() + RETRY_S > deadline:
                raise
            time.sleep(RETRY_S)


def _recorder(asked: Practice, policy: RemotePolicy) -> Recorder | None:
    if asked.record is None:
        return None
    return Recorder(asked.record, policy.handshake, robot=asked.name, operator="simulated", session=asked.name)


def _equipment(asked: Practice, policy: RemotePolicy) -> dict:
    own = None if asked.limits is None else limits.read(asked.limits)
    return {
        "guard": Guard(Limits.of(policy.handshake, own)) if own else None,
        "realtime": asked.realtime,
        "execute": asked.execute or None,
        "wait_s": asked.wait_s,
        "camera": asked.camera,
    }


def _tried(robot: SimulatedRobot, station: Station, recorder: Recorder, watch: Watch) -> list[Drive]:
    """Play trials as the desk orders them. One that cannot start, as without the server, is told and tried again."""
    drives: list[Drive] = []
    complaint = ""
    for trial in station.trials():
        recorder.operator, recorder.session = trial.operator, trial.session
        try:
            drive = robot.play(trial.seed, trial)
        except ServingError as error:
            if str(error) != complaint:
                complaint = str(error)
                watch.say(f"trial {trial.code}: {complaint}")
            continue
        drives.append(drive)
        if robot.camera:
            station.look_through(robot.look)  # the world as the trial has left it
        trial.ended(
            by="guard" if drive.stopped else "timeout" if drive.overdue else None,
            steps=drive.steps,
            duration_s=drive.steps / robot.control_hz,
            holds=drive.holds,
            interventions=drive.driven,
            recording=drive.recording,
            seen=(drive.score, drive.success),
        )
    return drives


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
