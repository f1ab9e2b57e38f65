"""Downloads from a server that may be slow, wrong or hostile; nothing half-done is ever left under a final name."""

from __future__ import annotations

import io
import socket
import stat
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from vqbet.contract import StoreError
from vqbet.demos.importers import line
from vqbet.demos.importers.fetch import fetch, unpack

CAP = 10 * 2**20
ROOT = Path(__file__).resolve().parents[2]


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
        elif self.path == "/to-the-network.zip":
            self._begin(302, {"Location": f"http://10.0.0.7:{self.server.server_address[1]}/good.zip"})
        elif self.path == "/drip.zip":
            self._begin(200, {"Content-Length": str(len(GOOD))})
            self._drip()
        elif self.path == "/drip-chunk.zip":
            self._begin(200, {"Transfer-Encoding": "chunked"})
            self._drip(b"0")
        elif self.path == "/drip-headers.zip":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            self._drip(b"x")
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

    def _drip(self, byte: bytes = b"P") -> None:
        """A byte now and then, long before any single wait is over."""
        try:
            while not self.server.released.wait(0.02):  # type: ignore[attr-defined]
                self.wfile.write(byte)
                self.wfile.flush()
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(line.VARIABLE, "1")
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
        ("chunked-cut.zip", "stopped after 3 bytes"),
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
    monkeypatch.setattr(line, "TIMEOUT_S", 0.2)
    with pytest.raises(StoreError, match=r"cannot be reached.*timed out"):
        fetch(f"{server}/silent.zip", tmp_path, max_bytes=CAP)


@pytest.mark.parametrize("path", ["drip.zip", "drip-chunk.zip", "drip-headers.zip"])
def test_a_server_that_is_never_late_and_never_done(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(line, "GRACE_S", 0.5)
    with pytest.raises(StoreError, match=r"too slow: \d+ bytes in \d+ s, expected 16384 bytes a second"):
        fetch(f"{server}/{path}", tmp_path, max_bytes=CAP)
    assert list(tmp_path.iterdir()) == []


def test_bytes_extend_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    over = line.Line()
    assert over.allowed_s() == line.GRACE_S
    over.done = 10 * line.SLOWEST_BYTES_PER_S
    assert over.allowed_s() == line.GRACE_S + 10


class TestPrivate:
    """Where nobody has said that the source is meant to be in this network."""

    @pytest.fixture(autouse=True)
    def untold(self, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(line.VARIABLE)

    @pytest.mark.parametrize(
        "host",
        [
            *("127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"),
            *(
                "169.254.169.254",
                "10.1.2.3",
                "192.168.0.1",
                "172.16.0.1",
                "100.64.0.1",
                "224.0.0.1",
                "[64:ff9b::7f00:1]",
            ),
        ],
    )
    def test_addresses_of_this_machine_and_its_network_are_refused(
        self, tmp_path: Path, host: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def connected(*_: object) -> None:
            raise AssertionError("a connection was made")

        monkeypatch.setattr("socket.socket.connect", connected)
        with pytest.raises(StoreError, match=r"an address of this machine or its network; .* VQBET_PRIVATE_SOURCES=1"):
            fetch(f"http://{host}:8080/a.zip", tmp_path, max_bytes=CAP)

    def test_a_redirect_into_the_network_is_refused(
        self, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = line.private
        monkeypatch.setattr(line, "private", lambda address: address != "127.0.0.1" and real(address))
        with pytest.raises(StoreError, match=r"10\.0\.0\.7 is 10\.0\.0\.7, an address of this machine"):
            fetch(f"{server}/to-the-network.zip", tmp_path, max_bytes=CAP)

    def test_a_name_is_looked_up_once(self, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A name that answers with the network's own address as soon as it was checked."""
        port = int(server.rpartition(":")[2])
        answers = [[(socket.AF_INET, socket.SOCK_STREAM, 6, "", (place, port))] for place in ("127.0.0.1", "10.0.0.7")]
        real = line.private
        monkeypatch.setattr(line, "private", lambda address: address != "127.0.0.1" and real(address))
        monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: answers.pop(0))
        assert fetch(f"http://rebinding.example:{port}/good.zip", tmp_path, max_bytes=CAP).is_dir()
        assert len(answers) == 1
        with pytest.raises(StoreError, match=r"rebinding\.example is 10\.0\.0\.7"):
            fetch(f"http://rebinding.example:{port}/good.zip", tmp_path, max_bytes=CAP)

    def test_a_proxy_is_not_asked_for_them(self, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", server)
        with pytest.raises(StoreError, match=r"169\.254\.169\.254, an address of this machine"):
            fetch("http://169.254.169.254/latest/a.zip", tmp_path, max_bytes=CAP)

    @pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
    def test_public_addresses_are_not_private(self, address: str) -> None:
        assert not line.private(address)


def test_a_password_is_in_no_message(server: str, tmp_path: Path) -> None:
    for source in (
        server.replace("//", "//ann:pass/word@") + "/good.zip",
        server.replace("//", "//ann:secret@") + "/good.zip",
        "ftp://ann:secret@host/a.zip",
        "http://ann:secret@[/a.zip",
    ):
        with pytest.raises(StoreError) as caught:
            fetch(source, tmp_path, max_bytes=CAP)
        assert "secret" not in str(caught.value)
        assert "pass" not in str(caught.value).replace("password", "")


def test_what_a_killed_fetch_left_is_removed(server: str, tmp_path: Path) -> None:
    """And what a running one has is not."""
    code = (
        "import sys, time; from pathlib import Path; from vqbet.demos.importers import fetch\n"
        f"with fetch._staging(Path({str(tmp_path)!r})) as staging: print(staging.name, flush=True); time.sleep(600)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert other.stdout is not None
    name = other.stdout.readline().strip()
    try:
        fetch(f"{server}/good.zip", tmp_path, max_bytes=CAP)
        assert (tmp_path / name).is_dir()
    finally:
        other.kill()
        other.wait()
    fetch(f"{server}/good.zip", tmp_path, max_bytes=CAP)
    assert [path.name[:5] for path in tmp_path.iterdir()] == ["good-"]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("http://[", "expected a path, or an http"),
        ("http://host:99999/a.zip", "expected a path, or an http"),
        ("http://", "with a host"),
        ("http://" + "a" * 5000 + "/", "cannot be reached"),
        ("x" * 5000, "is no path here: File name too long"),
        ("~nosuch/x", "is no path here: Could not determine home directory"),
        ("a\0b", "is no path here: embedded null byte"),
        ("file:///a%00b", "is no path here: embedded null byte"),
        ("http://host/\0", "cannot be reached"),
        ("http://ho st/", "cannot be reached"),
        ("http://host/\ud800", "cannot be reached"),
    ],
)
def test_odd_sources_are_sentences(server: str, tmp_path: Path, source: str, sentence: str) -> None:
    with pytest.raises(StoreError, match=sentence) as caught:
        fetch(source, tmp_path, max_bytes=CAP)
    assert len(str(caught.value)) < 700


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
