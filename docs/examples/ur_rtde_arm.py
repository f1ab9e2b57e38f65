"""A UR arm driven by a served policy: joint targets at the policy's rate, by RTDE and servoJ.

python ur_rtde_arm.py ws://127.0.0.1:8000 192.168.0.10
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from vqbet.serving.client import connect
from vqbet.serving.player import ChunkPlayer

SPEED, ACCELERATION = 0.5, 0.5  # not used by servoJ, which demands them
LOOKAHEAD_S, GAIN = 0.1, 300.0


def drive(receive: Any, control: Any, player: ChunkPlayer, spec: Any, *, seed: int, most_s: float = 60.0) -> str:
    """Drive one episode of absolute joint targets in radians; return why the guard stopped it, or an empty text."""
    period_s, why = 1 / spec.control_hz, ""
    player.start(np.array(receive.getActualQ(), np.float32), seed=seed)
    due, end = time.monotonic(), time.monotonic() + most_s
    try:
        while time.monotonic() < end:
            seen_s = time.monotonic()
            decision = player.step(np.array(receive.getActualQ(), np.float32), observed_s=seen_s)
            if decision.verdict == "stop":
                why = decision.detail
                break
            if decision.action is not None:
                target = decision.action.astype(float).tolist()
                control.servoJ(target, SPEED, ACCELERATION, period_s, LOOKAHEAD_S, GAIN)
            due = max(due + period_s, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
    finally:
        control.servoStop()
    player.finish(success=False if why else None, note=why)
    return why


def main(url: str, address: str) -> None:
    from rtde_control import RTDEControlInterface
    from rtde_receive import RTDEReceiveInterface

    receive, control = RTDEReceiveInterface(address), RTDEControlInterface(address)
    try:
        with connect(url, robot="ur-1") as policy:
            if why := drive(receive, control, ChunkPlayer(policy), policy.spec, seed=1):
                sys.exit(why)
    finally:
        control.stopScript()


if __name__ == "__main__":
    main(*sys.argv[1:])
