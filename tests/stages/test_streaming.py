"""Training in a clone that has data.dvc and no data/: what is fetched, when, and what a fault of the remote says."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support import seeing_pusht
from tests.support.pictures import pictured
from tests.support.s3_faults import Between
from tests.support.shrunk import shrunk
from tests.versions.test_versions import git, project
from vqbet import bundle, versions
from vqbet.contract import Camera, ConfigError, Demonstrations, PipelineError, StoreError
from vqbet.demos import store
from vqbet.demos.store import manifest, shards
from vqbet.demos.windows import Windows
from vqbet.environment import processes
from vqbet.stages import prior, runner, streaming, tokenizer
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

pytestmark = pytest.mark.slow
TASK = "synthetic"
CAMERAS = (Camera("top", 24, 32), Camera("wrist", 8, 6))
ROWS = 50  # pictures in a file


@pytest.fixture(autouse=True)
def streaming_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(streaming.VARIABLE, "1")
    monkeypatch.delenv("DVC_SITE_CACHE_DIR", raising=False)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose data/ is pushed to a folder beside it; tests copy what they need of it."""
    folder = tmp_path_factory.mktemp("streaming")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_FRAMES", ROWS)
        return made(folder / "project", f"{folder / 'remote'}", pictured(6, cameras=CAMERAS), TASK)


def made(root: Path, remote: str, demos: Demonstrations, task: str) -> Path:
    """Return a new project with these demonstrations, pushed to the remote."""
    shutil.rmtree(project(root) / "data")
    store.write(Paths(root, task).store, demos)
    config = root / ".dvc" / "config"
    config.write_text(config.read_text().replace("url = ../.vqbet/remote", f"url = {remote}"))
    git(root, "add", ".")
    versions.add(root)
    versions.push(root)
    return root


def clone(root: Path, into: Path) -> Path:
    """Return a clone: what git knows, and data.dvc."""
    into.mkdir()
    (into / ".vqbet").mkdir()
    git(into, "init", "--quiet")
    shutil.copytree(root / ".dvc", into / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    shutil.copy(root / "data.dvc", into / "data.dvc")
    return into


@pytest.fixture
def root(local: Path, tmp_path: Path) -> Path:
    return clone(local, tmp_path / "clone")


def opened(root: Path, task: str = TASK) -> tuple[Paths, Demonstrations]:
    paths = streaming.of(Paths(root, task))
    return paths, store.read(paths.store, fetch=paths.fetch)


def cached(root: Path) -> set[str]:
    """Return the md5 of every object in the clone's cache."""
    home = root / ".dvc" / "cache" / "files" / "md5"
    return {file.parent.name + file.name for file in home.rglob("*") if file.is_file()}


def batches(demos: Demonstrations) -> list[dict[str, np.ndarray]]:
    windows = Windows(demos, window=2, chunk=3)
    order = np.random.default_rng(0).permutation(len(windows))
    return [windows.gather(order[first : first + 32]) for first in range(0, len(order), 32)]


def same(one: Demonstrations, other: Demonstrations) -> bool:
    pairs = zip(batches(one), batches(other), strict=True)
    return one.digest == other.digest and all(np.array_equal(a[name], b[name]) for a, b in pairs for name in a)


def broken(root: Path, name: str, change: Callable[[Path], None]) -> Path:
    """Change an object of a remote of the clone's own; return its path there."""
    remote = root / "remote"
    config = root / ".dvc" / "config"
    given = next(line.split("= ")[1] for line in config.read_text().splitlines() if "url =" in line)
    shutil.copytree(given, remote)
    config.write_text(config.read_text().replace(given, f"{remote}"))
    md5 = versions.Streamed.of(root, f"{TASK}.zarr").files[name]
    place = remote / "files" / "md5" / md5[:2] / md5[2:]
    place.chmod(0o644)
    change(place)
    return place


def test_batches_are_those_of_the_whole_store_and_files_come_when_they_are_needed(local: Path, root: Path) -> None:
    paths, demos = opened(root)
    assert paths.fetch is not None
    assert not (root / "data").exists()
    listed = manifest.read(Paths(local, TASK).store).files
    numbers = {name for name in listed if not manifest.pictures(name)} | {manifest.NAME}
    assert {path.relative_to(paths.store).as_posix() for path in paths.store.rglob("*") if path.is_file()} == numbers
    before = cached(root)
    demos.cameras["top"][np.array([ROWS])]
    assert len(cached(root) - before) == 1, "the file of one picture"
    assert same(demos, store.read(Paths(local, TASK).store))
    assert len(cached(root) - before) == sum(manifest.pictures(name) for name in listed)
    assert copy.copy(paths.fetch)("manifest.json") == paths.fetch("manifest.json"), "as a process of its own gets it"


def test_what_is_in_the_cache_needs_no_remote(root: Path) -> None:
    first = opened(root)[1]
    batches(first)
    config = root / ".dvc" / "config"
    config.write_text(config.read_text().replace("url = ", "url = /nowhere"))
    assert same(opened(root)[1], first)
    dvc_sees = versions.dvc(root, "checkout", "data.dvc")
    assert "A" in dvc_sees
    assert same(store.verify(Paths(root, TASK).store), first), "and DVC takes it from there"


def test_from_s3_a_prior_is_trained_to_the_same_bits(
    s3: Between, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").touch()
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "empty"))  # DVC wants a plain file
    task, params = seeing_pusht.TASK, shrunk(seeing_pusht.TASK)
    whole = made(tmp_path / "whole", f"s3://{s3.bucket}/dvc", seeing_pusht.demonstrations(), task)
    digests = []
    for root in (whole, clone(whole, tmp_path / "clone")):
        paths = streaming.of(Paths(root, task))
        for stage in (tokenizer, prior):
            stage.run(paths, params, Watch())
        digests.append(bundle.read(paths.prior).digest)
    assert paths.store != Paths(root, task).store
    assert digests[0] == digests[1]


@pytest.mark.parametrize("name", ["data/camera/top/c.1.0.0.0", "manifest.json"])
def test_a_broken_object_is_named_and_stays_away(root: Path, name: str) -> None:
    place = broken(root, name, lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"))
    with pytest.raises(PipelineError) as caught:
        opened(root)[1].cameras["top"][np.array([ROWS])]
    assert f"{place} ({name}): damaged in the remote" in str(caught.value)
    assert place.parent.name + place.name not in cached(root)
    assert not list((root / ".dvc" / "cache").rglob("*.tmp"))


def test_a_missing_object_is_named(root: Path) -> None:
    place = broken(root, "data/camera/wrist/c.0.0.0.0", Path.unlink)
    with pytest.raises(PipelineError) as caught:
        opened(root)[1].cameras["wrist"][np.array([0])]
    assert f"{place} (data/camera/wrist/c.0.0.0.0): missing in the remote" in str(caught.value)


def test_the_cache_is_not_believed(root: Path) -> None:
    """Planted fault: an object of the right name with other bytes, as a broken disk leaves it."""
    paths, demos = opened(root)
    assert paths.fetch is not None
    place = paths.fetch("data/camera/top/c.0.0.0.0")
    place.chmod(0o644)
    place.write_bytes(place.read_bytes()[:-1] + b"?")
    with pytest.raises(StoreError, match=f"{place.name}: damaged, or replaced while it was read: its sha256"):
        demos.cameras["top"][np.array([0])]


KILLED = """
import os, signal, sys
from pathlib import Path
from vqbet.versions import Streamed, objects
fetch = Streamed.of(Path(sys.argv[1]), "synthetic.zarr")
stores = objects.kept(Path(sys.argv[1]))
whole = stores._remote.fs.get_file
def half(source, target):
    whole(source, target)
    os.truncate(target, 100)
    os.kill(os.getpid(), signal.SIGKILL)
stores._remote.fs.get_file = half
fetch._process, fetch._stores = os.getpid(), stores
fetch("data/camera/top/c.0.0.0.0")
"""


def test_a_kill_leaves_no_half_file(root: Path, local: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(root)], check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    (left,) = (root / ".dvc" / "cache").rglob("*.tmp")
    assert left.stat().st_size == 100, "planted fault: it was being written"
    assert same(opened(root)[1], store.read(Paths(local, TASK).store))


def test_a_version_without_the_task_says_so(root: Path) -> None:
    with pytest.raises(PipelineError, match=r"data\.dvc: version [0-9a-f]{12} has no kitchen\.zarr; run `vqbet ingest"):
        streaming.of(Paths(root, "kitchen"))


def test_a_name_that_leaves_the_store_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = json.dumps([{"relpath": f"{TASK}.zarr/../../x", "md5": "0" * 32}])
    forged = root / "forged.dir"
    forged.write_text(listed)
    monkeypatch.setattr(versions.objects.Stores, "fetch", lambda self, oid, file: forged)
    with pytest.raises(PipelineError, match=r"lists '\.\./\.\./x', which names no file"):
        streaming.of(Paths(root, TASK))


def test_data_that_is_here_is_used_and_off_is_off(local: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert streaming.of(Paths(local, TASK)) == Paths(local, TASK)
    monkeypatch.setenv(streaming.VARIABLE, "0")
    assert streaming.of(Paths(root, TASK)) == Paths(root, TASK)


def test_stages_ask_before_anything_is_begun(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(streaming.VARIABLE, "100")
    monkeypatch.setattr(processes, "die_with_parent", lambda: None)
    for name in ("tokenizer", "features", "prior", "bundle"):
        with pytest.raises(ConfigError, match="VQBET_STREAM: expected 0 or 1, got '100'"):
            runner.run(root, "blockpush", name, shrunk("blockpush"), Watch())


def test_a_folder_of_numbers_that_another_process_finished_is_taken(root: Path) -> None:
    paths = streaming.of(Paths(root, TASK))
    made_by_another = paths.store.rename(paths.store.with_name("aside"))
    fetch = versions.Streamed.of(root, f"{TASK}.zarr")
    assert paths.fetch is not None

    class Slow:
        files = fetch.files

        def __call__(self, name: str) -> Path:
            if made_by_another.exists():
                made_by_another.rename(paths.store)
            return fetch(name)

    assert streaming._numbers(paths.store.parent, Slow()) == paths.store  # type: ignore[arg-type]
    assert [path.name for path in paths.store.parent.iterdir()] == [paths.store.name]
