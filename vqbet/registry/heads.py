"""Published heads of a task's chains. Everything that was published must still be in the chains.

A chain detects changes by anyone who cannot rewrite all of it. A published head also detects a complete rewrite.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vqbet.contract import RegistryError
from vqbet.files import canonical
from vqbet.registry import chain, rows

PARTS = ("", ".approvals", ".attempts", ".canary")  # suffixes of the task in the names of its chains
MAX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Head:
    """Heads of a task's chains at one time: number and hash of the last link, by the chain's name."""

    task: str
    ends: Mapping[str, tuple[int, str]]  # empty chains are absent

    @property
    def seq(self) -> int:
        """The number of the ledger's last entry, 0 if the ledger is empty."""
        return self.ends.get(self.task, (0, ""))[0]

    def content(self) -> bytes:
        """Return the line of JSON that is published."""
        ends = {name: {"seq": seq, "hash": found} for name, (seq, found) in self.ends.items()}
        return canonical.line({"task": self.task, "ends": ends}, ascii=False).encode()

    @classmethod
    def parse(cls, task: str, content: bytes) -> Head:
        """Return the head parsed from `content`, the inverse of `content()`. Raises RegistryError for anything else."""
        try:
            value = json.loads(content[:MAX_BYTES])
        except (ValueError, RecursionError) as error:
            raise RegistryError("is no published head: it is not JSON") from error
        if not isinstance(value, dict) or value.get("task") != task or not isinstance(value.get("ends"), dict):
            raise RegistryError(f"is no published head of {task}")
        known = {f"{task}{part}" for part in PARTS}
        for name, end in value["ends"].items():
            if name not in known or not isinstance(end, dict) or rows.fault(end, _END):
                raise RegistryError(f"is no published head of {task}: {rows.short(name)} is not one of its chains")
        return cls(task, {name: (end["seq"], end["hash"]) for name, end in value["ends"].items()})


_END: Mapping[str, rows.Shape] = {"seq": rows.VERSION, "hash": rows.DIGEST}


def head(task: str) -> Head:
    """Return the head of the task's chains. Raises RegistryError if one of them is broken or not trusted."""
    return Head(task, {name: _end(links) for name in _names(task) if (links := chain.read(name))})


def unsigned(task: str) -> Head:
    """Return the head of the task's chains, ignoring signatures. Raises RegistryError for a broken chain."""
    ends = {}
    for name in _names(task):
        found = chain.examined(name, trusting=True)
        if faults := [one.fault for one in found if one.fault]:
            raise RegistryError(faults[0])
        if links := [one.link for one in found if one.link is not None]:
            ends[name] = _end(links)
    return Head(task, ends)


def length(task: str) -> int:
    """Return the number of lines of the task's ledger, valid or not. Raises RegistryError like the journal."""
    return len(chain.examined(task, trusting=True))


def misses(published: Head) -> Iterator[str]:
    """Yield a sentence for each published link that the chains lack. Raises RegistryError like the journal."""
    for name, (seq, wanted) in sorted(published.ends.items()):
        found = chain.examined(name, trusting=True)
        link = found[seq - 1].link if seq <= len(found) else None
        if link is None:
            yield f"{name}: entry {seq} was published as {wanted[:12]} and is not there: entries are missing"
        elif found[seq - 1].fault or link["hash"] != wanted:
            yield f"{name}: entry {seq} was published as {wanted[:12]} and is another now: the chain was written again"


def _names(task: str) -> list[str]:
    return [f"{task}{part}" for part in PARTS]


def _end(links: list[dict[str, Any]]) -> tuple[int, str]:
    return len(links), str(links[-1]["hash"])
