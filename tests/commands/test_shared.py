"""`vqbet share` and `vqbet fetch` by link: a robot without registry and credentials has every byte, or nothing."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tests.commands.test_serve import project, registered
from tests.support.s3_faults import Between, flip_down
from vqbet import bundle, storage
from vqbet.commands import shared
from vqbet.contract import BundleError, StorageError
from vqbet.storage import shared as archives

pytestmark = pytest.mark.slow
__all__ = ["project"]  # a fixture


def shared_link(rows: dict[str, str]) -> str:
    return rows["fetch it"].split("'")[1]


def test_a_robot_without_credentials_fetches_what_was_shared(
    project: Path, s3: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, digest = registered(project, "first")
    with pytest.raises(StorageError, match="VQBET_STORAGE is not set; set it to"):
        shared.share(f"synthetic/{version}", hours=1)
    monkeypatch.setenv("VQBET_STORAGE", f"s3://{s3.bucket}/team")
    rows = shared.share(f"synthetic/{version}", hours=1)
    link = shared_link(rows)
    assert rows["bundle"] == f"s3://{s3.bucket}/team/bundles/{digest}.tar"
    assert rows["fetch it"].endswith(f"<folder> --digest {digest}")
    elsewhere = shared_link(shared.share(f"synthetic/{version}", hours=1, endpoint="https://s3.lab"))
    assert elsewhere.startswith("https://s3.lab/")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "VQBET_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    folder = project / "robots" / "arm"
    assert shared.fetch(link, folder, digest)["digest"] == digest
    assert bundle.read(folder, digest).digest == digest
    assert [path.name for path in folder.parent.iterdir()] == ["arm"], "nothing is left beside it"
    with pytest.raises(BundleError, match="arm: expected a new or empty folder"):
        shared.fetch(link, folder)
    with pytest.raises(BundleError, match=f"expected a link to the bundle {'0' * 64}"):
        shared.fetch(link, project / "other", "0" * 64)
    s3.plan("GET", "bundles", flip_down)
    with pytest.raises((BundleError, StorageError)):
        shared.fetch(link, project / "other")
    assert not (project / "other").exists()


@pytest.mark.parametrize("link", ["https://host/x.tar?X-Amz-Signature=secret", "file:///bundles/" + "0" * 64 + ".tar"])
def test_what_is_no_link(link: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="expected a link as `vqbet share` prints it") as caught:
        shared.fetch(link, tmp_path / "arm")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("hours", [0.0, -1.0, 169.0])
def test_a_link_has_an_end(s3: Between, hours: float) -> None:
    with pytest.raises(StorageError, match="expected a link for more than 0 and at most 168 hours"):
        archives.link(storage.Bucket.at(f"s3://{s3.bucket}"), "d" * 64, hours=hours)


@pytest.mark.parametrize("name", ["../out", "/out", "a/b", ".hidden", "link"])
def test_an_archive_holds_plain_files_only(tmp_path: Path, name: str) -> None:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = (tarfile.SYMTYPE, "/etc/passwd") if name == "link" else (tarfile.REGTYPE, "")
        archive.addfile(entry)
    (tmp_path / "into").mkdir()
    with pytest.raises(StorageError, match="holds other things than the files of a bundle; nothing was written"):
        archives.unpack(output.getvalue(), tmp_path / "into", "a link")
    assert [path.name for path in tmp_path.rglob("*")] == ["into"]


def test_the_same_files_are_the_same_archive(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"2")
    (tmp_path / "a").write_bytes(b"1")
    first = archives.packed(tmp_path)
    (tmp_path / "a").touch()
    assert archives.packed(tmp_path) == first
