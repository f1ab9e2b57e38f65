"""What `make clean` removes can be made again; the rest goes only by `vqbet forget --yes-really`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vqbet import environment
from vqbet.__main__ import app
from vqbet.commands import forget
from vqbet.contract import PipelineError

ROOT = Path(__file__).resolve().parent.parent.parent
AGAIN = (
    "matplotlib",
    "prefect",
    "prefect-ui",
    "dvc-site",
    "downloads",
    "candidate",
    "champion",
    "seconds",
    "checkpoints",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project that has been used."""
    root = tmp_path / "a project"
    for name in (*forget.KEPT, *AGAIN, "retrained", "paper", "drift-x1", "push-x1", "something new"):
        path = root / ".vqbet" / name / "deep" / "file" if not name.endswith(".db") else root / ".vqbet" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 500_000)
    for name in ("artifacts/tiny/policy/bundle.json", "data/tiny.zarr/manifest.json", ".dvc/cache/files/x"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("x")
    shutil.copy(ROOT / "Makefile", root)
    (root / "params.yaml").write_text("tasks: [tiny]\n")
    return root


def test_make_clean_keeps_what_cannot_be_made_again(root: Path) -> None:
    subprocess.run(["make", "clean"], cwd=root, check=True, capture_output=True)
    assert {path.name for path in (root / ".vqbet").iterdir()} == {*forget.KEPT, "something new"}
    assert not (root / "artifacts").exists()
    assert (root / "data" / "tiny.zarr" / "manifest.json").is_file()
    assert (root / ".dvc" / "cache" / "files" / "x").is_file()
    subprocess.run(["make", "clean"], cwd=root, check=True, capture_output=True)


def test_the_listing_says_what_would_be_lost(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / '.vqbet' / 'mlflow.db'}")
    monkeypatch.setenv("VQBET_LEDGER", "postgresql://ann:secret@host/ledger")
    monkeypatch.delenv("VQBET_STORAGE", raising=False)
    rows = forget.listing(root)
    assert rows[".vqbet/ledger.db"] == "0.5 MB, who was champion when, and approvals"
    assert rows[".vqbet/matplotlib"] == "0.5 MB, can be made again"
    assert rows["VQBET_LEDGER"] == "postgresql://host/ledger, stays"
    assert "MLFLOW_TRACKING_URI" not in rows
    assert float(rows["in all"].split()[0]) == 0.5 * len(list((root / ".vqbet").iterdir()))


@pytest.fixture
def command(root: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(root)
    for name in {**environment.SILENCE, **environment.embedded(root), "VQBET_LEDGER": "", "VQBET_STORAGE": ""}:
        monkeypatch.setenv(name, "x")  # so that what the command sets is taken back
        monkeypatch.delenv(name)
    return CliRunner()


def test_without_the_words_nothing_is_deleted(root: Path, command: CliRunner) -> None:
    before = sorted(root.rglob("*"))
    done = command.invoke(app, ["forget"])
    assert done.exit_code == 1
    assert sorted(root.rglob("*")) == before
    assert command.invoke(app, ["forget", "--yes"]).exit_code == 2
    assert sorted(root.rglob("*")) == before


def test_with_the_words_all_of_it_is(root: Path, command: CliRunner, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.invoke(app, ["forget", "--yes-really"]).exit_code == 0
    assert not (root / ".vqbet").exists()
    assert (root / "data" / "tiny.zarr" / "manifest.json").is_file()
    assert (root / ".dvc" / "cache" / "files" / "x").is_file()
    assert command.invoke(app, ["forget"]).exit_code == 0, "there is nothing to lose"


def test_a_link_is_not_followed(root: Path, tmp_path: Path) -> None:
    shutil.move(root / ".vqbet", tmp_path / "elsewhere")
    (root / ".vqbet").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PipelineError, match="is a link; nothing was deleted"):
        forget.forget(root)
    assert (tmp_path / "elsewhere" / "ledger.db").is_file()
