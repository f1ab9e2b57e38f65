"""Fuzzer of ledgers forged by somebody with write access to both databases: none may be accepted or raise a traceback.

    python -m bench.fuzz_ledger [--mutants 300] [--seed 0]

Mutates a history of promotions, approvals, a rollback and a forced promotion: types, values, order, links that are
missing, doubled or from another chain. Hashes are recomputed and the registry's head is set, as a careful forger would.
Then history, audit, show, promote and rollback are called. Every other mutant is of a signed ledger, whose keys the
forger does not have. The head of the honest ledger was published as a git tag.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

THOROUGH = 30  # mutants tried with every command; the others with history, audit and one more
PROJECT = Path(__file__).resolve().parent.parent
TASK = "blockpush"
CHAINS = (TASK, f"{TASK}.approvals")
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, 10**40, "", " ", "x", [], {}, [[1]], {"a": 1}, "9" * 300, "\x00", "é" * 80),
    *("yesterday", "2026-01-01T00:00:00", "2026-13-01T00:00:00+00:00", "9999-12-31T23:59:59-23:59", "f" * 64, "F" * 64),
    *("blessed", "promote", "force", "rollback", "pusht", "1"),
)
Links = list[dict[str, Any]]
Chains = dict[str, Links]


@dataclass
class Tally:
    """Counts of outcomes; the last two lists must stay empty."""

    mutants: int = 0
    refused: int = 0  # by history, which every reader uses
    noticed: int = 0  # by audit alone: well formed, but not equal to the published head
    tracebacks: list[str] = field(default_factory=list)
    believed: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.tracebacks or self.believed)


def fuzz(root: Path, mutants: int, seed: int = 0) -> Tally:
    """Mutate the ledger of a new registry `mutants` times. The environment names the registry and its ledger."""
    tally, drawn = Tally(), random.Random(seed)
    for signed in (False, True):
        with trusting(root, signed):
            story(root)
            honest = {name: read(name) for name in CHAINS}
            before = audited(root)
            for number in range((mutants + (not signed)) // 2):
                changed, kind = mutant(honest, drawn)
                write(changed)
                judged(tally, root, f"{'signed ' if signed else ''}{number}: {kind}", before, signed=signed)
                write(honest)
            assert audited(root) == before, "the honest ledger is not what it was"
        forget(root)
    return tally


def story(root: Path) -> None:
    """Make and publish a history of three stand-ins: promotions, an approval, a rollback, a forced promotion."""
    from vqbet import registry, signing
    from vqbet.commands import publication

    versions = registered(3)
    acting("bob")
    registry.approve(TASK, proof(1), who=signing.who(), why="saw it", hours=1)
    acting("ann")
    champion = ""
    for (version, digest), approvals in zip(versions[:2], (1, 0), strict=True):
        about = {"outcome": "PROMOTE", "candidate": digest, "champion": champion}
        registry.promote(
            TASK,
            version,
            verdict=about,
            evidence=proof(version),
            who=signing.who(),
            why="better",
            approvals=approvals,
        )
        champion = digest
    registry.rollback(TASK, why="it dropped a cup", who=signing.who())
    registry.force(TASK, versions[2][0], who=signing.who(), why="the robot stands still")
    publication.publish(root, TASK, "git")


def mutant(honest: Chains, drawn: random.Random) -> tuple[Chains, str]:
    """Return chains that differ from the honest ones, and a description."""
    while True:
        chains = copy.deepcopy(honest)
        name = drawn.choice((TASK, TASK, TASK, CHAINS[1]))
        change = drawn.choice((retyped, retyped, retyped, dropped, doubled, turned, moved, renamed, cut, empty))
        kind = change(chains, name, drawn)
        if drawn.random() < 0.9:
            rehashed(chains[name])
        if chains != honest:
            return chains, f"{name}, {kind}"


def retyped(chains: Chains, name: str, drawn: random.Random) -> str:
    link = drawn.choice(chains[name])
    where, value = drawn.choice(sorted(link)), drawn.choice(ODD)
    link[where] = value
    return f"entry {link.get('seq')!r:.20}, {where} = {value!r:.40}"


def renamed(chains: Chains, name: str, drawn: random.Random) -> str:
    link = drawn.choice(chains[name])
    where = drawn.choice(sorted(link))
    link[drawn.choice(("other", "Action", "kind"))] = link.pop(where)
    return f"{where} has another name"


def dropped(chains: Chains, name: str, drawn: random.Random) -> str:
    del chains[name][drawn.randrange(len(chains[name]))]
    return "a link is gone"


def doubled(chains: Chains, name: str, drawn: random.Random) -> str:
    place = drawn.randrange(len(chains[name]))
    chains[name].insert(drawn.randrange(len(chains[name]) + 1), copy.deepcopy(chains[name][place]))
    return "a link twice"


def turned(chains: Chains, name: str, drawn: random.Random) -> str:
    drawn.shuffle(chains[name])
    return "in another order"


def moved(chains: Chains, name: str, drawn: random.Random) -> str:
    other = CHAINS[name == TASK]
    chains[name].append(copy.deepcopy(drawn.choice(chains[other])))
    return f"a link of {other}"


def cut(chains: Chains, name: str, drawn: random.Random) -> str:
    del chains[name][drawn.randrange(len(chains[name])) :]
    return "the newest links are gone"


def empty(chains: Chains, name: str, drawn: random.Random) -> str:
    for links in chains.values():
        links.clear()
    return "nothing is left"


def rehashed(links: Links) -> None:
    """Set number, previous hash and hash of every link. Values that JSON cannot represent stay as they are."""
    before = ""
    for number, link in enumerate(links, start=1):
        link |= {"seq": number, "prev": before}
        content = {name: value for name, value in link.items() if name != "hash"}
        link["hash"] = before = hashlib.sha256(line(content)).hexdigest()


def judged(tally: Tally, root: Path, what: str, before: set[str], *, signed: bool) -> None:
    """Run every reader of the ledger and count the outcomes."""
    from vqbet import registry

    tally.mutants += 1
    found = audited(root, tally, what)
    refused = refuses(tally, f"{what}: history", lambda: registry.history(TASK))
    tally.refused += refused
    tally.noticed += not refused and not found <= before
    if found <= before:
        tally.believed.append(f"{what}: audit says nothing")
    acts: dict[str, Callable[[], Any]] = {
        "show": lambda: registry.show(f"{TASK}/1"),
        "rollback": lambda: registry.rollback(TASK, why="w", who="ann"),
        "promote": lambda: registry.promote(
            TASK, 2, verdict={"outcome": "HOLD", "candidate": "", "champion": ""}, evidence=proof(9), who="ann", why="w"
        ),
    }
    for name in list(acts)[tally.mutants % 3 :: 3] if tally.mutants > THOROUGH else acts:
        act = acts[name]
        stopped = refuses(tally, f"{what}: {name}", act)
        if not stopped and (name == "promote" or refused):
            tally.believed.append(f"{what}: {name} went on")


def refuses(tally: Tally, what: str, act: Callable[[], Any]) -> bool:
    """Return whether `act` raises VqbetError; count any other exception as a traceback."""
    from vqbet.contract import VqbetError

    try:
        act()
    except VqbetError:
        return True
    except Exception as error:
        tally.tracebacks.append(f"{what}: {type(error).__name__}: {error}"[:300])
    return False


def audited(root: Path, tally: Tally | None = None, what: str = "") -> set[str]:
    """Return the names of an audit's open findings."""
    from vqbet.commands import audit
    from vqbet.stages.progress import Watch

    try:
        return {one.what for one in audit.run(root, TASK, Watch(), repair=False) if one.open}
    except Exception as error:
        if tally is None:
            raise
        tally.tracebacks.append(f"{what}: audit: {type(error).__name__}: {error}"[:300])
        return set()


def read(name: str) -> Links:
    with closing(sqlite3.connect(_database())) as database:
        found = database.execute("SELECT line FROM vqbet_ledger WHERE chain = ? ORDER BY number", (name,))
        return [json.loads(text) for (text,) in found]


def write(chains: Chains) -> None:
    """Write the chains into the database, and head and champion of the ledger's last link into the registry."""
    from vqbet.registry import connection, promotion

    with closing(sqlite3.connect(_database())) as database, database:
        database.execute("DELETE FROM vqbet_ledger")
        for name, links in chains.items():
            rows = [(name, number, line(link).decode()) for number, link in enumerate(links, start=1)]
            database.executemany("INSERT INTO vqbet_ledger VALUES (?, ?, ?)", rows)
    last = chains[TASK][-1] if chains[TASK] else {}
    client = connection.client()
    client.set_registered_model_tag(TASK, promotion.HEAD, str(last.get("hash", "")))
    if last.get("version") in (1, 2, 3):
        client.set_registered_model_alias(TASK, "champion", str(int(last["version"])))
    elif not last:
        client.delete_registered_model_alias(TASK, "champion")


def line(link: dict[str, Any]) -> bytes:
    return json.dumps(link, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")


def registered(count: int) -> list[tuple[int, str]]:
    """Register `count` versions of a stand-in policy; return their numbers and digests."""
    from tests.support.synthetic import synthetic
    from vqbet import registry

    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            place = Path(folder) / str(number)
            place.mkdir()
            (place / "bundle.json").write_text(str(number))
            digest = hashlib.sha256(str(number).encode()).hexdigest()
            spec = synthetic(1, D=1, A=1).spec
            found.append((registry.register(TASK, place, tags={"digest": digest}, spec=spec), digest))
    return found


def project(root: Path) -> None:
    """Make a git repository with one commit, whose tasks publish as tags; keys lie beside it."""
    root.mkdir(parents=True)
    params = (PROJECT / "params.yaml").read_text(encoding="utf-8").partition("\npusht:")[0]  # the first task only
    params = params.replace("publish: none", "publish: git")
    (root / "params.yaml").write_text(params, encoding="utf-8")
    (root / ".gitignore").write_text(".vqbet/\n")
    _git(root, "init", "--quiet")
    for name, value in (("user.name", "t"), ("user.email", "t@localhost")):
        _git(root, "config", name, value)
    _committed(root)


@contextmanager
def trusting(root: Path, signed: bool) -> Iterator[None]:
    """Run the block with a committed trust file of two people with keys if `signed`, else without one."""
    from vqbet import signing
    from vqbet.signing import Holder, Trust

    if signed:
        holders = {}
        for name, role in (("ann", "promote"), ("bob", "approve")):
            key = signing.make(root.parent / f"{name}.pem")
            holders[key.id] = Holder.model_validate(
                {"name": name, "key": key.id, "public_key": key.public, "roles": [role]}
            )
        signing.write(root, Trust("", holders))
        _committed(root)
        os.environ["VQBET_FUZZ_KEYS"] = str(root.parent)
    try:
        yield
    finally:
        os.environ.pop("VQBET_KEY", None)
        os.environ.pop("VQBET_FUZZ_KEYS", None)


def acting(name: str) -> None:
    """Use this person's key, if there are keys."""
    if folder := os.environ.get("VQBET_FUZZ_KEYS"):
        os.environ["VQBET_KEY"] = str(Path(folder) / f"{name}.pem")


def forget(root: Path) -> None:
    """Clear the history, so that the next one begins without published tags and without a champion."""
    write({name: [] for name in CHAINS})
    for tag in _git(root, "tag", "--list").split():
        _git(root, "tag", "--delete", tag)


def proof(number: int) -> str:
    return hashlib.sha256(f"evidence {number}".encode()).hexdigest()


def _database() -> Path:
    from vqbet.registry import connection

    return connection.home() / "ledger.db"


def _committed(root: Path) -> None:
    _git(root, "add", "-A")
    _git(root, "commit", "-qm", "as it is")


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def main() -> None:
    from vqbet import environment

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        project(folder / "project")
        environment.prepare(folder / "project")
        began = time.monotonic()
        tally = fuzz(folder / "project", options.mutants, options.seed)
        print(f"{time.monotonic() - began:.0f} s")
    finally:
        shutil.rmtree(folder)
    for name, value in vars(tally).items():
        print(f"{name:<12}{value if isinstance(value, int) else len(value)}")
    for problem in [*tally.tracebacks, *tally.believed][:40]:
        print(f"  {problem}")
    sys.exit(0 if tally.clean else 1)


if __name__ == "__main__":
    main()
