"""Objects that nobody deletes for a while: S3's object lock, where the bucket has it; and all versions of objects."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from vqbet.storage import client
from vqbet.storage.objects import Object

if TYPE_CHECKING:
    from vqbet.storage.bucket import Bucket

YEARS = 10
NO_LOCK = ("ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration", "NotImplemented")


def create(bucket: Bucket, key: str, data: bytes) -> tuple[bool, str]:
    """Make an object that is not there, locked where the bucket has object lock: whether it was made, and the lock.

    The bucket's own rule holds where it has one; else the object is kept for ten years in GOVERNANCE mode, so that an
    administrator may still remove it. Raises StorageError.
    """
    options, lock = _retention(bucket)
    return bucket.create(key, data, options), lock


def versions(bucket: Bucket, prefix: str) -> Iterator[tuple[str, bytes]]:
    """All versions of all objects below `prefix`, also of those that were deleted since: key and content, by key.

    Raises StorageError.
    """
    with client.refused(bucket.address(prefix), "be listed with its versions"):
        pages = bucket.client.get_paginator("list_object_versions").paginate(
            Bucket=bucket.name, Prefix=bucket.prefix + prefix
        )
        found = [(item["Key"], item["VersionId"]) for page in pages for item in page.get("Versions", [])]
    for key, version in sorted(found):
        content = Object(bucket.client, bucket.name, key, version).get()
        if content is not None:
            yield key.removeprefix(bucket.prefix), content.data


def _retention(bucket: Bucket) -> tuple[dict[str, Any], str]:
    """Options of a put, and the lock in words."""
    from botocore.exceptions import ClientError

    with client.refused(bucket.address(), "be asked for its object lock"):
        try:
            answer = bucket.client.get_object_lock_configuration(Bucket=bucket.name)
        except ClientError as error:
            if error.response["Error"]["Code"] not in NO_LOCK:
                raise
            answer = {}
    lock = answer.get("ObjectLockConfiguration", {})
    if lock.get("ObjectLockEnabled") != "Enabled":
        return {}, "not locked: the bucket has no object lock, so whoever may delete there can remove it"
    if rule := lock.get("Rule", {}).get("DefaultRetention"):
        span = f"{rule['Years']} years" if rule.get("Years") else f"{rule.get('Days')} days"
        return {}, f"locked for {span} by the bucket's rule, {rule.get('Mode')}"
    until = datetime.now(UTC) + timedelta(days=365 * YEARS)
    return {"ObjectLockMode": "GOVERNANCE", "ObjectLockRetainUntilDate": until}, f"locked for {YEARS} years, GOVERNANCE"
