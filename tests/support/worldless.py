"""BlockPush as a task of a real robot: its spec and its demonstrations, and nothing that simulates it."""

from __future__ import annotations

from dataclasses import replace

from vqbet.tasks.blockpush import FIXED

TASK = replace(FIXED, world=None, goal_world=None, replay=None)
