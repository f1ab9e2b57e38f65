"""Canaries: whether the champion that a ledger entry made may leave its first robot.

They are kept in the chain `<task>.canary` beside the ledger. A canary is `due`, with its rules, before the entry that
makes its champion is written, so that a crash in between holds a champion back instead of letting it go. It is `begun`
on a robot, and `ended` with an outcome. The registered model's tag CANARY_HEAD names the newest link.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vqbet import signing
from vqbet.contract import RegistryError
from vqbet.registry import anchors, chain, ledger, models, rows
from vqbet.registry.ledger import LedgerEntry

CANARY_HEAD = "canary_head"  # tag of the registered model: hash of a link that the chain must hold
DUE, BEGUN, ENDED = "due", "begun", "ended"  # kinds of links
PASSED, FAILED, WAIVED = "passed", "failed", "waived"  # outcomes


@dataclass(frozen=True, slots=True)
class Canary:
    """Canary of one ledger entry. robot: empty until it has begun; outcome: empty until it has ended."""

    entry: int  # number of the ledger entry
    digest: str  # of the champion that the entry made
    rules: Mapping[str, Any]  # as they were committed at the promotion
    robot: str = ""
    given_up: tuple[str, ...] = ()  # robots on which it was begun before
    outcome: str = ""
    why: str = ""
    recordings: tuple[str, ...] = ()  # digests of the recordings that counted
    who: str = ""  # wrote the last link
    when: str = ""

    @property
    def free(self) -> bool:
        """Return whether the champion may be served to every robot."""
        return self.outcome in (PASSED, WAIVED)

    def sentence(self) -> str:
        """Return its state in a sentence."""
        where = f" on {self.robot}" if self.robot else ""
        gone = f", begun before on {', '.join(self.given_up)}" if self.given_up else ""
        if not self.outcome:
            return f"waits{where} since {self.when}{gone}"
        return f"{self.outcome}{where} {self.when} by {self.who}: {self.why}{gone}"


class Canaries:
    """The canaries of one task, as of construction. New links are written directly after these."""

    def __init__(self, task: str) -> None:
        """Read the chain. Raises RegistryError if it is broken or lacks the link that CANARY_HEAD names."""
        self.task, self._links = task, anchors.read(_chain(task), task, tag=CANARY_HEAD, what="link of a canary")
        self._all = _canaries(task, self._links)

    @property
    def all(self) -> list[Canary]:
        return list(self._all.values())

    def of(self, entry: LedgerEntry) -> Canary | None:
        """Return the canary of a ledger entry; None where none was due."""
        return self._all.get((entry.seq, entry.digest))

    def holds(self, entry: LedgerEntry) -> bool:
        """Return whether the champion of this entry has to wait for its canary."""
        found = self.of(entry)
        return found is not None and not found.free

    def require(self, entry: int, digest: str, rules: Mapping[str, Any]) -> None:
        """Make a canary due for the ledger's entry of this number, if it makes the policy `digest` champion.

        Does nothing where it is due under these rules already. Raises OvertakenError if the chain has grown since.
        """
        found = self._all.get((entry, digest))
        if found is None or found.rules != rules:
            self._append({"kind": DUE, "entry": entry, "digest": digest, "rules": dict(rules)})

    def begin(self, canary: Canary, robot: str) -> None:
        """Note the robot of a canary, or another robot. Raises like `require`."""
        self._append({"kind": BEGUN, "entry": canary.entry, "digest": canary.digest, "robot": robot})

    def end(self, canary: Canary, outcome: str, why: str, recordings: Sequence[str] = ()) -> None:
        """Write the outcome of a canary. Raises like `require`."""
        said = {"kind": ENDED, "entry": canary.entry, "digest": canary.digest, "outcome": outcome, "why": why}
        self._append({**said, "recordings": list(recordings)})

    def _append(self, content: Mapping[str, Any]) -> None:
        when = rows.now(self._links[-1]["when"] if self._links else "")
        said = {**content, "who": signing.who(), "when": when}
        _canaries(self.task, [*self._links, said])  # refuses what could not be read again
        link = chain.append(_chain(self.task), said, self._links)
        models.tag_model(self.task, CANARY_HEAD, link["hash"])
        self._links.append(link)
        self._all = _canaries(self.task, self._links)


def released(task: str) -> tuple[LedgerEntry | None, LedgerEntry | None]:
    """Return the entry whose champion every robot may have, and the newest entry, if its champion is held back.

    The first is the newest promotion that no rollback undid and no canary holds; None where there is none. Raises
    RegistryError where ledger or canaries are broken.
    """
    standing, known = ledger.reigns(ledger.read(task)), Canaries(task)
    free = next((entry for entry in reversed(standing) if not known.holds(entry)), None)
    return free, (standing[-1] if standing and free is not standing[-1] else None)


def _canaries(task: str, links: Sequence[Mapping[str, Any]]) -> dict[tuple[int, str], Canary]:
    """Join links. Raises RegistryError naming the first malformed one."""
    found: dict[tuple[int, str], Canary] = {}
    for number, link in enumerate(links, start=1):
        fault = _fault(link, found)
        if fault:
            raise RegistryError(f"{task}: canaries, link {number}: {fault}; restore the ledger from a copy")
        key, written = (link["entry"], link["digest"]), {"who": link["who"], "when": link["when"]}
        if link["kind"] == DUE:
            found[key] = Canary(*key, link["rules"], **written)
        elif link["kind"] == BEGUN:
            before = found[key]
            given_up = (*before.given_up, before.robot) if before.robot else before.given_up
            found[key] = replace(before, robot=link["robot"], given_up=given_up, **written)
        else:
            said = {"outcome": link["outcome"], "why": link["why"], "recordings": tuple(link["recordings"])}
            found[key] = replace(found[key], **said, **written)
    return found


def _digests(value: Any) -> bool:
    return isinstance(value, list) and all(rows.DIGEST[0](each) for each in value)


COMMON: Mapping[str, rows.Shape] = {
    "entry": rows.VERSION,
    "digest": rows.DIGEST,
    "who": rows.NAME,
    "when": rows.TIME,
}
SHAPES: Mapping[str, Mapping[str, rows.Shape]] = {
    DUE: {**COMMON, "rules": (lambda value: isinstance(value, dict), "an object")},
    BEGUN: {**COMMON, "robot": rows.NAME},
    ENDED: {
        **COMMON,
        "outcome": rows.one_of(PASSED, FAILED, WAIVED),
        "why": rows.NAME,
        "recordings": (_digests, "a list of sha256 in hexadecimal"),
    },
}


def _fault(link: Mapping[str, Any], known: Mapping[tuple[int, str], Canary]) -> str:
    kind = link.get("kind")
    if not isinstance(kind, str) or kind not in SHAPES:
        return f"field 'kind': expected {' or '.join(SHAPES)}, got {rows.short(kind)}"
    said = {name: value for name, value in link.items() if name not in (*chain.OWN, "kind")}
    if fault := rows.fault(said, SHAPES[kind]):
        return fault
    before = known.get((link["entry"], link["digest"]))
    if kind != DUE and before is None:
        return f"a canary of entry {link['entry']} was never due"
    if before is not None and (before.outcome or (kind == DUE and before.robot)):
        return f"the canary of entry {link['entry']} has {'ended' if before.outcome else 'begun'} already"
    return ""


def _chain(task: str) -> str:
    return f"{task}.canary"
