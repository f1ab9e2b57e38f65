"""Films of the worst trials of a session, from the camera in the robot's recordings.

A recording is read here by its manifest alone: what records them, and reads all of them, is on the robot's side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vqbet.contract import GateError, WorldError
from vqbet.evaluation import video
from vqbet.evaluation.trials.trial_plan import CANDIDATE, CHAMPION, TrialPlan
from vqbet.evaluation.trials.trial_session import Trial
from vqbet.files import manifest, reading
from vqbet.files.manifest import Fingerprint

MOST_FRAMES = 180  # of a film; a longer trial is shown faster than it was
MOST_WIDTH = 320  # pixels
IN_STRIP = 6  # pictures from first to last
WORST = 4  # pairs
MOST_BYTES = 4 * 2**20  # of a manifest
CAMERA = "camera/"
PREFERRED = f"{CAMERA}scene.npy"
LEAST_HZ, MOST_HZ = 1.0, 60.0
MEND = "copy the recording from the robot again"

Frames = UInt8[np.ndarray, "T height width 3"]


@dataclass(frozen=True, slots=True)
class TrialFilm:
    """A film and a strip of pictures of one trial, as files of a folder; without a film, why there is none."""

    trial: Trial
    film: str = ""
    strip: str = ""
    faster: float = 1.0  # than the trial was
    why: str = ""


def worst(plan: TrialPlan, trials: Sequence[Trial]) -> list[tuple[Trial, ...]]:
    """Return the trials of pairs in which the candidate failed, candidate first; those it lost most come first."""
    pairs: dict[int, dict[str, Trial]] = {}
    for trial in trials:
        if trial.state == "graded":
            pairs.setdefault(trial.slot.pair, {})[trial.slot.arm] = trial
    whole = {pair: by_arm for pair, by_arm in pairs.items() if len(by_arm) == len(plan.arms)}
    lost = {pair: _credits(plan, by_arm) for pair, by_arm in whole.items()}
    chosen = sorted((credits[0] - credits[-1], credits[0], pair) for pair, credits in lost.items() if credits[0] < 1)
    return [tuple(whole[pair][arm] for arm in plan.arms) for _, _, pair in chosen[:WORST]]


def write(
    trials: Sequence[Trial], recordings: Path | None, folder: Path, numbers: Mapping[str, int]
) -> list[TrialFilm]:
    """Write a film and a strip of each trial into a folder. numbers: of the trials, by code, for the files' names.

    A trial whose recording is not there, or has no camera, has a sentence instead.
    """
    return [_film(trial, recordings, folder, f"trial-{numbers[trial.code]:03d}") for trial in trials]


def frames(recordings: Path, number: int, digest: str) -> Frames:
    """Return the pictures of a recording's camera, at most MOST_FRAMES and MOST_WIDTH wide.

    digest: sha256 of the recording's manifest. Raises GateError where the recording is another one, damaged, or has no
    camera.
    """
    path = recordings / f"{number:05d}" / "manifest.json"
    content = reading.content(path, GateError, most=MOST_BYTES, mend=MEND)
    with reading.sentences(str(path), GateError, MEND):
        if Fingerprint.of(content).sha256 != digest:
            raise GateError(f"{path}: is not the recording that the session names; {MEND}")
        files = manifest.from_json(reading.parse(content.decode(), str(path), GateError)["files"])
    cameras = [name for name in files if name.startswith(CAMERA)]
    if not cameras:
        raise GateError(f"recording {number} has no camera")
    name = min(cameras, key=lambda name: (name != PREFERRED, name))
    return _pictures(path.with_name(CAMERA.rstrip("/")) / name.removeprefix(CAMERA), files[name])


def _film(trial: Trial, recordings: Path | None, folder: Path, name: str) -> TrialFilm:
    said = trial.stopped["recording"] if trial.stopped else None
    if recordings is None or said is None:
        return TrialFilm(trial, why="The recordings are not beside this session, so there is no film.")
    assert trial.stopped is not None
    try:
        pictures = frames(recordings, said["number"], said["digest"])
        true_hz = len(pictures) / max(float(trial.stopped["duration_s"]), 1e-3)
        hz = min(max(true_hz, LEAST_HZ), MOST_HZ)
        video.write(folder / f"{name}.webm", list(pictures), hz)
        picked = np.linspace(0, len(pictures) - 1, IN_STRIP).round().astype(int)
        video.write_png(folder / f"{name}.png", video.contact_sheet([pictures[index] for index in picked], IN_STRIP))
    except (GateError, WorldError) as error:
        return TrialFilm(trial, why=f"No film: {error}.")
    return TrialFilm(trial, f"{name}.webm", f"{name}.png", faster=hz / true_hz)


def _credits(plan: TrialPlan, by_arm: Mapping[str, Trial]) -> tuple[float, ...]:
    """Return the credit of the candidate, and of the champion where there is one."""
    return tuple(plan.grade(by_arm[arm].stage).credit for arm in (CANDIDATE, CHAMPION) if arm in by_arm)


def _pictures(path: Path, expected: Fingerprint) -> Frames:
    """Return some of the pictures in an array file, smaller. Raises GateError unless its bytes are as expected."""
    try:
        if manifest.sha256(path) != expected.sha256:
            raise GateError(f"{path}: is damaged: its sha256 is another one; {MEND}")
        with reading.sentences(str(path), GateError, MEND):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise GateError(f"{path}: cannot be read: {error.strerror or error}; {MEND}") from error
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3 or not array.size:
        raise GateError(f"{path}: expected pictures (T, height, width, 3) of uint8, got {array.dtype} {array.shape}")
    chosen = np.linspace(0, len(array) - 1, min(len(array), MOST_FRAMES)).round().astype(int)
    return np.stack([video.shrunk(array[index], MOST_WIDTH) for index in chosen])
