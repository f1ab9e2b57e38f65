"""A project that was moved or copied: its registry has its files, and writes nothing to where it was before."""

from __future__ import annotations

import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.shelf import SPEC, bundle, registered
from vqbet import registry
from vqbet.registry import connection, relocation

COLUMNS = {
    "experiments": "artifact_location",
    "runs": "artifact_uri",
    "logged_models": "artifact_location",
    "model_versions": "storage_location",
}


def places(database: Path) -> list[str]:
    """Every path to artefacts in MLflow's file."""
    with closing(sqlite3.connect(database)) as store:
        return [row[0] for table, column in COLUMNS.items() for row in store.execute(f"SELECT {column} FROM {table}")]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def used(home: Path, tmp_path: Path) -> Path:
    """A registry with a champion and a run."""
    registered(tmp_path / "bundles", "one", "two")
    registry.force("tiny", 1, who="a test", why="a test")
    with registry.run("tiny", "stage", params={}, tags={}) as record:
        record.finish({"score": 1.0}, [tmp_path / "bundles" / "one" / "bundle.json"])
    return home


@pytest.mark.parametrize("how", [shutil.move, shutil.copytree])
def test_the_registry_goes_along(used: Path, how: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(used)
    there = tmp_path / "another place" / ".vqbet"
    there.parent.mkdir()
    how(used, there)  # type: ignore[operator]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{there / 'mlflow.db'}")
    champion = registry.champion("tiny")
    assert champion is not None
    assert (registry.download(champion, tmp_path / "got") / "bundle.json").read_text() == "one"
    digest = bundle(tmp_path / "bundles" / "three", "three")
    number = registry.register("tiny", tmp_path / "bundles" / "three", tags={"digest": digest}, spec=SPEC)
    assert number == 3
    assert registry.register("tiny", tmp_path / "bundles" / "one", tags={"digest": champion.digest}, spec=SPEC) == 1
    with registry.run("tiny", "stage", params={}, tags={}) as record:
        record.finish({}, [tmp_path / "bundles" / "three" / "bundle.json"])
    assert registry.force("tiny", 3, who="a test", why="a test").previous_version == 1
    assert all(place.startswith(f"{there}/mlartifacts/") for place in places(there / "mlflow.db"))
    if how is shutil.move:
        assert not used.exists()
    else:
        assert files(used) == before


def test_where_nothing_moved_nothing_is_written(used: Path, tmp_path: Path) -> None:
    database = used / "mlflow.db"
    assert all(place.startswith(f"{used}/mlartifacts/") for place in places(database))
    before = database.read_bytes()
    assert relocation.follow(database) == []
    (tmp_path / "link").symlink_to(used.parent)
    assert relocation.follow(tmp_path / "link" / used.name / "mlflow.db") == [], "another name of the same folder"
    assert database.read_bytes() == before


def test_of_many_who_open_it_at_once_one_corrects_it(used: Path, tmp_path: Path) -> None:
    there = tmp_path / "a project" / "mlartifacts" / ".vqbet"  # its path begins as the former artefacts' did
    shutil.copytree(used, there)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(relocation.follow, [there / "mlflow.db"] * 16))
    assert [moved for moved in found if moved] == [[used]]
    assert all(place.startswith(f"{there}/mlartifacts/") for place in places(there / "mlflow.db"))
    assert "/mlartifacts/.vqbet/mlartifacts/.vqbet/" not in "".join(places(there / "mlflow.db"))


def test_the_template_of_mlflow_is_settled_beside_ours(home: Path) -> None:
    connection.client()
    assert places(home / "mlflow.db") == [f"{home}/mlartifacts/Default"]
