"""Where demonstrations came from: recorded at ingest, without secrets, and told only of the store they became."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.support.synthetic import synthetic
from vqbet import config
from vqbet.commands import ingest, origin
from vqbet.commands.origin import Origin
from vqbet.demos import store
from vqbet.demos.importers import fetch
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

ROOT = Path(__file__).resolve().parent.parent.parent
FORMAT = "replay buffer, Zarr v2"


def replay_buffer(folder: Path) -> Path:
    """Six short episodes in the layout of Push-T's: the finger goes round, and the keypoints with it."""
    steps = np.arange(6 * 40)
    turn = (0.1 * steps + steps // 40)[:, None]
    finger = np.concatenate([256 + 90 * np.cos(turn), 256 + 90 * np.sin(1.3 * turn)], axis=1)
    keypoint = np.stack([finger + 5 * index + 3 * np.sin(turn * index) for index in range(9)], axis=1)
    state = np.concatenate([finger, finger + 20, np.sin(turn)], axis=1)
    arrays = {"data/state": state, "data/keypoint": keypoint, "data/action": np.roll(finger, -1, axis=0)}
    group = zarr.open_group(folder, mode="w", zarr_format=2)
    for name, values in arrays.items():
        made = group.create_array(
            name, shape=values.shape, chunks=(60, *values.shape[1:]), dtype="f4", compressors=None
        )
        made[:] = values
    ends = group.create_array("meta/episode_ends", shape=(6,), chunks=(6,), dtype="i8", compressors=None)
    ends[:] = 40 * np.arange(1, 7)
    return folder


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Whether its numbers are fit for training is not asked here."""
    monkeypatch.setattr(ingest.validate, "raise_for_errors", lambda *_: None)
    return replay_buffer(tmp_path / "given" / "robot seven.zarr")


def ingested(root: Path, source: str) -> str:
    """The digest of the store that was made."""
    params = config.task(ROOT / "params.yaml", "pusht")
    return ingest.collect(root, "pusht", params, source, Watch()).digest


def shared(root: Path) -> dict[str, str]:
    return json.loads((root / "data" / "pusht.source.json").read_text())


@pytest.mark.slow
def test_a_folder_is_recorded_as_what_it_is(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    digest = ingested(root, str(source.parent))
    lines = sorted(
        f"{path.relative_to(source).as_posix()}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n"
        for path in source.rglob("*")
        if path.is_file()
    )
    whole = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert shared(root) == {
        "store": digest,
        "name": "robot seven.zarr",
        "format": f"{FORMAT}, folder",
        "sha256": whole,
        "address": "",
    }
    told = origin.told(Paths(root, "pusht"), digest)
    assert told.startswith(f"robot seven.zarr ({FORMAT}, folder), sha256 {whole}, from {source}, ingested 20")
    assert "published" not in store.read(Paths(root, "pusht").store).columns["session"]


@pytest.mark.slow
def test_the_same_from_elsewhere_is_the_same_version(source: Path, tmp_path: Path) -> None:
    """No path and no time is in what is versioned, neither in the store nor beside it."""
    moved = shutil.copytree(source, tmp_path / "a stick" / source.name)
    roots = tmp_path / "here", tmp_path / "there"
    for root, given in zip(roots, (source, moved), strict=True):
        ingested(root, str(given))
    contents = [
        {path.relative_to(root): path.read_bytes() for path in (root / "data").rglob("*") if path.is_file()}
        for root in roots
    ]
    assert contents[0] == contents[1]
    assert str(tmp_path).encode() not in b"".join(contents[0].values())


@pytest.fixture
def served(source: Path, tmp_path: Path) -> Iterator[tuple[str, bytes]]:
    """The address of a server of the source as an archive, and its bytes."""
    content = Path(shutil.make_archive(str(tmp_path / "archive"), "zip", source.parent)).read_bytes()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/set.zip", content
    server.shutdown()
    server.server_close()


def test_a_download_is_recorded_by_the_archive(
    served: tuple[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VQBET_PRIVATE_SOURCES", "1")
    address, content = served
    heard: list[str] = []
    folder = fetch.fetch(address, tmp_path / "into", max_bytes=10**8, hashed=heard.append)
    assert heard == [hashlib.sha256(content).hexdigest()]
    found = origin.imported(f"{address}?token=abc", folder, FORMAT, heard[0])
    assert (found.name, found.address, found.sha256) == ("set.zip", address, heard[0])
    assert found.place == ""


@pytest.mark.parametrize(
    "address",
    ["https://ann:secret@host.org:8443/a/set.zip", "https://secret@host.org:8443/a/set.zip?key=secret#secret"],
)
def test_no_secret_of_an_address_is_kept(address: str, tmp_path: Path) -> None:
    found = origin.imported(address, tmp_path, FORMAT, "0" * 64)
    assert found.address == "https://host.org:8443/a/set.zip"
    assert "secret" not in found.sentence()


def test_a_local_archive(source: Path, tmp_path: Path) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "made"), "zip", source.parent))
    found = origin.imported(str(archive), archive, FORMAT, "")
    assert found.sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert (found.name, found.format, found.place) == ("made.zip", f"{FORMAT}, archive", str(archive))


class TestTold:
    @pytest.fixture
    def paths(self, tmp_path: Path) -> Paths:
        return Paths(tmp_path, "synthetic")

    @pytest.fixture
    def digest(self, paths: Paths) -> str:
        return store.write(paths.store, synthetic(4, seed=0))

    def test_before_sources_were_recorded(self, paths: Paths, digest: str) -> None:
        assert origin.told(paths, digest) == origin.UNKNOWN

    def test_a_record_of_another_store_is_not_taken(self, paths: Paths, digest: str) -> None:
        origin.keep(paths, "a" * 64, Origin("other.zarr", "f", "0" * 64), versioned=True)
        assert origin.told(paths, digest) == origin.UNKNOWN
        assert origin.told(paths, "a" * 64).startswith("other.zarr (f)")

    def test_another_clone_has_the_versioned_part(self, paths: Paths, digest: str, tmp_path: Path) -> None:
        origin.keep(paths, digest, Origin("set.zarr", "f", "0" * 64, place="/home/ann/set.zarr"), versioned=True)
        there = tmp_path / "clone"
        shutil.copytree(paths.root / "data", there / "data")
        assert origin.told(Paths(there, "synthetic"), digest) == f"set.zarr (f), sha256 {'0' * 64}"

    def test_the_time_of_the_same_making_is_kept(self, paths: Paths, digest: str) -> None:
        made = Origin("set.zarr", "f", "0" * 64)
        origin.keep(paths, digest, made, versioned=True)
        record = paths.scratch("ingested") / f"{digest}.json"
        record.write_text(record.read_text().replace('"when": "20', '"when": "19'))
        origin.keep(paths, digest, made, versioned=True)
        assert "ingested 19" in origin.told(paths, digest)
        origin.keep(paths, digest, replace(made, sha256="1" * 64), versioned=True)
        assert "ingested 20" in origin.told(paths, digest)

    def test_an_oracle_takes_the_place_of_an_import(self, paths: Paths, digest: str) -> None:
        origin.keep(paths, digest, Origin("set.zarr", "f", "0" * 64), versioned=True)
        oracle = Origin("vqbet.tasks.an_oracle", "oracle", "2" * 64, place="4 episodes, seed 0")
        origin.keep(paths, digest, oracle, versioned=False)
        assert not (paths.root / "data" / "synthetic.source.json").exists()
        assert f"vqbet.tasks.an_oracle (oracle), sha256 {'2' * 64}, from 4 episodes, seed 0" in origin.told(
            paths, digest
        )

    def test_an_oracle_elsewhere_by_its_columns(self, paths: Paths) -> None:
        demos = synthetic(4, seed=0)
        columns = {**demos.columns, "operator": np.full(4, "oracle"), "source": np.full(4, "vqbet.tasks.somewhere")}
        digest = store.write(paths.store, replace(demos, columns=columns))
        assert origin.told(paths, digest) == "vqbet.tasks.somewhere (oracle), 4 episodes, made on another machine"

    @pytest.mark.parametrize("text", ["{", "[]", '{"store": 1}', "[" * 100_000])
    def test_a_broken_record_is_none(self, paths: Paths, digest: str, text: str) -> None:
        (paths.root / "data" / "synthetic.source.json").write_text(text)
        assert origin.told(paths, digest) == origin.UNKNOWN

    def test_a_record_cannot_write_on_the_terminal(self, paths: Paths, digest: str) -> None:
        origin.keep(paths, digest, Origin("\x1b[2Jset" + "x" * 10_000, "f\n", "0" * 64), versioned=True)
        told = origin.told(paths, digest)
        assert told.isprintable()
        assert len(told) < 1000
