"""The project installed: from its folder as set-up does it, and as a wheel; neither asks an index."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the first waits for a new environment
ROOT = Path(__file__).resolve().parent.parent
PARTS = ("vqbet", "flows", "infra")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is installed, with the environment of these tests as its .venv; its path has a space."""
    root = tmp_path_factory.mktemp("my robot")
    for name in PARTS:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root / name)
    (root / ".venv").symlink_to(sys.prefix)
    return root


@pytest.fixture(scope="module")
def environment(copy: Path) -> Path:
    """A new environment beside the copy, in which the copy is installed and this one's packages can be seen."""
    folder = copy.parent / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=480)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "seen.pth").write_text("\n".join(site.getsitepackages()))
    run(["bash", str(copy / "infra" / "setup" / "project.sh"), str(folder)], copy.parent)
    return folder


def run(command: list[str], folder: Path, **more: str) -> str:
    kept: Mapping[str, str] = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env={**kept, **more}, capture_output=True, text=True, timeout=480)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_set_up_puts_vqbet_on_the_path(copy: Path, environment: Path, tmp_path: Path) -> None:
    path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    assert "Usage: vqbet" in run(["vqbet", "--help"], tmp_path, PATH=path)
    assert not list(tmp_path.iterdir()), "asking for help leaves nothing behind"
    told = run([str(environment / "bin" / "python"), "-c", "import vqbet; print(vqbet.__file__)"], tmp_path)
    assert Path(told.strip()) == copy / "vqbet" / "__init__.py", "the files stay where they are"


def test_the_flows_come_along(environment: Path, tmp_path: Path) -> None:
    assert "pipeline" in run([str(environment / "bin" / "vqbet"), "flow", "--help"], tmp_path)


def test_shells_complete_its_verbs(environment: Path, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    run(["bash", "-c", "vqbet --install-completion && true"], tmp_path, **home)  # it looks for a shell above it
    assert "_VQBET_COMPLETE" in (tmp_path / ".bash_completions" / "vqbet.sh").read_text()
    asked = {"_VQBET_COMPLETE": "complete_bash", "COMP_WORDS": "vqbet ro", "COMP_CWORD": "1"}
    assert run(["vqbet"], tmp_path, **home, **asked).split() == ["rollout", "rollback"]


def test_a_wheel_holds_every_file_that_code_reads(copy: Path, tmp_path: Path) -> None:
    options = ["--wheel", "--offline", "--no-build-isolation", "--python", sys.executable, "-o", str(tmp_path)]
    run([sys.executable, "-m", "uv", "build", *options, str(copy)], tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    files = [file.relative_to(copy) for name in ("vqbet", "flows") for file in (copy / name).rglob("*")]
    expected = {file.as_posix() for file in files if (copy / file).is_file() and "__pycache__" not in file.parts}
    assert {"vqbet/py.typed", "vqbet/pages/page.css", "flows/commands.py"} <= expected
    assert expected <= held
    (entries,) = (name for name in held if name.endswith("entry_points.txt"))
    assert b"vqbet = vqbet.__main__:main" in zipfile.ZipFile(wheel).read(entries)
