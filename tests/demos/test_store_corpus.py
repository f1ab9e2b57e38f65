"""Stores that earlier versions wrote, kept as bytes: this version reads each of them, and writes the same bytes again.

tests/golden/stores/schema-<n>.zip: two synthetic episodes, written by the code of 0.1.0 that introduced schema n:
commit 2e12788 (1 and 2, with interventions) and 16fb07e (3, with a camera as well). They are never written again.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.demos.test_store_refused import edit
from tests.support.synthetic import synthetic
from vqbet.contract import StoreError
from vqbet.demos import store
from vqbet.demos.store import schema

CORPUS = Path(__file__).resolve().parents[1] / "golden" / "stores"
DIGESTS = {
    1: "6dde284e5fcb62f129ec9012e6233a05617118867cae573b786fab1429ed3063",
    2: "54af3831cb15eb104bf35ce2e4512d8325c3748756b1b56f8a583e473b72d4d2",
    3: "3d33c6faf26e4f8cd76ecbb9830356fa4f3a73e0d38f0a2ae7b3c59f92ad3325",
}
VERSIONS = pytest.mark.parametrize("version", sorted(DIGESTS))


def unpacked(folder: Path, version: int) -> Path:
    with zipfile.ZipFile(CORPUS / f"schema-{version}.zip") as archive:
        archive.extractall(folder / "old.zarr")
    return folder / "old.zarr"


def test_every_schema_up_to_todays_is_in_the_corpus() -> None:
    assert sorted(DIGESTS) == list(range(1, schema.SCHEMA_VERSION + 1))
    assert sorted(path.stem for path in CORPUS.glob("*.zip")) == [f"schema-{version}" for version in sorted(DIGESTS)]


@VERSIONS
def test_an_old_store_is_read(tmp_path: Path, version: int) -> None:
    path = unpacked(tmp_path, version)
    assert json.loads((path / "zarr.json").read_text())["attributes"]["schema_version"] == version
    found, made = store.verify(path), synthetic(2, seed=version)
    assert found.digest == DIGESTS[version]
    assert np.array_equal(found.observation, made.observation)
    assert np.array_equal(found.action, made.action)
    assert np.array_equal(found.episode_ends, made.episode_ends)
    assert {name: column.tolist() for name, column in found.columns.items()} == {
        name: column.tolist() for name, column in made.columns.items()
    }
    if version == 1:
        assert found.intervention is None
    else:
        assert found.intervention is not None
        assert np.flatnonzero(found.intervention).tolist() == list(range(0, len(made.action), 5))
    assert list(found.cameras) == (["top"] if version == 3 else [])
    for frames in found.cameras.values():
        steps = np.arange(len(made.action))
        assert np.array_equal(frames[steps][:, 3, 5, 1], steps.astype(np.uint8))


@VERSIONS
def test_this_version_writes_the_same_bytes(tmp_path: Path, version: int) -> None:
    path = unpacked(tmp_path, version)
    assert store.write(tmp_path / "new.zarr", store.read(path)) == DIGESTS[version]


@VERSIONS
def test_a_store_of_a_later_version_is_refused_with_what_to_do(tmp_path: Path, version: int) -> None:
    path = unpacked(tmp_path, version)
    edit(path, "zarr.json", lambda document: document["attributes"].update(schema_version=schema.SCHEMA_VERSION + 1))
    sentence = r"zarr.json: schema_version: 4 is of a newer vqbet, this one reads up to 3; update vqbet"
    with pytest.raises(StoreError, match=sentence):
        store.read(path)
