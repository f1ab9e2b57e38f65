"""The graph after the demo: the gate again, a changed number, a flow that is stopped, other demonstrations."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.processes import living
from tests.support.project import Project
from tests.support.waiting import LONG_S, until
from vqbet import versions
from vqbet.training import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # whoever comes first runs the demo
Read = Callable[[str], dict[str, Any]]


def test_the_champion_before_the_gate_again_is_nothing_to_compare(project: Project, read: Read) -> None:
    """As after a new version of the gate: no seed is used, and the champion keeps the verdict that made it one."""
    lock = (project.root / "dvc.lock").read_bytes()
    shown = project.here("show", "blockpush@champion").stdout
    project.run("dvc", "repro", "--force", "--single-item", "gate@blockpush")
    assert "are the same policy" in read("gate/verdict.json")["reason"]
    project.run("dvc", "repro", "--single-item", "report@blockpush")
    assert "the champion already" in project.here("register", "blockpush").stdout
    assert "the same policy" in (project.root / "artifacts/blockpush/report/index.html").read_text(encoding="utf-8")
    assert project.here("show", "blockpush@champion").stdout == shown
    (project.root / "dvc.lock").write_bytes(lock)
    project.run("dvc", "checkout")


def test_one_changed_number_runs_what_follows_and_the_champion_again(project: Project, read: Read) -> None:
    project.edit(lambda params: params["blockpush"]["prior"].update(focal_gamma=1.0))
    done = project.run("dvc", "repro")
    ran = re.findall(r"Running stage '(\w+)@blockpush'", done.stdout)
    assert ran == ["code", "prior", "bundle", "evaluate", "gate", "report"]
    verdict = read("gate/verdict.json")
    assert verdict["champion"], "the present champion is played again"
    rivals = (project.root / "artifacts" / "blockpush" / "gate" / "records.jsonl").read_text(encoding="utf-8")
    assert verdict["champion"] in rivals
    assert "blockpush" in project.run("dvc", "metrics", "diff").stdout


def test_an_interrupted_flow_leaves_nobody_and_goes_on(project: Project) -> None:
    project.edit(lambda params: params["blockpush"]["prior"].update(steps=100_000))
    training = project.root / ".vqbet" / "checkpoints" / "prior" / "blockpush"
    taken = training / checkpoint.LOCK  # by a training that has begun
    taken.unlink(missing_ok=True)
    flow = subprocess.Popen(
        [sys.executable, "-m", "vqbet", "flow", "pipeline"],
        cwd=project.root,
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # jobs in the background ignore it
    )
    until(lambda: taken.exists() and any(stoppable(child) for child in living(flow.pid)))
    children = living(flow.pid)
    os.killpg(flow.pid, signal.SIGINT)
    try:
        output, _ = flow.communicate(timeout=LONG_S)
    finally:
        flow.kill()
    _, alive = psutil.wait_procs(children, timeout=LONG_S)
    assert not alive, [child.cmdline() for child in alive]
    assert flow.returncode == 130
    assert b"the same command goes on from there" in output
    assert b"Traceback" not in output, output.decode()[-2000:]
    assert any(training.glob("step-*")), "the training wrote a checkpoint to go on from"


def stoppable(process: psutil.Process) -> bool:
    """Whether this is the training, and it has begun: only then it catches SIGTERM, and ends after a checkpoint."""
    try:
        caught = re.findall(r"SigCgt:\s+(\w+)", Path(f"/proc/{process.pid}/status").read_text())
        begun = int(caught[0], 16) >> (signal.SIGTERM - 1) & 1
        return bool(begun and "prior@blockpush" in process.cmdline())
    except (OSError, IndexError, psutil.NoSuchProcess):
        return False


def test_changed_demonstrations_are_compared_with_the_champions(project: Project, read: Read) -> None:
    """The oracle moves more slowly: the flow tells what that means for the champion's tokenizer, and does not fail."""
    oracle = project.root / "vqbet" / "tasks" / "blockpush" / "oracle.py"
    text = oracle.read_text(encoding="utf-8")
    oracle.write_text(text.replace("FREE_M = 0.020", "FREE_M = 0.012").replace("PUSH_M = 0.012", "PUSH_M = 0.008"))
    assert "drift: a new tokenizer is needed: " in project.run("vqbet", "flow", "ingest", "blockpush").stdout
    done = project.here("drift", "blockpush", "--check", check=False)
    assert done.returncode == 3, done.stderr
    assert "a new tokenizer is needed: " in done.stdout
    assert re.search(r"episodes +0 kept, 0 added, 0 removed, 120 changed", done.stdout)
    found = read("drift/drift.json")
    assert {"max_divergence"} <= {each["threshold"] for each in found["exceeded"]}
    assert found["against"]["data_dvc"] != found["present"]["data_dvc"] == versions.data_version(project.root)
    assert "NEW TOKENIZER NEEDED" in (project.root / "artifacts/blockpush/drift/index.html").read_text(encoding="utf-8")
