"""One object in a bucket: put with SHA-256 checksums that the server verifies, asked back, read under a cap.

A checksum goes as a header of its own with every request that carries bytes, so the server refuses what changed on the
way. Large files go in parts, each with its checksum; the object's is then the hash of the parts' hashes.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any

from vqbet.contract import StorageError
from vqbet.storage import client

MULTIPART_BYTES = 8 * 2**20  # a file larger than this goes in parts
PART_BYTES = 8 * 2**20  # S3 refuses parts below 5 MiB, but for the last
MAX_BYTES = 256 * 2**20
BLOCK_BYTES = 2**20
PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of an object, and what its writer said of it."""

    data: bytes = field(repr=False)
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Object:
    """An object by its full key; it need not exist."""

    client: Any = field(repr=False, compare=False)
    bucket: str
    key: str
    version: str = ""  # of a bucket that keeps versions; empty for the latest

    @property
    def where(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    def get(self, limit: int = MAX_BYTES) -> Content | None:
        """What it holds, or None where there is none. Raises StorageError, also for more than `limit` bytes.

        A body that breaks off or has another checksum than the server's is asked for again, as often as any request.
        """
        from botocore.exceptions import BotoCoreError

        with client.refused(self.where, "be read"):
            for attempt in range(1, client.ATTEMPTS + 1):
                answer = self._found("get_object")
                if answer is None:
                    return None
                try:
                    return Content(self._body(answer["Body"], limit), answer["Metadata"])
                except BotoCoreError:
                    if attempt == client.ATTEMPTS:
                        raise
                time.sleep(PAUSE_S * attempt)
        raise AssertionError("the last attempt gives or raises")

    def holds(self, data: bytes) -> bool:
        """Whether it is there with this size and SHA-256, by the server's word."""
        with client.refused(self.where, "be looked at"):
            answer = self._found("head_object")
        if answer is None or answer["ContentLength"] != len(data):
            return False
        return str(answer.get("ChecksumSHA256", "")).partition("-")[0] == _expected(data)  # "<hash>-<parts>"

    def put(self, data: bytes) -> None:
        """Have it hold `data`, and be sure of it; nothing is sent where it already does. Raises StorageError."""
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
        """One request. Raises botocore's errors."""
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
        """All bytes; the read that finds the end is the one in which botocore compares length and checksum."""
        data = bytearray()
        with closing(stream):
            while block := stream.read(BLOCK_BYTES):
                data += block
                if len(data) > limit:
                    raise StorageError(f"{self.where}: expected at most {limit} bytes, got more; it was not read")
        return bytes(data)

    def _put_parts(self, data: bytes) -> None:
        """In parts; whatever stops it, no half upload stays unless the process is killed: then the next one ends it."""
        upload = self.client.create_multipart_upload(**self._at, ChecksumAlgorithm="SHA256")["UploadId"]
        try:
            self._end_others(upload)
            parts = [self._put_part(upload, number, part) for number, part in enumerate(_parts(data), start=1)]
            self._complete(upload, parts)
        except BaseException:
            with suppress(StorageError), client.refused(self.where, "be aborted"):  # the first error is to be shown
                self._abort(upload)
            raise

    def _put_part(self, upload: str, number: int, part: bytes) -> dict[str, Any]:
        made = self.client.upload_part(**self._at, UploadId=upload, PartNumber=number, **_sent(part))
        return {"PartNumber": number, "ETag": made["ETag"], "ChecksumSHA256": _sha256(part)}

    def _complete(self, upload: str, parts: list[dict[str, Any]]) -> None:
        from botocore.exceptions import ClientError

        try:
            self.client.complete_multipart_upload(**self._at, UploadId=upload, MultipartUpload={"Parts": parts})
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchUpload":
                raise
            # It was complete and the answer got lost, or it is gone: `put` asks for the object before it returns.

    def _end_others(self, upload: str) -> None:
        """Abort older uploads of the same key: of a process that was killed, or made by a request that was repeated."""
        pages = self.client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=self.key)
        for found in [found for page in pages for found in page.get("Uploads", [])]:
            if found["Key"] == self.key and found["UploadId"] != upload:
                self._abort(found["UploadId"])

    def _abort(self, upload: str) -> None:
        from botocore.exceptions import ClientError

        try:
            self.client.abort_multipart_upload(**self._at, UploadId=upload)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchUpload":  # already ended
                raise


def _sent(data: bytes) -> dict[str, Any]:
    """A body and its checksum, which botocore then sends as it is, in the request's headers."""
    return {"Body": data, "ChecksumAlgorithm": "SHA256", "ChecksumSHA256": _sha256(data)}


def _parts(data: bytes) -> Iterator[bytes]:
    return (data[start : start + PART_BYTES] for start in range(0, len(data), PART_BYTES))


def _expected(data: bytes) -> str:
    """The checksum that S3 keeps of an object that was put by `Object.put`."""
    if len(data) <= MULTIPART_BYTES:
        return _sha256(data)
    return _sha256(b"".join(hashlib.sha256(part).digest() for part in _parts(data)))


def _sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
