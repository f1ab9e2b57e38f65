"""S3 object lock, for objects that must not be deleted for a while, and listing of all versions of objects."""

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
    """Create an object, locked if the bucket has object lock; return whether it was created, and the lock in words.

    The bucket's own retention rule applies if there is one. Otherwise the object is kept for ten years in GOVERNANCE
    mode, so that an administrator can still remove it. Raises StorageError.
    """
    options, lock = _retention(bucket)
    return bucket.create(key, data, options), lock


def versions(bucket: Bucket, prefix: str) -> Iterator[tuple[str, bytes]]:
    """Yield key and content of all versions of all objects below `prefix`, including deleted ones, sorted by key.

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
    """Return the options of a put, and the lock in words."""
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
