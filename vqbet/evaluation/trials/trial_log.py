"""Log of a session of trials: JSON lines, each with the hash of the one before, each on the disk before it counts.

    {"hash": ..., "key": ..., "kind": ..., "prev": ..., "seq": ..., "when": ..., <fields of the kind>}

One process writes at a time. `key` makes a write idempotent: a second event of a key that is there is not written. A
last line that a crash cut off was never acknowledged, and is removed when the log is opened for writing.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, final

from vqbet.contract import GateError
from vqbet.files import atomic, canonical, reading

MOST_BYTES = 64 * 2**20
MOST_EVENTS = 100_000
OWN = ("seq", "prev", "hash", "key", "kind", "when")
# kind -> names of its fields. operator: who entered it, "" for the desk itself or the robot.
KINDS: Mapping[str, tuple[str, ...]] = {
    "opened": ("plan", "operator", "robot", "user"),
    "armed": ("trial", "slot", "repeat", "nonce", "statement", "signature"),
    "started": ("trial",),
    "stopped": ("trial", "operator", "by", "steps", "duration_s", "holds", "interventions", "recording"),
    "graded": ("trial", "operator", "stage", "tag", "remark"),
    "invalid": ("trial", "operator", "reason", "remark"),
    "undone": ("trial", "operator", "event"),  # event: seq of the outcome that is taken back
    "paused": ("operator",),
    "resumed": ("operator",),
    "looked": ("pairs", "go_on"),
    "closed": ("operator", "why"),
}


@dataclass(frozen=True, slots=True)
class TrialEvent:
    """One line of the log."""

    seq: int  # from 1
    kind: str
    key: str
    when: str  # UTC, ISO 8601, milliseconds
    fields: Mapping[str, Any]
    hash: str

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]


@final
class TrialLog:
    """The log of one session, open for writing. Raises GateError where another process has it, or it is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "a+b")  # noqa: SIM115  # open as long as this object
        except OSError as error:
            raise GateError(f"{path}: cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise GateError(
                f"{path}: another process runs this session; there is one desk for a session: use its page, or end it"
            ) from error
        self._cut_off()
        self.events = read(path)
        self._keys = {event.key: event for event in self.events}

    def append(self, kind: str, key: str, **fields: Any) -> TrialEvent:
        """Append an event durably and return it; for a key that is there, return that event and write nothing.

        Raises GateError where the event has other fields than its kind, or the disk takes nothing; the log is then as
        it was.
        """
        if key in self._keys:
            return self._keys[key]
        if kind not in KINDS or set(fields) != set(KINDS[kind]):
            raise GateError(f"{self.path}: an event {kind!r} has no fields {sorted(fields)}")
        if len(self.events) >= MOST_EVENTS:
            raise GateError(f"{self.path}: has {MOST_EVENTS} events; end this session")
        before = self.events[-1].hash if self.events else ""
        said = {"seq": len(self.events) + 1, "prev": before, "key": key, "kind": kind, "when": _now(), **fields}
        said["hash"] = canonical.digest(said, ascii=False)
        event = _event(said)
        end = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write((canonical.line(said, ascii=False) + "\n").encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), end)
            raise GateError(
                f"{self.path}: nothing was written: {error.strerror}; {atomic.advice(error) or 'see to the disk'}"
            ) from error
        self.events.append(event)
        self._keys[key] = event
        return event

    def known(self, key: str) -> TrialEvent | None:
        """Return the event of a key; None where there is none yet."""
        return self._keys.get(key)

    def close(self) -> None:
        self._file.close()

    def _cut_off(self) -> None:
        """Remove a last line without its end: a crash cut it off before anybody was told that it is there."""
        content = self.path.read_bytes()
        if content and not content.endswith(b"\n"):
            os.ftruncate(self._file.fileno(), content.rfind(b"\n") + 1)
            os.fsync(self._file.fileno())


def read(path: Path) -> list[TrialEvent]:
    """Return the events of a log, verified link by link. Raises GateError naming the first line that is wrong."""
    text = reading.load(path, GateError, most=MOST_BYTES)
    if text and not text.endswith("\n"):
        raise GateError(f"{path}: the last line is cut off; open the session once more, which removes it")
    found: list[TrialEvent] = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        where = f"{path}: line {number}"
        said = reading.parse(line, where, GateError)
        with reading.sentences(where, GateError, "the log was changed; bring the original back"):
            rest = {name: value for name, value in said.items() if name != "hash"}
            if canonical.digest(rest, ascii=False) != said["hash"] or canonical.line(said, ascii=False) != line:
                raise GateError(f"{where}: was changed: its hash is another one; bring the original log back")
            before = found[-1].hash if found else ""
            if said["seq"] != number or said["prev"] != before:
                raise GateError(f"{where}: does not follow the line before: lines were removed, added or re-ordered")
            if said["kind"] not in KINDS or set(said) != {*OWN, *KINDS[said["kind"]]}:
                raise GateError(f"{where}: is no event of a session: {reading.short(said['kind'])}")
            found.append(_event(said))
    keys = [event.key for event in found]
    if len(set(keys)) != len(keys):
        raise GateError(f"{path}: one event is there twice; bring the original log back")
    return found


def _event(said: Mapping[str, Any]) -> TrialEvent:
    fields = {name: value for name, value in said.items() if name not in OWN}
    return TrialEvent(said["seq"], said["kind"], said["key"], said["when"], fields, said["hash"])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
