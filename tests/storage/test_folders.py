"""Evidence in a bucket: whole or invisible, whoever dies while it is put; on the way back nothing is believed."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from s3transfer.utils import ChunksizeAdjuster

from tests.support.s3_faults import (
    Answer,
    Between,
    Forward,
    Request,
    after,
    cut,
    fails,
    flip_down,
    flip_up,
    lost,
    silent,
)
from vqbet import storage
from vqbet.contract import StorageError
from vqbet.storage import folders, objects

PART = 2**16
FILES = {
    "plan.json": b"{}",
    "films/candidate-7.webm": bytes(range(256)) * 8,
    "records.jsonl": b"",
    "films/large.webm": hashlib.sha256(b"film").digest() * (5 * 2**10) + b"end",
}
Faults = Callable[[Request, Forward], Answer | None]


@pytest.fixture
def bucket(s3: Between, monkeypatch: pytest.MonkeyPatch) -> storage.Bucket:
    """With small parts."""
    small_parts(monkeypatch)
    return storage.Bucket.at(f"s3://{s3.bucket}/team")


def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let moto and boto3's transfer take parts that S3 would not."""
    assert objects.PART_BYTES >= 5 * 2**20
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", PART)
    monkeypatch.setattr("s3transfer.upload.ChunksizeAdjuster", partial(ChunksizeAdjuster, min_size=PART))
    for name in ("MULTIPART_BYTES", "PART_BYTES"):
        monkeypatch.setattr(objects, name, PART)


def made(store: Path, files: Mapping[str, bytes] = FILES, **listed: Any) -> Path:
    """A folder of evidence, named by its manifest, in which `listed` may replace what is said of the files."""
    entries = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    manifest = json.dumps({"version": 1, "files": entries, **listed}).encode()
    folder = store / hashlib.sha256(manifest).hexdigest()
    for name, data in {**files, "manifest.json": manifest}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made(tmp_path / "made here")


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pending(s3: Between, moto: str) -> list[str]:
    """Keys of multipart uploads that were begun and not ended, asked of moto itself."""
    found = boto3.client("s3", endpoint_url=moto).list_multipart_uploads(Bucket=s3.bucket)
    return [upload["Key"] for upload in found.get("Uploads", [])]


def unseen(bucket: storage.Bucket, folder: Path, store: Path) -> None:
    """No reader finds the evidence, and none leaves anything behind by trying."""
    assert not any(key.endswith("manifest.json") for key in bucket.keys(""))
    with pytest.raises(StorageError, match=r"expected one verdict whose id begins with .* found 0; there are: none"):
        bucket.fetch_folder(folder.name[:12], store)
    assert not store.exists() or list(store.iterdir()) == []


class TestPut:
    def test_there_and_back(self, bucket: storage.Bucket, s3: Between, folder: Path, tmp_path: Path, moto: str) -> None:
        assert bucket.put_folder(folder.name, folder) == f"s3://{s3.bucket}/team/evidence/{folder.name}"
        fetched = bucket.fetch_folder(folder.name[:6], tmp_path / "a store")
        assert fetched == tmp_path / "a store" / folder.name
        assert content(fetched) == content(folder)
        assert [path.name for path in fetched.parent.iterdir()] == [folder.name]
        assert s3.sent("PUT")[-1].endswith(f"/team/evidence/{folder.name}/manifest.json")
        assert pending(s3, moto) == []
        large = [path for path in s3.sent("PUT") if path.endswith("large.webm")]
        assert len(large) == 3  # two whole parts and the rest

    def test_again_sends_nothing(self, bucket: storage.Bucket, s3: Between, folder: Path) -> None:
        first = bucket.put_folder(folder.name, folder)
        s3.seen.clear()
        assert bucket.put_folder(folder.name, folder) == first
        assert {request.method for request in s3.seen} == {"HEAD"}

    def test_the_manifest_waits_for_all_others(self, bucket: storage.Bucket, s3: Between, folder: Path) -> None:
        bucket.put_folder(folder.name, folder)
        paths = [(request.method, request.path) for request in s3.seen]
        manifest = next(index for index, (how, path) in enumerate(paths) if how == "PUT" and "manifest" in path)
        for name in FILES:
            assert any(how == "HEAD" and path.endswith(name) for how, path in paths[:manifest])
            asked = max(index for index, (how, path) in enumerate(paths) if how == "HEAD" and path.endswith(name))
            sent = max(index for index, (how, path) in enumerate(paths) if how in ("PUT", "POST") and name in path)
            assert sent < asked < manifest

    @pytest.mark.parametrize("name", ["films/large.webm", "plan.json"])
    def test_what_the_server_does_not_confirm(
        self, bucket: storage.Bucket, s3: Between, folder: Path, name: str, tmp_path: Path
    ) -> None:
        """It took the bytes and holds others: the manifest is not put."""

        def other(request: Request, forward: Forward) -> Answer:
            answer = forward(request)
            kept = {key: "x" if "checksum-sha256" in key.lower() else value for key, value in answer.headers.items()}
            return replace(answer, headers=kept)

        s3.plan("HEAD", name, other, 99)
        with pytest.raises(StorageError, match=rf"{name}: was uploaded, but the server does not say"):
            bucket.put_folder(folder.name, folder)
        unseen(bucket, folder, tmp_path / "store")

    def test_what_is_missing_or_changed_here(self, bucket: storage.Bucket, folder: Path, tmp_path: Path) -> None:
        (folder / "plan.json").write_bytes(b"[]")
        with pytest.raises(StorageError, match=r"plan\.json: is not the file that manifest\.json lists"):
            bucket.put_folder(folder.name, folder)
        (folder / "plan.json").unlink()
        with pytest.raises(StorageError, match=r"cannot be put: .*plan\.json: No such file"):
            bucket.put_folder(folder.name, folder)
        with pytest.raises(StorageError, match=r"manifest\.json: was changed: its hash is not abc, which names"):
            bucket.put_folder("abc", folder)
        unseen(bucket, folder, tmp_path / "store")

    def test_a_composite_checksum_may_say_its_parts(
        self, bucket: storage.Bucket, s3: Between, folder: Path, tmp_path: Path
    ) -> None:
        """S3 says "<hash>-<parts>" where moto says "<hash>"."""

        def says(request: Request, forward: Forward) -> Answer:
            answer = forward(request)
            kept = {key: f"{value}-3" if "sha256" in key.lower() else value for key, value in answer.headers.items()}
            return replace(answer, headers=kept)

        s3.plan("HEAD", "large.webm", says, 99)
        bucket.put_folder(folder.name, folder)
        assert content(bucket.fetch_folder(folder.name, tmp_path / "store")) == content(folder)
        s3.seen.clear()
        bucket.put_folder(folder.name, folder)
        assert {request.method for request in s3.seen} == {"HEAD"}, "it was not known again"


class TestMultipart:
    @pytest.mark.parametrize(
        ("fault", "said"),
        [
            (fails(403, "AccessDenied"), "AccessDenied; allow"),
            (flip_up, "BadDigest; bytes changed"),
            (fails(404, "NoSuchUpload"), "NoSuchUpload; another process"),
        ],
    )
    def test_a_failure_leaves_no_upload(
        self, bucket: storage.Bucket, s3: Between, folder: Path, moto: str, tmp_path: Path, fault: Faults, said: str
    ) -> None:
        s3.plan("PUT", "partNumber=2", fault, 1)
        with pytest.raises(StorageError, match=f"large.webm: cannot be uploaded: {said}"):
            bucket.put_folder(folder.name, folder)
        assert pending(s3, moto) == []
        unseen(bucket, folder, tmp_path / "store")
        bucket.put_folder(folder.name, folder)
        assert content(bucket.fetch_folder(folder.name, tmp_path / "store")) == content(folder)

    def test_faults_that_pass(self, bucket: storage.Bucket, s3: Between, folder: Path, moto: str) -> None:
        s3.plan("PUT", "partNumber=2", fails(503, "SlowDown"), 1)
        s3.plan("PUT", "partNumber=3", silent, 1)
        s3.plan("POST", "uploadId=", lost, 1)
        bucket.put_folder(folder.name, folder)
        assert pending(s3, moto) == []

    def test_ctrl_c_leaves_no_upload(
        self, bucket: storage.Bucket, s3: Between, folder: Path, moto: str, tmp_path: Path
    ) -> None:
        s3.plan("PUT", "partNumber=2", after(lambda: os.kill(os.getpid(), signal.SIGINT)))
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        try:
            with pytest.raises(KeyboardInterrupt):
                bucket.put_folder(folder.name, folder)
        finally:
            signal.signal(signal.SIGINT, before)
        assert pending(s3, moto) == []
        unseen(bucket, folder, tmp_path / "store")

    def test_complete_and_the_answer_got_lost(
        self, bucket: storage.Bucket, s3: Between, folder: Path, tmp_path: Path
    ) -> None:
        """Repeated, it finds no such upload; the object says whether it was made. Moto repeats itself, S3 need not."""
        s3.plan("POST", "uploadId=", lost, 1)
        s3.plan("POST", "uploadId=", fails(404, "NoSuchUpload"), 1)
        bucket.put_folder(folder.name, folder)
        assert content(bucket.fetch_folder(folder.name, tmp_path / "store")) == content(folder)

    def test_no_such_upload_and_no_object(
        self, bucket: storage.Bucket, s3: Between, folder: Path, tmp_path: Path
    ) -> None:
        s3.plan("POST", "uploadId=", fails(404, "NoSuchUpload"), 1)
        with pytest.raises(StorageError, match=r"large\.webm: was uploaded, but the server does not say"):
            bucket.put_folder(folder.name, folder)
        unseen(bucket, folder, tmp_path / "store")

    def test_begun_twice_since_an_answer_got_lost(
        self, bucket: storage.Bucket, s3: Between, folder: Path, moto: str
    ) -> None:
        s3.plan("POST", "?uploads", lost, 1)
        bucket.put_folder(folder.name, folder)
        assert pending(s3, moto) == []

    def test_only_uploads_of_the_same_file_are_ended(
        self, bucket: storage.Bucket, s3: Between, folder: Path, moto: str
    ) -> None:
        direct = boto3.client("s3", endpoint_url=moto)
        same = f"team/evidence/{folder.name}/films/large.webm"
        for key in (same, f"{same}.other", "another"):
            direct.create_multipart_upload(Bucket=s3.bucket, Key=key)
        bucket.put_folder(folder.name, folder)
        assert sorted(pending(s3, moto)) == ["another", f"{same}.other"]

    def test_one_that_another_process_ended_meanwhile(
        self, bucket: storage.Bucket, s3: Between, folder: Path, moto: str
    ) -> None:
        key = f"team/evidence/{folder.name}/films/large.webm"
        boto3.client("s3", endpoint_url=moto).create_multipart_upload(Bucket=s3.bucket, Key=key)
        s3.plan("DELETE", "large.webm", fails(404, "NoSuchUpload"))
        bucket.put_folder(folder.name, folder)
        assert set(s3.sent("DELETE")) == {f"/{s3.bucket}/{key}"}
        assert pending(s3, moto) == []
        assert bucket.keys(f"evidence/{folder.name}/") == sorted(
            f"evidence/{folder.name}/{name}" for name in content(folder)
        )


def put_in_child(address: str, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        small_parts(patch)
        storage.Bucket.at(address).put_folder(folder.name, folder)


@pytest.mark.parametrize("where", ["partNumber=2", "records.jsonl", "manifest.json"])
def test_killed_on_the_way(
    bucket: storage.Bucket, s3: Between, folder: Path, tmp_path: Path, moto: str, where: str
) -> None:
    """With SIGKILL, while the server has a request that it will not carry out."""
    child = multiprocessing.get_context("spawn").Process(target=put_in_child, args=(f"s3://{s3.bucket}/team", folder))

    def kill(request: Request, forward: Forward) -> None:
        os.kill(child.pid or 0, signal.SIGKILL)

    s3.plan("PUT", where, kill)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert bool(pending(s3, moto)) == (where == "partNumber=2")
    unseen(bucket, folder, tmp_path / "store")
    bucket.put_folder(folder.name, folder)
    assert pending(s3, moto) == []
    assert content(bucket.fetch_folder(folder.name, tmp_path / "store")) == content(folder)


class TestFetch:
    @pytest.fixture
    def stored(self, bucket: storage.Bucket, folder: Path) -> storage.Bucket:
        bucket.put_folder(folder.name, folder)
        return bucket

    def test_none_and_several_are_listed(
        self, stored: storage.Bucket, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wanted = "a" if folder.name[0] != "a" else "b"
        with pytest.raises(StorageError, match=rf"begins with '{wanted}', found 0; there are: {folder.name[:12]}"):
            stored.fetch_folder(wanted, tmp_path)
        names = (folder.name, folder.name[:-1] + ("0" if folder.name[-1] != "0" else "1"))
        stored.object(f"evidence/{names[1]}/manifest.json").put(b"{}")
        with pytest.raises(StorageError, match=rf"found 2; there are of these: {folder.name[:12]}, {folder.name[:12]}"):
            stored.fetch_folder(folder.name[:8], tmp_path)
        with pytest.raises(StorageError, match=r"manifest\.json: was changed: its hash is not"):
            stored.fetch_folder(names[1], tmp_path)

    @pytest.mark.parametrize("prefix", ["", "xyz", "../..", "a" * 65, "A"])
    def test_what_is_no_id(self, bucket: storage.Bucket, tmp_path: Path, prefix: str) -> None:
        with pytest.raises(StorageError, match="expected the beginning of a verdict's id, which is hexadecimal"):
            bucket.fetch_folder(prefix, tmp_path)

    @pytest.mark.parametrize("name", [*FILES, "manifest.json"])
    def test_one_byte_changed_in_the_bucket(
        self, stored: storage.Bucket, s3: Between, folder: Path, tmp_path: Path, moto: str, name: str
    ) -> None:
        """By somebody who may write there: size and the server's own checksum fit the new bytes."""
        data = (folder / name).read_bytes()
        changed = data[:-1] + bytes([data[-1] ^ 1]) if data else b"x"
        boto3.client("s3", endpoint_url=moto).put_object(
            Bucket=s3.bucket, Key=f"team/evidence/{folder.name}/{name}", Body=changed, ChecksumAlgorithm="SHA256"
        )
        with pytest.raises(StorageError, match=rf"{name}: (was changed|expected at most 0 bytes)"):
            stored.fetch_folder(folder.name, tmp_path / "store")
        assert not (tmp_path / "store").exists() or list((tmp_path / "store").iterdir()) == []
        if name != "manifest.json":
            stored.put_folder(folder.name, folder)
            assert content(stored.fetch_folder(folder.name, tmp_path / "store")) == content(folder)

    def test_one_that_is_missing_and_put_again(
        self, stored: storage.Bucket, s3: Between, folder: Path, tmp_path: Path, moto: str
    ) -> None:
        key = f"team/evidence/{folder.name}/records.jsonl"
        boto3.client("s3", endpoint_url=moto).delete_object(Bucket=s3.bucket, Key=key)
        with pytest.raises(StorageError, match=r"records\.jsonl: is missing; put the evidence again"):
            stored.fetch_folder(folder.name, tmp_path / "store")
        assert list((tmp_path / "store").iterdir()) == []
        stored.put_folder(folder.name, folder)
        assert content(stored.fetch_folder(folder.name, tmp_path / "store")) == content(folder)

    @pytest.mark.parametrize("name", ["films/large.webm", "plan.json"])
    def test_wrong_bytes_on_the_way_back(
        self, stored: storage.Bucket, s3: Between, folder: Path, tmp_path: Path, name: str
    ) -> None:
        """Of an object in parts the client has no checksum from the server; the manifest has it."""
        s3.plan("GET", name, flip_down, 99)
        with pytest.raises(StorageError, match=rf"{name}: .*changed"):
            stored.fetch_folder(folder.name, tmp_path / "store")
        assert list((tmp_path / "store").iterdir()) == []

    def test_a_connection_cut_in_the_middle(
        self, stored: storage.Bucket, s3: Between, folder: Path, tmp_path: Path
    ) -> None:
        s3.plan("GET", "large.webm", cut, 2)
        assert content(stored.fetch_folder(folder.name, tmp_path / "store")) == content(folder)

    def test_two_at_once_leave_one(self, stored: storage.Bucket, s3: Between, folder: Path, tmp_path: Path) -> None:
        """Both arrive or one is told why; what is there is whole."""
        together, told = threading.Barrier(2), []

        def fetch() -> None:
            together.wait()
            try:
                stored.fetch_folder(folder.name, tmp_path / "store")
            except StorageError as error:
                told.append(str(error))

        threads = [threading.Thread(target=fetch) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(told) <= 1
        assert all("another process is writing there" in sentence for sentence in told)
        assert [path.name for path in (tmp_path / "store").iterdir()] == [folder.name]
        assert content(tmp_path / "store" / folder.name) == content(folder)

    def test_a_place_where_nothing_can_be_written(self, stored: storage.Bucket, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match=r"cannot be written: (File exists|Not a directory)"):
            stored.fetch_folder(folder.name, tmp_path / "file")


class TestHostile:
    """Manifests that hash to their id and mean harm."""

    def put(self, bucket: storage.Bucket, manifest: bytes) -> str:
        name = hashlib.sha256(manifest).hexdigest()
        bucket.object(f"evidence/{name}/manifest.json").put(manifest)
        return name

    @pytest.mark.parametrize(
        "name",
        [
            *("../x", "/etc/x", "a/../../x", "films/../../../x", "a//b", "", ".", "..", "a/", ".hidden"),
            *("a\\b", "a\x00b", "a\nb", "é", "manifest.json"),
        ],
    )
    def test_names_that_are_none(self, bucket: storage.Bucket, s3: Between, tmp_path: Path, name: str) -> None:
        listed = {name: {"bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}}
        made = self.put(bucket, json.dumps({"files": listed}).encode())
        s3.seen.clear()
        with pytest.raises(StorageError, match=r"lists .*, which is no name for a file"):
            bucket.fetch_folder(made, tmp_path / "in" / "store")
        assert list(tmp_path.iterdir()) == []
        assert len(s3.sent("GET")) == 2  # the listing and the manifest, and nothing that it names

    @pytest.mark.parametrize(
        ("entry", "said"),
        [
            ({"bytes": 2**40, "sha256": "x"}, f"expected 0 to {objects.MAX_BYTES} bytes, got {2**40}"),
            ({"bytes": -1, "sha256": "x"}, "got -1"),
            ({"bytes": True, "sha256": "x"}, "got True"),
            ({"bytes": "1", "sha256": "x"}, "got '1'"),
            ({"bytes": 1}, "is not a manifest of evidence: a: expected bytes and sha256"),
            ({"bytes": 1, "sha256": "x"}, "is not a manifest of evidence: a: expected a sha256, got 'x'"),
            (3, "is not a manifest of evidence: a: expected bytes and sha256, got 3"),
        ],
    )
    def test_entries_that_are_none(self, bucket: storage.Bucket, tmp_path: Path, entry: Any, said: str) -> None:
        made = self.put(bucket, json.dumps({"files": {"a": entry}}).encode())
        with pytest.raises(StorageError, match=said):
            bucket.fetch_folder(made, tmp_path / "store")

    @pytest.mark.parametrize("manifest", [b"", b"\xff", b"[]", b"{}", b'{"files": []}', b"[" * 200_000])
    def test_manifests_that_are_none(self, bucket: storage.Bucket, tmp_path: Path, manifest: bytes) -> None:
        made = self.put(bucket, manifest)
        with pytest.raises(StorageError, match=r"manifest\.json: is not a manifest of evidence"):
            bucket.fetch_folder(made, tmp_path / "store")

    def test_more_than_anybody_packs(
        self, bucket: storage.Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        listed = {f"f{index}": {"bytes": 10, "sha256": "0" * 64} for index in range(3)}
        made = self.put(bucket, json.dumps({"files": listed}).encode())
        for name, limit in (("MAX_FILES", 2), ("MAX_FOLDER_BYTES", 29)):
            with monkeypatch.context() as patch:
                patch.setattr(folders, name, limit)
                with pytest.raises(StorageError, match=r"expected at most .* got 3 and 30"):
                    bucket.fetch_folder(made, tmp_path / "store")
        monkeypatch.setattr(folders, "MAX_MANIFEST_BYTES", 20)
        with pytest.raises(StorageError, match=r"manifest\.json: expected at most 20 bytes"):
            bucket.fetch_folder(made, tmp_path / "store")

    def test_an_object_larger_than_it_is_listed(self, bucket: storage.Bucket, tmp_path: Path) -> None:
        listed = {"a": {"bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}}
        made = self.put(bucket, json.dumps({"files": listed}).encode())
        bucket.object(f"evidence/{made}/a").put(b"x" * 1000)
        with pytest.raises(StorageError, match="/a: expected at most 1 bytes"):
            bucket.fetch_folder(made, tmp_path / "store")

    def test_a_file_that_is_a_folder_too(self, bucket: storage.Bucket, tmp_path: Path) -> None:
        one = {"bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
        made = self.put(bucket, json.dumps({"files": {"a": one, "a/b": one}}).encode())
        for name in ("a", "a/b"):
            bucket.object(f"evidence/{made}/{name}").put(b"x")
        with pytest.raises(StorageError, match=r"cannot be written: (File exists|Not a directory)"):
            bucket.fetch_folder(made, tmp_path / "store")
        assert list((tmp_path / "store").iterdir()) == []
