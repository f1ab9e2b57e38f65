"""The rules that keep the rooms apart: what dvc.yaml lists, what the flow runs, what nobody may do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from vqbet.stages import runner
from vqbet.stages.paths import Paths

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*ROOT.glob("vqbet/**/*.py"), *ROOT.glob("flows/**/*.py")])


def graph() -> dict[str, dict]:
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    return {name: stage["do"] for name, stage in YAML(typ="safe", pure=True).load(text)["stages"].items()}


def test_a_stage_depends_on_its_code() -> None:
    """By one hash, of its own: `code` writes it, and DVC reads it as a parameter."""
    made = {"artifacts/${item}/code.json": {"cache": False, "persist": True}}
    assert graph()["code"] == {"cmd": 'infra/vqbet code "$DVC_STAGE"', "always_changed": True, "outs": [made]}
    for name in runner.ORDER:
        stage = graph()[name]
        assert stage["params"][0] == {"artifacts/${item}/code.json": [name]}
        assert not [dep for dep in stage["deps"] if dep.startswith("vqbet/")], "files of code are in the hash"


def test_the_graph_is_read_on_one_screen() -> None:
    assert (ROOT / "dvc.yaml").read_text(encoding="utf-8").count("\n") <= 135


def test_the_graph_has_the_flows_order() -> None:
    stages = graph()
    assert tuple(stages) == ("code", *runner.ORDER)
    made: set[str] = set()
    for name, stage in stages.items():
        params = {next(iter(param)) for param in stage.get("params", []) if isinstance(param, dict)}
        wanted = params | {dep for dep in stage.get("deps", []) if dep.startswith("artifacts/")}
        assert wanted <= made, f"{name} needs {wanted - made}, which no earlier stage makes"
        made |= {next(iter(out)) if isinstance(out, dict) else out for out in outputs(stage)}


def outputs(stage: dict) -> list:
    return [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]


def test_a_stage_receives_exactly_its_section() -> None:
    special = {"gate": ["demos", "evaluate", "gate"], "report": []}
    held = ["demos.exclude", "demos.held_out", "demos.held_out_sessions"]
    special |= {name: ["demos.views", "demos.corrections", *held, name] for name in ("tokenizer", "prior")}
    special |= {"bundle": ["demos.views", "bundle"], "features": ["demos.views", *held, "prior.encoder"]}
    for name in runner.ORDER:
        stage = graph()[name]
        assert stage["params"][1:] == [f"${{item}}.{section}" for section in special.get(name, [name])]
        assert stage["cmd"] == 'infra/vqbet stage "$DVC_STAGE"', "no name from params.yaml may reach a shell"


def test_the_graph_and_the_paths_agree() -> None:
    paths = Paths(Path(), "${item}")
    known = {
        *(getattr(paths, name) for name in ("store", "validation", "tokenizer", "features", "prior", "policy")),
        *(getattr(paths, name) for name in ("evaluation", "gate", "report", "health", "code")),
        *(paths.metrics(stage) for stage in runner.ORDER),
        *(paths.plot(stage) for stage in ("tokenizer", "prior")),
    }
    for name, stage in graph().items():
        for out in [*outputs(stage), *stage.get("deps", [])]:
            path = Path(next(iter(out)) if isinstance(out, dict) else out)
            if path.parts[0] in ("artifacts", "data"):
                assert path in known, f"{name}: {path}"


def test_nothing_allows_pickles_and_no_yaml_is_loaded_loosely() -> None:
    """Of what nothing unpickles, ruff checks the imports and calls (pyproject.toml)."""
    found = [path for path in SOURCES if re.search(r"allow_pickle=True|yaml\.load\(", path.read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ("import pickle", "TID251"),
        ("import torch\n\ntorch.load('weights')", "TID251"),
        ("import subprocess\n\nsubprocess.run('ls', shell=True)", "S602"),
        ("# TODO: later", "FIX002"),
    ],
)
def test_ruff_refuses_what_nobody_may_do(fault: str, rule: str) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--stdin-filename", "vqbet/planted.py", "-"]
    text = f'"""Planted."""\n\n{fault}\n'
    done = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=False)
    assert rule in done.stdout


def test_a_file_can_be_read_in_a_sitting() -> None:
    """gate.py is one idea and stays whole."""
    long = {path.name: path.read_text(encoding="utf-8").count("\n") for path in SOURCES if path.name != "gate.py"}
    assert {name: lines for name, lines in long.items() if lines > 400} == {}
