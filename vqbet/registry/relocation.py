"""Correction of the artefact paths in MLflow's SQLite file after the project's folder was moved or copied.

MLflow stores absolute paths; a relative path would be resolved against the reader's working directory. Our experiments
keep their artefacts in <home>/mlartifacts/<experiment>, where home is the folder of the SQLite file. A path with
another prefix therefore names the home in which it was written.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

FOLDER = "mlartifacts"
DEFAULT = "Default"  # MLflow's own experiment, kept by default in mlruns/ of the first working directory
PATIENCE_S = 30.0
CORRECTIONS = tuple(
    f"UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1) "
    f"WHERE substr({column}, 1, length(:old) + 1) = :old || '/'"
    for table, column in (
        ("experiments", "artifact_location"),
        ("runs", "artifact_uri"),
        ("logged_models", "artifact_location"),
        ("model_versions", "storage_location"),
    )
)


def follow(database: Path) -> list[Path]:
    """Rewrite the artefact paths in MLflow's file `database` to the folder it is in; return the former homes.

    All paths change in one transaction. A copy is treated as a move: its new artefacts must not be written to the
    original. Another name of the same folder (a symbolic link) is not a move. Raises sqlite3.Error.
    """
    home = database.absolute().parent
    with closing(sqlite3.connect(database, timeout=PATIENCE_S, isolation_level=None)) as store:
        if not _former(store, home) and not _astray(store):
            return []
        store.execute("BEGIN IMMEDIATE")
        former = _former(store, home)  # again, since another process may have been faster
        for place in former:
            for correction in CORRECTIONS:
                store.execute(correction, {"old": str(place / FOLDER), "new": str(home / FOLDER)})
        if _astray(store):
            settled = (str(home / FOLDER / DEFAULT), DEFAULT)
            store.execute("UPDATE experiments SET artifact_location = ? WHERE name = ?", settled)
        store.execute("COMMIT")
    return former


def _former(store: sqlite3.Connection, home: Path) -> list[Path]:
    """Return the other homes that experiments name, without duplicates."""
    rows = store.execute("SELECT name, artifact_location FROM experiments").fetchall()
    suffixes = [(location or "", f"/{FOLDER}/{name}") for name, location in rows]
    found = {Path(location.removesuffix(suffix)) for location, suffix in suffixes if location.endswith(suffix)}
    return sorted(place for place in found if place.is_absolute() and not _same(place, home))


def _astray(store: sqlite3.Connection) -> bool:
    """Return whether MLflow's own experiment is not kept beside ours."""
    beside = (DEFAULT, f"%/{FOLDER}/{DEFAULT}")
    query = "SELECT 1 FROM experiments WHERE name = ? AND artifact_location NOT LIKE ?"
    return store.execute(query, beside).fetchone() is not None


def _same(place: Path, home: Path) -> bool:
    try:
        return place == home or place.samefile(home)
    except OSError:  # it is gone, or not accessible
        return False
