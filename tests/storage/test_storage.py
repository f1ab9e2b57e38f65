"""A bucket on a real S3 server over HTTP: objects made once, and every way in which a request can go wrong."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import s3_faults
from tests.support.s3_faults import (
    Answer,
    Between,
    Forward,
    Request,
    cut,
    fails,
    flip_down,
    flip_up,
    hangs,
    lost,
    silent,
)
from vqbet import storage
from vqbet.contract import StorageError
from vqbet.storage import client, objects, patience

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = bytes(range(256)) * 40
SOON_S = 60.0  # of a busy core; botocore's own settings wait for minutes


@pytest.fixture
def bucket(s3: Between) -> storage.Bucket:
    return storage.Bucket.at(f"s3://{s3.bucket}/team/robots/")


class TestAddress:
    def test_not_set_stores_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("VQBET_STORAGE", raising=False)
        assert storage.configured() is None
        monkeypatch.setenv("VQBET_STORAGE", "")
        assert storage.configured() is None

    @pytest.mark.parametrize(
        ("address", "prefix"),
        [("s3://b-1.x", ""), ("s3://b-1.x/", ""), ("s3://b-1.x/a", "a/"), ("s3://b-1.x/a/b.c_d=1/", "a/b.c_d=1/")],
    )
    def test_bucket_and_prefix(self, s3: Between, address: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VQBET_STORAGE", address)
        bucket = storage.configured()
        assert bucket is not None
        assert (bucket.name, bucket.prefix) == ("b-1.x", prefix)
        assert bucket.address("k") == f"s3://b-1.x/{prefix}k"

    @pytest.mark.parametrize(
        "address",
        [
            *("b", "s3:/b", "s3://", "s3://b", "s3://B-1", "http://b/a", "s3://bucket//a", "s3://bucket/../a"),
            *("s3://bucket/a?b", "s3://bucket/.a", "s3://bücket", " s3://bucket", "s3://bucket/a\n"),
            "s3://key:very-secret@bucket/a",
        ],
    )
    def test_what_is_none(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VQBET_STORAGE", address)
        with pytest.raises(StorageError, match=r"VQBET_STORAGE: expected s3://<bucket> or .*unset it") as caught:
            storage.configured()
        assert "secret" not in str(caught.value)

    def test_an_endpoint_that_is_none(self, s3: Between, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "not an address")
        with pytest.raises(
            StorageError, match=r"s3://bucket/: cannot be opened: Invalid endpoint: .* correct the AWS_"
        ):
            storage.Bucket.at("s3://bucket")


class TestObjects:
    def test_made_once_read_and_listed(self, bucket: storage.Bucket, s3: Between) -> None:
        assert bucket.create("a/two", DATA)
        assert not bucket.create("a/two", b"other")
        assert bucket.create("a/one", b"")
        assert bucket.read("a/two") == DATA
        assert bucket.read("a/one") == b""
        assert bucket.read("a/three") is None
        assert bucket.keys("a/t") == ["a/two"]
        assert bucket.keys("") == ["a/one", "a/two"]
        assert storage.Bucket.at(f"s3://{s3.bucket}").keys("") == ["team/robots/a/one", "team/robots/a/two"]

    def test_every_body_goes_with_its_checksum(self, bucket: storage.Bucket, s3: Between) -> None:
        bucket.create("a", DATA)
        bucket.object("b").put(DATA)
        sent = [request for request in s3.seen if request.method == "PUT"]
        assert len(sent) == 3
        assert all(s3_faults.CHECKSUM in {name.lower() for name in request.headers} for request in sent)

    def test_all_pages_are_listed(self, bucket: storage.Bucket, s3: Between, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")
        names = [f"k{index}" for index in range(5)]
        for name in reversed(names):
            bucket.object(name).put(b"x")
        assert bucket.keys("k") == names
        assert len([path for path in s3.sent("GET") if path == f"/{s3.bucket}"]) == 3

    def test_too_large_is_not_read(self, bucket: storage.Bucket) -> None:
        bucket.object("a").put(DATA)
        with pytest.raises(StorageError, match=r"/a: expected at most 10239 bytes"):
            bucket.object("a").get(len(DATA) - 1)
        assert bucket.object("a").get(len(DATA)) is not None


class TestOnce:
    def test_of_sixteen_who_try_at_once_one_made_it(self, bucket: storage.Bucket) -> None:
        """Moto itself is not atomic here; the server in between lets one conditional put pass at a time, as S3 does."""
        start = threading.Barrier(16)

        def attempt(number: int) -> bool:
            start.wait()
            return bucket.create("lock", b"by %d" % number)

        with ThreadPoolExecutor(16) as pool:
            made = list(pool.map(attempt, range(16)))
        assert made.count(True) == 1
        assert bucket.read("lock") == b"by %d" % made.index(True)

    def test_of_sixteen_with_the_same_bytes_too(self, bucket: storage.Bucket) -> None:
        with ThreadPoolExecutor(16) as pool:
            assert list(pool.map(lambda _: bucket.create("lock", b"same"), range(16))).count(True) == 1

    @pytest.mark.parametrize("fault", [lost, silent])
    def test_an_answer_that_was_lost(self, bucket: storage.Bucket, s3: Between, fault: s3_faults.Fault) -> None:
        """The repeated request finds the key taken, by ourselves."""
        s3.plan("PUT", "/lock", fault)
        assert bucket.create("lock", DATA)
        assert bucket.read("lock") == DATA

    @pytest.mark.parametrize("data", [b"theirs", DATA])
    def test_an_answer_that_was_lost_and_the_key_was_taken(
        self, bucket: storage.Bucket, s3: Between, data: bytes
    ) -> None:
        bucket.object("lock").put(data)
        s3.plan("PUT", "/lock", fails(500, "InternalError"))
        assert not bucket.create("lock", DATA)
        assert bucket.read("lock") == data

    def test_a_lost_answer_and_other_bytes(self, bucket: storage.Bucket, s3: Between) -> None:
        """Ours by its writer, but not what was sent: nobody is told that it is there."""

        def changed(request: Request, forward: Forward) -> Answer | None:
            kept = {name: value for name, value in request.headers.items() if name.lower() != s3_faults.CHECKSUM}
            forward(replace(request, body=b"x" * len(request.body), headers=kept))
            return fails(500, "InternalError")(request, forward)

        s3.plan("PUT", "/lock", changed)
        assert not bucket.create("lock", DATA)

    def test_conflicts_pass(self, bucket: storage.Bucket, s3: Between) -> None:
        s3.plan("PUT", "/lock", fails(409, "ConditionalRequestConflict"), 3)
        assert bucket.create("lock", DATA)

    def test_conflicts_without_end(self, bucket: storage.Bucket, s3: Between, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vqbet.storage.bucket.PAUSE_S", 0.01)
        s3.plan("PUT", "/lock", fails(409, "ConditionalRequestConflict"), 99)
        with pytest.raises(StorageError, match=r"/lock: cannot be created: ConditionalRequestConflict"):
            bucket.create("lock", DATA)
        assert len(s3.sent("PUT")) == 6

    def test_a_server_that_takes_the_condition_and_ignores_it(self, bucket: storage.Bucket, s3: Between) -> None:
        def ignores(request: Request, forward: Forward) -> Answer:
            kept = {name: value for name, value in request.headers.items() if name.lower() != "if-none-match"}
            return forward(replace(request, headers=kept))

        s3.plan("PUT", "/lock", ignores, 99)
        with pytest.raises(StorageError, match="/lock: cannot be created once: the server ignores If-None-Match"):
            bucket.create("lock", DATA)


class TestFaults:
    def test_a_server_that_is_busy_now_and_then(self, bucket: storage.Bucket, s3: Between) -> None:
        for method in ("PUT", "HEAD", "GET"):
            s3.plan(method, "/a", fails(503, "SlowDown"), 2)
        bucket.object("a").put(DATA)
        assert bucket.read("a") == DATA

    def test_a_server_that_stays_busy(self, bucket: storage.Bucket, s3: Between) -> None:
        s3.plan("GET", "/a", fails(503, "SlowDown"), 99)
        with pytest.raises(StorageError, match=rf"^s3://{s3.bucket}/team/robots/a: cannot be read: SlowDown; see that"):
            bucket.read("a")
        assert 3 <= len(s3.sent("GET")) <= 6, "pauses of 0.2, 0.4, 0.8 s, at most for the patience of 1 s"

    def test_a_connection_cut_in_the_middle_of_a_body(self, bucket: storage.Bucket, s3: Between) -> None:
        bucket.object("a").put(DATA)
        s3.plan("GET", "/a", cut, 2)
        assert bucket.read("a") == DATA

    def test_a_connection_that_is_always_cut(self, bucket: storage.Bucket, s3: Between) -> None:
        bucket.object("a").put(DATA)
        s3.plan("GET", "/a", cut, 99)
        with pytest.raises(StorageError, match=r"/a: cannot be read: 5120 read, but total bytes expected is 10240"):
            bucket.read("a")
        assert len(s3.sent("GET")) == objects.READS

    def test_wrong_bytes_on_the_way_there_are_refused(self, bucket: storage.Bucket, s3: Between) -> None:
        s3.plan("PUT", "/a", flip_up)
        with pytest.raises(StorageError, match=r"/a: cannot be uploaded: BadDigest; bytes changed on the way"):
            bucket.object("a").put(DATA)
        assert bucket.read("a") is None

    def test_wrong_bytes_on_the_way_back(self, bucket: storage.Bucket, s3: Between) -> None:
        bucket.object("a").put(DATA)
        s3.plan("GET", "/a", flip_down, 1)
        assert bucket.read("a") == DATA
        s3.plan("GET", "/a", flip_down, 99)
        with pytest.raises(StorageError, match=r"/a: cannot be read: .*checksum.*; bytes changed on the way"):
            bucket.read("a")

    def test_a_server_that_keeps_no_checksum_confirms_nothing(self, bucket: storage.Bucket, s3: Between) -> None:
        def bare(request: Request, forward: Forward) -> Answer:
            answer = forward(request)
            kept = {name: value for name, value in answer.headers.items() if "checksum" not in name.lower()}
            return replace(answer, headers=kept)

        s3.plan("HEAD", "/a", bare, 99)
        with pytest.raises(StorageError, match=r"/a: was uploaded, but the server does not say .* SHA-256"):
            bucket.object("a").put(DATA)

    def test_a_bucket_that_is_missing(self, s3: Between) -> None:
        bucket = storage.Bucket.at("s3://nowhere-at-all/x")
        for action in (
            bucket.check,
            lambda: bucket.read("k"),
            lambda: bucket.keys(""),
            lambda: bucket.create("k", b""),
        ):
            with pytest.raises(StorageError, match=r"^s3://nowhere-at-all/x/.*NoSuchBucket; .*correct VQBET_STORAGE"):
                action()

    def test_access_denied(self, bucket: storage.Bucket, s3: Between) -> None:
        for method in ("PUT", "GET", "HEAD"):
            s3.plan(method, s3.bucket, fails(403, "AccessDenied"), 99)
        actions = (bucket.check, lambda: bucket.read("k"), lambda: bucket.create("k", b""), lambda: bucket.keys(""))
        for action in (*actions, lambda: bucket.object("k").put(b"")):
            with pytest.raises(StorageError, match=r"cannot be .*: AccessDenied; allow these credentials") as caught:
                action()
            assert "AKID" not in str(caught.value)
            assert "secret" not in str(caught.value)

    def test_no_credentials(self, s3: Between, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        with pytest.raises(
            StorageError, match=r"cannot be listed: Unable to locate credentials; correct AWS_ACCESS_KEY"
        ):
            storage.Bucket.at(f"s3://{s3.bucket}").check()

    def test_no_user_or_password_is_shown(self) -> None:
        text = 'Could not connect to "http://ann:very-secret@host:9/b/k?X-Amz-Signature=very-secret"\n  now'
        assert client.clean(text) == 'Could not connect to "http://host:9/b/k" now'

    def test_a_server_that_is_gone(self, bucket: storage.Bucket, s3: Between) -> None:
        s3.stop()
        started = time.monotonic()
        with pytest.raises(StorageError, match=r"cannot be listed: Could not connect to .*AWS_ENDPOINT_URL"):
            bucket.check()
        assert time.monotonic() - started < SOON_S

    def test_a_server_that_never_answers(self, s3: Between, monkeypatch: pytest.MonkeyPatch) -> None:
        assert patience.PATIENCE_S + 2 * client.READ_TIMEOUT_S <= 60, "of the first and the last try"
        monkeypatch.setattr(client, "READ_TIMEOUT_S", 0.3)
        s3.plan("GET", "/k", hangs, 99)
        with pytest.raises(StorageError, match=r"/k: cannot be read: Read timeout on endpoint URL"):
            storage.Bucket.at(f"s3://{s3.bucket}").read("k")
        assert 2 <= sum("/k" in request.path for request in s3.seen if request.method == "GET") <= 5

    def test_a_server_that_takes_no_connections(self, s3: Between, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its queue is full: what asks for a connection is not answered at all."""
        monkeypatch.setattr(client, "CONNECT_TIMEOUT_S", 0.3)
        with (
            socket.create_server(("127.0.0.1", 0), backlog=0) as server,
            socket.socket() as first,
            socket.socket() as one,
        ):
            for waiting in (first, one):
                waiting.setblocking(False)
                waiting.connect_ex(server.getsockname())
            monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.getsockname()))
            started = time.monotonic()
            with pytest.raises(StorageError, match="cannot be listed: Connect timeout on endpoint URL"):
                storage.Bucket.at(f"s3://{s3.bucket}").check()
            assert time.monotonic() - started < SOON_S

    def test_a_slow_server_has_the_timeout_for_each_block(self, s3: Between, monkeypatch: pytest.MonkeyPatch) -> None:
        """Not for the whole body, which one call of the socket would have to send within the connect timeout."""
        monkeypatch.setattr(client, "CONNECT_TIMEOUT_S", 1.5)
        with slow(int(s3.address.rpartition(":")[2])) as port:
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
            data = bytes(8 * 2**20)
            storage.Bucket.at(f"s3://{s3.bucket}").object("k").put(data)
        assert len(data) == objects.MULTIPART_BYTES


@contextmanager
def slow(behind: int) -> Iterator[int]:
    """A way to the port `behind` on which 8 MiB take more than 2 s."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)

        def pump(source: socket.socket, target: socket.socket, pause_s: float) -> None:
            try:
                while block := source.recv(65536):
                    target.sendall(block)
                    time.sleep(pause_s)
            except OSError:
                return

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                target = socket.create_connection(("127.0.0.1", behind))
                for arguments in ((client, target, 0.02), (target, client, 0.0)):
                    threading.Thread(target=pump, args=arguments, daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def test_boto3_is_imported_only_where_a_bucket_is_used() -> None:
    code = "import sys, vqbet.__main__, vqbet.storage; sys.exit(any('boto' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
