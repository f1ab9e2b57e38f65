"""Files that the registry has lost or that were changed in it: noticed by the next registration, and put back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from tests.support.shelf import SPEC, registered
from vqbet import registry
from vqbet.contract import RegistryError
from vqbet.registry import files


def kept(home: Path) -> Path:
    """Where the registry keeps the only version's files."""
    (manifest,) = (home / "mlartifacts").rglob("bundle.json")
    return manifest.parent


def again(folder: Path, digest: str) -> int:
    return registry.register("tiny", folder, tags={"digest": digest}, spec=SPEC)


@pytest.mark.parametrize("fault", ["all", "one", "changed", "added"])
def test_registering_again_puts_them_back(home: Path, tmp_path: Path, fault: str) -> None:
    ((number, digest),) = registered(tmp_path, "one")
    version, place = registry.resolve("tiny/1"), kept(home)
    good = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    if fault == "all":
        shutil.rmtree(home / "mlartifacts")
    elif fault == "one":
        (place / "policy.safetensors").unlink()
    elif fault == "changed":
        (place / "policy.safetensors").write_bytes(b"another")
    elif fault == "added":
        (place / "more.safetensors").write_bytes(b"more")
    assert again(tmp_path / "one", digest) == number
    got = registry.download(version, tmp_path / "got")
    assert {path.name: path.read_bytes() for path in got.iterdir()} == good
    assert (place / "MLmodel").is_file()
    assert files.differences(version, tmp_path / "one") == []


def test_what_is_whole_is_left_alone(home: Path, tmp_path: Path) -> None:
    ((_, digest),) = registered(tmp_path, "one")
    before = {path: path.stat().st_mtime_ns for path in kept(home).iterdir()}
    assert registry.complete(registry.resolve("tiny/1"), tmp_path / "one") == []
    again(tmp_path / "one", digest)
    assert {path: path.stat().st_mtime_ns for path in kept(home).iterdir()} == before


def test_the_sentence_says_what_puts_them_back(home: Path, tmp_path: Path) -> None:
    registered(tmp_path, "one")
    shutil.rmtree(home / "mlartifacts")
    with pytest.raises(RegistryError, match=r"tiny/1: the registry has lost its files; .* audit tiny --repair"):
        registry.download(registry.resolve("tiny/1"), tmp_path / "got")


def test_a_store_that_keeps_nothing_is_said(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ((_, digest),) = registered(tmp_path, "one")
    (kept(home) / "policy.safetensors").unlink()
    monkeypatch.setattr(LocalArtifactRepository, "log_artifact", lambda *_: None)
    with pytest.raises(RegistryError, match=r"tiny/1: policy\.safetensors was put back and reads back otherwise"):
        again(tmp_path / "one", digest)
