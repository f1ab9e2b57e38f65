"""Demonstrations out of recorded episodes: what a robot observed, and the actions that moved it.

A recorded episode begins at the first action that was sent and ends at the last. It has no simulator state (NaN at
every step) and no world seed; its `intervention` marks the steps at which a person acted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from vqbet.contract import COLUMNS, Camera, Demonstrations, Frames, Spec, StoreError
from vqbet.demos.joined import Joined
from vqbet.demos.picked import Picked
from vqbet.files import canonical

SOURCE = "recording "  # of a column `source`, before the digest of the recording


class Recorded(Protocol):
    """Recorded episode. facts: with `spec`, `operator` and `session`. array: one over steps, named as in the store.
    pictures: of one camera, read where they are asked for."""

    @property
    def number(self) -> int: ...

    @property
    def digest(self) -> str: ...

    @property
    def facts(self) -> Any: ...

    @property
    def arrays(self) -> list[str]: ...

    def array(self, name: str) -> np.ndarray: ...

    def pictures(self, camera: str) -> Frames: ...


@dataclass(frozen=True, slots=True)
class Accepted:
    """Recording that becomes a demonstration. success: as the person who reviewed it says."""

    recording: Recorded
    success: bool


def known(demos: Demonstrations) -> set[str]:
    """Return the digests of the recordings that are among these demonstrations."""
    sources = demos.columns["source"].tolist()
    return {source.removeprefix(SOURCE) for source in sources if source.startswith(SOURCE)}


def digest(accepted: Sequence[Accepted]) -> str:
    """Return the sha256 of the recordings' digests, in their order."""
    return canonical.digest([each.recording.digest for each in accepted])


def extended(present: Demonstrations | None, accepted: Sequence[Accepted]) -> Demonstrations:
    """Return the present demonstrations, if there are any, followed by the recordings.

    Pictures are those of the spec's cameras, read where they are asked for; other cameras of a recording are left out.
    Raises StoreError, naming recording and difference, for a recording of another spec, one in which nothing was sent,
    and one with steps in its middle at which nothing was sent; and what `Recorded` raises for one without a camera.
    """
    spec = present.spec if present else accepted[0].recording.facts.spec
    parts = [] if present is None else [_marked(present)]
    parts += [_demonstration(each, spec, parts[0].state if parts else None) for each in accepted]
    lengths = np.concatenate([part.lengths for part in parts])
    states = [part.state for part in parts if part.state is not None]
    return Demonstrations(
        spec=spec,
        observation=np.concatenate([part.observation for part in parts]),
        action=np.concatenate([part.action for part in parts]),
        time_s=np.concatenate([part.time_s for part in parts]),
        episode_ends=np.cumsum(lengths, dtype=np.int64),
        columns={name: np.concatenate([part.columns[name] for part in parts]) for name in COLUMNS},
        state=np.concatenate(states) if states else None,
        intervention=np.concatenate([part.intervention for part in parts if part.intervention is not None]),
        cameras={one.name: Joined([part.cameras[one.name] for part in parts]) for one in spec.cameras},
    )


def _marked(demos: Demonstrations) -> Demonstrations:
    """Return demonstrations that say of each step that nobody intervened, unless they say more."""
    return demos if demos.intervention is not None else replace(demos, intervention=np.zeros(len(demos.action), bool))


def _demonstration(accepted: Accepted, spec: Spec, states: np.ndarray | None) -> Demonstrations:
    recording, where = accepted.recording, f"recording {accepted.recording.number}"
    facts = recording.facts
    differences = spec.differences(facts.spec)
    if differences:
        raise StoreError(f"{where}: is of another spec than the demonstrations: {'; '.join(differences)}; reject it")
    kept = _moved(recording.array("action"), where)
    time_s = recording.array("time_s")[kept]
    columns: dict[str, np.ndarray] = {
        "session": np.array([facts.session]),
        "operator": np.array([facts.operator]),
        "source": np.array([SOURCE + recording.digest]),
        "seed": np.array([-1]),  # of a world; the policy's own seed is in the recording
        "success": np.array([accepted.success]),
        "task": np.array([spec.task]),
    }
    return Demonstrations(
        spec=spec,
        observation=recording.array("observation")[kept],
        action=recording.array("action")[kept],
        time_s=time_s - time_s[0],
        episode_ends=np.array([len(time_s)]),
        columns=columns,
        state=None if states is None else np.full((len(time_s), states.shape[1]), np.nan),
        intervention=recording.array("intervention")[kept],
        cameras={camera.name: _pictures(recording, camera, kept, where) for camera in spec.cameras},
    )


def _pictures(recording: Recorded, camera: Camera, kept: slice, where: str) -> Frames:
    frames = recording.pictures(camera.name)
    if frames.shape[1:] != camera.shape:
        raise StoreError(
            f"{where}: camera {camera.name!r}: expected pictures of {camera.height} x {camera.width}, got "
            f"{frames.shape[1]} x {frames.shape[2]}; reject it"
        )
    return Picked(frames, np.arange(kept.start, kept.stop))


def _moved(action: np.ndarray, where: str) -> slice:
    """Return the steps from the first action that was sent to the last. Raises StoreError where some sent nothing."""
    sent = np.flatnonzero(~np.isnan(action).all(axis=1))
    if not len(sent):
        raise StoreError(f"{where}: no action was sent at any of {len(action)} steps, so nothing was shown; reject it")
    kept = slice(int(sent[0]), int(sent[-1]) + 1)
    gaps = np.setdiff1d(np.arange(kept.start, kept.stop), sent)
    if len(gaps):
        raise StoreError(
            f"{where}: nothing was sent at step {gaps[0]}"
            + (f" and {len(gaps) - 1} more" if len(gaps) > 1 else "")
            + ", in the middle of its motion, so that its steps do not follow one another; reject it"
        )
    return kept
