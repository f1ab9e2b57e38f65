"""A registry of its own for every test: a copy of one empty SQLite store."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from vqbet.registry import connection


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store, made once: MLflow takes seconds to make its tables."""
    path = tmp_path_factory.mktemp("registry") / "mlflow.db"
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{path}"
    connection.client()
    if before is None:
        del os.environ["MLFLOW_TRACKING_URI"]
    else:
        os.environ["MLFLOW_TRACKING_URI"] = before
    return path


@pytest.fixture
def home(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private copy of it, in a folder with a space."""
    folder = tmp_path / "a project" / ".vqbet"
    folder.mkdir(parents=True)
    with sqlite3.connect(template) as source, sqlite3.connect(folder / "mlflow.db") as target:
        source.backup(target)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    return folder
