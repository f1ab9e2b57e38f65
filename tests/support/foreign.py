"""Environments of their own for packages that cannot or must not be installed beside the project."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

KEPT = Path(__file__).resolve().parents[2] / ".vqbet" / "foreign"


def install(folder: Path, what: str, *packages: Sequence[str], timeout_s: float, layered: bool = False) -> None:
    """Make folder/env with the packages, one call of uv for each list of its words.

    layered: whether the environment sees this one's packages behind its own, so that only what is missing is installed.
    Skips the test where no package index can be reached; in CI that is a failure.
    """
    venv.create(folder / "env", with_pip=False)
    if layered:
        (site,) = (folder / "env" / "lib").glob("python*/site-packages")
        (site / "beside.pth").write_text(sysconfig.get_path("purelib"))
    for words in packages:
        _install(what, "--python", str(folder / "env" / "bin" / "python"), *words, timeout_s=timeout_s)


def unpacked(what: str, version: str, *, python: str, timeout_s: float) -> Path:
    """Return a folder with the files of a package for another Python, which later runs find again."""
    words = ["--python-version", python, "--no-deps", f"{what}=={version}"]
    return _once(
        f"{what}-{version}", lambda folder: _install(what, "--target", str(folder), *words, timeout_s=timeout_s)
    )


def _install(what: str, *words: str, timeout_s: float) -> None:
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        if os.environ.get("CI") == "true":
            pytest.fail(f"{what} cannot be installed: {last}")
        pytest.skip(f"{what} cannot be installed here, no package index answers: {last}")


def kept(what: str, *packages: Sequence[str], timeout_s: float, layered: bool = False) -> Path:
    """Return the interpreter of an environment with the packages, which later runs find again.

    It is made again where another list of packages, or another interpreter, is asked for.
    """
    asked = [sys.version, sysconfig.get_path("purelib"), layered, [list(words) for words in packages]]
    name = f"{what}-{hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:12]}"
    folder = _once(name, lambda fresh: install(fresh, what, *packages, timeout_s=timeout_s, layered=layered))
    return folder / "env" / "bin" / "python"


def _once(name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder of this name, made by whoever comes first, and again where it was not finished."""
    folder = KEPT / name
    KEPT.mkdir(parents=True, exist_ok=True)
    with (KEPT / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "whole").exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            (folder / "whole").touch()
    return folder
