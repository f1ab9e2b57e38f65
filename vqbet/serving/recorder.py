"""Recorder of episodes on a robot: every step is written as it goes, and a finished episode is whole for good.

The running episode is appended to `<number>.running`. `finish` writes the sizes, a manifest with the sha256 of every
file, waits until all of it is on the disk, and renames the folder to `<number>`. A power cut can therefore lose the
running episode only. A folder that was broken off is named by the next recorder and is never removed.

Files are written by a thread, so that a control loop never waits for a disk. Trouble, such as a full disk, does not
raise in the loop either: `failed` then holds a sentence, and the loop shall hold, stop and end its episode.
"""

from __future__ import annotations

import os
import queue
import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float

from vqbet.contract import ServingError, Spec
from vqbet.files import atomic, canonical, manifest, reading
from vqbet.files.manifest import Fingerprint
from vqbet.serving import recordings, steps
from vqbet.serving.handshake import Handshake
from vqbet.serving.recordings import FACTS, KINDS, MANIFEST, RUNNING, Circumstances
from vqbet.serving.steps import GrowingArray, Row

MOST_TEXT = 256  # characters, as in the demonstration store
MOST_WAITING_BYTES = 2**28  # of steps that the disk has not taken yet: 5 s of two cameras of 640 x 480 at 30 Hz
LEAST_FREE_BYTES = 2**26  # of the disk, for an episode to begin ...
LEAST_FREE_S = 60.0  # ... and as much as the pictures of such a time


@final
class Recorder:
    """Recorder of one robot: `start` an episode, `step` once per control step, then `finish` or `discard` it.

    folder: where recordings are kept; two recorders may share it. handshake: of the policy that acts; may be replaced
    between episodes. operator: the person who is responsible. interrupted: recordings in the folder that were broken
    off, as by a power cut. failed: "" while everything is recorded, else why the episode is not; `step` then records
    nothing and `finish` raises.

    Raises ServingError where the folder cannot be made or read, or a text is longer than a store holds.
    """

    def __init__(
        self, folder: Path | str, handshake: Handshake, *, robot: str = "", operator: str = "", session: str = ""
    ) -> None:
        self.folder, self.handshake = Path(folder), handshake
        self.robot, self.operator, self.session = (
            _text("robot", robot),
            _text("operator", operator),
            _text("session", session),
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServingError(_unwritable(self.folder, error)) from error
        self.interrupted = recordings.listing(self.folder).interrupted
        self._running: _Running | None = None

    @property
    def failed(self) -> str:
        return self._running.failed if self._running else ""

    def start(self, *, seed: int, goal: Float[np.ndarray, " C"] | None = None) -> None:
        """Begin the recording of an episode.

        Raises ServingError, before the robot moves, where an episode is being recorded or the disk cannot take one.
        A recording that failed is left as it is, and is listed among those that were broken off.
        """
        if self._running and not self.failed:
            raise ServingError(f"{self._running.folder}: is still being recorded; finish or discard that episode first")
        if self._running:
            self._running.drain()
            self._running.release()
            self._running = None
        facts = Circumstances(
            spec=self.handshake.spec,
            digest=self.handshake.digest,
            reference=self.handshake.reference,
            robot=self.robot,
            operator=self.operator,
            session=self.session,
            seed=int(seed),
            goal=() if goal is None else tuple(np.asarray(goal, np.float64).ravel().tolist()),
            begun=_now(),
        )
        try:
            free = shutil.disk_usage(self.folder).free
            if free < (least := LEAST_FREE_BYTES + _picture_bytes(facts.spec)):
                raise ServingError(f"{self.folder}: {free} bytes are free, an episode needs {least}; free space")
            self._running = _Running(_claimed(self.folder), facts)
        except OSError as error:
            raise ServingError(_unwritable(self.folder, error)) from error

    def step(
        self,
        *,
        observation: Mapping[str, np.ndarray],
        asked: Float[np.ndarray, " A"] | None,
        sent: Float[np.ndarray, " A"] | None,
        time_s: float,
        verdict: str = "pass",
        reason: str = "",
        intervened: bool = False,
        signals: Mapping[str, float] | None = None,
    ) -> None:
        """Record a control step, in a fraction of a millisecond, without waiting for the disk.

        observation: "state" (D,) and "camera/<name>" (height, width, 3) uint8, those of the spec and any others, the
        same ones at every step of an episode. asked: the policy's action; None where none came in time. sent: the
        action that moved the robot, also where a person acted; None where nothing was sent. time_s: of any clock,
        counted from the episode's first step. Copies what it keeps. Whatever cannot be recorded sets `failed`. Raises
        ServingError only without `start`.
        """
        if self._running is None:
            raise ServingError("no episode is being recorded; call start(seed=...) first")
        if self._running.failed:
            return
        try:
            with np.errstate(over="ignore"):
                row = steps.row(
                    self.handshake.spec, observation, asked, sent, verdict, reason, intervened, signals or {}
                )
            self._running.add(row, float(time_s))
        except (ServingError, *reading.ODD) as error:
            self._running.failed = f"{self._running.folder}: step {self._running.steps} cannot be recorded: {error}"

    def finish(self, *, success: bool | None, note: str = "") -> Path:
        """End the episode and return the folder of its recording. success: None where nobody has said.

        Takes as long as the disk takes. Raises ServingError where the episode could not be recorded; what was written
        is left under its name with ".running".
        """
        running = self._ended()
        try:
            return running.seal(None if success is None else bool(success), note)
        except OSError as error:
            running.failed = running.failed or _unwritable(running.folder, error)
            raise ServingError(running.failed) from error
        finally:
            running.release()

    def discard(self) -> None:
        """End the episode and remove its recording."""
        running = self._ended()
        running.drain()
        shutil.rmtree(running.folder, ignore_errors=True)
        running.release()

    def _ended(self) -> _Running:
        if self._running is None:
            raise ServingError("no episode is being recorded; call start(seed=...) first")
        running, self._running = self._running, None
        return running


@dataclass(slots=True)
class _Running:
    """The recording of one episode: its folder, the thread that writes, and the steps that it has not written yet."""

    folder: Path
    facts: Circumstances
    failed: str = ""
    steps: int = 0
    _lock: int | None = None
    _arrays: dict[str, GrowingArray] = field(default_factory=dict)
    _shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _first_s: float = 0.0
    _waiting: queue.SimpleQueue[Row | None] = field(default_factory=queue.SimpleQueue)
    _bytes_in: int = 0  # counted by the control loop
    _bytes_out: int = 0  # counted by the thread
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        with suppress(OSError):  # a file system without locks
            self._lock = recordings.lock(self.folder)
        try:
            atomic.create(self.folder / FACTS, canonical.document(self.facts.to_json()))
            for name, row in steps.empty(self.facts.spec).items():
                self._arrays[name] = GrowingArray.create(self.folder / f"{name}.npy", row)
        except OSError:
            self.release()
            raise
        self._thread = threading.Thread(target=self._write, name="vqbet-recorder", daemon=True)
        self._thread.start()

    def add(self, row: Row, time_s: float) -> None:
        """Queue a step for the thread. Raises ServingError where it does not fit the first one, or the disk is slow."""
        if not self.steps:
            self._first_s = time_s
            self._shapes = {name: array.shape for name, array in row.items() if not name.startswith("signal/")}
        shapes = {name: array.shape for name, array in row.items() if not name.startswith("signal/")}
        if shapes != self._shapes:
            raise ServingError(f"expected {self._shapes} as at the first step, got {shapes}")
        row["time_s"] = np.array(time_s - self._first_s, KINDS["time_s"])
        self._bytes_in += sum(array.nbytes for array in row.values())
        if self._bytes_in - self._bytes_out > MOST_WAITING_BYTES:
            raise ServingError(f"the disk is {MOST_WAITING_BYTES} bytes behind; use a faster one, or smaller pictures")
        self.steps += 1
        self._waiting.put(row)

    def drain(self) -> None:
        """Let the thread write what waits, and end it."""
        self._waiting.put(None)
        if self._thread:
            self._thread.join()

    def seal(self, success: bool | None, note: str) -> Path:
        """Finish all files and rename the folder. Raises ServingError where the episode failed before, and OSError."""
        self.drain()
        if self.failed:
            raise ServingError(self.failed)
        for array in self._arrays.values():
            array.close()
        sizes = manifest.sizes(self.folder, ServingError, "keep others out of this folder")
        files = {name: Fingerprint(size, manifest.sha256(self.folder / name)) for name, size in sizes.items()}
        said = {
            "format": recordings.FORMAT,
            "version": recordings.VERSION,
            "steps": self.steps,
            "success": success,
            "note": note,
            "ended": _now(),
            "files": manifest.to_json(files),
        }
        atomic.create(self.folder / MANIFEST, canonical.document(said))
        for part in {self.folder, *(self.folder / name for name in files)}:
            atomic.sync(part.parent if part.is_file() else part)
        final = self.folder.with_name(self.folder.name.removesuffix(RUNNING))
        self.folder.rename(final)
        atomic.sync(final.parent)
        return final

    def release(self) -> None:
        """Close all files, whole or not, and give up the lock."""
        for array in self._arrays.values():
            with suppress(OSError):
                array.file.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _write(self) -> None:
        """Write the steps as they come. On trouble, say so in `failed` and end."""
        written = 0
        try:
            while (row := self._waiting.get()) is not None:
                for name, array in row.items():
                    self._array(name, array, written).append(array)
                for name in self._arrays.keys() - row.keys():  # a signal that this step does not have
                    self._arrays[name].append(np.array(np.nan, KINDS["signal"]))
                written += 1
                self._bytes_out += sum(array.nbytes for array in row.values())
                if self._waiting.empty():
                    for open_array in self._arrays.values():
                        open_array.file.flush()
        except OSError as error:
            self.failed = self.failed or _unwritable(self.folder, error)
        except Exception as error:  # nothing may end this thread unnoticed
            self.failed = self.failed or f"{self.folder}: the recorder itself failed: {error!r}"

    def _array(self, name: str, row: np.ndarray, written: int) -> GrowingArray:
        """Return the file of an array; a new one is filled up with NaN for the steps before."""
        if name not in self._arrays:
            made = self._arrays[name] = GrowingArray.create(self.folder / f"{name}.npy", row)
            for _ in range(written):
                made.append(np.full_like(row, np.nan))
        return self._arrays[name]


def _claimed(folder: Path) -> Path:
    """Return a new folder for the next episode, with a number that no other recording there has. Raises OSError."""
    names = (name.removesuffix(RUNNING) for name in os.listdir(folder))
    number = 1 + max((int(name) for name in names if recordings.NUMBER.fullmatch(name)), default=0)
    while True:
        final = recordings.named(folder, number)
        running = final.with_name(final.name + RUNNING)
        with suppress(FileExistsError):  # of another recorder
            running.mkdir()
            if not final.exists():
                return running
            running.rmdir()  # it was finished since the folder was listed
        number += 1


def _picture_bytes(spec: Spec) -> int:
    """Return the bytes of the pictures of LEAST_FREE_S."""
    step = sum(camera.height * camera.width * 3 for camera in spec.cameras)
    return round(step * spec.control_hz * LEAST_FREE_S)


def _text(name: str, value: str) -> str:
    if len(value) > MOST_TEXT or "\0" in value:
        raise ServingError(f"{name}: expected at most {MOST_TEXT} characters without NUL, got {reading.short(value)}")
    return value


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _unwritable(path: Path, error: OSError) -> str:
    advice = atomic.advice(error) or "see to the disk"
    return f"{path}: cannot be recorded: {error.strerror or error}; stop the robot, then {advice}"
