"""A LeRobot robot driven by a served policy. Names of motors are those of the spec's channels, such as gripper.pos.

python lerobot_arm.py ws://127.0.0.1:8000
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from vqbet.serving.client import connect
from vqbet.serving.player import ChunkPlayer


def drive(robot: Any, player: ChunkPlayer, spec: Any, *, seed: int, most_s: float = 60.0) -> bool:
    """Drive one episode with a connected robot of LeRobot; return whether the guard let it run to its end."""

    def observed() -> np.ndarray:
        seen = robot.get_observation()
        return np.array([seen[channel.name] for channel in spec.observation], np.float32)

    player.start(observed(), seed=seed)
    due, end = time.monotonic(), time.monotonic() + most_s
    while time.monotonic() < end:
        seen_s = time.monotonic()
        decision = player.step(observed(), observed_s=seen_s)
        if decision.verdict == "stop":
            player.finish(success=False, note=decision.detail)
            return False  # the motors keep their last targets; cut the torque where yours must not
        if decision.action is not None:
            robot.send_action({channel.name: float(x) for channel, x in zip(spec.action, decision.action, strict=True)})
        due = max(due + 1 / spec.control_hz, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
    player.finish()
    return True


def main(url: str) -> None:
    from lerobot.robots.so101_follower import SO101Follower, SO101FollowerConfig

    robot = SO101Follower(SO101FollowerConfig(port="/dev/ttyACM0", id="arm-3"))
    robot.connect()
    try:
        with connect(url, robot="arm-3") as policy:
            drive(robot, ChunkPlayer(policy), policy.spec, seed=1)
    finally:
        robot.disconnect()


if __name__ == "__main__":
    main(*sys.argv[1:])
