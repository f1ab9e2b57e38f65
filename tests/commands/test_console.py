"""Errors as a person sees them: a sentence with the right advice, or a traceback where the mistake is ours."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest

from vqbet import environment
from vqbet.commands import console
from vqbet.contract import GateError, RegistryError
from vqbet.files import atomic
from vqbet.registry import connection
from vqbet.versions import process


def shown(error: Exception, capsys: pytest.CaptureFixture[str]) -> str:
    def fails() -> None:
        raise error

    assert console.guarded(fails) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (GateError("what is wrong"), "error: what is wrong\n"),
        (MemoryError(), "error: out of memory: close other programs"),
        (ImportError("libx.so: cannot allocate memory in static TLS block"), "error: out of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "error: out of memory"),
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), "a/b: No space left on device; the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "a/b"), "a/b: Disk quota exceeded; the disk is full"),
        (OSError(errno.EFBIG, "File too large", "a/b"), "a/b: File too large; the disk is full, or a limit on its use"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "Permission denied; give this user write access"),
    ],
)
def test_what_a_user_can_mend_is_a_sentence(
    error: Exception, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentence in shown(error, capsys)


@pytest.mark.parametrize("error", [ValueError("ours"), OSError(errno.EBADF, "Bad file descriptor"), KeyError("x")])
def test_what_is_our_mistake_keeps_its_traceback(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(type(error)):
        shown(error, capsys)


@pytest.mark.parametrize("said", ["database or disk is full", "disk I/O error", "No space left on device"])
def test_a_full_disk_is_not_a_matter_of_rights(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///x.db")
    assert connection._advice(sqlite3.OperationalError(said)) == atomic.ROOM
    assert "df -h" in str(process._failure("dvc add data", Path("p"), 1, f"ERROR: unexpected error - {said}"))
    with pytest.raises(RegistryError, match=r"free space \(df -h"), connection.refused("register"):
        raise OSError(errno.EIO, said)


def test_other_refusals_keep_their_advice() -> None:
    assert "write access" in connection._advice(sqlite3.OperationalError("database is locked"))
    assert atomic.advice("stage exited with 3") == ""


@pytest.mark.parametrize("before", [None, 0o755, 0o777, 0o700])
def test_the_projects_own_folder_is_closed_to_others(
    tmp_path: Path, before: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / ".vqbet"
    for name in (*environment.embedded(tmp_path), *environment.SILENCE):
        monkeypatch.setenv(name, "x")  # given back after the test
    if before is not None:
        home.mkdir()
        home.chmod(before)
        (home / "mlflow.db").touch()
    environment.prepare(tmp_path)
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "dvc-site").stat().st_mode & 0o777 == 0o700


def test_a_folder_of_somebody_else_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o755)
    monkeypatch.setattr("os.getuid", lambda: 12345)
    environment._close(tmp_path / "shared")
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o755
