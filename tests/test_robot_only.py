"""The wheel in an empty environment with the extra `robot` alone: what a robot's computer gets, driving a session.

Needs the package index. Without one it is skipped, and fails where CI=true.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.fake_server import SPEC, Fake

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parent.parent
ABSENT = ("torch", "mlflow", "prefect", "dvc", "safetensors", "zarr", "pydantic", "typer", "scipy", "boto3")
DRIVE = """
import sys
import numpy as np
from vqbet.serving.client import connect
from vqbet.serving.guard import Guard, Limits
from vqbet.serving.player import ChunkPlayer
from vqbet.serving.recorder import Recorder
from vqbet.serving.station import Station

assert Station.trials
url, folder = sys.argv[1:]
with connect(url, robot="arm-3") as policy:
    recorder = Recorder(folder, policy.handshake, robot="arm-3", operator="ada")
    player = ChunkPlayer(policy, guard=Guard(Limits.of(policy.handshake)), recorder=recorder, wait_s=5.0)
    for seed in range(2):
        player.start(np.zeros(2, np.float32), seed=seed)
        verdicts = [player.step(np.zeros(2, np.float32)).verdict for _ in range(5)]
        assert verdicts[0] == "pass", verdicts
        player.finish(success=True)
    policy.start(7)
    assert policy.act(np.zeros(2, np.float32)).shape == (3,)
print(*sorted({name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)))
"""


def uv(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "uv", *words], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a new environment that holds vqbet[robot], installed from its wheel, and nothing else."""
    folder = tmp_path_factory.mktemp("robot")
    for name in ("vqbet", "flows"):
        shutil.copytree(ROOT / name, folder / "copy" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "copy" / name)
    options = ["--wheel", "--offline", "--no-build-isolation", "--python", sys.executable, "-o", str(folder)]
    uv("build", *options, str(folder / "copy"))
    (wheel,) = folder.glob("*.whl")
    uv("venv", "--python", sys.executable, str(folder / "environment"))
    found = folder / "environment" / "bin" / "python"
    install = [sys.executable, "-m", "uv", "pip", "install", "--python", str(found), f"{wheel}[robot]"]
    done = subprocess.run(install, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        without = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        without(f"the package index gave no numpy, msgpack and websockets; connect to it: {done.stderr[-500:]}")
    return found


def run(python: Path, *words: str, folder: Path) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([python, *words], cwd=folder, env=kept, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_of_the_pipeline_is_there(python: Path, tmp_path: Path) -> None:
    code = f"import importlib.util as u; print([name for name in {ABSENT} if u.find_spec(name)])"
    assert run(python, "-c", code, folder=tmp_path).strip() == "[]"


def test_a_session_runs(python: Path, tmp_path: Path) -> None:
    fake = Fake()
    with fake.serving() as url:
        foreign = set(run(python, "-c", DRIVE, url, str(tmp_path / "recordings"), folder=tmp_path).split())
    assert {"vqbet", "numpy", "msgpack", "websockets"} <= foreign
    assert not foreign & set(ABSENT)
    folders = [path for path in (tmp_path / "recordings").iterdir() if path.is_dir()]
    assert len(folders) == 2
    assert all(len(np.load(folder / "action.npy")) == 5 for folder in folders)
    assert np.load(folders[0] / "action.npy").shape == (5, len(SPEC.action))
