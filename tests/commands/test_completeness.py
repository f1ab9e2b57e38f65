"""data/ gets a new version only in a git repository, and never loses another task's store in silence."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from vqbet import config, versions
from vqbet.commands import completeness, ingest
from vqbet.contract import PipelineError
from vqbet.stages.progress import Watch

ROOT = Path(__file__).resolve().parent.parent.parent
VERSION = "outs:\n- md5: {md5}\n  size: 10\n  nfiles: 2\n  hash: md5\n  path: data\n"
LOCK = """schema: '2.0'
stages:
  validate@blockpush:
    deps:
    - path: data/blockpush.zarr
      hash: md5
  validate@pusht:
    deps:
    - path: data/pusht.zarr
      hash: md5
    outs:
    - path: artifacts/pusht/validation
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A clone whose data.dvc has blockpush and pusht, and whose data/ has neither."""
    root = tmp_path / "a clone"
    (root / ".dvc").mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", root], check=True)
    md5 = "ab" * 16 + ".dir"
    (root / "data.dvc").write_text(VERSION.format(md5=md5))
    manifest = root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    manifest.parent.mkdir(parents=True)
    names = ("blockpush.zarr/manifest.json", "pusht.zarr/manifest.json", "pusht.source.json")
    manifest.write_text(json.dumps([{"md5": "0" * 32, "relpath": name} for name in names]))
    return root


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / "data" / name).mkdir(parents=True)


def test_what_is_there_or_brought_in_is_not_missing(root: Path) -> None:
    assert versions.stores(root) == ["blockpush.zarr", "pusht.zarr"]
    put(root, "blockpush.zarr")
    completeness.check(root, "pusht")
    put(root, "pusht.zarr")
    completeness.check(root, "kitchen")


def test_what_would_be_lost_is_named_with_what_brings_it_back(root: Path) -> None:
    sentence = r"data: lacks blockpush\.zarr, .*Nothing was done; .*ingest blockpush` or .*`dvc pull data\.dvc`"
    with pytest.raises(PipelineError, match=sentence):
        completeness.check(root, "pusht")
    with pytest.raises(PipelineError, match=r"lacks blockpush\.zarr, pusht\.zarr, .*ingest pusht <path or URL>`"):
        completeness.check(root, "kitchen")
    (root / "data.dvc").unlink()
    completeness.check(root, "kitchen")


def test_a_fresh_clone_knows_from_the_lock(root: Path) -> None:
    """It has neither the cache nor, as the remote lies in .vqbet, anything to pull from."""
    shutil.rmtree(root / ".dvc" / "cache")
    completeness.check(root, "kitchen")
    (root / "dvc.lock").write_text(LOCK)
    assert versions.stores(root) == ["blockpush.zarr", "pusht.zarr"]
    with pytest.raises(PipelineError, match=r"lacks blockpush\.zarr,"):
        completeness.check(root, "pusht")


def test_the_committed_lock_is_read_as_dvc_writes_it(tmp_path: Path) -> None:
    for name in ("data.dvc", "dvc.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    assert versions.stores(tmp_path) == ["blockpush.zarr"]


@pytest.mark.parametrize("text", ["{", "[1]", '[{"md5": 1}]', "{}"])
def test_a_broken_manifest_is_none(root: Path, text: str) -> None:
    (manifest,) = (root / ".dvc" / "cache").rglob("*.dir")
    manifest.write_text(text)
    assert versions.stores(root) == []


def test_ingest_refuses_before_it_does_anything(root: Path) -> None:
    params = config.task(ROOT / "params.yaml", "pusht")
    with pytest.raises(PipelineError, match=r"lacks blockpush\.zarr"):
        ingest.collect(root, "pusht", params, "nowhere.zarr", Watch())
    assert not (root / "data").exists()


def test_without_git_it_says_git_init(root: Path) -> None:
    shutil.rmtree(root / ".git")
    with pytest.raises(PipelineError, match=r"is not in a git repository, .*run `git init` there"):
        completeness.check(root, "pusht")
