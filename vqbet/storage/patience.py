"""Repetition of S3 requests that failed for a reason that may pass, for as long as a server needs to restart.

botocore counts attempts and draws its pauses from 0 s on, so that no number of attempts says how long it goes on; its
quota also ends repetition early where many requests fail at once. Here the time counts.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PATIENCE_S = 45.0  # after the first failure of a request; a restarted SeaweedFS was measured to need 18 to 23 s
FIRST_S, LONGEST_S = 0.2, 5.0  # pauses, doubled each time
SPREAD = (0.75, 1.25)  # of a pause, so that many clients do not return at the same moment
STATUS = frozenset((500, 502, 503, 504))
CODES = frozenset(("RequestTimeout", "RequestTimeoutException", "PriorRequestNotComplete", "SlowDown", "Throttling"))
UNTIL = "vqbet_until"  # in the context of a request


@dataclass(frozen=True, slots=True)
class Patience:
    """Handler of botocore's event needs-retry: returns the pause before the next try, None for no further try.

    The last try is made `patience_s` after the first failure, never earlier.
    """

    patience_s: float
    clock: Callable[[], float] = time.monotonic

    def __call__(
        self, *, attempts: int, response: Any, caught_exception: Any, request_dict: dict[str, Any], **_: Any
    ) -> float | None:
        cut = response is not None and truncated(response[0], request_dict.get("method", ""))
        if not cut and not may_pass(response, caught_exception):
            return None
        now = self.clock()
        left = request_dict["context"].setdefault(UNTIL, now + self.patience_s) - now
        if left <= 0:
            return None
        return min(pause_s(attempts), left)


def truncated(answer: Any, method: str) -> bool:
    """Return whether the connection broke within an answer that names an error: its code is unknown then.

    A body that was asked for is not read here; whoever reads it compares its length.
    """
    if answer.status_code < 300 or method == "HEAD":
        return False
    return len(answer.content) < int(answer.headers.get("content-length", 0))


def pause_s(attempts: int) -> float:
    """Return a pause after so many failures."""
    return min(FIRST_S * 2.0 ** (attempts - 1), LONGEST_S) * random.uniform(*SPREAD)


def may_pass(response: Any, caught_exception: Any) -> bool:
    """Return whether a request failed by the network, or by a server that is busy, broken or starting."""
    from botocore.exceptions import ConnectionError as NetworkError
    from botocore.exceptions import HTTPClientError

    if response is None:
        return isinstance(caught_exception, (NetworkError, HTTPClientError))
    answer, parsed = response
    return answer.status_code in STATUS or parsed.get("Error", {}).get("Code") in CODES
