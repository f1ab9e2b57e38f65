"""The rules that keep the rooms apart: what dvc.yaml lists, what the flow runs, what nobody may do."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from vqbet.stages import code_version, runner
from vqbet.stages.paths import Paths

ROOT = Path(__file__).resolve().parent.parent
DOORS = {"boto3": "vqbet/storage/", "mlflow": "vqbet/registry/", "dvc": "vqbet/versions/", "prefect": "flows/"}
SOURCES = sorted([*ROOT.glob("vqbet/**/*.py"), *ROOT.glob("flows/**/*.py")])


def graph() -> dict[str, dict]:
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    return {name: stage["do"] for name, stage in YAML(typ="safe", pure=True).load(text)["stages"].items()}


@pytest.mark.parametrize("stage", runner.ORDER)
def test_a_stage_depends_on_all_the_code_it_runs(stage: str) -> None:
    """DVC does not know imports: the listed files are the import closure, no more and no fewer."""
    expected = {path.relative_to(ROOT).as_posix() for path in code_version.closure(f"vqbet.stages.{stage}")}
    listed = {dep for dep in graph()[stage]["deps"] if dep.startswith("vqbet/")}
    assert listed - {path for path in listed if not path.endswith(".py")} == expected


def test_the_graph_has_the_flows_order() -> None:
    stages = graph()
    assert tuple(stages) == runner.ORDER
    made: set[str] = set()
    for name, stage in stages.items():
        wanted = {dep for dep in stage["deps"] if dep.startswith("artifacts/")}
        assert wanted <= made, f"{name} needs {wanted - made}, which no earlier stage makes"
        made |= {next(iter(out)) if isinstance(out, dict) else out for out in outputs(stage)}


def outputs(stage: dict) -> list:
    return [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]


def test_a_stage_receives_exactly_its_section() -> None:
    special = {"gate": ["demos", "evaluate", "gate"], "report": []}
    special |= {name: ["demos.views", name] for name in ("tokenizer", "prior")}
    for name, stage in graph().items():
        sections = special.get(name, [name])
        assert stage.get("params", []) == [f"${{item}}.{section}" for section in sections]
        assert stage["cmd"] == 'infra/vqbet stage "$DVC_STAGE"', "no name from params.yaml may reach a shell"


def test_the_graph_and_the_paths_agree() -> None:
    paths = Paths(Path(), "${item}")
    known = {
        *(getattr(paths, name) for name in ("store", "validation", "tokenizer", "prior", "policy", "evaluation")),
        *(getattr(paths, name) for name in ("gate", "report", "health")),
        *(paths.metrics(stage) for stage in runner.ORDER),
        *(paths.plot(stage) for stage in ("tokenizer", "prior")),
    }
    for name, stage in graph().items():
        for out in [*outputs(stage), *stage["deps"]]:
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


def test_closure_follows_functions_and_packages_but_not_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "vqbet"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "deep" / "__init__.py").write_text("import os")
    (package / "a.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from vqbet import c\n"
        "def f():\n    from vqbet.deep import b\n"
    )
    (package / "c.py").write_text("")
    (package / "deep" / "b.py").write_text("import vqbet.a")
    monkeypatch.setattr(code_version, "PACKAGE", package)
    names = {path.relative_to(package).as_posix() for path in code_version.closure("vqbet.a")}
    assert names == {"__init__.py", "a.py", "deep/__init__.py", "deep/b.py"}
    before = code_version.digest("vqbet.a")
    (package / "c.py").write_text("changed = 1")
    assert code_version.digest("vqbet.a") == before
    (package / "deep" / "b.py").write_text("import vqbet.a  # changed")
    assert code_version.digest("vqbet.a") != before
