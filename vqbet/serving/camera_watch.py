"""Watch over a robot's cameras: pictures unlike those of training, and pictures that stand still while it moves.

How far a picture is from training is the server's to say, which has its features: a share of the distance that is
allowed, with each plan, the largest of the T steps that the plan was made from. That a picture stands still, or has
other light and colours, is seen here at every control step. numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import numpy as np

from vqbet.policies.familiarity import LOOKS, SIGNAL, looks
from vqbet.serving.guard import Reason, Refusal
from vqbet.serving.limits import Limits
from vqbet.serving.looks import Glance


@final
class CameraWatch:
    """Watch of one robot's cameras; `see` once per control step, `plan` once per plan. shares: of the newest plan."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._names = [camera.name for camera in limits.spec.cameras]
        self.start()

    def start(self) -> None:
        """Start an episode."""
        self.shares: dict[str, float] = {}
        self._last: Glance | None = None
        self._still = dict.fromkeys(self._names, 0)
        self._looks = self._limits.camera_low

    def see(self, glance: Glance) -> None:
        """Count the control steps for which each picture has stood still while the state changed."""
        if not self._names:
            return
        before, self._last = self._last, glance
        self._looks = np.concatenate([looks(glance.shown[name]) for name in self._names])
        moved = before is not None and bool((glance.state != before.state).any())
        for name in self._names:
            if before is None or not np.array_equal(glance.shown[name], before.shown[name]):
                self._still[name] = 0
            else:
                self._still[name] += moved

    def plan(self, signals: Mapping[str, float]) -> bool:
        """Note what a plan says of its pictures. Returns whether it may be executed."""
        self.shares = {SIGNAL + name: signals[SIGNAL + name] for name in self._names if SIGNAL + name in signals}
        return self._unfamiliar() is None

    def refusal(self) -> Refusal | None:
        """Return why no action may be sent now; None where all cameras are well."""
        if not self._names:
            return None
        low, high = self._limits.camera_low, self._limits.camera_high
        inside = (self._looks >= low) & (self._looks <= high)
        if not inside.all():
            place = int(inside.argmin())
            camera, look = divmod(place, len(LOOKS))
            return Reason.CAMERA_LIMIT, (
                f"camera {self._names[camera]!r}: {LOOKS[look]} is {self._looks[place]:.0f} of 255, its limits are "
                f"{low[place]:.0f} to {high[place]:.0f}; see whether it is covered, in other light, or another one"
            )
        for name, most in zip(self._names, self._limits.camera_still, strict=True):
            if self._still[name] > most:
                return Reason.FROZEN_CAMERA, (
                    f"camera {name!r} has shown the same picture for {self._still[name]} control steps in which the "
                    f"state changed, at most {most:g} are allowed; see to the camera and its driver"
                )
        return self._unfamiliar()

    def _unfamiliar(self) -> Refusal | None:
        for name, most in zip(self._names, self._limits.camera_distance, strict=True):
            share = self.shares.get(SIGNAL + name, 0.0)
            if not share <= most:  # also true for NaN
                return Reason.UNFAMILIAR_PICTURE, (
                    f"camera {name!r}: its picture is unlike those of training, {share:.3g} times as far as allowed; "
                    "see whether it is covered, moved, or another one"
                )
        return None
