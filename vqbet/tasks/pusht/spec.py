"""Channels, limits and rate of Push-T."""

from __future__ import annotations

from dataclasses import replace

from vqbet.contract import Camera, Channel, Spec
from vqbet.tasks.pusht.geometry import KEYPOINTS_PX, WINDOW_PX

CONTROL_HZ = 10.0
# Keypoints lie up to 2.8 px outside the T, and walls yield to a hard push (521 px was recorded).
KEYPOINT_MARGIN_PX = 64.0

_KEYPOINTS = tuple(
    Channel(f"keypoint{index}_{axis}", "px", -KEYPOINT_MARGIN_PX, WINDOW_PX + KEYPOINT_MARGIN_PX)
    for index in range(len(KEYPOINTS_PX))
    for axis in "xy"
)
_AGENT = tuple(Channel(f"agent_{axis}", "px", 0.0, WINDOW_PX) for axis in "xy")

# Observation: the keypoints, then the finger. Action: target position of the finger.
SPEC = Spec(
    task="pusht",
    observation=(*_KEYPOINTS, *_AGENT),
    action=_AGENT,
    control_hz=CONTROL_HZ,
    action_kind="absolute",
    frame="window px",
)
# The same world as a camera sees it: the T is in the picture alone, the finger in both.
CAMERA = Camera("image", 96, 96)
SEEN = replace(SPEC, task="pusht_image", observation=_AGENT, cameras=(CAMERA,))
GOAL = tuple(channel.name for channel in _KEYPOINTS)
