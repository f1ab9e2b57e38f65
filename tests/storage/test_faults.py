"""Every call of `vqbet.storage` under every fault of S3: what may pass is survived, what stays is a sentence."""

from __future__ import annotations

import hashlib
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.storage.test_folders import made, small_parts, unseen
from tests.support.s3_faults import Answer, Between, Fault, Forward, Request, cut, fails, hangs, lost, silent
from vqbet import storage
from vqbet.contract import StorageError, VqbetError
from vqbet.registry import journal
from vqbet.storage import client, patience, shared

pytestmark = pytest.mark.slow
SMALL = {"plan.json": b"{}", "records.jsonl": bytes(range(256)) * 8}
LARGE = hashlib.sha256(b"film").digest() * (5 * 2**10)  # three small parts
DIGEST = "d" * 64


def slow(request: Request, forward: Forward) -> Answer:
    """Answer late, but within the timeout."""
    time.sleep(0.1)
    return forward(request)


def rests(request: Request, forward: Forward) -> None:
    """Break the connection without forwarding the request: a server that is being restarted."""


PASSING: dict[str, tuple[Fault, int]] = {
    "500": (fails(500, "InternalError"), 2),
    "503": (fails(503, "SlowDown"), 2),
    "timeout": (hangs, 1),
    "reset": (rests, 2),
    "slow": (slow, 1),
    "truncated": (cut, 2),
    "lost response": (lost, 1),
    "lost connection": (silent, 1),
}
LASTING: dict[str, tuple[Fault, str]] = {
    "forbidden": (fails(403, "AccessDenied"), "AccessDenied; allow these credentials"),
    "no bucket": (
        fails(404, "NoSuchBucket"),
        r"NoSuchBucket; there is no such bucket; make it, or correct VQBET_STORAG",
    ),
    "broken": (fails(500, "InternalError"), r"(InternalError|500); see that the server of AWS_ENDPOINT_URL answers"),
    "reset": (rests, r"Connection was closed .*; see that the server of AWS_ENDPOINT_URL answers"),
}


@dataclass
class At:
    """Where a call is made: a bucket, the way to it, and a folder of this test."""

    bucket: storage.Bucket
    s3: Between
    tmp: Path

    def ledger(self) -> journal.Journal:
        return journal.opened()


@dataclass(frozen=True)
class Call:
    """A call: what it needs, what it does, and what must hold afterwards. method, part: of its request that fails."""

    method: str
    part: str
    does: Callable[[At], Any]
    before: Callable[[At], Any] = lambda at: None
    after: Callable[[At], bool] = lambda at: True
    nothing: Callable[[At], bool] = lambda at: True  # after a lasting fault: nothing half done is seen


def put_folder(at: At) -> Any:
    folder = made(at.tmp / "made", SMALL)
    return at.bucket.put_folder(folder.name, folder)


def folder_is_there(at: At) -> bool:
    name = made(at.tmp / "again", SMALL).name
    return (at.bucket.fetch_folder(name, at.tmp / "whole") / "plan.json").read_bytes() == b"{}"


def no_folder(at: At) -> bool:
    unseen(at.bucket, made(at.tmp / "again", SMALL), at.tmp / "store")
    return True


def fetch_folder(at: At) -> Any:
    return at.bucket.fetch_folder(made(at.tmp / "again", SMALL).name, at.tmp / "store")


def nothing_fetched(at: At) -> bool:
    return not (at.tmp / "store").exists() or not list((at.tmp / "store").iterdir())


def policy(at: At) -> Path:
    folder = at.tmp / "policy"
    if not folder.is_dir():
        folder.mkdir()
        (folder / "bundle.json").write_bytes(b"{}" * 500)
    return folder


def by_link(at: At) -> Any:
    shared.fetch(shared.link(at.bucket, DIGEST, hours=1), at.tmp / "robot")


def read(at: At, key: str) -> bytes | None:
    return at.bucket.read(key)


CALLS: dict[str, Call] = {
    "check": Call("GET", "list-type=2", lambda at: at.bucket.check()),
    "keys": Call("GET", "list-type=2", lambda at: at.bucket.keys("")),
    "read": Call("GET", "/k", lambda at: read(at, "k"), lambda at: at.bucket.object("k").put(b"x" * 999)),
    "create": Call(
        "PUT", "/k", lambda at: at.bucket.create("k", b"x" * 999) or pytest.fail("not ours"),
        after=lambda at: read(at, "k") == b"x" * 999, nothing=lambda at: read(at, "k") is None,
    ),
    "put": Call(
        "PUT", "/k", lambda at: at.bucket.object("k").put(b"x" * 999),
        after=lambda at: read(at, "k") == b"x" * 999, nothing=lambda at: read(at, "k") is None,
    ),
    "put: look": Call(
        "HEAD", "/k", lambda at: at.bucket.object("k").put(b"x"), after=lambda at: read(at, "k") == b"x",
    ),
    "parts: begin": Call("POST", "?uploads", lambda at: at.bucket.object("k").put(LARGE)),
    "parts: list": Call("GET", "?uploads", lambda at: at.bucket.object("k").put(LARGE)),
    "parts: send": Call("PUT", "partNumber=2", lambda at: at.bucket.object("k").put(LARGE)),
    "parts: complete": Call("POST", "uploadId=", lambda at: at.bucket.object("k").put(LARGE)),
    "folder: put": Call("PUT", "records.jsonl", put_folder, after=folder_is_there, nothing=no_folder),
    "folder: manifest": Call("PUT", "manifest.json", put_folder, after=folder_is_there, nothing=no_folder),
    "folder: find": Call("GET", "list-type=2", fetch_folder, put_folder, folder_is_there, nothing_fetched),
    "folder: fetch": Call("GET", "records.jsonl", fetch_folder, put_folder, folder_is_there, nothing_fetched),
    "lock: ask": Call("GET", "object-lock", lambda at: storage.create(at.bucket, "k", b"x")),
    "versions": Call(
        "GET", "versions", lambda at: list(storage.versions(at.bucket, "k")), lambda at: at.bucket.create("k", b"x")
    ),
    "ledger: write": Call(
        "PUT", "ledger", lambda at: at.ledger().add("tiny", 1, b"{}") or pytest.fail("not ours"),
        after=lambda at: at.ledger().lines("tiny") == [b"{}"], nothing=lambda at: at.ledger().lines("tiny") == [],
    ),
    "ledger: read": Call(
        "GET", "ledger", lambda at: at.ledger().lines("tiny"), lambda at: at.ledger().add("tiny", 1, b"{}")
    ),
    "bundle: put": Call("PUT", "bundles", lambda at: shared.put(at.bucket, DIGEST, policy(at))),
    "bundle: by link": Call(
        "GET", "bundles", by_link, lambda at: shared.put(at.bucket, DIGEST, policy(at)),
        after=lambda at: (at.tmp / "robot" / "bundle.json").read_bytes() == b"{}" * 500,
        nothing=lambda at: not (at.tmp / "robot").exists(),
    ),
    "team: buckets": Call(
        "GET", "/", lambda at: storage.provision(
            ["robots-1"], endpoint=at.s3.address, key="AKIDEXAMPLE", secret="very-secret", region="us-east-1"
        ),
    ),
}  # fmt: skip
BODILESS = ("put: look",)  # an answer to HEAD, or without a body, cannot be truncated, nor name an error
BY_LINK = {  # the robot has no bucket, and no variables of S3
    "forbidden": "status 403; the link has expired, or its bundle was deleted",
    "no bucket": "status 404; the link has expired, or its bundle was deleted",
    "broken": "cannot be fetched, tried for .* s: answers with status 500; see that the server is reached",
    "reset": "cannot be fetched, tried for .* s: .*; see that the server is reached",
}


@pytest.fixture
def places(s3: Between, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, float], At]:
    """Return a function from a name and a patience in seconds to a new place; pauses are short."""
    small_parts(monkeypatch)
    monkeypatch.setattr(patience, "FIRST_S", 0.01)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")

    clients: dict[float, Any] = {}

    def place(name: str, patience_s: float) -> At:
        monkeypatch.setattr(patience, "PATIENCE_S", patience_s)
        monkeypatch.setattr(sys.modules["vqbet.storage.provision"], "PATIENCE_S", patience_s)
        timeout_s = 0.25 if name == "timeout" else 6.0
        monkeypatch.setattr(client, "READ_TIMEOUT_S", timeout_s)
        if timeout_s not in clients:  # making one takes longer than most tests
            clients[timeout_s] = client.client(s3.address)
        bucket = storage.Bucket(s3.bucket, f"{name.replace(' ', '-')}/", clients[timeout_s])
        monkeypatch.setenv(journal.VARIABLE, bucket.address())
        folder = tmp_path / name
        folder.mkdir()
        return At(bucket, s3, folder)

    return place


@pytest.mark.parametrize("name", CALLS)
def test_what_passes_is_survived(places: Callable[[str, float], At], name: str) -> None:
    call = CALLS[name]
    for fault, (what, times) in PASSING.items():
        at = places(fault, 30.0)
        call.before(at)
        at.s3.plan(call.method, call.part, what, times)
        call.does(at)
        assert at.s3.left() < times, f"{fault} did not happen"
        at.s3.forget()  # an answer without a body cannot be truncated twice
        assert call.after(at), fault


@pytest.mark.parametrize("name", CALLS)
def test_what_stays_is_a_sentence(places: Callable[[str, float], At], name: str) -> None:
    call = CALLS[name]
    for fault, (what, said) in LASTING.items():
        if name in BODILESS and fault == "no bucket":
            continue  # a HEAD of a missing bucket says 404, as of a missing object; the PUT after it names the bucket
        at = places(fault, 0.1)
        call.before(at)
        at.s3.plan(call.method, call.part, what, 9999)
        with pytest.raises(VqbetError) as caught:
            call.does(at)
        at.s3.forget()
        told = str(caught.value)
        wanted = BY_LINK[fault] if name == "bundle: by link" else said
        assert re.search(wanted, told), f"{fault}: {told}"
        assert at.s3.bucket in told or at.s3.address in told
        assert not any(word in told for word in ("Traceback", "AKID", "very-secret", "Signature=", "\n")), told
        assert call.nothing(at), fault


class TestPatience:
    """The time itself, by a clock of the test's own."""

    def test_a_server_that_restarts_within_the_time_is_seen(self) -> None:
        assert patience.PATIENCE_S > 30, "the longest restart that was measured took 23 s"
        now, context = 100.0, {"context": {}}
        handler = patience.Patience(patience.PATIENCE_S, lambda: now)
        pauses = []
        for attempts in range(1, 1000):
            pause = handler(
                attempts=attempts, response=(replace(ANSWER), {}), caught_exception=None, request_dict=context
            )
            if pause is None:
                break
            pauses.append(pause)
            now += pause
        assert now - 100.0 == pytest.approx(patience.PATIENCE_S)
        assert 8 < len(pauses) < 30
        assert max(pauses) <= patience.LONGEST_S * patience.SPREAD[1]

    @pytest.mark.parametrize(
        ("status", "code"), [(403, "AccessDenied"), (404, "NoSuchKey"), (412, ""), (400, "BadDigest")]
    )
    def test_what_cannot_pass_is_not_repeated(self, status: int, code: str) -> None:
        answer = (replace(ANSWER, status_code=status), {"Error": {"Code": code}})
        assert not patience.may_pass(answer, None)
        assert not patience.may_pass(None, ValueError("a bug"))

    def test_every_client_waits_so_long(self, s3: Between, monkeypatch: pytest.MonkeyPatch) -> None:
        """A planted server that is away for 1.5 s of a patience of 4, and of one of 0.3."""
        for seconds, seen in ((4.0, True), (0.3, False)):
            away = time.monotonic() + 1.5
            monkeypatch.setattr(patience, "PATIENCE_S", seconds)

            def gone(request: Request, forward: Forward, away: float = away) -> Answer | None:
                return forward(request) if time.monotonic() > away else None

            bucket = storage.Bucket.at(f"s3://{s3.bucket}")
            s3.plan("GET", "list-type=2", gone, 99)
            if seen:
                bucket.check()
            else:
                with pytest.raises(StorageError, match="Connection was closed"):
                    bucket.check()
            s3.forget()


@dataclass(frozen=True)
class _Status:
    status_code: int
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


ANSWER = _Status(503)
