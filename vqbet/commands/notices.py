"""Notices of what a team must hear at once, to the command or the web address in $VQBET_NOTIFY.

A notice is one JSON object: event (one of EVENTS), task, sentence, when (UTC, ISO 8601), and facts of the event. A
command gets it on its standard input and is started without a shell; an address gets it by POST. What cannot be
delivered is said beside the result and changes nothing: a promotion has happened, whoever hears of it. Flows listen too
and make an event of Prefect of each notice (`flows.notices`).
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from ipaddress import ip_address
from urllib.parse import urlsplit

from vqbet.contract import ConfigError

VARIABLE = "VQBET_NOTIFY"
MOVED, JUDGED, WAITS, DRIFTED, FAILED = "champion moved", "verdict", "waits", "drift", "failed"
EVENTS = (MOVED, JUDGED, WAITS, DRIFTED, FAILED)
TIMEOUT_S = 10.0
WEB = ("http://", "https://")
LISTENERS: list[Callable[[Mapping[str, str]], None]] = []  # called with each notice, whether or not anybody is named


def tell(event: str, task: str, sentence: str, **facts: str) -> dict[str, str]:
    """Deliver a notice; return {"notice": why it was not delivered}, or {} where it was, or where nobody is named."""
    assert event in EVENTS, event
    when = datetime.now(UTC).isoformat(timespec="seconds")
    said = {"event": event, "task": task, "sentence": sentence, "when": when, **facts}
    for listener in LISTENERS:
        listener(said)
    target = os.environ.get(VARIABLE, "")
    if not target:
        return {}
    content = json.dumps(said, ensure_ascii=False).encode()
    try:
        fault = _post(target, content) if target.startswith(WEB) else _run(target, content)
    except ConfigError as error:
        fault = str(error).removeprefix(f"{VARIABLE}: ")
    return {"notice": f"{VARIABLE}: not delivered: {fault}"} if fault else {}


def check() -> None:
    """Raise ConfigError where $VQBET_NOTIFY is neither a command nor an address that may be used."""
    target = os.environ.get(VARIABLE, "")
    if target.startswith(WEB):
        _refuse_clear(target)
    elif target:
        _words(target)


def _run(command: str, content: bytes) -> str:
    try:
        done = subprocess.run(_words(command), input=content, capture_output=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"the command ran longer than {TIMEOUT_S:g} s"
    except OSError as error:
        return f"{error.strerror}: {error.filename}"
    last = (done.stderr.decode(errors="replace").strip().splitlines() or ["it says nothing"])[-1]
    return f"the command ended with {done.returncode}: {last}" if done.returncode else ""


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f"{VARIABLE}: expected a command or an address, got {command!r}: {error}") from error
    if not words:
        raise ConfigError(f"{VARIABLE}: expected a command or an address, got {command!r}")
    return words


def _post(address: str, content: bytes) -> str:
    _refuse_clear(address)
    request = urllib.request.Request(address, content, {"Content-Type": "application/json"}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            return ""
    except urllib.error.HTTPError as error:
        return f"{_shown(address)} answers {error.code} {error.reason}"
    except (OSError, ValueError) as error:
        return f"{_shown(address)}: {getattr(error, 'reason', error)}"


def _refuse_clear(address: str) -> None:
    """Raise ConfigError for http:// to another machine, where everybody on the way could read and change notices."""
    host = urlsplit(address).hostname or ""
    try:
        near = ip_address(host).is_loopback
    except ValueError:
        near = host == "localhost"
    if address.startswith("http://") and not near:
        raise ConfigError(f"{VARIABLE}: {_shown(address)} is in the clear; expected https:// or this machine")


def _shown(address: str) -> str:
    """Return the address without user, path and query, which may hold a secret."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
