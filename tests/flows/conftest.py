"""A copy of the demo's project for each file."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import demo as demos
from tests.support.once import once
from tests.support.project import Project


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> demos.Demo:
    return demos.Demo(once(tmp_path_factory, "demo", demos.make))


@pytest.fixture(scope="module")
def project(demo: demos.Demo, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """In its own folder, as the demo left it, committed. The tests of a file build on one another in their order."""
    return demo.copy(tmp_path_factory.mktemp("copy") / "a project")


@pytest.fixture(scope="module")
def read(project: Project) -> Callable[[str], dict[str, Any]]:
    """What a file of JSON among the artefacts holds."""
    artefacts = project.root / "artifacts" / "blockpush"
    return lambda name: json.loads((artefacts / name).read_text(encoding="utf-8"))
