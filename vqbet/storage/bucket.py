"""A bucket, or the part of one below a prefix: objects made once, read and listed; folders of evidence put and fetched.

<prefix>/evidence/<id>/manifest.json   put last: evidence without it does not exist for any reader
                      /...             what it lists
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from vqbet.contract import StorageError
from vqbet.storage import client, folders
from vqbet.storage.objects import MAX_BYTES, PAUSE_S, Object

CONFLICTS = 6  # tries of a conditional put that meets another one under way
WRITER = "writer"  # metadata: who made an object


@dataclass(frozen=True, slots=True)
class Bucket:
    """Keys are below `prefix`, which is empty or ends with "/". May be shared between threads."""

    name: str
    prefix: str
    client: Any = field(repr=False, compare=False)

    @classmethod
    def at(cls, address: str) -> Self:
        """The bucket of s3://<bucket>/<prefix>; asks it nothing. Raises StorageError for a malformed address."""
        name, prefix = client.parse(address)
        return cls(name, prefix, client.client(f"s3://{name}/{prefix}"))

    def address(self, key: str = "") -> str:
        return f"s3://{self.name}/{self.prefix}{key}"

    def object(self, key: str) -> Object:
        return Object(self.client, self.name, self.prefix + key)

    def check(self) -> None:
        """Raises StorageError, within about 20 s, where the bucket does not answer or may not be listed."""
        with client.refused(self.address(), "be listed"):
            self.client.list_objects_v2(Bucket=self.name, Prefix=self.prefix, MaxKeys=1)

    def create(self, key: str, data: bytes, options: Mapping[str, Any] | None = None) -> bool:
        """Make an object that is not there; of all who try, one gets True. Raises StorageError.

        options: more arguments of the request, such as a retention.
        When an answer was lost and the repeated request finds the key taken, the object is read: it is ours where it
        has our bytes and the name that this call gave itself. After an error the object may or may not be there.
        """
        from botocore.exceptions import ClientError

        target, writer = self.object(key), secrets.token_hex(16)
        sent = {**(options or {}), "IfNoneMatch": "*", "Metadata": {WRITER: writer}}
        with client.refused(target.where, "be created"):
            for attempt in range(1, CONFLICTS + 1):
                try:
                    target.put_whole(data, **sent)
                    break
                except ClientError as error:
                    code = error.response["Error"]["Code"]
                    if code == "PreconditionFailed":
                        found = target.get()
                        return found is not None and found.data == data and found.metadata.get(WRITER) == writer
                    if code != "ConditionalRequestConflict" or attempt == CONFLICTS:
                        raise
                time.sleep(PAUSE_S * attempt)
        self._must_refuse(target, data, sent)
        return True

    def read(self, key: str) -> bytes | None:
        """The bytes of an object, None where there is none. Raises StorageError, also for more than 256 MiB."""
        found = self.object(key).get(MAX_BYTES)
        return None if found is None else found.data

    def keys(self, prefix: str) -> list[str]:
        """All keys that begin with `prefix`, sorted. Raises StorageError."""
        with client.refused(self.address(prefix), "be listed"):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=self.prefix + prefix)
            found = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return sorted(key.removeprefix(self.prefix) for key in found)

    def put_folder(self, name: str, folder: Path) -> str:
        """Upload the evidence `name`; gives its address. What is already there is not sent again.

        `name` is the sha256 of manifest.json, which goes last, when the bucket was seen to hold all that it lists.
        Raises StorageError; no reader then sees the evidence, and doing it again completes it.
        """
        return folders.put(self, name, folder)

    def fetch_folder(self, prefix: str, store: Path) -> Path:
        """The evidence whose id begins with `prefix`, copied to store/<id>, whole or not at all; gives that folder.

        Every file has the size and sha256 that the manifest lists, and the manifest the hash that is the id; what the
        evidence says is the caller's to check. Raises StorageError where there is none, more than one, or damage.
        """
        return folders.fetch(self, prefix, store)

    def _must_refuse(self, target: Object, data: bytes, sent: Mapping[str, Any]) -> None:
        """Raises StorageError where the server makes an object twice: some take conditions and ignore them."""
        from botocore.exceptions import ClientError

        with client.refused(target.where, "be created once"):
            try:
                target.put_whole(data, **sent)
            except ClientError as error:
                if error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict"):
                    return
                raise
        raise StorageError(
            f"{target.where}: cannot be created once: the server ignores If-None-Match, so that two writers would both "
            "believe to be the first; use a server that honours it"
        )


def configured() -> Bucket | None:
    """The bucket that VQBET_STORAGE names, None where it is not set. Raises StorageError for a malformed address."""
    address = os.environ.get(client.VARIABLE, "")
    return Bucket.at(address) if address else None
