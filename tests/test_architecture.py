"""The rules that keep the rooms apart: what dvc.yaml lists, what the flow runs, what nobody may do."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from vqbet.stages import runner
from vqbet.stages.paths import Paths

ROOT = Path(__file__).resolve().parent.parent
DOORS = {"boto3": "vqbet/storage/", "mlflow": "vqbet/registry/", "dvc": "vqbet/versions/", "prefect": "flows/"}
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
    assert (ROOT / "dvc.yaml").read_text(encoding="utf-8").count("\n") <= 130


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
    for name in runner.ORDER:
        stage = graph()[name]
        sections = {"gate": ["demos", "evaluate", "gate"], "report": []}.get(name, [name])
        assert stage["params"][1:] == [f"${{item}}.{section}" for section in sections]
        assert stage["cmd"] == 'infra/vqbet stage "$DVC_STAGE"', "no name from params.yaml may reach a shell"


def test_the_graph_and_the_paths_agree() -> None:
    paths = Paths(Path(), "${item}")
    known = {
        *(getattr(paths, name) for name in ("store", "validation", "tokenizer", "prior", "policy", "evaluation")),
        *(getattr(paths, name) for name in ("gate", "report", "health", "code")),
        *(paths.metrics(stage) for stage in runner.ORDER),
        *(paths.plot(stage) for stage in ("tokenizer", "prior")),
    }
    for name, stage in graph().items():
        for out in [*outputs(stage), *stage.get("deps", [])]:
            path = Path(next(iter(out)) if isinstance(out, dict) else out)
            if path.parts[0] in ("artifacts", "data"):
                assert path in known, f"{name}: {path}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unpickles_and_no_shell(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    forbidden = (
        r"\bimport (pickle|dill|cloudpickle|joblib)\b|torch\.(load|save)\(|allow_pickle=True|shell=True|yaml\.load\("
    )
    assert not re.search(forbidden, text)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_packages_have_one_door(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    for package in {name.partition(".")[0] for name in names} & DOORS.keys():
        assert path.relative_to(ROOT).as_posix().startswith(DOORS[package]), package


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_size_and_words(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", text)
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "a module says what it is"
