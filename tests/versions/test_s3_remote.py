"""DVC's remote in S3 under faults: push, audit and pull survive what passes, and say what stays in one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import boto3
import pytest

from tests.support.s3_faults import Between, cut, fails
from tests.versions.test_versions import project
from vqbet import versions
from vqbet.contract import PipelineError
from vqbet.team import run
from vqbet.versions import patience

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def root(s3: Between, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):  # DVC reads the file if it exists
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.delenv("DVC_SITE_CACHE_DIR", raising=False)
    made = project(tmp_path / "a project")
    run.remote(made, f"s3://{s3.bucket}/dvc")
    versions.add(made)
    return made


def test_what_passes_is_survived_and_damage_is_found_and_mended(s3: Between, root: Path, moto: str) -> None:
    """Push, audit, a lost object, push again, pull: with one fault on each way."""
    s3.plan("PUT", "/dvc/", fails(500, "InternalError"), 2)
    versions.push(root)
    s3.plan("GET", "/dvc/", fails(503, "SlowDown"), 2)
    assert versions.audit(root) == versions.Audit(3, 3003)
    assert not list((root / ".vqbet").glob("push-*")), "the private cache of a push is gone"
    direct = boto3.client("s3", endpoint_url=moto)
    keys = [item["Key"] for item in direct.list_objects_v2(Bucket=s3.bucket)["Contents"]]
    lost = next(key for key in keys if not key.endswith(".dir"))
    direct.delete_object(Bucket=s3.bucket, Key=lost)
    with pytest.raises(PipelineError, match=r"the remote is not whole, 1 of 3 files: .*missing\. Delete .*fresh"):
        versions.audit(root)
    direct.delete_object(Bucket=s3.bucket, Key=next(key for key in keys if key.endswith(".dir")))
    versions.push(root)
    assert versions.audit(root) == versions.Audit(3, 3003)
    shutil.rmtree(root / "data")
    shutil.rmtree(root / ".dvc" / "cache")
    s3.plan("GET", "/dvc/files/md5/e", cut, 2)
    versions.pull(root, "none", [])
    assert sum(path.is_file() for path in (root / "data").rglob("*")) == 3
    assert s3.left() == 0


def test_what_stays_is_a_sentence(s3: Between, root: Path) -> None:
    s3.plan("PUT", "/dvc/", fails(403, "AccessDenied"), 999)
    with pytest.raises(PipelineError) as caught:
        versions.push(root)
    assert str(caught.value) == (
        f"s3://{s3.bucket}/dvc: dvc push data.dvc: AccessDenied (PutObject); allow these credentials to list, read and "
        "write there"
    )
    run.remote(root, "s3://no-such-bucket/dvc")
    for action in (versions.push, versions.audit, lambda at: versions.pull(at, "none", [])):
        with pytest.raises(PipelineError, match=r"^s3://no-such-bucket/dvc: DVC's remote: NoSuchBucket .*make it, or"):
            action(root)


def test_the_last_try_outlasts_a_restart() -> None:
    pauses_s = [min(0.1 * 1.7**number, 15.0) for number in range(patience.TRIES - 1)]  # as s3fs makes them
    assert sum(pauses_s) > 30
