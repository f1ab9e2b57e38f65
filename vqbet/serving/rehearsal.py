"""Rehearsal of serving: a clean process must return the same actions on recorded observations as this process.

The clean process is `python -m vqbet.serving.rehearsal <bundle folder> <digest> <recorded.npz> <acted.npz>`.
recorded: observation (N, D) float32, ends (E,) int64, seeds (E,) int64, goal (E, C) float32 where C may be 0, and
camera/<name> (N, height, width, 3) uint8 of each camera.
acted: action (N, A) float32, seconds (N,) per call, foreign: names of imported modules that acting must not need.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vqbet import environment
from vqbet.contract import Demonstrations, GateError, VqbetError
from vqbet.environment import threads
from vqbet.serving import cameras
from vqbet.serving.session import Session

EPISODES, STEPS = 3, 100  # the first demonstrations, and the first steps of each
TIMEOUT_S = 300.0
FOREIGN = ("mlflow", "prefect", "dvc", "zarr", "great_expectations", "boto3", "accelerate")
WARM = 3  # untimed first calls, which load kernels
PACKAGE_ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Result of a successful rehearsal. latency_ms: the 99th percentile of a call, batch 1, one thread."""

    digest: str
    machine: str
    calls: int
    latency_ms: float

    def to_json(self) -> dict[str, Any]:
        return {"digest": self.digest, "machine": self.machine, "calls": self.calls, "latency_ms": self.latency_ms}


def rehearse(folder: Path, digest: str, demos: Demonstrations, *, budget_ms: float) -> Rehearsal:
    """Rehearse the bundle in a clean process. Raises GateError, with the reason, unless the bundle can be served.

    Reasons: the bundle does not load or has another digest; the process imports FOREIGN modules; actions are not
    finite, outside the spec's limits, or not bit for bit those of this process; the 99th percentile of a call exceeds
    budget_ms.
    """
    session = Session(folder, digest)
    recorded = _recorded(demos, session.goal)
    expected, _ = _act(session, recorded)
    action, seconds, foreign = _elsewhere(folder, digest, recorded)
    latency_ms = round(1000 * float(np.percentile(seconds, 99)), 3)
    low, high = (
        np.array([getattr(channel, end) for channel in session.spec.action], np.float32) for end in ("low", "high")
    )
    problems = (
        f"the process that acts has imported {', '.join(foreign)}, which a robot does not have" if foreign else "",
        _first("is not finite", session, ~np.isfinite(action)),
        _first("is beyond its limits", session, (action < low) | (action > high)),
        _differs(action, expected),
        f"a call takes {latency_ms} ms (99th percentile), gate.latency_ms allows {budget_ms}"
        if latency_ms > budget_ms
        else "",
    )
    for problem in filter(None, problems):
        raise GateError(f"{folder}: {digest[:12]} cannot be served: {problem}")
    return Rehearsal(digest, environment.machine(), len(action), latency_ms)


def main(folder: str, digest: str, recorded: str, acted: str) -> None:
    """Act on the recorded episodes in the clean process, and save the actions."""
    with np.load(recorded, allow_pickle=False) as file:
        episodes = {name: file[name] for name in file.files}
    actions, seconds = _act(Session(Path(folder), digest), episodes)
    foreign = sorted(name for name in FOREIGN if name in sys.modules)
    np.savez(acted, action=actions, seconds=seconds, foreign=np.array(foreign, dtype=np.str_))


def _act(session: Session, recorded: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return actions and seconds of every call, on one thread."""
    actions, seconds = [], []
    pictures = cameras.given(recorded)
    starts = np.concatenate([[0], recorded["ends"][:-1]])
    with threads.of(1):
        session.start(0, recorded["goal"][0] if session.goal else None)
        for _ in range(WARM):
            session.act(recorded["observation"][0], {name: each[0] for name, each in pictures.items()})
        for first, end, seed, goal in zip(starts, recorded["ends"], recorded["seeds"], recorded["goal"], strict=True):
            session.start(int(seed), goal if session.goal else None)
            for step in range(first, end):
                shown = {name: each[step] for name, each in pictures.items()}
                began = time.perf_counter()
                actions.append(session.act(recorded["observation"][step], shown))
                seconds.append(time.perf_counter() - began)
    return np.array(actions), np.array(seconds)


def _recorded(demos: Demonstrations, goal: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return the first steps of the first demonstrations; the goal of each is its last observation."""
    names = [channel.name for channel in demos.spec.observation]
    starts, ends = demos.episode_starts[:EPISODES], demos.episode_ends[:EPISODES]
    kept = [slice(first, min(first + STEPS, end)) for first, end in zip(starts, ends, strict=True)]
    steps = np.concatenate([np.arange(part.start, part.stop) for part in kept])
    return {
        "observation": np.concatenate([demos.observation[part] for part in kept]),
        "ends": np.cumsum([part.stop - part.start for part in kept]),
        "seeds": np.arange(len(kept)),
        "goal": demos.observation[ends - 1][:, [names.index(name) for name in goal]],
        **cameras.keyed({name: frames[steps] for name, frames in demos.cameras.items()}),
    }


def _elsewhere(folder: Path, digest: str, recorded: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return actions, seconds and foreign modules of a clean process."""
    with tempfile.TemporaryDirectory() as scratch:
        given, acted = Path(scratch) / "recorded.npz", Path(scratch) / "acted.npz"
        np.savez(given, allow_pickle=False, **recorded)
        done = subprocess.run(
            [sys.executable, "-m", "vqbet.serving.rehearsal", str(folder.resolve()), digest, str(given), str(acted)],
            cwd=scratch,
            env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(PACKAGE_ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise GateError(f"{folder}: {digest[:12]} cannot be served: {reason}")
        with np.load(acted, allow_pickle=False) as file:
            return file["action"], file["seconds"], [str(name) for name in file["foreign"]]


def _first(what: str, session: Session, wrong: np.ndarray) -> str:
    """Return a clause that names the first wrong value; empty where there is none."""
    places = np.argwhere(wrong)
    if not len(places):
        return ""
    call, channel = places[0]
    return f"action {session.spec.action[channel].name!r} {what} at call {call}"


def _differs(action: np.ndarray, expected: np.ndarray) -> str:
    calls = np.flatnonzero((action != expected).any(axis=1))
    most = float(np.abs(action - expected).max())
    sentence = f"{len(calls)} of {len(action)} actions differ from those of this process, by up to {most:.3g}"
    return sentence if len(calls) else ""


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except VqbetError as error:
        sys.exit(f"{type(error).__name__}: {error}")
