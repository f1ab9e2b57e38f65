"""One object in a bucket: uploads with SHA-256 checksums that the server verifies, and reads with a size limit.

Every request that carries bytes has a checksum in its headers, so the server refuses bytes that changed on the way.
boto3's own transfer uploads large files in parts, each with its checksum; the object's checksum is then the hash of the
parts' hashes. No reader sees an object before its last part has arrived.
"""

from __future__ import annotations

import base64
import hashlib
import io
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

from vqbet.contract import StorageError
from vqbet.storage import client

MULTIPART_BYTES = 8 * 2**20  # larger files are uploaded in parts
PART_BYTES = 8 * 2**20  # S3 refuses parts below 5 MiB, except the last
MAX_BYTES = 256 * 2**20
BLOCK_BYTES = 2**20
PAUSE_S = 0.2
READS = 3  # of a body that arrives truncated or changed
UPLOADS = 4  # parts that are sent at once
COMPLETE = "CompleteMultipartUpload"


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes and the user metadata of an object."""

    data: bytes = field(repr=False)
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Object:
    """An object by its full key, which may not exist."""

    client: Any = field(repr=False, compare=False)
    bucket: str
    key: str
    version: str = ""  # version id in a bucket with versioning; empty for the latest

    @property
    def where(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    def get(self, limit: int = MAX_BYTES) -> Content | None:
        """Return the content, or None if there is no object. Raises StorageError, also for more than `limit` bytes.

        A body that is truncated or does not match the server's checksum is requested again, READS times in all.
        """
        from botocore.exceptions import BotoCoreError

        with client.refused(self.where, "be read"):
            for attempt in range(1, READS + 1):
                answer = self._found("get_object")
                if answer is None:
                    return None
                try:
                    return Content(self._body(answer["Body"], limit), answer["Metadata"])
                except BotoCoreError:
                    if attempt == READS:
                        raise
                time.sleep(PAUSE_S * attempt)
        raise AssertionError("the last attempt gives or raises")

    def holds(self, data: bytes) -> bool:
        """Return whether the server reports an object with the size and SHA-256 of `data`."""
        with client.refused(self.where, "be looked at"):
            answer = self._found("head_object")
        if answer is None or answer["ContentLength"] != len(data):
            return False
        return str(answer.get("ChecksumSHA256", "")).partition("-")[0] == _expected(data)  # "<hash>-<parts>"

    def put(self, data: bytes) -> None:
        """Upload `data` unless the object already holds it, and verify the result. Raises StorageError."""
        if self.holds(data):
            return
        with client.refused(self.where, "be uploaded"):
            if len(data) > MULTIPART_BYTES:
                self._put_parts(data)
            else:
                self.put_whole(data)
        if not self.holds(data):
            raise StorageError(
                f"{self.where}: was uploaded, but the server does not say that it holds {len(data)} bytes with the "
                "SHA-256 that was sent; use a server that keeps SHA-256 checksums, or run it again"
            )

    def put_whole(self, data: bytes, **options: Any) -> None:
        """Upload `data` in one request. Raises botocore's errors."""
        self.client.put_object(**self._at, **_sent(data), **options)

    @property
    def _at(self) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.key}

    @property
    def _of_version(self) -> dict[str, str]:
        return {"VersionId": self.version} if self.version else {}

    def _found(self, operation: str) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        try:
            return getattr(self.client, operation)(**self._at, **self._of_version, ChecksumMode="ENABLED")
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):  # a HEAD has no body to name the code
                return None
            raise

    def _body(self, stream: Any, limit: int) -> bytes:
        """Return all bytes. botocore compares length and checksum in the read that reaches the end."""
        data = bytearray()
        with closing(stream):
            while block := stream.read(BLOCK_BYTES):
                data += block
                if len(data) > limit:
                    raise StorageError(f"{self.where}: expected at most {limit} bytes, got more; it was not read")
        return bytes(data)

    def _put_parts(self, data: bytes) -> None:
        """Upload in parts. An upload of the same key that a killed process or a lost answer left is aborted."""
        from boto3.s3.transfer import TransferConfig
        from botocore.exceptions import ClientError

        settings = TransferConfig(
            multipart_threshold=MULTIPART_BYTES + 1, multipart_chunksize=PART_BYTES, max_concurrency=UPLOADS
        )
        sent = {"ExtraArgs": {"ChecksumAlgorithm": "SHA256"}, "Config": settings}
        self._end_uploads()
        try:
            self.client.upload_fileobj(io.BytesIO(data), self.bucket, self.key, **sent)
        except ClientError as error:
            if (error.operation_name, error.response["Error"]["Code"]) != (COMPLETE, "NoSuchUpload"):
                raise
            # Either the upload is complete and the answer was lost, or it is gone: `put` checks the object.
        finally:
            with suppress(StorageError), client.refused(self.where, "be aborted"):  # the first error takes precedence
                self._end_uploads()

    def _end_uploads(self) -> None:
        """Abort the uploads of this key that were begun and not completed."""
        pages = self.client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=self.key)
        for found in [found for page in pages for found in page.get("Uploads", [])]:
            if found["Key"] == self.key:
                self._abort(found["UploadId"])

    def _abort(self, upload: str) -> None:
        from botocore.exceptions import ClientError

        try:
            self.client.abort_multipart_upload(**self._at, UploadId=upload)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchUpload":  # already ended
                raise


def _sent(data: bytes) -> dict[str, Any]:
    """Return a body and its checksum, which botocore sends unchanged in the request's headers."""
    return {"Body": data, "ChecksumAlgorithm": "SHA256", "ChecksumSHA256": _sha256(data)}


def _parts(data: bytes) -> Iterator[bytes]:
    return (data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES))


def _expected(data: bytes) -> str:
    """Return the checksum that S3 keeps of an object uploaded by `Object.put`."""
    if len(data) <= MULTIPART_BYTES:
        return _sha256(data)
    return _sha256(b"".join(hashlib.sha256(part).digest() for part in _parts(data)))


def _sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
