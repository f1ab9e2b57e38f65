"""A bucket, or the part of it below a prefix: create, read and list objects; upload and fetch folders of evidence.

<prefix>/evidence/<id>/manifest.json   uploaded last: readers ignore evidence without a manifest
                      /...             the files that the manifest lists
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

CONFLICTS = 6  # tries of a conditional put that conflicts with a concurrent one
TAKEN, CONFLICT = "PreconditionFailed", "ConditionalRequestConflict"
WRITER = "writer"  # metadata key: random name of the call that created an object


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket and a prefix, which is empty or ends with "/". Keys are relative to the prefix. Thread-safe."""

    name: str
    prefix: str
    client: Any = field(repr=False, compare=False)

    @classmethod
    def at(cls, address: str) -> Self:
        """Return the bucket of s3://<bucket>/<prefix>; sends no request. Raises StorageError if malformed."""
        name, prefix = client.parse(address)
        return cls(name, prefix, client.client(f"s3://{name}/{prefix}"))

    def address(self, key: str = "") -> str:
        return f"s3://{self.name}/{self.prefix}{key}"

    def object(self, key: str) -> Object:
        return Object(self.client, self.name, self.prefix + key)

    def check(self) -> None:
        """Raise StorageError if the bucket does not answer, within a minute, or may not be listed."""
        with client.refused(self.address(), "be listed"):
            self.client.list_objects_v2(Bucket=self.name, Prefix=self.prefix, MaxKeys=1)

    def create(self, key: str, data: bytes, options: Mapping[str, Any] | None = None) -> bool:
        """Create an object and return True, or return False if the key is taken; only one concurrent caller gets True.

        options: more arguments of the request, such as a retention. If a response was lost and the retried request
        finds the key taken, the object is read back: it is ours if it has our bytes and the random writer name of this
        call. Raises StorageError; the object may or may not exist then.
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
                    if (code := _code(error)) == TAKEN:
                        found = target.get()
                        return found is not None and found.data == data and found.metadata.get(WRITER) == writer
                    if code != CONFLICT or attempt == CONFLICTS:
                        raise
                time.sleep(PAUSE_S * attempt)
        self._must_refuse(target, data, sent)
        return True

    def read(self, key: str) -> bytes | None:
        """Return the bytes of an object, None if there is none. Raises StorageError, also for more than 256 MiB."""
        found = self.object(key).get(MAX_BYTES)
        return None if found is None else found.data

    def keys(self, prefix: str) -> list[str]:
        """Return all keys that begin with `prefix`, sorted. Raises StorageError."""
        with client.refused(self.address(prefix), "be listed"):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=self.prefix + prefix)
            found = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return sorted(key.removeprefix(self.prefix) for key in found)

    def put_folder(self, name: str, folder: Path) -> str:
        """Upload the evidence `name` and return its address. Files that are already there are not sent again.

        `name` is the sha256 of manifest.json, which is uploaded last, after the bucket confirmed all other files.
        Raises StorageError; no reader then sees the evidence, and calling again completes the upload.
        """
        return folders.put(self, name, folder)

    def fetch_folder(self, prefix: str, store: Path) -> Path:
        """Copy the evidence whose id begins with `prefix` to store/<id>, atomically, and return that folder.

        Verifies the size and sha256 of every file against the manifest, and the manifest's hash against the id. The
        caller checks the content. Raises StorageError if there is no match, more than one, or damage.
        """
        return folders.fetch(self, prefix, store)

    def _must_refuse(self, target: Object, data: bytes, sent: Mapping[str, Any]) -> None:
        """Raise StorageError if the server creates an object twice: some servers accept conditions and ignore them."""
        from botocore.exceptions import ClientError

        with client.refused(target.where, "be created once"):
            try:
                target.put_whole(data, **sent)
            except ClientError as error:
                if _code(error) in (TAKEN, CONFLICT):
                    return
                raise
        raise StorageError(
            f"{target.where}: cannot be created once: the server ignores If-None-Match, so that two writers would both "
            "believe to be the first; use a server that honours it"
        )


def _code(error: Any) -> str:
    """Return the server's code; by its status where the connection broke before the code had come."""
    code = str(error.response["Error"].get("Code", ""))
    return {"412": TAKEN, "409": CONFLICT}.get(code, code)


def configured() -> Bucket | None:
    """Return the bucket that VQBET_STORAGE names, None if it is not set. Raises StorageError if malformed."""
    address = os.environ.get(client.VARIABLE, "")
    return Bucket.at(address) if address else None
