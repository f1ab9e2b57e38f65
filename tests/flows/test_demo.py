"""The demo as a stranger meets it, on a task small enough for a test: what it says, left, and answers when asked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import url2pathname

import pytest

from tests.support.demo import SILENCE, Demo
from tests.support.project import Project
from vqbet import versions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # whoever comes first runs the demo
Read = Callable[[str], dict[str, Any]]


def test_the_demo_ends_with_a_champion_on_one_screen(project: Project, demo: Demo, read: Read) -> None:
    screen = demo.screen[demo.screen.index("task  ") :]
    verdict = read("gate/verdict.json")
    assert verdict["outcome"] == "PROMOTE", verdict["reason"]
    assert "no champion yet" in verdict["reason"]
    assert re.search(r"demonstrations +120 episodes", screen)
    assert re.search(rf"champion +version 1, digest {verdict['candidate'][:12]}", screen)
    assert re.search(r"stages run now +validate, tokenizer, features, prior, bundle, evaluate, gate, report", screen)
    assert re.search(r"seconds per stage +validate \d+, tokenizer \d+", screen)
    for name in re.findall(r"(artifacts/\S+)", screen):
        assert (project.root / name).stat().st_size > 1000, name


def test_the_demo_speaks_to_nobody_outside(demo: Demo) -> None:
    assert not demo.outside.exists(), demo.outside.read_text(encoding="utf-8")


def test_the_watch_itself_notices(tmp_path: Path) -> None:
    """The planted fault: a process that asks for an address outside is written down."""
    log = tmp_path / "log"
    code = "import socket\ntry: socket.getaddrinfo('telemetry.invalid', 443)\nexcept OSError: pass"
    environment = {**os.environ, "PYTHONPATH": str(SILENCE), "OUTSIDE_LOG": str(log)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert "telemetry.invalid" in log.read_text(encoding="utf-8")


def test_a_second_repro_runs_nothing_and_changes_nothing(project: Project) -> None:
    committed = (project.root / "dvc.lock").read_bytes()
    done = project.run("dvc", "repro")
    assert re.findall(r"Running stage '(\S+)'", done.stdout) == ["code@blockpush"], "which looks at the code, each time"
    assert (project.root / "dvc.lock").read_bytes() == committed


def test_metrics_plots_and_graph_answer(project: Project) -> None:
    assert "artifacts/blockpush/metrics/evaluate.json" in project.run("dvc", "metrics", "show").stdout
    assert "gate@blockpush" in project.run("dvc", "dag", "--dot").stdout
    page = project.run("dvc", "plots", "show").stdout.strip().splitlines()[-1]
    text = Path(url2pathname(page.removeprefix("file://"))).read_text(encoding="utf-8")
    assert "artifacts/blockpush/plots/prior.csv" in text.replace("::", "/")
    assert not re.search(r"(src|href)=.?https?://", text)


def test_show_history_and_rollout(project: Project, read: Read) -> None:
    shown = project.here("show", "blockpush@champion").stdout
    digest = read("gate/verdict.json")["candidate"]
    assert digest in shown
    assert versions.data_version(project.root) in shown
    assert "PROMOTE" in shown
    assert "blockpush/1" in project.here("history", "blockpush").stdout
    project.here("rollout", "blockpush@champion", "--episodes", "2", "--out", "two.webm")
    assert (project.root / "two.webm").read_bytes()[:4] == b"\x1a\x45\xdf\xa3"


def test_who_was_champion_then(project: Project) -> None:
    assert "blockpush/1" in project.here("history", "blockpush", "--at", "2099-01-01").stdout
    assert "no champion then" in project.here("history", "blockpush", "--at", "2020-01-01T12:00").stdout
    done = project.here("history", "blockpush", "--at", "yesterday", check=False)
    assert "expected a date or a time such as 2026-05-01T14:30, got 'yesterday'" in done.stderr.replace("\n", " ")


def test_promoting_the_champion_again_changes_nothing(project: Project) -> None:
    before = project.here("history", "blockpush").stdout
    project.here("promote", "blockpush")
    assert project.here("history", "blockpush").stdout == before


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("show", "blockpush@nobody"), "nobody"),
        (("show", "bathroom@champion"), "bathroom"),
        (("stage", "polish", "blockpush"), "no stage 'polish'"),
        (("stage", "prior", "bathroom"), "no section 'bathroom'"),
        (("ingest", "pusht"), "expected a path or URL"),
        (("ingest", "pusht", "nowhere.zarr"), "nowhere.zarr"),
        (("rollback", "blockpush", "--why", "test"), "no champion to go back to"),
    ],
)
def test_a_mistake_is_a_sentence(project: Project, argv: tuple[str, ...], named: str) -> None:
    done = project.here(*argv, check=False)
    assert done.returncode != 0
    assert named in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize("argv", [("show", "blockpush@champion"), ("show", "blockpush@nobody")])
def test_a_process_of_its_own_says_the_same(project: Project, argv: tuple[str, ...]) -> None:
    """The proof that the other tests may ask in this process."""
    own, here = project.run("vqbet", *argv, check=False), project.here(*argv, check=False)
    assert (own.returncode, own.stdout, own.stderr) == (here.returncode, here.stdout, here.stderr)


def test_a_registry_out_of_reach_is_a_sentence(project: Project) -> None:
    done = project.here("show", "blockpush@champion", check=False, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode != 0
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
