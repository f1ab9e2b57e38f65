"""Review of recordings by a person: which ones need a look, and what was decided, in `review.json` beside them.

A recording needs a look where it failed, a person intervened, the guard held or stopped the robot, or nobody has said
whether it succeeded. A decision names the digest of its recording and is void for any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from vqbet.contract import ServingError
from vqbet.files import atomic, canonical, reading
from vqbet.serving import recordings
from vqbet.serving.recordings import Recording
from vqbet.signing import identity

NAME = "review.json"
FORMAT, VERSION = "vqbet review", 1
MOST_BYTES = 64 * 2**20
PASS = b"pass"  # the guard's verdict of a step at which nothing was wrong


@dataclass(frozen=True, slots=True)
class Ruling:
    """Ruling about one recording. accepted, success: None where the person has not said."""

    digest: str
    accepted: bool | None = None
    success: bool | None = None
    note: str = ""
    by: str = ""
    when: str = ""


@dataclass(frozen=True, slots=True)
class Reviewed:
    """Recording with its decision. reasons: why a person shall look at it. wrong: why it cannot be read, else ""."""

    number: int
    recording: Recording | None
    decision: Ruling
    reasons: tuple[str, ...]
    wrong: str = ""

    @property
    def success(self) -> bool | None:
        """Return what the person says, else what the recording says."""
        said = self.recording.success if self.recording else None
        return said if self.decision.success is None else self.decision.success

    @property
    def open(self) -> bool:
        """Return whether a decision is missing."""
        if self.decision.accepted is False:
            return False
        return bool(self.wrong) or self.success is None or bool(self.reasons and self.decision.accepted is None)

    def sentence(self) -> str:
        """Return the recording, its reasons and its decision on one line."""
        if self.recording is None:
            return f"{self.wrong}  [{self._decided()}]"
        facts = self.recording.facts
        whence = ", ".join(filter(None, (facts.begun, facts.robot, facts.operator, f"{self.recording.steps} steps")))
        return f"{whence}: {'; '.join(self.reasons) or 'nothing unusual'}  [{self._decided()}]"

    def _decided(self) -> str:
        said = {True: "accepted", False: "rejected", None: "open" if self.open else "accepted, as nothing is unusual"}
        return said[self.decision.accepted] + (
            ", but nobody says whether it succeeded" if self.open and self.decision.accepted else ""
        )


def run(folder: Path) -> tuple[list[Reviewed], tuple[str, ...]]:
    """Return all finished recordings of a folder, and the names of those that were broken off.

    Raises ServingError where the folder holds no recording, or `review.json` cannot be read.
    """
    there = recordings.listing(folder)
    if not there.finished and not there.interrupted:
        raise ServingError(f"{folder}: holds no finished recording; expected the folder of a recorder")
    decisions = _decisions(folder)
    return [_reviewed(folder, number, decisions.get(number)) for number in there.finished], there.interrupted


def rows(found: Sequence[Reviewed], interrupted: Sequence[str], *, everything: bool) -> dict[str, str]:
    """Return the list for a person: recordings with reasons, or all, and those that were broken off."""
    shown = {str(each.number): each.sentence() for each in found if everything or each.reasons or each.open}
    return shown | dict.fromkeys(interrupted, "broken off, as by a power cut; it is not ingested, and not removed")


def mark(
    folder: Path,
    *,
    accept: Sequence[int] = (),
    reject: Sequence[int] = (),
    success: Sequence[int] = (),
    failure: Sequence[int] = (),
    note: str = "",
) -> None:
    """Write decisions on recordings, by number, with the name of this person; earlier ones are replaced.

    Raises ServingError, and writes nothing, for a number that is not there or is named for both of two opposites.
    """
    there, named = set(recordings.listing(folder).finished), {*accept, *reject, *success, *failure}
    for number in sorted(named - there):
        raise ServingError(f"{folder}: there is no finished recording {number}; there are {_spans(sorted(there))}")
    for number in sorted({*accept} & {*reject} | {*success} & {*failure}):
        raise ServingError(f"recording {number}: is named for a decision and for its opposite; name it once")
    decisions = _decisions(folder)
    for number in sorted(named):
        digest = recordings.digest(folder, number)
        before = decisions.get(number, Ruling(digest))
        before = before if before.digest == digest else Ruling(digest)
        decisions[number] = replace(
            before,
            accepted=True if number in accept else False if number in reject else before.accepted,
            success=True if number in success else False if number in failure else before.success,
            note=note or before.note,
            by=identity.who(),
            when=datetime.now(UTC).isoformat(timespec="seconds"),
        )
    value = {str(number): asdict(decisions[number]) for number in sorted(decisions)}
    document = {"format": FORMAT, "version": VERSION, "decisions": value}
    atomic.write(folder / NAME, canonical.document(document), ServingError)


def numbers(text: str) -> list[int]:
    """Return the numbers of "3,5" or "3-7,12". Raises ServingError for anything else."""
    found: list[int] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, dash, last = part.partition("-")
        if not (first.isdecimal() and len(first) < 10 and (not dash or (last.isdecimal() and len(last) < 10))):
            raise ServingError(f"expected numbers of recordings, such as 3,5 or 3-7, got {reading.short(text)}")
        end = int(last) if dash else int(first)
        if not int(first) <= end < int(first) + 10_000:
            raise ServingError(f"expected a span that rises, such as 3-7, got {reading.short(part)}")
        found += range(int(first), end + 1)
    return found


def _reviewed(folder: Path, number: int, decision: Ruling | None) -> Reviewed:
    digest = recordings.digest(folder, number)
    stale = decision is not None and decision.digest != digest
    decided = Ruling(digest) if decision is None or stale else decision
    try:
        recording = recordings.read(folder, number)
        blank = Reviewed(number, recording, decided, ())
        reasons = _reasons(recording, blank.success)
    except ServingError as error:
        return Reviewed(number, None, decided, (), wrong=str(error))
    return replace(blank, reasons=(*(["it changed since it was reviewed"] if stale else []), *reasons))


def _reasons(recording: Recording, success: bool | None) -> list[str]:
    """Return why a person shall look at a recording. Raises ServingError where it is damaged."""
    found = {None: ["no answer whether it succeeded"], False: ["it failed"], True: []}[success]
    acted = int(recording.array("intervention").sum())
    if acted:
        found.append(f"a person acted at {acted} of {recording.steps} steps")
    verdict, reason = recording.array("verdict"), recording.array("reason")
    if (verdict != PASS).any():
        fired = verdict != PASS
        verdicts, reasons = (Counter(array[fired].tolist()).most_common() for array in (verdict, reason))
        counts = ", ".join(f"{word.decode('ascii', 'replace')} {count}" for word, count in verdicts)
        whys = ", ".join(word.decode("ascii", "replace") for word, _ in reasons if word)
        found.append(f"the guard fired: {counts} of {recording.steps} steps" + (f" ({whys})" if whys else ""))
    if not np.isfinite(recording.array("action")).all(axis=1).any():
        found.append("no action was sent")
    return found


def _decisions(folder: Path) -> dict[int, Ruling]:
    path = folder / NAME
    if not path.exists():
        return {}
    with reading.sentences(str(path), ServingError, "remove it, and review the recordings again"):
        said = reading.parse(reading.load(path, ServingError, most=MOST_BYTES), str(path), ServingError)
        if (said["format"], said["version"]) != (FORMAT, VERSION):
            raise ValueError(f"expected a {FORMAT} of version {VERSION}")
        found = {int(number): Ruling(**value) for number, value in said["decisions"].items()}
        for each in found.values():
            if not isinstance(each.digest, str) or {each.accepted, each.success} - {True, False, None}:
                raise ValueError(f"a decision of {reading.short(asdict(each))}")
        return found


def _spans(found: Sequence[int]) -> str:
    """Return numbers as "1-3, 5"."""
    spans: list[list[int]] = []
    for number in found:
        if spans and number == spans[-1][-1] + 1:
            spans[-1] = [spans[-1][0], number]
        else:
            spans.append([number])
    return ", ".join("-".join(map(str, span)) for span in spans) or "none"
