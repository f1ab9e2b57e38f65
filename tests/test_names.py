"""A task's name is data: no shell runs it, whoever reads params.yaml, and only a word is a name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from vqbet import config
from vqbet.contract import ConfigError, PipelineError
from vqbet.stages import runner

ROOT = Path(__file__).resolve().parent.parent
HOSTILE = [
    "a;touch ran;#",
    "b$(touch ran)",
    "c`touch ran`",
    "d&&touch ran&&true",
    "e\ntouch ran\n",
    "f'; touch ran; '",
    'g"; touch ran; "',
    'h\\"; touch ran #',
    "i|touch ran",
    "j${HOME}",
    "k>ran",
]


@pytest.mark.slow
def test_dvc_itself_runs_no_name(tmp_path: Path) -> None:
    """`dvc repro` reads params.yaml without our checks: our dvc.yaml, names that are commands, one stage that tells."""
    yaml = YAML()
    graph = yaml.load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    stage = graph["stages"]["validate"]
    stage["do"] = {"cmd": stage["do"]["cmd"], "deps": ["data/${item}.zarr"], "outs": ["artifacts/${item}/validation"]}
    (tmp_path / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", tmp_path / ".dvc" / "config")
    with (tmp_path / "dvc.yaml").open("w", encoding="utf-8") as file:
        yaml.dump({"stages": {"validate": stage}}, file)
    (tmp_path / "params.yaml").write_text(json.dumps({"tasks": HOSTILE}), encoding="utf-8")
    for name in HOSTILE:
        (tmp_path / "data" / f"{name}.zarr").mkdir(parents=True)
    script = tmp_path / "infra" / "vqbet"
    script.parent.mkdir()
    script.write_text('#!/bin/sh\nprintf "%s\\0" "$#" "$@" >> told\nexit 1\n', encoding="utf-8")
    script.chmod(0o755)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "--keep-going"],
        cwd=tmp_path,
        env={**os.environ, "DVC_SITE_CACHE_DIR": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode, "every stage of this graph fails"
    told = (tmp_path / "told").read_text(encoding="utf-8").split("\0")[:-1]
    assert sorted(told[2::3]) == sorted(f"validate@{name}" for name in HOSTILE), done.stderr[-2000:]
    assert set(told[::3]) == {"2"}
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == sorted(
        ["data", "dvc.yaml", "infra", "params.yaml", "site", "told"]
    ), "something was run"


@pytest.mark.parametrize("name", [*HOSTILE, "../up", "Up", "1up", "", "a" * 41, "ä"])
def test_our_own_ways_refuse_it_before_anything_starts(tmp_path: Path, name: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(json.dumps({"tasks": [name], name: {}}), encoding="utf-8")
    for read in (config.tasks, lambda path: config.task(path, name)):
        with pytest.raises(ConfigError, match="a task's name is at most 40 lower case letters"):
            read(path)


@pytest.mark.parametrize(
    ("addressed", "expected"),
    [
        ("validate@blockpush", ("validate", "blockpush")),
        ("../dvc.yaml:gate@pusht", ("gate", "pusht")),
        ("validate@e\ntouch ran", ("validate", "e\ntouch ran")),
        ("validate@a@b", ("validate", "a@b")),
    ],
)
def test_a_stage_is_known_by_what_dvc_calls_it(addressed: str, expected: tuple[str, str]) -> None:
    assert runner.split(addressed) == expected


@pytest.mark.parametrize("addressed", ["validate", "@blockpush", "validate@", "", "Validate@blockpush", "x" * 5000])
def test_what_is_no_stage_of_a_task_is_refused(addressed: str) -> None:
    with pytest.raises(PipelineError, match="expected <stage> <task>, or <stage>@<task>") as caught:
        runner.split(addressed)
    assert len(str(caught.value)) < 200
