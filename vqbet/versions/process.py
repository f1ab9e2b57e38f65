"""DVC as a child process in its own process group, killed as a whole on interrupt; retries a locked repository."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from vqbet.contract import PipelineError
from vqbet.files import atomic
from vqbet.versions import strangers

BUSY = re.compile(r"Unable to acquire lock|is busy, it is being blocked by")
STATUS = re.compile(r"exited with (-?\d+)")
BUSY_S = 60.0
GRACE_S = 15.0  # between Ctrl-C and kill
SHELL_SIGNAL = 128  # a shell reports a child killed by signal n as 128 + n


class Killed(PipelineError):
    """A stage or DVC itself was killed by a signal: out of memory, or a reclaimed node. A retry may succeed."""


def dvc(
    root: Path, *arguments: str, environment: Mapping[str, str] | None = None, program: Sequence[str] = ("-m", "dvc")
) -> str:
    """Run `dvc <arguments>` in the project at `root` and return its standard output. program: in place of `-m dvc`.

    Raises PipelineError with DVC's message if DVC fails or the repository stays locked for a minute.
    """
    with tempfile.TemporaryFile() as output:
        _patiently([*program, *arguments], f"dvc {' '.join(arguments)}", root, environment, output, ())
        output.seek(0)
        return output.read().decode(errors="replace")


def repro(root: Path, target: str, *, first: Sequence[str] = (), force: bool = False) -> bool:
    """Bring the stage `target` up to date; return whether it ran (or was restored from the run cache).

    first: stages to bring up to date before. force: run `target` even if nothing changed. A stage writes to this
    process's standard output, so that its progress bar is visible. Raises PipelineError, or Killed.
    """
    return bool(_asked(f"dvc repro {target}", root, {"reproduce": [target], "first": list(first), "force": force}))


def changed(root: Path, targets: Sequence[str], *, first: Sequence[str] = ()) -> list[str]:
    """Return the stages of `targets` that `repro` would run individually, after bringing the stages `first` up to date.

    Raises PipelineError, or Killed.
    """
    return _asked("dvc status", root, {"compare": list(targets), "first": list(first)})


def _asked(name: str, root: Path, asked: Mapping[str, Any]) -> list[str]:
    """Return the stage names that a child process with DVC's library answers; see `reproduce`."""
    reader, writer = os.pipe()
    try:
        child = [str(Path(__file__).with_name("reproduce.py")), json.dumps(asked), str(writer)]
        _patiently(child, name, root, None, None, (writer,))
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as answer:
        return [str(stage) for stage in json.loads(answer.read())]


def _patiently(
    child: Sequence[str],
    name: str,
    root: Path,
    environment: Mapping[str, str] | None,
    output: IO[bytes] | None,
    channels: Sequence[int],
) -> None:
    """Run `child`; retry for BUSY_S seconds while another process holds DVC's lock."""
    deadline, forgotten = time.monotonic() + BUSY_S, False
    while True:
        code, errors = _execute(child, root, environment or {}, output, channels)
        if code == 0:
            return
        if not forgotten and (holders := strangers.named(errors)):
            forgotten = strangers.forget(root, holders)
        if not BUSY.search(errors) or time.monotonic() > deadline:
            raise _failure(name, root, code, errors)
        time.sleep(random.uniform(0.3, 1.5))


def _failure(name: str, root: Path, code: int, errors: str) -> PipelineError:
    told = [line.removeprefix("error: ") for line in errors.splitlines() if line.startswith("error: ")]
    said = told[-1] if told else " ".join(errors.split())[-2000:] or "it gave no reason"
    status = STATUS.search(errors)
    stage_code = int(status.group(1)) if status else 0
    if code < 0 or stage_code < 0 or stage_code > SHELL_SIGNAL:
        return Killed(f"{name} in {root}: was killed ({said}); free memory if it ran out, then run it again")
    if BUSY.search(errors):
        return PipelineError(
            f"{name} in {root}: another DVC command has held the repository for {BUSY_S:.0f} s: {said}"
        )
    room = atomic.advice(errors)
    return PipelineError(f"{name} in {root}: {said}{room and '; ' + room}")


def _execute(
    child: Sequence[str],
    root: Path,
    environment: Mapping[str, str],
    output: IO[bytes] | None,
    channels: Sequence[int],
) -> tuple[int, str]:
    """Return exit code and standard error. Uses files because an orphan that keeps a pipe open would block us."""
    here = Path(sys.executable).parent  # so that `python` in dvc.yaml is this interpreter, activated or not
    path = os.pathsep.join([str(here), os.environ.get("PATH", os.defpath)])
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", *child],
            cwd=root,
            env={**os.environ, "PATH": path, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            pass_fds=channels,
            start_new_session=True,
        )
        try:
            code = process.wait()
        except BaseException:
            _stop(process)
            raise
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # otherwise the stage of a killed DVC keeps running
        errors.seek(0)
        return code, errors.read().decode(errors="replace")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Send SIGINT to the whole group, then SIGKILL after GRACE_S seconds."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
