"""Checkpoints for resuming a training: one folder, one trainer, complete checkpoints only. safetensors and JSON.

A checkpoint is a folder `step-<step>` with tensors.safetensors and state.json, which holds the sha256 of the former and
of its own content. It is written under a temporary name, synced and renamed; older checkpoints are removed after that.
The folder lies outside DVC's outs, which are deleted before a stage runs.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from vqbet.contract import TrainingError
from vqbet.files import atomic, canonical, manifest

NAME = re.compile(r"step-(\d{10})")
TENSORS, STATE, LOCK = "tensors.safetensors", "state.json", "lock"
BEFORE = "make room and start again: training goes on from the checkpoint before"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Complete state of a training after `step` steps: plain numbers in `state`, the rest in `tensors`."""

    step: int
    state: Mapping[str, Any]
    tensors: Mapping[str, Tensor]  # on the CPU


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Lock the folder for this process. Raises TrainingError naming the process that holds the lock.

    The lock ends with the process, also when the process is killed; the file stays.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise TrainingError(f"{folder}: checkpoints cannot be kept there: {error.strerror}") from error
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = file.read(20).strip() or "unknown"
            raise TrainingError(
                f"{folder}: another training (process {owner}) is at work there; wait for it, or stop it"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def save(folder: Path, key: str, checkpoint: Checkpoint) -> None:
    """Write a checkpoint of the training `key`, then remove all others.

    Raises TrainingError where writing fails; the previous checkpoint then remains.
    """
    final = folder / f"step-{checkpoint.step:010d}"
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in checkpoint.tensors.items()}
    try:
        with atomic.replacing(final, TrainingError, BEFORE) as staging:
            save_file(tensors, staging / TENSORS)
            atomic.sync(staging / TENSORS)
            sha256 = manifest.sha256(staging / TENSORS)
            state = {"key": key, "step": checkpoint.step, "state": checkpoint.state, "sha256": sha256}
            atomic.create(staging / STATE, json.dumps({"content": state, "sha256": canonical.digest(state)}))
    except SafetensorError as error:
        raise TrainingError(f"{final}: cannot be written: {error}; {BEFORE}") from error
    tidy(folder, keep=checkpoint.step)


def newest(folder: Path, key: str) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest complete checkpoint of the training `key`, or None, and a sentence for each unusable one."""
    remarks: list[str] = []
    for step in sorted(_steps(folder), reverse=True):
        path = folder / f"step-{step:010d}"
        try:
            content = json.loads((path / STATE).read_text(encoding="utf-8"))
            state, digest = content["content"], content["sha256"]
            tensors = manifest.sha256(path / TENSORS)
            if digest != canonical.digest(state) or state["step"] != step or state["sha256"] != tensors:
                raise ValueError("its content does not have the sha256 it names")
            if state["key"] == key:
                return Checkpoint(step, state["state"], load_file(path / TENSORS)), remarks
            remarks.append(f"{path}: belongs to a training with other parameters, data or code; it is not used")
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            remarks.append(f"{path}: damaged ({error}); it is not used")
    return None, remarks


def tidy(folder: Path, keep: int | None) -> None:
    """Remove every checkpoint except that of step `keep`, and the leftovers of a killed writer."""
    for step in _steps(folder) - {keep}:
        shutil.rmtree(folder / f"step-{step:010d}", ignore_errors=True)
    for path in folder.glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Remove all checkpoints, once the trained model is safely written. Raises TrainingError while a training runs."""
    with lock(folder):
        tidy(folder, keep=None)


def _steps(folder: Path) -> set[int]:
    found = (NAME.fullmatch(path.name) for path in folder.iterdir()) if folder.is_dir() else ()
    return {int(match[1]) for match in found if match}
