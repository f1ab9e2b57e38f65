"""Channels, limits and rate of Franka Kitchen."""

from __future__ import annotations

from dataclasses import replace

from vqbet.contract import Camera, Channel, Spec

CONTROL_HZ = 12.5
FULL_SPEED = 2.0  # rad/s and m/s, of an action of 1

# Name, unit and limits of every position. Limits are the model's stops plus a margin for soft stops and sensor noise:
# 0.1 rad and 0.02 m for the arm, 0.2 rad and 0.1 m for what it moves. The kettle may fall; the floor is 10 m wide.
ARM = (
    ("robot_joint1", "rad", -3.0, 3.0),
    ("robot_joint2", "rad", -1.87, 1.87),
    ("robot_joint3", "rad", -3.0, 3.0),
    ("robot_joint4", "rad", -3.18, -0.3),
    ("robot_joint5", "rad", -3.0, 3.0),
    ("robot_joint6", "rad", -1.76, 2.22),
    ("robot_joint7", "rad", -3.0, 3.0),
    ("robot_finger1", "m", -0.02, 0.06),
    ("robot_finger2", "m", -0.02, 0.06),
)
FIXTURES = (
    ("knob1", "rad", -1.8, 0.2),
    ("bottom_right_burner", "m", -0.1, 0.1),
    ("knob2", "rad", -1.8, 0.2),
    ("bottom_left_burner", "m", -0.1, 0.1),
    ("knob3", "rad", -1.8, 0.2),
    ("top_right_burner", "m", -0.1, 0.1),
    ("knob4", "rad", -1.8, 0.2),
    ("top_left_burner", "m", -0.1, 0.1),
    ("light_switch", "rad", -0.9, 0.2),
    ("light", "m", -0.15, 0.1),
    ("slide_cabinet", "m", -0.1, 0.54),
    ("left_hinge_cabinet", "rad", -1.8, 0.2),
    ("right_hinge_cabinet", "rad", -0.2, 1.8),
    ("microwave_door", "rad", -2.3, 0.2),
)
KETTLE = tuple((f"kettle_{axis}", "m", -5.0, 5.0) for axis in "xyz")
TURN = tuple((f"kettle_q{axis}", "1", -1.1, 1.1) for axis in "wxyz")
FASTEST = {"rad": 50.0, "m": 20.0}  # per second; ten times the largest recorded velocity


def _spec() -> Spec:
    spinning = tuple((f"kettle_turn_{axis}", "rad", 0.0, 0.0) for axis in "xyz")
    arm = [Channel(f"{name}_position", unit, low, high) for name, unit, low, high in ARM]
    objects = [Channel(*row) for row in FIXTURES + KETTLE + TURN]
    arm_speed, object_speed = (
        [Channel(f"{name}_velocity", f"{unit}/s", -FASTEST[unit], FASTEST[unit]) for name, unit, *_ in rows]
        for rows in (ARM, FIXTURES + KETTLE + spinning)
    )
    return Spec(
        task="kitchen",
        observation=(*arm, *arm_speed, *objects, *object_speed),
        action=tuple(Channel(f"{name}_command", f"of {FULL_SPEED:g} {unit}/s", -1.0, 1.0) for name, unit, *_ in ARM),
        control_hz=CONTROL_HZ,
        action_kind="relative",
        frame="kitchen",
    )


SPEC = _spec()
GOAL = tuple(channel.name for channel in SPEC.observation[18:39])  # where the objects are
# The same world as a camera sees it: objects are in the picture alone, the arm in both.
CAMERA = Camera("image", 96, 96)
SEEN = replace(SPEC, task="kitchen_image", observation=SPEC.observation[:18], cameras=(CAMERA,))
