"""The file that DVC compares: one hash for each stage of a task."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vqbet.commands import code
from vqbet.contract import ConfigError
from vqbet.stages import runner

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_text("tasks: [blockpush]\n", encoding="utf-8")
    (tmp_path / ".vqbet").mkdir()
    monkeypatch.setenv("VQBET_HOME", str(tmp_path / ".vqbet"))
    return tmp_path


@pytest.mark.slow
def test_by_the_task_or_by_what_dvc_calls_the_stage(root: Path) -> None:
    found = code.run(root, "code@blockpush")
    path = root / "artifacts" / "blockpush" / "code.json"
    assert json.loads(path.read_text(encoding="utf-8")) == found
    assert tuple(found) == runner.ORDER
    assert all(len(value) == 64 for value in found.values())
    written = path.stat().st_mtime_ns
    assert code.run(root, "blockpush") == code.run(root, "sub/dvc.yaml:code@blockpush") == found
    assert path.stat().st_mtime_ns == written, "what says so already is left alone"


@pytest.mark.parametrize("name", ["../up", "a;touch ran", "code@a/b", "Up", "code@", "", "a" * 41, "code@x\n"])
def test_what_is_no_task_is_refused(root: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"params\.yaml: no section"):
        code.run(root, name)
    assert not (root / "artifacts").exists()
    assert not (root.parent / "up").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "said"), [("code@blockpush", ""), ("a;touch ran", "error: .*no section 'a;touch ran'")]
)
def test_the_graph_runs_it_without_the_command_lines_start(root: Path, name: str, said: str) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "vqbet.commands.code", name]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert (done.returncode, bool(lines)) == ((1, True) if said else (0, False))
    assert re.search(said, "\n".join(lines))
    assert "typer" not in done.stderr
