"""Sentences on what S3 refused or failed to answer, from the exceptions and the output of DVC.

Only the server's code is quoted: the rest of its answer may reveal a credential.
"""

from __future__ import annotations

import re

CODE = re.compile(r"An error occurred \((\w{1,60})\) when calling the (\w{1,60}) operation")
NETWORK = re.compile(
    r"Could not connect to the endpoint|[Tt]imeout on endpoint|Connection was closed|failure in name resolution"
    r"|Response payload is not completed|Unable to locate credentials"
)
CREDENTIALS = "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
ADVICE = {
    "NoSuchBucket": "there is no such bucket; make it, or correct the remote: dvc remote list",
    "AccessDenied": "allow these credentials to list, read and write there",
    "403": "allow these credentials to list, read and write there",
    "InvalidAccessKeyId": CREDENTIALS,
    "SignatureDoesNotMatch": CREDENTIALS,
    "ExpiredToken": CREDENTIALS,
    "Unable to locate credentials": CREDENTIALS,
}
OTHERWISE = "see that the server of AWS_ENDPOINT_URL answers, then run it again: nothing is half there"


def told(text: str) -> str:
    """Return the cause that an output of DVC or a message of botocore names, with advice; "" if it names none."""
    if found := CODE.search(text):
        return f"{found[1]} ({found[2]}); {ADVICE.get(found[1], OTHERWISE)}"
    if lost := NETWORK.search(text):
        return f"{lost[0]}; {ADVICE.get(lost[0], OTHERWISE)}"
    return ""


def cause(error: BaseException) -> str:
    """Return the cause of an exception of DVC, s3fs or botocore, as `told`."""
    reason: BaseException | None = error
    while reason is not None:
        if said := told(str(reason)):
            return said
        reason = reason.__cause__
    return ""
