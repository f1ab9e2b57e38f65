"""Recordings: folders with everything that ran in an episode on a robot, and their strict reading.

    <number>.running/      an episode that is being recorded, or was broken off; see `serving.recorder`
    <number>/              a finished episode
      episode.json         who, where and with which policy: `Circumstances`
      observation.npy      (N, D) float32
      action.npy           (N, A) float32, as sent to the robot; NaN where nothing was sent
      asked.npy            (N, A) float32, as the policy asked; NaN where nothing arrived in time
      time_s.npy           (N,) float64, seconds since the first step
      intervention.npy     (N,) bool, whether a person acted
      verdict.npy          (N,) ASCII: the guard's verdict, "pass" where nothing was wrong
      reason.npy           (N,) ASCII: the guard's reason, else empty
      camera/<name>.npy    (N, height, width, 3) uint8
      signal/<name>.npy    (N,) float64, NaN where there was none; signal/latency_ms: of an answer that came at the step
      manifest.json        steps, outcome, and size and sha256 of every other file; written last

Every array is an .npy file without objects, so that numpy alone reads it and nothing is unpickled.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vqbet.contract import ServingError, Spec
from vqbet.files import manifest, reading
from vqbet.files.manifest import Files, Fingerprint
from vqbet.serving import cameras

MANIFEST, FACTS = "manifest.json", "episode.json"
FORMAT, VERSION = "vqbet recording", 1
NUMBER = re.compile(r"\d{5,9}")
MOST_NUMBER = 10**9 - 1
RUNNING = ".running"
LATENCY = "latency_ms"  # signal: milliseconds from a question to the policy to its answer
WORD = "|S24"  # of a verdict, and of a reason
KINDS: Mapping[str, str] = {  # of arrays over steps; those of cameras and signals go by the folder
    "observation": "<f4",
    "action": "<f4",
    "asked": "<f4",
    "time_s": "<f8",
    "intervention": "|b1",
    "verdict": WORD,
    "reason": WORD,
    "camera": "|u1",
    "signal": "<f8",
}
MOST_DOCUMENT_BYTES = 4 * 2**20
MOST_ARRAY_BYTES = 2**36
MEND = "copy the recording from the robot again, or leave it out: vqbet review <folder> --reject <number>"


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Facts known at the start of an episode. digest, reference: of the policy. goal: one value per goal channel."""

    spec: Spec
    digest: str
    reference: str
    robot: str
    operator: str
    session: str
    seed: int
    goal: tuple[float, ...]
    begun: str  # ISO 8601, UTC

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "spec": self.spec.to_json(), "goal": list(self.goal)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Circumstances:
        """Return the facts that `to_json` wrote. Raises ValueError, TypeError or KeyError for anything else."""
        texts = ("digest", "reference", "robot", "operator", "session", "begun")
        wrong = [name for name in texts if not isinstance(value[name], str)]
        if wrong or type(value["seed"]) is not int or value.keys() != {*texts, "spec", "seed", "goal"}:
            raise ValueError(f"unknown keys, or no text in {wrong}")
        numbers = tuple(float(number) for number in value["goal"])
        return cls(**{**value, "spec": Spec.from_json(value["spec"]), "goal": numbers})


@dataclass(frozen=True, slots=True)
class Recording:
    """Finished recording. digest: sha256 of its manifest, which names all its bytes. success: None where unknown."""

    folder: Path
    digest: str
    facts: Circumstances
    steps: int
    success: bool | None
    note: str
    ended: str
    files: Files

    @property
    def number(self) -> int:
        return int(self.folder.name)

    @property
    def arrays(self) -> list[str]:
        return [name.removesuffix(".npy") for name in self.files if name.endswith(".npy")]

    def array(self, name: str) -> np.ndarray:
        """Return one array, such as "action" or "camera/wrist", after comparing its file with the manifest.

        Raises ServingError where it is missing, damaged, or not the array that its name says.
        """
        file = f"{name}.npy"
        entry = self.files.get(file)
        if entry is None:
            raise ServingError(f"{self.folder / file}: is not part of this recording; there are {sorted(self.arrays)}")
        content = reading.content(self.folder / file, ServingError, most=entry.size, mend=MEND)
        if Fingerprint.of(content) != entry:
            raise ServingError(f"{self.folder / file}: damaged: its sha256 is not the one in {MANIFEST}; {MEND}")
        with reading.sentences(f"{self.folder / file}", ServingError, MEND):
            array = np.load(io.BytesIO(content), allow_pickle=False)
        self._refuse_other(array, name)
        return array

    def pictures(self, camera: str) -> UInt8[np.ndarray, "N height width 3"]:
        """Return the pictures of a camera as a read-only view of their file, so that they need no memory.

        Raises ServingError as `array`.
        """
        name = f"{cameras.KEY}{camera}"
        path, entry = self.folder / f"{name}.npy", self.files.get(f"{name}.npy")
        if entry is None:
            held = ", ".join(sorted(cameras.given(dict.fromkeys(self.arrays)))) or "none"
            raise ServingError(f"{path}: is not part of this recording, whose cameras are {held}; reject it")
        with reading.sentences(str(path), ServingError, MEND):
            if manifest.sha256(path) != entry.sha256:
                raise ValueError(f"damaged: its sha256 is not the one in {MANIFEST}")
            array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        self._refuse_other(array, name)
        return array

    def verify(self) -> None:
        """Raise ServingError unless the folder holds exactly the files of the manifest, in their bytes."""
        found = manifest.sizes(self.folder, ServingError, MEND)
        for name in found.keys() - self.files.keys() - {MANIFEST}:
            raise ServingError(f"{self.folder / name}: a file that {MANIFEST} does not list; {MEND}")
        for name, entry in self.files.items():
            if name not in found or found[name] != entry.size or manifest.sha256(self.folder / name) != entry.sha256:
                raise ServingError(f"{self.folder / name}: damaged or missing: not what {MANIFEST} lists; {MEND}")

    def _refuse_other(self, array: np.ndarray, name: str) -> None:
        shapes: dict[str, tuple[int, ...]] = {
            "observation": (len(self.facts.spec.observation),),
            **dict.fromkeys(("action", "asked"), (len(self.facts.spec.action),)),
            "camera": (*array.shape[1:3], 3),
        }
        kind = name.split("/")[0]
        wanted, dtype = (self.steps, *shapes.get(kind, ())), np.dtype(KINDS.get(kind, "V"))
        if array.dtype != dtype or array.shape != wanted:
            raise ServingError(
                f"{self.folder / name}.npy: expected shape {wanted} of {dtype}, got {array.shape} of {array.dtype}; "
                f"{MEND}"
            )


@dataclass(frozen=True, slots=True)
class Listing:
    """Content of a folder of recordings: numbers of finished ones, names of running and of broken-off ones."""

    finished: tuple[int, ...]
    running: tuple[str, ...]
    interrupted: tuple[str, ...]


def listing(folder: Path) -> Listing:
    """Return the recordings in a folder by name alone. Raises ServingError where the folder cannot be read."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise ServingError(f"{folder}: no folder of recordings: {error.strerror}") from error
    begun = [name for name in names if name.endswith(RUNNING) and NUMBER.fullmatch(name.removesuffix(RUNNING))]
    running = tuple(name for name in begun if _locked(folder / name))
    return Listing(
        finished=tuple(int(name) for name in names if NUMBER.fullmatch(name)),
        running=running,
        interrupted=tuple(name for name in begun if name not in running),
    )


def read(folder: Path, number: int) -> Recording:
    """Return a finished recording from its two documents; arrays are read when they are asked for.

    Raises ServingError where there is none, or a document is not what it should be.
    """
    path = named(folder, number)
    content = reading.content(path / MANIFEST, ServingError, most=MOST_DOCUMENT_BYTES, mend=MEND)
    with reading.sentences(str(path / MANIFEST), ServingError, MEND):
        said = reading.parse(content.decode(), str(path / MANIFEST), ServingError)
        files = manifest.from_json(said["files"], most=MOST_ARRAY_BYTES)
        if (said["format"], said["version"]) != (FORMAT, VERSION):
            raise ValueError(f"expected a {FORMAT} of version {VERSION}, got {reading.short(said['format'])}")
        if type(said["steps"]) is not int or said["steps"] < 0 or said["success"] not in (True, False, None):
            raise ValueError(f"steps {said['steps']!r}, success {said['success']!r}")
        facts = reading.content(path / FACTS, ServingError, most=files[FACTS].size, mend=MEND)
        if Fingerprint.of(facts) != files[FACTS]:
            raise ValueError(f"the sha256 of {FACTS} is another one")
        return Recording(
            folder=path,
            digest=hashlib.sha256(content).hexdigest(),
            facts=Circumstances.from_json(reading.parse(facts.decode(), str(path / FACTS), ServingError)),
            steps=said["steps"],
            success=said["success"],
            note=str(said["note"]),
            ended=str(said["ended"]),
            files=files,
        )


def digest(folder: Path, number: int) -> str:
    """Return the sha256 of a recording's manifest, also where the recording is damaged; "" where there is none."""
    try:
        return manifest.sha256(named(folder, number) / MANIFEST)
    except OSError:
        return ""


def named(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}"


def lock(folder: Path) -> int:
    """Return a descriptor that marks a folder as being recorded until it is closed or its process ends.

    Raises OSError where the folder cannot be opened, or its file system has no locks.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # waits for a reader that looks whether it is locked
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _locked(folder: Path) -> bool:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # finished since it was listed
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    finally:
        os.close(descriptor)
    return False
