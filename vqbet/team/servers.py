"""Starting, checking and ending all parts of a team."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vqbet.contract import TeamError
from vqbet.team import processes
from vqbet.team import settings as choices
from vqbet.team.entry import variables, write_variables
from vqbet.team.parts import PARTS, TeamPart, lacking
from vqbet.team.place import Place
from vqbet.team.settings import Settings

START_S = 480.0  # for one part on a machine with much other work; each takes under 30 s on two free cores
SAID_S = 20.0  # between two sentences while a part is waited for
PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class PartStatus:
    """State of one part. fault: "" where it is well, else a sentence that names its log."""

    name: str
    what: str
    address: str
    pid: int
    fault: str


def up(place: Place, say: Callable[[str], None]) -> list[PartStatus]:
    """Start every part that does not run, wait until all are well, and write the environment file.

    Parts that run are left alone, so that a second call mends what has failed. Raises TeamError, naming part and log,
    if a part does not start; the others stay up.
    """
    if missing := lacking(place):
        raise TeamError(f"not installed: {', '.join(missing)}; the extra `team` holds the packages: make setup")
    place.make()
    with place.held():
        settings = choices.made(place.settings)
        write_variables(place.environment, variables(place, settings))
        done: set[str] = set()
        while len(done) < len(PARTS):
            ready = [part for part in PARTS.values() if part.name not in done and done.issuperset(part.needs)]
            with ThreadPoolExecutor(len(ready)) as pool:  # servers start side by side
                list(pool.map(lambda part: _started(place, settings, part, say), ready))
            done |= {part.name for part in ready}
    return status(place)


def status(place: Place) -> list[PartStatus]:
    """Return the state of every part. Raises TeamError if there is no team in this folder."""
    settings = choices.read(place.settings)
    with ThreadPoolExecutor(len(PARTS)) as pool:
        return list(pool.map(lambda part: _examined(place, settings, part), PARTS.values()))


def down(place: Place, say: Callable[[str], None]) -> int:
    """End every process of the team, workers first, and return their number. What was stored stays."""
    if not place.made():
        return 0
    settings, remaining, ended = choices.read(place.settings), dict(PARTS), 0
    with place.held():
        while remaining:  # what needs others ends before them
            needed = {name for part in remaining.values() for name in part.needs}
            last = [part for part in remaining.values() if part.name not in needed]
            with ThreadPoolExecutor(len(last)) as pool:
                ended += sum(pool.map(lambda part: _ended(place, settings, part, say), last))
            for part in last:
                del remaining[part.name]
    return ended


def _ended(place: Place, settings: Settings, part: TeamPart, say: Callable[[str], None]) -> int:
    folder = place.part(part.name)
    if found := len(processes.left(folder)):
        processes.end(folder, part.launch(place, settings).ending)
        say(f"{part.name}: ended")
    return found


def _started(place: Place, settings: Settings, part: TeamPart, say: Callable[[str], None]) -> None:
    folder = place.part(part.name)
    if processes.running(folder):
        if not _waited(place, settings, part, say):
            part.complete(place, settings)
            say(f"{part.name}: runs")
            return
        say(f"{part.name}: runs and does not answer; it is started again")
    began = time.monotonic()
    processes.end(folder)  # of a part that was killed, its children may still hold its ports
    for port in part.ports:
        if not choices.is_free(settings.ports[port]):
            raise TeamError(
                f"{part.name}: port {settings.ports[port]} is another program's now; end that program, or change "
                f"{port} in {place.settings} while the team is down"
            )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    part.prepare(place, settings)
    processes.start(folder, part.launch(place, settings))
    if fault := _waited(place, settings, part, say):
        raise TeamError(f"{part.name}: the {part.what} did not start: {fault}; see {place.log(part.name)}")
    part.complete(place, settings)
    say(f"{part.name}: started in {time.monotonic() - began:.0f} s")


def _waited(place: Place, settings: Settings, part: TeamPart, say: Callable[[str], None]) -> str:
    """Wait until the part is well and return "", or return the fault with which it ended or that has lasted START_S."""
    began = said = time.monotonic()
    for fault in _faults(place, settings, part):
        if not fault:
            return ""
        if (now := time.monotonic()) - said > SAID_S:
            said = now
            say(f"{part.name}: {now - began:.0f} s, {fault}")
        time.sleep(PAUSE_S)
    return fault


def _faults(place: Place, settings: Settings, part: TeamPart) -> Iterator[str]:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if not processes.running(place.part(part.name)):
            yield f"it ended: {processes.last_words(place.part(part.name)) or 'without a word'}"
            return
        yield part.well(place, settings)


def _examined(place: Place, settings: Settings, part: TeamPart) -> PartStatus:
    folder = place.part(part.name)
    pid = processes.running(folder)
    fault = part.well(place, settings) if pid else "does not run"
    if fault:
        fault = f"{fault}; see {place.log(part.name)}, and start it again: vqbet team up"
    return PartStatus(part.name, part.what, part.address(settings), pid, fault)
