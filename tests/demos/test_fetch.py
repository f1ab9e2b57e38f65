"""Downloads from a server that may be slow, wrong or hostile; nothing half-done is ever left under a final name."""

from __future__ import annotations

import io
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from vqbet.contract import StoreError
from vqbet.demos.importers import fetch as module
from vqbet.demos.importers.fetch import fetch, unpack

CAP = 10 * 2**20


def packed(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in members.items():
            archive.writestr(name, value)
    return content.getvalue()


GOOD = packed({"made.zarr/.zgroup": b"{}", "made.zarr/data/0.0": b"x" * 3_000_000})


class Answers(BaseHTTPRequestHandler):
    """One path per behaviour of the server."""

    bodies: ClassVar = {
        "/good.zip": GOOD,
        "/text.zip": b"<html>log in first</html>",
        "/slip.zip": packed({"../evil": b"x"}),
        "/cut.zip": GOOD[:-30],
    }

    def do_GET(self) -> None:
        if self.path == "/truncated.zip":
            self._begin(200, {"Content-Length": str(len(GOOD) + 1000)})
            self.wfile.write(GOOD)
        elif self.path == "/claims.zip":
            self._begin(200, {"Content-Length": str(10**12)})
        elif self.path == "/endless.zip":
            self._begin(200, {})
            self._pour()
        elif self.path == "/chunked-cut.zip":
            self._begin(200, {"Transfer-Encoding": "chunked"})
            self.wfile.write(b"100\r\nabc")
        elif self.path == "/odd-length.zip":
            self._begin(200, {"Content-Length": "many"})
            self.wfile.write(GOOD)
        elif self.path == "/moved.zip":
            self._begin(302, {"Location": "/good.zip"})
        elif self.path == "/to-file.zip":
            self._begin(302, {"Location": "file:///etc/hostname"})
        elif self.path == "/silent.zip":
            self.server.released.wait(10)  # type: ignore[attr-defined]
        elif body := self.bodies.get(self.path.partition("?")[0]):
            self._begin(200, {"Content-Length": str(len(body))})
            self.wfile.write(body)
        else:
            self.send_error(404)
        self.close_connection = True

    def _begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _pour(self) -> None:
        try:
            for _ in range(64):
                self.wfile.write(bytes(2**20))
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    running = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    running.daemon_threads = True
    running.released = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}"
    running.released.set()  # type: ignore[attr-defined]
    running.shutdown()
    thread.join()
    running.server_close()


def test_downloads_and_unpacks(server: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    folder = fetch(f"{server}/good.zip", tmp_path, max_bytes=CAP, progress=lambda *done: seen.append(done))
    assert folder.parent == tmp_path
    assert folder.name.startswith("good-")
    assert (folder / "made.zarr/data/0.0").read_bytes() == b"x" * 3_000_000
    assert seen[-1] == (len(GOOD), len(GOOD))
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_the_same_archive_lands_in_the_same_folder(server: str, tmp_path: Path) -> None:
    first = fetch(f"{server}/good.zip", tmp_path, max_bytes=CAP)
    (first / "kept").touch()
    assert fetch(f"{server}/good.zip?again", tmp_path, max_bytes=CAP) == first
    assert (first / "kept").exists()


@pytest.mark.parametrize("path", ["moved.zip", "odd-length.zip"])
def test_accepts_redirects_and_missing_lengths(server: str, tmp_path: Path, path: str) -> None:
    assert (fetch(f"{server}/{path}", tmp_path, max_bytes=CAP) / "made.zarr/.zgroup").is_file()


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("nothing.zip", "the server answered 404"),
        ("truncated.zip", f"stopped after {len(GOOD)} of {len(GOOD) + 1000} bytes"),
        ("chunked-cut.zip", "stopped after 0 bytes"),
        ("claims.zip", f"1000000000000 bytes, more than the {CAP} allowed"),
        ("endless.zip", f"more than the {CAP} bytes allowed"),
        ("text.zip", "is not a whole zip archive"),
        ("cut.zip", "is not a whole zip archive"),
        ("slip.zip", r"'../evil': points outside"),
        ("to-file.zip", "answered 302"),
    ],
)
def test_refuses_and_leaves_nothing_behind(server: str, tmp_path: Path, path: str, sentence: str) -> None:
    into = tmp_path / "into"
    with pytest.raises(StoreError, match=sentence):
        fetch(f"{server}/{path}", into, max_bytes=CAP)
    assert list(into.iterdir()) == []
    assert not (tmp_path / "evil").exists()


def test_a_server_that_says_nothing(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    with pytest.raises(StoreError, match=r"cannot be reached.*timed out"):
        fetch(f"{server}/silent.zip", tmp_path, max_bytes=CAP)


def test_a_server_that_is_not_there(tmp_path: Path, server: str) -> None:
    with pytest.raises(StoreError, match="cannot be reached"):
        fetch("http://127.0.0.1:1/a.zip", tmp_path, max_bytes=CAP)


def test_an_interrupted_download_leaves_nothing_behind(server: str, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(f"{server}/good.zip", tmp_path, max_bytes=CAP, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_paths_stay_where_they_are(tmp_path: Path) -> None:
    place = tmp_path / "a folder"
    place.mkdir()
    assert fetch(str(place), tmp_path / "into", max_bytes=1) == place
    assert fetch(place.as_uri(), tmp_path / "into", max_bytes=1) == place
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize(
    ("source", "sentence"),
    [("/no/such/place", "there is no such"), ("ftp://host/a.zip", "starts with ftp:"), ("s3://a/b", "starts with s3:")],
)
def test_refuses_other_sources(tmp_path: Path, source: str, sentence: str) -> None:
    with pytest.raises(StoreError, match=sentence):
        fetch(source, tmp_path, max_bytes=CAP)


@pytest.mark.parametrize("name", ["../a", "/etc/a", "a/../../b", "..", "a\\..\\b", "C:/a"])
def test_refuses_members_that_point_outside(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "slip.zip"
    archive.write_bytes(packed({"fine": b"", name: b"x"}))
    with pytest.raises(StoreError, match="points outside"):
        unpack(archive, tmp_path / "into", max_bytes=CAP)
    assert [path.name for path in tmp_path.iterdir()] == ["slip.zip"]


def test_refuses_links_twins_and_encryption(tmp_path: Path) -> None:
    linked = zipfile.ZipInfo("link")
    linked.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = tmp_path / "bad.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(linked, "/etc/passwd")
    with pytest.raises(StoreError, match="'link': is a link"):
        unpack(archive, tmp_path / "into", max_bytes=CAP)
    archive.write_bytes(packed({"a/b": b"1", "A/b": b"2"}))
    with pytest.raises(StoreError, match="'A/b': is there twice"):
        unpack(archive, tmp_path / "into", max_bytes=CAP)
    archive.write_bytes(packed({"a": b"1", "a/b": b"2"}))
    with pytest.raises(StoreError, match="cannot be unpacked to"):
        unpack(archive, tmp_path / "into", max_bytes=CAP)


def test_refuses_too_many_files_and_bytes(tmp_path: Path) -> None:
    archive = tmp_path / "bomb.zip"
    archive.write_bytes(packed({f"zeros{index}": bytes(10**6) for index in range(5)}))
    assert archive.stat().st_size < 20_000
    with pytest.raises(StoreError, match=r"'zeros3': unpacks to more bytes than allowed, 500000 were left"):
        unpack(archive, tmp_path / "into", max_bytes=3_500_000)
    with pytest.raises(StoreError, match="5 files, more than the 4 allowed"):
        unpack(archive, tmp_path / "again", max_bytes=CAP, max_files=4)


def test_a_member_that_understates_its_size(tmp_path: Path) -> None:
    archive = tmp_path / "liar.zip"
    content = bytearray(packed({"zeros": bytes(10**6)}))
    claimed = (10**6).to_bytes(4, "little")
    assert content.count(claimed) == 2
    archive.write_bytes(content.replace(claimed, (10).to_bytes(4, "little")))
    with pytest.raises(StoreError, match="is not a whole zip archive"):
        unpack(archive, tmp_path / "into", max_bytes=CAP)
