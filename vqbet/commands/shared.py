"""Policies for machines without registry and credentials: `vqbet share` makes a link, `vqbet fetch` takes it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from vqbet import bundle, storage
from vqbet.commands import folders
from vqbet.contract import BundleError, StorageError


def share(reference: str, *, hours: float, endpoint: str = "") -> dict[str, str]:
    """Upload a registered policy to $VQBET_STORAGE, every byte checked, and return rows with a link for a robot.

    endpoint: address of the S3 server as the robot reaches it. Raises RegistryError where there is no such version,
    BundleError where its files have changed, StorageError where S3 refuses.
    """
    from vqbet import registry  # imported late: the robot has no MLflow

    bucket = storage.configured()
    if bucket is None:
        raise StorageError("VQBET_STORAGE is not set; set it to s3://<bucket>/<prefix>, where the bundle shall lie")
    registry.check()
    version = registry.resolve(reference)
    address = storage.shared.link(bucket, version.digest, hours=hours, endpoint=endpoint)
    with tempfile.TemporaryDirectory() as scratch:
        copied = registry.download(version, Path(scratch) / "bundle")
        bundle.read(copied, version.digest)
        where = storage.shared.put(bucket, version.digest, copied)
    return {
        "policy": f"{version.name}/{version.version}",
        "digest": version.digest,
        "bundle": where,
        "link": f"for {hours:g} hours, whoever has it can read this bundle",
        **folders.held(reference),
        "fetch it": f"vqbet fetch '{address}' <folder> --digest {version.digest}",
    }


def fetch(link: str, folder: Path, digest: str = "") -> dict[str, str]:
    """Download the bundle of a link to a new or empty folder, and check every byte of it.

    digest: that it must have; "": the one that the link names. Raises StorageError where it cannot be downloaded,
    BundleError where it is another bundle; the folder is then as it was before.
    """
    named = storage.shared.digest_of(link)
    if digest and digest != named:
        raise BundleError(f"expected a link to the bundle {digest}, this one names {named}; ask for another link")
    with tempfile.TemporaryDirectory(dir=folders.parent(folder), prefix=f".{folder.name}.") as staging:
        copied = Path(staging) / "bundle"
        storage.shared.fetch(link, copied)
        bundle.read(copied, named)
        try:
            os.replace(copied, folder)
        except OSError as error:
            raise BundleError(f"{folder}: expected a new or empty folder: {error.strerror}; choose another") from error
    return {"digest": named, "folder": str(folder), "serve it": f"vqbet serve {folder} --digest {named}"}
