"""S3 client: address, timeouts, repetition, and translation of its errors to StorageError.

A request that fails for a reason that may pass is repeated for `patience.PATIENCE_S`, which a last try outlasts by
READ_TIMEOUT_S at most.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vqbet.contract import StorageError
from vqbet.storage import patience

VARIABLE = "VQBET_STORAGE"
CONNECT_TIMEOUT_S = 3.0  # also for sending each block of a body
READ_TIMEOUT_S = 6.0  # without a byte of the response

ADDRESS = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?P<prefix>(?:/[\w=-][\w.=-]*)*)/?", re.ASCII)

CREDENTIALS = "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
CHANGED = "bytes changed on the way or in the bucket; run it again, and look at the network and the bucket if it stays"
ADVICE = {
    "NoSuchBucket": f"there is no such bucket; make it, or correct {VARIABLE} (of a ledger: VQBET_LEDGER)",
    "AccessDenied": "allow these credentials to list, read and write there, and to list and abort multipart uploads",
    "InvalidAccessKeyId": CREDENTIALS,
    "SignatureDoesNotMatch": CREDENTIALS,
    "ExpiredToken": CREDENTIALS,
    "InvalidToken": CREDENTIALS,
    "NoCredentialsError": CREDENTIALS,
    "PartialCredentialsError": CREDENTIALS,
    "ProfileNotFound": CREDENTIALS,
    "BadDigest": CHANGED,
    "XAmzContentSHA256Mismatch": CHANGED,
    "FlexibleChecksumError": CHANGED,
    "NoSuchUpload": "another process is uploading the same file, or a server dropped it; run it again",
}
OTHERWISE = (
    f"see that the server of AWS_ENDPOINT_URL answers and that {VARIABLE} (of a ledger: VQBET_LEDGER) is right, then "
    "run it again"
)


def parse(address: str) -> tuple[str, str]:
    """Return bucket and prefix ("" or "a/b/"). Raises StorageError unless `address` is s3://<bucket>/<prefix>."""
    match = ADDRESS.fullmatch(address)
    if match is None:
        raise StorageError(
            f"{VARIABLE}: expected s3://<bucket> or s3://<bucket>/<prefix> in letters, digits and . _ = -, "
            f"got {clean(address)!r}; correct it, or unset it to store nothing in S3"
        )
    prefix = match["prefix"].strip("/")
    return match["bucket"], f"{prefix}/" if prefix else ""


def client(
    where: str,
    *,
    endpoint_url: str = "",
    key: str = "",
    secret: str = "",
    region: str = "",
    patience_s: float | None = None,
) -> Any:
    """Return a new client, which is thread-safe. Raises StorageError if boto3 cannot create one.

    endpoint_url, key, secret, region: by default those of boto3's own variables. patience_s: for how long a request is
    repeated; by default `patience.PATIENCE_S`.
    """
    import boto3.session
    from botocore.config import Config

    settings = Config(
        retries={"mode": "standard", "total_max_attempts": 1},  # `Patience` repeats
        signature_version="s3v4",  # also of presigned links, for which botocore may choose an older one
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        request_checksum_calculation="when_supported",
        response_checksum_validation="when_supported",
    )
    try:
        with refused(where, "be opened"):
            session = boto3.session.Session(key or None, secret or None, region_name=region or None)
            made = session.client("s3", config=settings, endpoint_url=endpoint_url or None)
            made.meta.events.register(
                "needs-retry.s3", patience.Patience(patience.PATIENCE_S if patience_s is None else patience_s)
            )
            return made
    except ValueError as error:  # botocore cannot parse an endpoint or a setting
        raise StorageError(f"{where}: cannot be opened: {clean(str(error))}; correct the AWS_ variables") from error


@contextmanager
def refused(where: str, action: str) -> Iterator[None]:
    """Convert errors of boto3, network, server and disk to StorageError("<where>: cannot <action>: ...").

    Only the server's error code is quoted: the rest of its response may reveal a credential.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        code = _code(error)
        raise StorageError(f"{where}: cannot {action}: {code}; {ADVICE.get(code, OTHERWISE)}") from error
    except (BotoCoreError, HTTPError) as error:
        advice = ADVICE.get(type(error).__name__, OTHERWISE)
        raise StorageError(f"{where}: cannot {action}: {clean(str(error))}; {advice}") from error
    except OSError as error:
        reason = f"{error.filename or 'the disk'}: {error.strerror or error}"
        raise StorageError(f"{where}: cannot {action}: {reason}; free space or permissions") from error


def _code(error: Any) -> str:
    """Return the server's error code by name. A HEAD response has no body and therefore only an HTTP status."""
    code = re.sub(r"\W", "", str(error.response["Error"].get("Code", "")))[:60]
    return {"403": "AccessDenied", "404": "NotFound", "": "an answer without a code"}.get(code, code)


def clean(text: str) -> str:
    """Return `text` in one line of at most 300 characters, without user and password of a URL and without its query."""
    return re.sub(r"\?[^\s\"]*", "", re.sub(r"//[^/\s]*@", "//", " ".join(text.split())))[:300]
