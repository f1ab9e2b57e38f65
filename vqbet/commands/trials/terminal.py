"""The operator's side of a session by single keys in a terminal; the same calls as the page.

space  start, stop, go on      1 2 3 ...  furthest stage      t  tag      r  remark
i      invalid                 u          undo                p  pause    e  end the session
"""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Callable, Sequence
from typing import Any, Protocol, final

from vqbet.commands.trials.desk_client import DeskClient, DeskRefusal
from vqbet.contract import GateError

LOOK_S = 0.1  # between two looks at keys and at the desk
MOST_LINE = 500
Say = Callable[[str], None]


class Keys(Protocol):
    """Source of single keys."""

    def key(self, wait_s: float) -> str:
        """Return the next key, "" where none was pressed in time."""
        ...


@final
class Keyboard:
    """Single keys of a terminal, for the time of a `with`. Raises GateError where there is no terminal."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._at = sys.stdin.fileno() if descriptor is None else descriptor
        if not os.isatty(self._at):
            raise GateError("--terminal: expected a terminal to read keys from; use the page")

    def __enter__(self) -> Keyboard:
        self._before = termios.tcgetattr(self._at)
        tty.setcbreak(self._at)
        return self

    def __exit__(self, *_: object) -> None:
        termios.tcsetattr(self._at, termios.TCSADRAIN, self._before)

    def key(self, wait_s: float) -> str:
        if not select.select([self._at], [], [], wait_s)[0]:
            return ""
        return os.read(self._at, 1).decode(errors="ignore")


def run(client: DeskClient, keys: Keys, say: Say) -> str:
    """Operate a session until it is closed, and return why it is."""
    operator = _Operator(client, keys, say)
    while not operator.state["closed"]:
        operator.step()
    say(f"the session is closed: {operator.state['closed']}")
    return str(operator.state["closed"])


class _Operator:
    """Display of a session in a terminal, and the change that each key makes in each phase."""

    def __init__(self, client: DeskClient, keys: Keys, say: Say) -> None:
        self._client, self._keys, self._say = client, keys, say
        self._tag = self._remark = self._shown = ""
        self.state = client.state()

    def step(self) -> None:
        """Show what has changed, and do what one key asks for."""
        self._show()
        if pressed := self._keys.key(LOOK_S):
            try:
                self._press(pressed)
            except DeskRefusal as error:
                self._say(f"  {error}")
        self.state = self._client.state()

    def _press(self, pressed: str) -> None:
        phase, code = self.state["phase"], self.state["trial"]
        if pressed in " \r\n":
            self._main(phase, code)
        elif phase == "stopped" and pressed.isdigit():
            self._grade(code, int(pressed))
        elif phase == "stopped" and pressed == "t":
            self._tag = self._chosen("tag", self.state["tags"])
        elif phase == "stopped" and pressed == "r":
            self._remark = self._line("remark: ")
        elif pressed == "i" and phase in ("armed", "running", "stopped"):
            if reason := self._chosen("why is it invalid", self.state["invalid"]):
                self._client.change("invalid", trial=code, reason=reason)
        elif pressed == "u" and self.state["last"]["trial"]:
            self._client.change("undo", trial=self.state["last"]["trial"])
        elif pressed == "p" and phase in ("ready", "paused"):
            self._client.change("pause" if phase == "ready" else "resume")
        elif pressed == "e" and phase in ("ready", "paused"):
            self._end()

    def _end(self) -> None:
        if self._line("end the session? it cannot be opened again; type yes: ") == "yes":
            self._client.change("end")

    def _main(self, phase: str, code: str) -> None:
        if phase == "running" and not self.state["robot"]["present"]:
            self._client.change("lost", trial=code)
        elif phase in ("ready", "running", "paused"):
            verb = {"ready": "start", "running": "stop", "paused": "resume"}[phase]
            self._client.change(verb, trial=code)

    def _grade(self, code: str, number: int) -> None:
        stages = self.state["stages"]
        if 1 <= number <= len(stages):
            tag = "" if number == len(stages) else self._tag
            self._client.change("grade", trial=code, stage=stages[number - 1], tag=tag, remark=self._remark)
            self._tag = self._remark = ""

    def _chosen(self, what: str, words: Sequence[str]) -> str:
        """Return the word whose number is pressed next, "" for any other key."""
        self._say(f"  {what}? {_numbered(words)}  any other key: back")
        pressed = self._waited()
        found = int(pressed) if pressed.isdigit() else 0
        return words[found - 1] if 1 <= found <= len(words) else ""

    def _line(self, prompt: str) -> str:
        self._say(f"  {prompt}")
        found = ""
        while (pressed := self._waited()) not in "\r\n":
            found = found[:-1] if pressed in "\b\x7f" else (found + pressed)[:MOST_LINE]
        return found.strip()

    def _waited(self) -> str:
        while not (pressed := self._keys.key(LOOK_S)):
            pass
        return pressed

    def _show(self) -> None:
        said = "\n".join(_lines(self.state, self._tag, self._remark))
        if said != self._shown:
            self._shown = said
            self._say(said)


def _lines(state: dict[str, Any], tag: str, remark: str) -> list[str]:
    """Return what an operator needs to know in a phase."""
    condition, phase, last = state["condition"], state["phase"], state["last"]
    found = [f"{state['done']} of at most {state['most']} done, block {state['block']} of {state['blocks']}"]
    if phase == "ready" and state["trial"]:
        found.append(f"  {condition['name']}: {condition['text'] or 'set the scene up as the plan says'}")
    found.append("  " + _keys(state))
    if phase == "stopped":
        ended = state["ended"]
        found.insert(1, f"  trial {state['trial']}: ended by {ended['by']} after {ended['duration_s']} s")
        found += [f"  {name}: {word}" for name, word in (("tag", tag), ("remark", remark)) if word]
    if phase in ("ready", "paused") and last["trial"]:
        found.append(f"  [u] takes back: {last['what']}")
    if state["server"]:
        found.append(f"  {state['server']}")
    if not state["robot"]["present"]:
        found.append(f"  robot {state['robot']['name']} is not there")
    return found


def _keys(state: dict[str, Any]) -> str:
    phase = state["phase"]
    if phase == "stopped" and not state["ended"]["counts"]:
        return "this trial cannot count: [i] invalid"
    if phase == "running" and not state["robot"]["present"]:
        return "[space] the robot is lost  [i] invalid"
    return {
        "ready": f"[space] {'start' if state['trial'] else 'finish'}  [p] pause  [e] end",
        "armed": f"trial {state['trial']}: waiting for the robot  [i] invalid",
        "running": f"trial {state['trial']}: "
        + ("coming to a stop" if state["stopping"] else "[space] stop  [i] invalid"),
        "stopped": f"how far did it get? {_numbered(state['stages'])}  [t] tag  [r] remark  [i] invalid",
        "paused": "paused: [space] go on  [e] end",
        "closed": "",
    }[phase]


def _numbered(words: Sequence[str]) -> str:
    return "  ".join(f"[{number}] {word}" for number, word in enumerate(words, start=1))
