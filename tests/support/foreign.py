"""Environments of their own for packages that cannot or must not be installed beside the project."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest


def install(folder: Path, what: str, *packages: Sequence[str], timeout_s: float) -> None:
    """Make folder/env with the packages, one call of uv for each list of its words.

    Skips the test where no package index can be reached; in CI that is a failure.
    """
    venv.create(folder / "env", with_pip=False)
    into = ["--python", str(folder / "env" / "bin" / "python")]
    for words in packages:
        command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", *into, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            if os.environ.get("CI") == "true":
                pytest.fail(f"{what} cannot be installed: {last}")
            pytest.skip(f"{what} cannot be installed here, no package index answers: {last}")
