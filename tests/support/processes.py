"""Processes that a test starts, and all that they start."""

from __future__ import annotations

import os
import signal
import subprocess

import psutil

from tests.support.project import Project


def living(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


class started:
    """A process of the project for the time of a `with`, ended with everything it started."""

    def __init__(self, project: Project, command: list[str], **variables: str) -> None:
        environment = project.environment(**variables)
        self.process = subprocess.Popen(
            command,
            cwd=project.root,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> subprocess.Popen:
        return self.process

    def __exit__(self, *_: object) -> None:
        everybody = [*living(self.process.pid), psutil.Process(self.process.pid)]
        os.killpg(self.process.pid, signal.SIGTERM)
        _, left = psutil.wait_procs(everybody, timeout=15)
        for process in left:  # a worker now and then waits for ever after it was asked to end
            process.kill()
        self.process.wait()
