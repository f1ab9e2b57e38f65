"""Processes that a desk starts beside itself: the policy server and the simulated robot, started again when they die.

A child ends with its parent, however that ends: it looks at its parent's process id.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import final

LOOK_S = 0.5
REST_S = (0.2, 1.0, 3.0, 10.0)  # before a child is started again
ENDING_S = 5.0


@final
class Child:
    """A verb of `vqbet` in a process of its own, from `start` until `end`, started again when it dies.

    words: after `vqbet`. say: why it ended, where it is started again.
    said: the last line that it printed.
    """

    def __init__(self, words: Sequence[str], variables: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._command = [sys.executable, "-m", "vqbet.commands.trials.children", *words]
        self._variables = {**os.environ, **variables, "PYTHONUNBUFFERED": "1"}
        self._leave, self._say = threading.Event(), say
        self._process: subprocess.Popen[str] | None = None
        self.starts, self.said = 0, ""

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        self._spawn()
        self._thread = threading.Thread(target=self._keep, name=f"vqbet {self._command[3]}", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End the process, and wait for it."""
        self._leave.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(ENDING_S)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join(ENDING_S)

    @property
    def over(self) -> bool:
        """Return whether the child has ended by itself without an error."""
        return self._process is not None and self._process.poll() == 0

    def _spawn(self) -> None:
        self.starts += 1
        self._process = subprocess.Popen(
            self._command,
            env=self._variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=Path.cwd(),
            start_new_session=True,  # Ctrl-C is for the desk, which ends its children
        )

    def _keep(self) -> None:
        while not self._leave.is_set():
            process, began_s = self._process, time.monotonic()
            assert process is not None
            assert process.stdout is not None
            for line in process.stdout:
                self.said = line.rstrip() or self.said
            if process.wait() == 0 or self._leave.is_set():
                return
            late = time.monotonic() - began_s > 60
            self._say(f"vqbet {' '.join(self._command[3:5])}: {self.said or 'it ended'}; it is started again")
            if self._leave.wait(REST_S[0 if late else min(self.starts - 1, len(REST_S) - 1)]):
                return
            self._spawn()


def _follow(parent: int) -> None:
    """End this process when its parent has gone."""
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ENDING_S)
    os._exit(1)


def _main() -> None:
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()
    runpy.run_module("vqbet", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
