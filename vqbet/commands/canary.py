"""Canary of a new champion: its first episodes on one robot, by the recordings, then its release or a rollback."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vqbet import registry
from vqbet.commands import bounds, release
from vqbet.contract import RegistryError, ServingError
from vqbet.evaluation import canary_rules
from vqbet.evaluation.canary_rules import CanaryEpisode, CanaryRules
from vqbet.registry import FAILED, PASSED, WAIVED, Canaries, Canary, LedgerEntry, rows
from vqbet.serving import recordings
from vqbet.serving.recordings import LATENCY, Recording

EVERY_S = 2.0  # between two looks at the folder
OPEN = "open"  # result of a canary that needs more episodes
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class CanaryReport:
    """Result of `run`. outcome: PASSED, FAILED, WAIVED or OPEN."""

    outcome: str
    rows: dict[str, str]


def run(
    root: Path, task: str, *, robot: str, folder: Path, follow: bool, say: Say, every_s: float = EVERY_S
) -> CanaryReport:
    """Judge the champion of `task` by its episodes on `robot`, from recordings in `folder`; release it or roll it back.

    follow: wait for recordings until the canary has ended; else it stays open where they are too few, and a later call
    goes on. Raises RegistryError where no canary is due, or where another champion was made meanwhile; ServingError for
    a folder or recording that cannot be read (with `follow`, it is said, and read again).
    """
    registry.check()
    registry.champion(task)
    entry = _reigning(task)
    canary = _due(task, entry)
    if canary.outcome:
        return _ended(root, entry, canary)
    if not bounds.committed(root, task).canary.episodes:
        return _conclude(root, entry, WAIVED, "canary.episodes is 0 in the committed params.yaml")
    rules = _rules(task, canary)
    if canary.robot != robot:
        if canary.robot:
            say(f"{task}: the canary of entry {entry.seq} was begun on {canary.robot}, and begins again on {robot}")
        Canaries(task).begin(canary, robot)
    watched = _Watched(entry, rules, robot, folder, say)
    while (decided := watched.decided(patient=follow)) is None:
        if not follow:
            return CanaryReport(OPEN, watched.rows())
        time.sleep(every_s)
        _refuse_replaced(entry)
    return _conclude(root, entry, *decided, watched.counted)


@dataclass(slots=True)
class _Watched:
    """Folder of recordings, of which those of one entry's champion on one robot count."""

    entry: LedgerEntry
    rules: CanaryRules
    robot: str
    folder: Path
    say: Say
    counted: list[str] = field(default_factory=list)  # digests of recordings
    episodes: list[CanaryEpisode] = field(default_factory=list)
    _seen: set[int] = field(default_factory=set)  # numbers of recordings
    _complaint: str = ""

    def decided(self, *, patient: bool) -> tuple[str, str] | None:
        """Return outcome and reason after the recordings that are there now; None where more are needed.

        patient: say what cannot be read, instead of raising ServingError.
        """
        try:
            for recording in self._new():
                self._count(recording)
                if wrong := canary_rules.exceeded(self.rules, self.episodes):
                    return FAILED, f"canary on {self.robot}: {'; '.join(wrong)}"
                if len(self.episodes) == self.rules.episodes:
                    return PASSED, canary_rules.summary(self.rules, self.episodes)
            self._complaint = ""
        except ServingError as error:
            if not patient:
                raise
            if str(error) != self._complaint:
                self._complaint = str(error)
                self.say(f"{self._complaint}; waiting")
        return None

    def rows(self) -> dict[str, str]:
        """Return rows about a canary that is open."""
        said = {"canary": f"{len(self.episodes)} of {self.rules.episodes} episodes on {self.robot}"}
        if self.episodes:
            said["so far"] = canary_rules.summary(self.rules, self.episodes)
        serve = f"vqbet serve {self.entry.task}@champion --canary"
        return {**said, "next": f"play more episodes from {serve}, then call this again"}

    def _new(self) -> Iterator[Recording]:
        """Yield the recordings that count and were not seen before, by number, up to the first that still runs."""
        found = recordings.listing(self.folder)
        running = (int(name.removesuffix(recordings.RUNNING)) for name in found.running)
        end = min(running, default=recordings.MOST_NUMBER + 1)
        ignored: Counter[str] = Counter()
        try:
            for number in sorted(number for number in found.finished if number < end and number not in self._seen):
                recording = recordings.read(self.folder, number)
                if why := _other(recording, self.entry, self.robot):
                    ignored[why] += 1
                else:
                    yield recording
                self._seen.add(number)
        finally:
            for why, count in sorted(ignored.items()):
                self.say(f"{self.folder}: {count} recording{'s do' if count > 1 else ' does'} not count: {why}")

    def _count(self, recording: Recording) -> None:
        """Add an episode, and say what was in it. Raises ServingError where the recording is damaged."""
        signal = f"signal/{LATENCY}"
        latency_ms = recording.array(signal) if signal in recording.arrays else None
        episode = CanaryEpisode.of(recording.array("verdict"), recording.array("intervention"), latency_ms)
        self.episodes.append(episode)
        self.counted.append(recording.digest)
        count = f"{len(self.episodes)} of {self.rules.episodes}"
        self.say(f"episode {count}, recording {recording.number}: {episode.sentence()}")


def _reigning(task: str) -> LedgerEntry:
    free, held = registry.released(task)
    entry = held or free
    if entry is None:
        raise RegistryError(f"{task}: there is no champion yet, so there is no canary; promote one first")
    return entry


def _due(task: str, entry: LedgerEntry) -> Canary:
    canary = Canaries(task).of(entry)
    if canary is None:
        raise RegistryError(
            f"{task}: entry {entry.seq} made its champion without a canary, since canary.episodes was 0 in the "
            "committed params.yaml; commit another number, and the next promotion has one"
        )
    return canary


def _rules(task: str, canary: Canary) -> CanaryRules:
    try:
        return CanaryRules.from_json(canary.rules)
    except ValueError as error:
        raise RegistryError(
            f"{task}: rules of the canary of entry {canary.entry}: {error}; use the version that wrote them"
        ) from error


def _refuse_replaced(entry: LedgerEntry) -> None:
    present = _reigning(entry.task)
    if present.hash != entry.hash:
        raise RegistryError(
            f"{entry.task}: entry {entry.seq} is not in force any more, entry {present.seq} made version "
            f"{present.version} the champion; nothing was decided, call vqbet canary again for that one"
        )


def _other(recording: Recording, entry: LedgerEntry, robot: str) -> str:
    """Return why a recording is no episode of this canary; "" where it is one."""
    facts = recording.facts
    begun, promoted = rows.moment(facts.begun), rows.moment(entry.when)
    if facts.robot != robot:
        return f"of robot {facts.robot or 'without a name'}, the canary is on {robot}"
    if facts.digest != entry.digest:
        return f"of another policy than {entry.digest[:12]}, or of a trial"
    if begun is None or promoted is None or begun < promoted:
        return f"begun before the promotion of {entry.when}"
    return "" if recording.steps else "without a control step"


def _conclude(root: Path, entry: LedgerEntry, outcome: str, why: str, counted: Sequence[str] = ()) -> CanaryReport:
    """Write the outcome, then act on it; after a crash in between, the next call acts."""
    _refuse_replaced(entry)
    canary = _due(entry.task, entry)
    if not canary.outcome:
        Canaries(entry.task).end(canary, outcome, why, counted)
    return _ended(root, entry, _due(entry.task, entry))


def _ended(root: Path, entry: LedgerEntry, canary: Canary) -> CanaryReport:
    """Return the report of a canary with an outcome; roll a failed one back."""
    champion = f"{entry.task}/{entry.version}, digest {entry.digest[:12]}"
    if not canary.free and registry.predecessor(entry.task):
        rolled = release.rollback(root, entry.task, why=canary.why, of=entry.hash)
        return CanaryReport(canary.outcome, {"canary": "ROLLED BACK"} | rolled)
    if not canary.free:
        champion += "; no champion was before it to go back to, and vqbet serve refuses this one"
    return CanaryReport(canary.outcome, {"canary": canary.sentence(), "champion": champion})
