"""What was damaged, swapped or deleted after the demo is found, and mended where it can be."""

from __future__ import annotations

import platform
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.project import Project
from tests.support.s3_faults import Between
from vqbet import registry
from vqbet.commands import audit, release
from vqbet.commands.audit import AuditFinding
from vqbet.contract import BundleError
from vqbet.registry import connection, runs
from vqbet.stages.progress import Watch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # whoever comes first runs the demo


def test_a_changed_policy_is_not_registered(project: Project) -> None:
    path = project.root / "artifacts" / "blockpush" / "policy" / "prior.safetensors"
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    done = project.here("register", "blockpush", check=False)
    path.write_bytes(good)
    assert done.returncode != 0
    assert "component 'prior'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_store_stops_the_graph(project: Project) -> None:
    chunk = next((project.root / "data" / "blockpush.zarr" / "data" / "action").rglob("c/0/0"))
    good = chunk.read_bytes()
    chunk.chmod(0o644)
    chunk.write_bytes(good[:100] + bytes([good[100] ^ 1]) + good[101:])
    done = project.run("vqbet", "stage", "validate", "blockpush", check=False)
    chunk.write_bytes(good)
    assert done.returncode != 0
    assert "data/action" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_verdict_is_replayed_by_its_id_here_and_from_the_registry(project: Project) -> None:
    store = project.root / ".vqbet" / "verdicts"
    (packed,) = [path for path in store.iterdir() if len(path.name) == 64]
    assert packed.name[:12] in project.here("verdict", "list").stdout
    assert packed.name in project.here("history", "blockpush").stdout.replace("\n", "").replace(" ", "")
    assert "byte for byte the same" in project.run("vqbet", "verdict", "replay", packed.name[:8]).stdout
    shutil.rmtree(packed)
    assert "byte for byte the same" in project.here("verdict", "replay", packed.name[:8]).stdout
    played = packed / "records.jsonl"
    good = played.read_bytes()
    played.write_bytes(good.replace(b'"score":', b'"score" :', 1))
    done = project.here("verdict", "replay", packed.name[:8], check=False)
    played.write_bytes(good)
    assert done.returncode != 0
    assert "records.jsonl: was changed" in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_a_verdict_in_a_bucket_is_replayed_where_nothing_else_is(project: Project, s3: Between, tmp_path: Path) -> None:
    bucket = f"s3://{s3.bucket}/team"
    stored = project.here("register", "blockpush", VQBET_STORAGE=bucket).stdout
    (address,) = re.findall(rf"stored +({bucket}/evidence/[0-9a-f]{{64}})", stored)
    assert address in project.here("show", "blockpush@champion").stdout
    packed = project.root / ".vqbet" / "verdicts" / address.rpartition("/")[2]
    shutil.rmtree(packed)
    elsewhere = {"VQBET_STORAGE": bucket, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'empty.db'}"}
    replayed = project.here("verdict", "replay", packed.name[:8], **elsewhere).stdout
    assert "byte for byte the same" in replayed
    done = project.here("register", "blockpush", check=False, VQBET_STORAGE="s3://nowhere-at-all")
    assert done.returncode == 1
    assert re.fullmatch(r"error: s3://nowhere-at-all/: cannot be listed: NoSuchBucket; .*\n", done.stderr)


@pytest.fixture
def audited(project: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, AuditFinding]]:
    """An audit of the demo's project in this process; it does not pay for a start."""
    home = project.root / ".vqbet"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")

    def run(*, repair: bool = False) -> dict[str, AuditFinding]:
        found = audit.run(project.root, "blockpush", Watch(), repair=repair)
        assert len({one.what for one in found}) == len(found)
        return {one.what: one for one in found}

    return run


def test_an_audit_looks_at_all_that_a_promotion_rests_on(
    project: Project, audited: Callable[..., dict[str, AuditFinding]]
) -> None:
    found = audited()
    seen = ["ledger", "blockpush@champion", "blockpush/1", "entry 1, evidence", "published", "signatures"]
    assert list(found) == seen
    assert not any(one.wrong for one in found.values())
    shown = project.here("audit", "blockpush").stdout
    assert shown.count("as it should be") == 4
    assert "nothing is published outside" in shown
    assert "unsigned: no committed trust file" in shown


@pytest.mark.parametrize("component", ["tokenizer", "prior", "normalizer"])
def test_a_swapped_component_in_the_registry_is_found_and_never_promoted(
    project: Project, audited: Callable[..., dict[str, AuditFinding]], component: str
) -> None:
    (path,) = (
        path
        for path in (project.root / ".vqbet" / "mlartifacts").rglob(f"{component}.safetensors")
        if (path.parent / "prior.safetensors").exists()
    )
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    try:
        wrong = audited()["blockpush/1"]
        with pytest.raises(BundleError, match=component):
            release.promote(project.root, "blockpush", candidate=1, why="w", watch=Watch())
        with pytest.raises(BundleError, match=component):
            release.force(project.root, "blockpush", candidate=1, why="w")
    finally:
        path.write_bytes(good)
    assert wrong.open
    assert component in wrong.wrong


def test_an_audit_puts_the_alias_back_and_ends_the_runs_of_the_dead(
    audited: Callable[..., dict[str, AuditFinding]],
) -> None:
    registry.check()
    client = connection.client()
    client.delete_registered_model_alias("blockpush", "champion")
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    with registry.run("blockpush", "alive", params={}, tags={}):
        left = client.create_run(
            runs.experiment(client, "blockpush"), tags={runs.PROCESS: f"{platform.node()} {dead.pid} 1.00"}
        ).info.run_id
        found = audited()
        assert found["blockpush@champion"].wrong == "the champion is none, entry 1 of the ledger says version 1"
        assert [one.what for one in found.values() if one.open] == ["blockpush@champion", f"run {left[:12]}"]
        assert not any(one.open for one in audited(repair=True).values())
    assert client.get_run(left).info.status == "KILLED"
    assert not any(one.wrong for one in audited().values())
    assert registry.resolve("blockpush@champion").version == 1


def test_deleted_evidence_is_fetched_again_or_missed(
    project: Project, audited: Callable[..., dict[str, AuditFinding]], tmp_path: Path
) -> None:
    store = project.root / ".vqbet" / "verdicts"
    (packed,) = [path for path in store.iterdir() if len(path.name) == 64]
    shutil.rmtree(packed)
    assert not audited()["entry 1, evidence"].wrong
    assert packed.is_dir()
    (kept,) = (project.root / ".vqbet" / "mlartifacts").rglob(packed.name)
    shutil.move(kept, tmp_path / "kept")
    shutil.move(packed, tmp_path / "packed")
    try:
        assert audited()["entry 1, evidence"].open
    finally:
        shutil.move(tmp_path / "kept", kept)
        shutil.move(tmp_path / "packed", packed)


def test_a_tampered_ledger_hides_nothing_else(
    project: Project, audited: Callable[..., dict[str, AuditFinding]]
) -> None:
    with closing(sqlite3.connect(project.root / ".vqbet" / "ledger.db")) as database:
        with database:
            database.execute(
                "UPDATE vqbet_ledger SET line = replace(line, 'verdict', 'hunch') WHERE chain = 'blockpush'"
            )
        found = audited(repair=True)
        with database:
            database.execute(
                "UPDATE vqbet_ledger SET line = replace(line, 'hunch', 'verdict') WHERE chain = 'blockpush'"
            )
    assert list(found) == [
        "ledger, entry 1",
        "ledger beside the registry",
        "blockpush@champion",
        "published",
        "signatures",
    ]
    assert "the chain is broken" in found["ledger, entry 1"].wrong
    assert not any(one.wrong for one in audited().values())
