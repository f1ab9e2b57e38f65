"""An environment that is as it should be, and each way in which it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from vqbet import environment
from vqbet.commands import doctor


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in environment.SILENCE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("VQBET_KEY", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / '.vqbet' / 'mlflow.db'}")
    (tmp_path / ".vqbet").mkdir(mode=0o700)
    (tmp_path / "infra" / "setup").mkdir(parents=True)
    for name in doctor.locks.ALL:
        (tmp_path / name).write_text(f"typer=={doctor.locks.installed('typer')} --hash=sha256:{'a' * 64}\n")
    return tmp_path


def wrong(root: Path) -> dict[str, str]:
    return {one.what: one.said for one in doctor.run(root) if one.wrong}


def test_all_is_well(project: Path) -> None:
    assert wrong(project) == {}
    said = {one.what: one.said for one in doctor.run(project)}
    assert said["signing"] == "unsigned: there is no infra/trust.yaml, and no key is configured"
    assert said["packages"].endswith("distributions are as locked")


def test_each_fault_is_named_and_hides_no_other(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".vqbet").chmod(0o755)
    (project / doctor.locks.MAIN).write_text("typer==0.1\nno-such-thing==1\n")
    monkeypatch.setenv("DVC_NO_ANALYTICS", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://somewhere")
    monkeypatch.setenv("PATH", str(project))
    found = wrong(project)
    assert set(found) == {".vqbet", "packages", "hashes", "telemetry", "registry", "git"}
    assert "chmod 700" in found[".vqbet"]
    assert "no-such-thing 1 is missing" in found["packages"]
    assert "typer in requirements.lock" in found["hashes"]
    assert "DVC_NO_ANALYTICS" in found["telemetry"]
    assert "MLFLOW_TRACKING_URI" in found["registry"]


def test_a_missing_lock_is_one_finding(project: Path) -> None:
    (project / doctor.locks.INSTALLER).unlink()
    assert set(wrong(project)) == {"packages", "hashes"}


def test_room_and_signing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.room(project, 4.9).wrong
    assert not doctor.room(project, 5.1).wrong
    (project / "infra" / "trust.yaml").write_text("")
    monkeypatch.setenv("VQBET_KEY", "/somewhere")
    assert doctor.signing(project).said == "infra/trust.yaml says whom to trust; a key is configured"
