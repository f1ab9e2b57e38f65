"""Films of the worst trials of a session, from the camera in the robot's recordings. Equal input, equal bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vqbet.contract import GateError, WorldError
from vqbet.evaluation import video
from vqbet.evaluation.trials import trial_proofs
from vqbet.evaluation.trials.trial_figures import Row
from vqbet.files import manifest, reading
from vqbet.files.manifest import Fingerprint

MOST_FRAMES = 180  # of a film; a longer trial is shown faster than it was
MOST_WIDTH = 320  # pixels
IN_STRIP = 6  # pictures from first to last
WORST = 4  # pairs
CAMERA = "camera/"
PREFERRED = f"{CAMERA}scene.npy"
LEAST_HZ, MOST_HZ = 1.0, 60.0
MEND = trial_proofs.MEND

Frames = UInt8[np.ndarray, "T height width 3"]


@dataclass(frozen=True, slots=True)
class TrialFilm:
    """A film and a strip of pictures of one trial, as files of a folder; without a film, why there is none."""

    trial: Row
    film: str = ""
    strip: str = ""
    faster: float = 1.0  # than the trial was
    why: str = ""


def worst(trials: Sequence[Row], arms: Sequence[str]) -> list[list[Row]]:
    """Return the trials of pairs in which the first arm failed, in the order of the arms; the worst pairs come first.

    Worst: those in which it is farthest behind the second arm, where there is one, and then has the least credit.
    """
    pairs: dict[int, dict[str, Row]] = {}
    for row in trials:
        if row["state"] == "graded":
            pairs.setdefault(row["pair"], {})[row["arm"]] = row
    whole = [[by_arm[arm] for arm in arms] for _, by_arm in sorted(pairs.items()) if by_arm.keys() == set(arms)]
    failed = [rows for rows in whole if rows[0]["credit"] < 1]
    return sorted(failed, key=lambda rows: (rows[0]["credit"] - rows[-1]["credit"], rows[0]["credit"]))[:WORST]


def write(trials: Sequence[Row], recordings: Path | None, folder: Path) -> list[TrialFilm]:
    """Write a film and a strip of each trial into a folder.

    A trial whose recording is not at hand, was changed, or has no camera, has a sentence instead.
    """
    return [_film(row, recordings, folder) for row in trials]


def frames(recordings: Path, number: int, digest: str) -> Frames:
    """Return the pictures of a recording's camera, at most MOST_FRAMES and MOST_WIDTH wide.

    digest: sha256 of the recording's manifest. Raises GateError where the recording is another one, damaged, or has no
    camera.
    """
    found = trial_proofs.recording(recordings / f"{number:05d}")
    if found.digest != digest:
        raise GateError(f"{found.folder}: is not the recording that the session names; {MEND}")
    cameras = [name for name in found.files if name.startswith(CAMERA)]
    if not cameras:
        raise GateError(f"recording {number} has no camera")
    name = min(cameras, key=lambda name: (name != PREFERRED, name))
    return _pictures(found.folder / name, found.files[name])


def _film(row: Row, recordings: Path | None, folder: Path) -> TrialFilm:
    if recordings is None:
        return TrialFilm(row, why="The recordings are not beside this session, so there is no film.")
    said, name = row["recording"], f"trial-{row['number']:03d}"
    try:
        pictures = frames(recordings, said["number"], said["digest"])
        true_hz = len(pictures) / max(float(row["duration_s"]), 1e-3)
        hz = min(max(true_hz, LEAST_HZ), MOST_HZ)
        video.write(folder / f"{name}.webm", list(pictures), hz)
        picked = np.linspace(0, len(pictures) - 1, IN_STRIP).round().astype(int)
        video.write_png(folder / f"{name}.png", video.contact_sheet([pictures[index] for index in picked], IN_STRIP))
    except (GateError, WorldError) as error:
        return TrialFilm(row, why=f"No film: {error}.")
    return TrialFilm(row, f"{name}.webm", f"{name}.png", faster=hz / true_hz)


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
