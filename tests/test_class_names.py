"""One name, one thing: no two classes of the package share a name."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def shared(package: Path) -> dict[str, set[str]]:
    """The names of classes that stand in more than one file, with those files."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name].add(path.relative_to(package).as_posix())
    return {name: files for name, files in found.items() if len(files) > 1}


@pytest.mark.slow
def test_no_two_classes_share_a_name() -> None:
    assert shared(ROOT / "vqbet") == {}


def test_a_shared_name_is_seen(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.py").write_text("class Report: ...\nclass Other: ...")
    (tmp_path / "deep" / "b.py").write_text("def f():\n    class Report: ...")
    assert shared(tmp_path) == {"Report": {"a.py", "deep/b.py"}}
