"""A ROS 2 node that drives a position controller by a served policy; joints are named as the spec's channels.

python ros2_node.py ws://127.0.0.1:8000
"""

from __future__ import annotations

import sys
import time

import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray

from vqbet.serving.client import connect
from vqbet.serving.player import ChunkPlayer


class PolicyNode(Node):
    """Executes one episode from the first joint state on; a timer is the control loop, and nothing in it waits."""

    def __init__(self, player: ChunkPlayer, spec, *, seed: int) -> None:
        super().__init__("vqbet")
        self.player, self.spec, self.seed = player, spec, seed
        self.state, self.seen_s, self.started, self.stopped = None, 0.0, False, ""
        self.commands = self.create_publisher(Float64MultiArray, "/position_controller/commands", 1)
        self.create_subscription(JointState, "/joint_states", self.joints, 1)
        self.timer = self.create_timer(1 / spec.control_hz, self.tick)

    def joints(self, message: JointState) -> None:
        places = dict(zip(message.name, message.position, strict=True))
        self.state = np.array([places[channel.name] for channel in self.spec.observation], np.float32)
        self.seen_s = time.monotonic()  # the robot's stamps may come from another clock

    def tick(self) -> None:
        if self.state is None or self.stopped:
            return
        if not self.started:
            self.player.start(self.state, seed=self.seed)  # the robot is at rest; waits for the first plan
            self.started = True
            return  # the joint states have aged meanwhile
        decision = self.player.step(self.state, observed_s=self.seen_s)
        if decision.verdict == "stop":
            self.stopped = decision.detail
            self.player.finish(success=False, note=decision.detail)
        elif decision.action is not None:
            self.commands.publish(Float64MultiArray(data=decision.action.astype(float).tolist()))


def main(url: str) -> None:
    rclpy.init()
    with connect(url, robot="arm-3") as policy:
        node = PolicyNode(ChunkPlayer(policy), policy.spec, seed=1)
        while rclpy.ok() and not node.stopped:
            rclpy.spin_once(node)
        node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
