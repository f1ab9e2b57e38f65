"""People's consent to one verdict: bound to its evidence, for a limited time, on a chain like the ledger's."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from vqbet.contract import RegistryError
from vqbet.registry import chain


@dataclass(frozen=True, slots=True)
class Approval:
    """Who agreed that the policy of this verdict may become champion, why, and until when that holds."""

    task: str
    evidence: str  # id of the verdict's evidence
    who: str
    why: str
    when: str  # UTC, ISO 8601
    until: str


def approve(task: str, evidence: str, *, who: str, why: str, hours: float) -> Approval:
    """Write an approval down. Raises RegistryError without a reason or a verdict."""
    if not why.strip():
        raise RegistryError(f"{task}: an approval needs a reason; say why")
    if len(evidence) != 64:
        raise RegistryError(f"{task}: an approval is of one verdict; expected the id of its evidence, got {evidence!r}")
    now = datetime.now(UTC)
    given = Approval(task, evidence, who, why, _written(now), _written(now + timedelta(hours=hours)))
    while True:
        try:
            chain.append(_chain(task), asdict(given), chain.read(_chain(task)))
        except chain.OvertakenError:  # by another person's: this one stands behind it
            continue
        return given


def approved(task: str, evidence: str, *, needed: int) -> list[Approval]:
    """The approvals that hold now, one for each person, newest last. Raises RegistryError where they are too few.

    The message says what there is instead: approvals that have expired, approvals of other verdicts.
    """
    now, given = _written(datetime.now(UTC)), read(task)
    standing = {one.who: one for one in given if one.evidence == evidence and now < one.until}
    if len(standing) >= needed:
        return list(standing.values())
    expired = [f"{one.who}'s expired {one.until}" for one in given if one.evidence == evidence and one.until <= now]
    others = [f"{one.who}'s is of verdict {one.evidence[:12]}" for one in given if one.evidence != evidence]
    have = [f"{one.who}'s holds until {one.until}" for one in standing.values()]
    raise RegistryError(
        f"{task}: verdict {evidence[:12]} needs the approval of {needed} "
        f"{'person' if needed == 1 else 'different people'}, it has {len(standing)}"
        + "".join(f"; {sentence}" for sentence in [*have, *expired[-2:], *others[-2:]])
        + f"; approve it: python -m vqbet approve {task} --why '...'"
    )


def approved_then(task: str, evidence: str, when: str) -> set[str]:
    """Who had approved the verdict at that moment (UTC, ISO 8601). Raises RegistryError where the chain is broken."""
    return {one.who for one in read(task) if one.evidence == evidence and one.when <= when < one.until}


def read(task: str) -> list[Approval]:
    """All approvals of a task, oldest first. Raises RegistryError where the chain is broken."""
    names = Approval.__dataclass_fields__
    return [Approval(**{name: link[name] for name in names}) for link in chain.read(_chain(task))]


def _chain(task: str) -> str:
    return f"{task}.approvals"


def _written(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
