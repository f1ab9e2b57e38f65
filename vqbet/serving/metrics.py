"""Counters of a server and their text form, as Prometheus reads them (exposition format 0.0.4)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import final

BOUNDS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)  # upper bounds of a histogram's buckets
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
COUNTERS: Mapping[str, str] = {
    "vqbet_requests_total": "Requests answered with actions.",
    "vqbet_resets_total": "Resets answered.",
    "vqbet_episodes_total": "Episodes started.",
    "vqbet_refused_requests_total": "Requests answered with an error, a sentence for the robot.",
    "vqbet_refused_connections_total": "Connections refused before they were opened.",
    "vqbet_failures_total": "Unexpected errors; each is in the server's log.",
    "vqbet_idle_total": "Connections closed because the robot sent nothing, or took nothing, for too long.",
    "vqbet_calls_total": "Calls of the policy; requests that meet share one.",
    "vqbet_switches_total": "Switches to another policy.",
}


@final
class Histogram:
    """Counts of seconds in buckets."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self._sum_s = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1
        self._sum_s += seconds

    def lines(self, name: str, about: str) -> Iterator[str]:
        yield f"# HELP {name} {about}"
        yield f"# TYPE {name} histogram"
        below = 0
        for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), self._counts, strict=True):
            below += count
            yield f'{name}_bucket{{le="{bound}"}} {below}'
        yield f"{name}_sum {self._sum_s:.9g}"
        yield f"{name}_count {below}"


@final
class Metrics:
    """All numbers of one server."""

    def __init__(self) -> None:
        self._counters: Counter[str] = Counter()
        self.served, self.policy = Histogram(), Histogram()

    def count(self, name: str, by: int = 1) -> None:
        """Add to one of COUNTERS; name: without prefix and suffix."""
        self._counters[f"vqbet_{name}_total"] += by

    def text(self, gauges: Mapping[str, tuple[str, float]], digest: str, reference: str) -> str:
        """Return the page. gauges: explanation and value by name."""
        return "\n".join([*self._lines(gauges, digest, reference), ""])

    def _lines(self, gauges: Mapping[str, tuple[str, float]], digest: str, reference: str) -> Iterator[str]:
        for name, about in COUNTERS.items():
            yield from (f"# HELP {name} {about}", f"# TYPE {name} counter", f"{name} {self._counters[name]}")
        for name, (about, value) in gauges.items():
            yield from (f"# HELP {name} {about}", f"# TYPE {name} gauge", f"{name} {value:g}")
        yield from ("# HELP vqbet_policy_info The policy served now.", "# TYPE vqbet_policy_info gauge")
        yield f'vqbet_policy_info{{digest="{_label(digest)}",reference="{_label(reference)}"}} 1'
        yield from self.served.lines("vqbet_served_seconds", "From a request to its answer, with the network's queue.")
        yield from self.policy.lines("vqbet_policy_seconds", "One call of the policy.")


def _label(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
