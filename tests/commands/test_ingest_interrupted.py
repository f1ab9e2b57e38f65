"""`vqbet ingest` beside other processes: killed while it decodes, and while `dvc repro` trains on what it replaces."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.filmed import filmed
from tests.support.foreign_sets import lerobot_v2
from tests.support.project import Project
from vqbet.demos import store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PATIENCE_S = 240.0
ENDLESS = {"tokenizer": {"steps": 10_000_000, "batch": 64}}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with a declared task, of which nothing has been ingested."""
    lerobot_v2(tmp_path / "set", episodes=filmed(4))
    made = Project(tmp_path / "project")
    made.commit()
    made.run("vqbet", "new", "arm", "--from", str(tmp_path / "set"))
    return made


def started(project: Project, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *argv],
        cwd=project.root,
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def await_(process: subprocess.Popen[str], happened: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not happened():
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < end
        time.sleep(0.002)


def test_an_ingest_killed_while_it_decodes_goes_on_where_it_stopped(project: Project) -> None:
    staged, target = project.root / ".vqbet/staged/arm", project.root / "data/arm.zarr"
    killed = started(project, "vqbet", "ingest", "arm")
    await_(killed, lambda: list(staged.glob("*-*")))
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()
    told = project.run("vqbet", "ingest", "arm").stdout
    assert "pictures: 1 of 2 files were decoded by an earlier ingest" in told
    resumed = store.verify(target).digest
    subprocess.run(["rm", "-r", target, project.root / ".vqbet/staged"], check=True)
    (project.root / "data.dvc").unlink()
    assert "decoded by an earlier" not in project.run("vqbet", "ingest", "arm").stdout
    assert store.digest(target) == resumed


def test_an_ingest_beside_a_training_says_at_once_who_reads_and_changes_nothing(project: Project) -> None:
    project.run("vqbet", "ingest", "arm")
    project.run("vqbet", "new", "blind", "--from", str(project.root.parent / "set"), "--no-cameras")
    project.small("arm", ENDLESS)
    before, data = store.digest(project.root / "data/arm.zarr"), (project.root / "data.dvc").read_bytes()
    training = started(project, "dvc", "repro", "tokenizer@arm")
    lock = project.root / ".dvc/tmp/rwlock"

    def trains() -> bool:
        try:
            return any("tokenizer" in path for path in json.loads(lock.read_text()).get("write", {}))
        except (OSError, ValueError):
            return False

    try:
        await_(training, trains)
        lerobot_v2(project.root.parent / "more", episodes=filmed(5))
        blind = project.run("vqbet", "ingest", "blind", check=False)
        seeing = project.run("vqbet", "ingest", "arm", str(project.root.parent / "more"), check=False)
        assert training.poll() is None
        assert store.digest(project.root / "data/arm.zarr") == before
        assert (project.root / "data.dvc").read_bytes() == data
    finally:
        os.killpg(training.pid, signal.SIGKILL)
        training.communicate()
    reads = rf"data: the stage that makes artifacts/arm/\S+ reads it \(process {training.pid}, since \d\d:\d\d\); "
    assert blind.returncode == 1
    assert re.search(reads + r"nothing was done: run vqbet ingest blind again when that has ended", blind.stderr)
    assert not (project.root / "data/blind.zarr").exists()
    assert seeing.returncode == 1
    assert re.search(reads + r"pictures are decoded meanwhile", seeing.stdout)
    assert re.search(reads + r"run vqbet ingest arm again when that has ended, which takes what", seeing.stderr)
    told = project.run("vqbet", "ingest", "arm", str(project.root.parent / "more")).stdout
    assert "pictures: 2 of 2 files were decoded by an earlier ingest" in told
    assert "5 episodes" in told
