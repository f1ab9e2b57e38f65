"""The command line of DVC, which repeats failed requests to S3 until a server that restarts is back.

Run as `python patience.py ARGUMENT...` in place of `python -m dvc ARGUMENT...`. s3fs, through which DVC reaches S3,
tries a request 5 times within 2 s, and gives up at once where no server listens.
"""

from __future__ import annotations

import os
import sys

TRIES = 12  # s3fs pauses min(0.1 * 1.7**n, 15) seconds after try n = 0, 1, ...: the last try is made after 43 s
STATUS = (500, 502, 503, 504)


def extend() -> None:
    """Let the S3 file systems that this process opens from now on repeat what may pass.

    botocore's own repetition within each try is turned off. AWS_REGION keeps DVC from a request for the bucket's region
    before every other, which s3fs does not repeat.
    """
    import s3fs.core

    os.environ["AWS_MAX_ATTEMPTS"] = "1"
    if region := os.environ.get("AWS_DEFAULT_REGION"):
        os.environ.setdefault("AWS_REGION", region)
    s3fs.core.S3FileSystem.retries = TRIES
    s3fs.core.set_custom_error_handler(may_pass)


def may_pass(error: Exception) -> bool:
    """Return whether a request failed by the network, or by a server that is busy, broken or starting."""
    from botocore.exceptions import ClientError, HTTPClientError
    from botocore.exceptions import ConnectionError as NetworkError

    if isinstance(error, ClientError):
        return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in STATUS
    return isinstance(error, (NetworkError, HTTPClientError))


if __name__ == "__main__":
    from dvc.cli import main

    extend()
    sys.exit(main(sys.argv[1:]))
