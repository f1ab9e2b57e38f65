"""Files and folders are the old ones or the new ones, whatever fails, and what fails becomes a sentence."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from vqbet.contract import PipelineError
from vqbet.files import atomic, canonical, manifest, reading

ROOT = Path(__file__).resolve().parent.parent.parent


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestWrite:
    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_a_full_disk_leaves_the_old_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
        atomic.write(tmp_path / "deep" / "a.json", "old", PipelineError)
        monkeypatch.setattr(os, call, full)
        with pytest.raises(
            PipelineError, match=r"a\.json: cannot be written: No space left on device; the disk is full"
        ):
            atomic.write(tmp_path / "deep" / "a.json", b"new", PipelineError)
        assert (tmp_path / "deep" / "a.json").read_text() == "old"
        assert names(tmp_path / "deep") == ["a.json"]

    @pytest.mark.parametrize("name", ["file/a", "n" * 300])
    def test_a_place_that_is_none(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(PipelineError, match=r"cannot be written: (Not a directory|File exists|File name too long)"):
            atomic.write(tmp_path / name, "text", PipelineError)

    def test_writers_at_once_leave_one_whole_file(self, tmp_path: Path) -> None:
        texts = [str(number) * 100_000 for number in range(8)]
        threads = [threading.Thread(target=atomic.write, args=(tmp_path / "a", text, PipelineError)) for text in texts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (tmp_path / "a").read_text() in texts
        assert names(tmp_path) == ["a"]


class TestReplacing:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        with atomic.replacing(tmp_path / "home" / "it", PipelineError) as staging:
            atomic.create(staging / "deep" / "old", "old")
        return tmp_path / "home" / "it"

    @pytest.mark.parametrize("exchanging", [True, False])
    def test_it_takes_the_place_of_the_old_one(
        self, folder: Path, exchanging: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not exchanging:
            monkeypatch.setattr(atomic, "_exchange", lambda *_: False)
        with atomic.replacing(folder, PipelineError) as staging:
            atomic.create(staging / "new", b"new")
            assert names(folder) == ["deep"]
        assert names(folder) == ["new"]
        assert names(folder.parent) == ["it"]

    def test_linux_exchanges_in_one_step(self, folder: Path, tmp_path: Path) -> None:
        if sys.platform != "linux":
            pytest.skip("only Linux can")
        (tmp_path / "other").mkdir()
        assert atomic._exchange(tmp_path / "other", folder)
        assert names(tmp_path / "other") == ["deep"]
        with pytest.raises(OSError, match="No such file"):
            atomic._exchange(tmp_path / "nowhere", folder)

    @pytest.mark.parametrize("failing", ["fsync", "mkdir"])
    def test_a_full_disk_leaves_the_old_one(self, folder: Path, failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def replaced() -> None:
            with atomic.replacing(folder, PipelineError, "take care") as staging:
                atomic.create(staging / "new", "new")

        monkeypatch.setattr(os, failing, full)
        with pytest.raises(
            PipelineError, match=r"it: cannot be written: No space left on device; take care; the disk is"
        ):
            replaced()
        monkeypatch.undo()
        assert names(folder) == ["deep"]
        assert names(folder.parent) == ["it"]

    def test_a_second_writer_is_refused_and_a_dead_one_is_not_in_the_way(self, folder: Path) -> None:
        script = (
            "import sys, time; from pathlib import Path; from vqbet.files import atomic\n"
            "with atomic.replacing(Path(sys.argv[1]), ValueError) as staging:\n"
            "    atomic.create(staging / 'half', 'half'); print('there', flush=True); time.sleep(600)\n"
        )
        command = [sys.executable, "-c", script, str(folder)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"there\n"
            with (
                pytest.raises(PipelineError, match="another process is writing there"),
                atomic.replacing(folder, PipelineError),
            ):
                pass
            other.send_signal(signal.SIGKILL)
        assert names(folder) == ["deep"]
        with atomic.replacing(folder, PipelineError) as staging:
            atomic.create(staging / "new", "new")
        assert (names(folder), names(folder.parent)) == (["new"], ["it"])


class TestReading:
    def test_only_a_plain_file_is_opened(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"1234")
        (tmp_path / "folder").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "file")
        os.mkfifo(tmp_path / "pipe")
        for name, most, sentence in (
            ("nothing", 4, "nothing: is missing; mend it"),
            ("link", 4, "link: is a symbolic link, expected a plain file"),
            ("folder", 4, "folder: cannot be read: Is a directory"),
            ("pipe", 4, "pipe: expected a plain file of at most 4 bytes"),
            ("file", 3, "file: expected a plain file of at most 3 bytes"),
            ("file/a", 3, "a: cannot be read: Not a directory"),
        ):
            with pytest.raises(PipelineError, match=sentence):
                reading.content(tmp_path / name, PipelineError, most=most, mend="mend it")
        assert reading.content(tmp_path / "file", PipelineError, most=4, mend="") == b"1234"
        assert reading.content(tmp_path / "link", PipelineError, most=2**62, mend="", links=True) == b"1234"


GOOD = {"bytes": 1, "sha256": "0" * 64}


class TestManifest:
    def test_what_is_taken_is_what_is_there(self, tmp_path: Path) -> None:
        (tmp_path / "deep" / "er").mkdir(parents=True)
        (tmp_path / "deep" / "er" / "b").write_bytes(b"b")
        (tmp_path / "a").write_bytes(b"")
        found = manifest.taken(tmp_path, PipelineError, "")
        assert list(found) == ["a", "deep/er/b"]
        assert manifest.from_json(manifest.to_json(found)) == found
        (tmp_path / "deep" / "link").symlink_to(tmp_path / "a")
        with pytest.raises(PipelineError, match=r"deep/link: expected a plain file, got a link or a device; mend it"):
            manifest.sizes(tmp_path, PipelineError, "mend it")
        with pytest.raises(PipelineError, match="more than 2 files"):
            manifest.sizes(tmp_path, PipelineError, "", most=2)
        with pytest.raises(PipelineError, match="nowhere: cannot be read: No such file"):
            manifest.sizes(tmp_path / "nowhere", PipelineError, "")

    @pytest.mark.parametrize(
        ("value", "sentence"),
        [
            ([], "expected an object of files, got"),
            ({"../a": GOOD}, "'../a', which is no name for a file"),
            ({"/a": GOOD}, "which is no name for a file"),
            ({"a/.b": GOOD}, "which is no name for a file"),
            ({"a": 3}, "a: expected bytes and sha256, got 3"),
            ({"a": GOOD | {"mode": 1}}, "a: expected bytes and sha256"),
            ({"a": GOOD | {"bytes": True}}, "a: expected 0 to 9 bytes, got True"),
            ({"a": GOOD | {"bytes": 10}}, "a: expected 0 to 9 bytes, got 10"),
            ({"a": GOOD | {"sha256": "0" * 63}}, "a: expected a sha256, got"),
        ],
    )
    def test_entries_that_are_none(self, value: object, sentence: str) -> None:
        with pytest.raises(ValueError, match=sentence):
            manifest.from_json(value, 9)


@pytest.mark.parametrize("make", [lambda: {"a": float("nan")}, lambda: {"a": object()}, lambda: {1: 1, "a": 1}])
def test_canonical_json_has_no_other_values(make: Callable[[], object]) -> None:
    for write in (canonical.line, canonical.document, canonical.digest):
        with pytest.raises(ValueError, match="cannot be written as JSON"):
            write(make())
