"""Race of many promoting processes, some of them killed: there must be one champion, and one entry for each effect.

    python -m bench.race [--rounds 200] [--processes 16] [--kills 3] [--machines] [--ledger ADDRESS | --server NAME]

In every round each process has a valid verdict on its own candidate and the present champion, so that one of them may
win. `--kills` of them get SIGKILL at random moments. `--machines`: processes ignore each other's locks, as on separate
machines, so that only the ledger's compare-and-set protects them. `--server postgres` or `s3`: the ledger is on a
server that is started as `vqbet team up` starts it.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import random
import re
import signal
import sys
import tempfile
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

TASK = "raced"
LATEST_S = 60.0  # time limit for all answers of a round


@dataclass
class Tally:
    """Counts of effects and refusals; the five lists must stay empty."""

    rounds: int = 0
    promoted: int = 0
    refused: int = 0
    killed: int = 0
    unheard: int = 0  # rounds whose winner was killed after its entry was written; others or `repair` finished it
    slowest_s: float = 0.0  # from the order to promote to the answer, of processes that were not killed
    lost: list[str] = field(default_factory=list)  # a reported promotion is not in the ledger
    doubled: list[str] = field(default_factory=list)  # more than one entry, or more than one winner
    idle: list[str] = field(default_factory=list)  # no winner, although a process survived
    astray: list[str] = field(default_factory=list)  # the alias differs from the ledger
    late: list[str] = field(default_factory=list)  # a process had no answer after LATEST_S
    refusals: dict[str, int] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.idle or self.astray or self.late)


class Rivals:
    """Processes with an open registry, one per candidate. Killed ones are replaced."""

    def __init__(self, count: int, *, machines: bool) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["mlflow", "mlflow.store.tracking.sqlalchemy_store", "vqbet.registry"])
        self._machines = machines
        self.members: list[tuple[Any, Connection]] = [self._started() for _ in range(count)]
        for _, answers in self.members:
            answers.recv()

    def _started(self) -> tuple[Any, Connection]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=rival, args=(dict(os.environ), theirs, self._machines), daemon=True)
        process.start()
        theirs.close()
        return process, ours

    def replace_dead(self) -> None:
        for place, (process, _) in enumerate(self.members):
            if not process.is_alive():
                self.members[place] = self._started()
                self.members[place][1].recv()

    def end(self) -> None:
        for process, _ in self.members:
            process.kill()
            process.join()


def rival(environment: dict[str, str], orders: Connection, machines: bool) -> None:
    """Promote the versions received from `orders`, and send back the outcome."""
    os.environ.update(environment)
    from vqbet import registry
    from vqbet.contract import RegistryError
    from vqbet.registry import connection

    connection.client()
    if machines:
        connection.locked = lambda _name: nullcontext()  # type: ignore[assignment,return-value]
    orders.send("ready")
    while True:
        version, verdict, evidence = orders.recv()
        try:
            made = registry.promote(TASK, version, verdict=verdict, evidence=evidence, who=str(os.getpid()), why="race")
            orders.send(("promoted", made.hash))
        except RegistryError as error:
            orders.send(("refused", str(error)))


def race(
    rounds: int, processes: int, kills: int, seed: int = 0, *, machines: bool = False, told: bool = False
) -> Tally:
    """Run `rounds` rounds in the registry that the environment names. told: print the progress."""
    from vqbet import registry

    tally, drawn = Tally(), random.Random(seed)
    versions = registered(processes + 1)
    rivals = Rivals(processes, machines=machines)
    try:
        for number in range(rounds):
            rivals.replace_dead()
            before = registry.history(TASK)
            champion = before[-1].digest if before else ""
            candidates = [one for one in versions if one[1] != champion][:processes]
            answers = one_round(rivals, candidates, champion, number, kills, drawn, tally)
            judged(tally, number, len(before), answers)
            if told:
                sys.stdout.write(f"\r{number + 1}/{rounds} rounds, {tally.killed} killed")
                sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stdout.write("\nended by hand; of the rounds that are whole:")
    finally:
        rivals.end()
    return tally


def one_round(
    rivals: Rivals,
    candidates: list[tuple[int, str]],
    champion: str,
    number: int,
    kills: int,
    drawn: random.Random,
    tally: Tally,
) -> list[tuple[str, str]]:
    """Let every process promote and kill some at random moments; return the answers of the survivors."""
    began = time.monotonic()
    for (version, digest), (_, orders) in zip(candidates, rivals.members, strict=True):
        evidence = hashlib.sha256(f"{number} {version}".encode()).hexdigest()
        orders.send((version, {"outcome": "PROMOTE", "candidate": digest, "champion": champion}, evidence))
    for victim in drawn.sample(range(len(rivals.members)), kills):
        time.sleep(drawn.random() * 0.05)
        rivals.members[victim][0].kill()
        tally.killed += 1
    return heard(rivals, number, began, tally)


def heard(rivals: Rivals, number: int, began: float, tally: Tally) -> list[tuple[str, str]]:
    """Return the survivors' answers. A process without one LATEST_S after `began` counts as late and is killed."""
    found, waiting = [], {answers: process for process, answers in rivals.members}
    while waiting and (ready := wait(list(waiting), timeout=max(0.0, began + LATEST_S - time.monotonic()))):
        for answers in ready:
            assert isinstance(answers, Connection)
            with suppress(EOFError, ConnectionResetError):  # it was killed
                found.append(answers.recv())
                tally.slowest_s = max(tally.slowest_s, round(time.monotonic() - began, 2))
            del waiting[answers]
    for process in waiting.values():
        tally.late.append(f"round {number}: process {process.pid} has not ended after {LATEST_S:.0f} s")
        process.kill()
        process.join()
    return found


def judged(tally: Tally, number: int, before: int, answers: list[tuple[str, str]]) -> None:
    from vqbet import registry
    from vqbet.contract import RegistryError

    tally.rounds += 1
    registry.repair(TASK)
    entries = registry.history(TASK)
    winners = [told for kind, told in answers if kind == "promoted"]
    added = entries[before:]
    for kind, told in answers:
        if kind == "refused":
            tally.refused += 1
            word = re.sub(r"\b[0-9a-f]{12}\b|\d+", "..", told.split(": ", 1)[-1].split(",")[0])[:60]
            tally.refusals[word] = tally.refusals.get(word, 0) + 1
    tally.promoted += len(added)
    where = f"round {number}: {len(added)} entries, {len(winners)} winners, {len(answers)} alive"
    tally.unheard += len(added) > len(winners)
    if any(told not in [entry.hash for entry in added] for told in winners):
        tally.lost.append(where)
    if len(added) > 1 or len(winners) > 1:
        tally.doubled.append(where)
    if answers and not added:
        tally.idle.append(where)
    try:
        champion = registry.champion(TASK)
    except RegistryError:  # ledger and alias disagree
        tally.astray.append(where)
        return
    if (champion.version if champion else 0) != (entries[-1].version if entries else 0):
        tally.astray.append(where)


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


def main() -> None:
    from bench import real_servers
    from vqbet import environment
    from vqbet.registry import journal

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--machines", action="store_true")
    parser.add_argument("--ledger", default="")
    parser.add_argument("--server", choices=("postgres", "s3"), default="")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    with (
        tempfile.TemporaryDirectory() as folder,
        real_servers.started([options.server] if options.server else []) as servers,
    ):
        os.environ[journal.VARIABLE] = servers.ledger(options.server) if options.server else options.ledger
        environment.prepare(Path(folder))
        began = time.monotonic()
        tally = race(
            options.rounds, options.processes, options.kills, options.seed, machines=options.machines, told=True
        )
        print(f"\n{time.monotonic() - began:.0f} s")
    for name, value in vars(tally).items():
        print(f"{name:<12}{value}")
    sys.exit(0 if tally.clean else 1)


if __name__ == "__main__":
    main()
