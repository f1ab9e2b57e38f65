"""Approvals of a verdict by people: bound to its evidence, valid for a limited time, kept on a chain of their own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from vqbet.contract import RegistryError
from vqbet.files import manifest
from vqbet.registry import chain, journal, rows


@dataclass(frozen=True, slots=True)
class Approval:
    """A person's agreement that the policy of a verdict may become champion, with a reason and an expiry time."""

    task: str
    evidence: str  # id of the verdict's evidence
    who: str
    why: str
    when: str  # UTC, ISO 8601
    until: str


def approve(task: str, evidence: str, *, who: str, why: str, hours: float) -> Approval:
    """Record an approval once and return it. Raises RegistryError if the reason or the verdict is missing."""
    if not why.strip():
        raise RegistryError(f"{task}: an approval needs a reason; say why")
    if manifest.SHA256.fullmatch(evidence) is None:
        raise RegistryError(f"{task}: an approval is of one verdict; expected the id of its evidence, got {evidence!r}")
    while True:
        links = chain.read(_chain(task))
        when = rows.now(links[-1].get("when", "") if links else "")
        until = rows.written(datetime.fromisoformat(when) + timedelta(hours=hours))
        given = Approval(task, evidence, who, why, when, until)
        if any(_content(link) == _content(asdict(given)) for link in links):  # the same approval within the same second
            return given
        try:
            chain.append(_chain(task), asdict(given), links)
        except chain.OvertakenError:  # another approval came first: append after it
            continue
        return given


def approved(task: str, evidence: str, *, needed: int, barred: Collection[str] = ()) -> list[Approval]:
    """Return the approvals that are valid now, one per person, newest last.

    barred: people whose approval does not count because they trained the candidate. Raises RegistryError if there are
    fewer than `needed`; the message lists approvals that expired, are of other verdicts, or are by barred people.
    """
    now, given = datetime.now(UTC), read(task)
    mine = [one for one in given if one.evidence == evidence]
    held = {one.who: one for one in mine if now < _moment(one.until)}
    standing = {name: one for name, one in held.items() if name not in barred}
    if len(standing) >= needed:
        return list(standing.values())
    expired = [f"{one.who}'s expired {one.until}" for one in mine if _moment(one.until) <= now]
    others = [f"{one.who}'s is of verdict {one.evidence[:12]}" for one in given if one.evidence != evidence]
    have = [f"{one.who}'s holds until {one.until}" for one in standing.values()]
    own = [f"{name}'s does not count, for {name} trained the candidate" for name in held if name in barred]
    raise RegistryError(
        f"{task}: verdict {evidence[:12]} needs the approval of {needed} "
        f"{'person' if needed == 1 else 'different people'}, it has {len(standing)}"
        + "".join(f"; {sentence}" for sentence in [*have, *own, *expired[-2:], *others[-2:]])
        + f"; approve it: vqbet approve {task} --why '...'"
    )


def approved_then(task: str, evidence: str, when: str) -> set[str]:
    """Return the people whose approval was valid at time `when` (UTC, ISO 8601). Raises RegistryError like `read`."""
    then = _moment(when)
    given = [one for one in read(task) if one.evidence == evidence]
    return {one.who for one in given if _moment(one.when) <= then < _moment(one.until)}


def read(task: str) -> list[Approval]:
    """Return all approvals of a task, oldest first. Raises RegistryError naming the first malformed one."""
    found = examined(task)
    if faults := [fault for _, fault in found if fault]:
        raise RegistryError(faults[0])
    return [one for one, _ in found if one is not None]


def examined(task: str) -> list[tuple[Approval | None, str]]:
    """Return every approval with its fault: a sentence if it is malformed, otherwise empty."""
    found: list[tuple[Approval | None, str]] = []
    where, before, seen = journal.opened().where, "", []
    for one in chain.examined(_chain(task)):
        fault = one.fault
        if one.link is not None and not fault:
            fault = _fault(task, one.link, before)
            fault = fault or ("repeats an earlier approval" if _content(one.link) in seen else "")
            seen.append(_content(one.link))
            fault = fault and f"{where}: {_chain(task)}, entry {one.number}: {fault}; restore it from a copy"
        approval = None if fault or one.link is None else Approval(*(one.link[name] for name in _NAMES))
        before = approval.when if approval else ""
        found.append((approval, fault))
    return found


_NAMES = tuple(Approval.__dataclass_fields__)


def _fault(task: str, link: chain.Link, before: str) -> str:
    shapes = {
        "task": rows.exactly(task),
        "evidence": rows.DIGEST,
        "who": rows.NAME,
        "why": rows.NAME,
        "when": rows.TIME,
        "until": rows.TIME,
        **chain.SHAPES,
    }
    if fault := rows.fault(link, shapes, optional=chain.OPTIONAL):
        return fault
    if _moment(link["until"]) < _moment(link["when"]):
        return f"field 'until': {link['until']} is before 'when', {link['when']}"
    return rows.backwards(link["when"], before)


def _content(link: Mapping[str, Any]) -> list[Any]:
    return [link.get(name) for name in _NAMES]


def _chain(task: str) -> str:
    return f"{task}.approvals"


def _moment(text: str) -> datetime:
    found = rows.moment(text)
    if found is None:
        raise RegistryError(f"expected a time with its offset, got {rows.short(text)}")
    return found
