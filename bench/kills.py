"""kill -9 of any process of a team at random moments of its runs: nothing lost, doubled or half written afterwards?

    OMP_NUM_THREADS=1 python -m bench.kills [--kills 100] [--a-round 8] [--seed 0] [--task blockpush]

In a copy of the project with a tiny recipe and a team of its own: ingest, pipeline and promotion run as deployments
once undisturbed, then in rounds from the same beginning, with kills. After each kill a person does what docs/team.md
says: `vqbet team up`. All else must happen by itself; a run that has to be retried by hand is counted. Exits with 1
where what is stored after a round differs from what is stored after the undisturbed one, or a process of a run is left
after 120 s.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from bench import kill_victims as victims
from tests.support.project import Project

DEPLOYMENTS = ("ingest/new-data", "pipeline/nightly-retrain", "promote/by-hand")
CLUSTER_EVERY = 2  # rounds, in one of which episodes are played on Dask
PATIENCE_S = 150.0  # until a person does what a run should have done by itself
LONGEST_S = 1200.0  # for one deployment
LEFT_S = 120.0  # until no process of a run may be left
POLL_S = 0.3
NEXT_S = (2.0, 20.0)  # between a repair and the next kill
AT_ONCE = (1, 1, 2)  # kills at one moment
SHORT = {"evaluate": {"episodes": 8}, "gate": {"looks": [16, 32]}}  # little is to be shown of the policy here
MAY_DIFFER = ("running", "broken")  # entries of a fingerprint that are judged by themselves


@dataclass
class Kill:
    """One kill. recovered_s: until all parts answer and the run goes on."""

    number: int
    what: str
    during: str
    at_s: float  # of the deployment
    began: float
    recovered_s: float = -1.0
    followed: str = ""


@dataclass
class Tally:
    kills: list[Kill] = field(default_factory=list)
    by_hand: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    left_s: list[float] = field(default_factory=list)


class Team:
    """A small project with a team whose beginning is kept, so that every round starts alike."""

    def __init__(self, home: Path, task: str) -> None:
        self.task, self.project = task, Project(home / "project")
        self.project.small(task)
        self.project.edit(lambda params: [params[task][name].update(values) for name, values in SHORT.items()])
        self.project.commit()
        self.folder = Path(tempfile.mkdtemp(prefix="team-"))  # Postgres's user must be able to pass what is above
        self.kept = Path(tempfile.mkdtemp(prefix="team-kept-"))
        self.vqbet("team", "up")
        self.joined = self._joined()
        self.vqbet("flow", "deploy", joined=True)
        self.base = self.project.git("rev-parse", "runs")
        self.vqbet("team", "down")
        subprocess.run(["cp", "-a", f"{self.folder}/.", str(self.kept)], check=True)

    def vqbet(self, *argv: str, joined: bool = False) -> str:
        variables = {"VQBET_TEAM": str(self.folder), **(self.joined if joined else {})}
        return self.project.run("vqbet", *argv, check=True, **variables).stdout

    def begin(self) -> None:
        """Start the team as it was before its first run."""
        self.end()
        shutil.rmtree(self.folder)
        subprocess.run(["cp", "-a", str(self.kept), str(self.folder)], check=True)
        for name in self.branches():
            self.project.git("update-ref", "-d", f"refs/heads/{name}")
        self.project.git("update-ref", "refs/heads/runs", self.base)
        self.vqbet("team", "up")

    def branches(self) -> list[str]:
        return self.project.git("for-each-ref", "--format=%(refname:short)", "refs/heads/runs-*").split()

    def end(self) -> None:
        while there := victims.everybody(self.folder):
            for process in there:
                with suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(there, timeout=2)

    def _joined(self) -> dict[str, str]:
        script = f"set -a; . {shlex.quote(str(self.folder / 'environment'))}; env -0"
        done = subprocess.run(["sh", "-c", script], env={}, capture_output=True, text=True, check=True)
        pairs = [line.split("=", 1) for line in done.stdout.split("\0") if "=" in line]
        return {name: value for name, value in pairs if name not in ("PWD", "SHLVL", "_")}

    def stored(self) -> dict[str, Any]:
        """Return the fingerprint of what is stored, as a new clone sees it; `broken` is complete."""
        with tempfile.TemporaryDirectory() as home:
            clone = Path(home) / "clone"
            subprocess.run(["git", "clone", "-qb", "runs", str(self.project.root), str(clone)], check=True)
            variables = {
                **self.project.environment(VQBET_TEAM=str(self.folder), **self.joined),
                "PYTHONPATH": str(clone),
            }
            for name in ("VQBET_HOME", "DVC_SITE_CACHE_DIR"):
                variables.pop(name, None)
            found: dict[str, Any] = {}
            for command in (
                "vqbet team init",
                "dvc pull",
                f"bench.kill_checks {self.task}",
                f"vqbet audit {self.task}",
            ):
                words = [sys.executable, "-m", *command.split()]
                done = subprocess.run(words, cwd=clone, env=variables, capture_output=True, text=True, check=False)
                if command.startswith("bench") and not done.returncode:
                    found |= json.loads(done.stdout.splitlines()[-1])
                elif done.returncode:
                    text = " ".join((done.stdout + done.stderr).split())[-600:]
                    found.setdefault("broken", []).append(f"{command}: {text}")
            subjects = self.project.git("log", "--format=%s", f"{self.base}..runs").splitlines()
            return found | {"commits": subjects, "branches": self.branches()}


class Runs:
    """Flow runs of a team on its Prefect server, asked without patience, since it may be killed."""

    def __init__(self, joined: dict[str, str]) -> None:
        os.environ |= {name: value for name, value in joined.items() if name.startswith("PREFECT_")}
        os.environ |= {"PREFECT_CLIENT_MAX_RETRIES": "0", "PREFECT_LOGGING_LEVEL": "CRITICAL"}

    @contextmanager
    def _client(self) -> Iterator[Any]:
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True, httpx_settings={"timeout": 20.0}) as client:
            yield client

    def start(self, name: str, task: str, cluster: bool) -> Any:
        with self._client() as client:
            found = client.read_deployment_by_name(name)
            variables = {"env": {"VQBET_DASK": "local"}} if cluster else {}
            return client.create_flow_run_from_deployment(
                found.id, parameters={"task_name": task}, job_variables=variables
            ).id

    def state(self, run: Any) -> Any:
        """Return the run's state; None while the server does not answer."""
        with suppress(Exception), self._client() as client:
            return client.read_flow_run(run).state
        return None

    def again(self, run: Any) -> None:
        """Do as `prefect flow-run retry`."""
        from prefect.states import AwaitingRetry

        with self._client() as client:
            client.set_flow_run_state(run, AwaitingRetry(), force=True)

    def slots(self) -> list[str]:
        """Return the deployments whose slots are still held, and the runs that have not ended."""
        with self._client() as client:
            limits = client.read_global_concurrency_limits(limit=50, offset=0)
            return [f"{one.name}: {one.active_slots} slots held" for one in limits if one.active_slots]


class Campaign:
    """Rounds of deployments with kills."""

    def __init__(self, team: Team, seed: int) -> None:
        self.team, self.drawn, self.tally = team, random.Random(seed), Tally()
        self.runs = Runs(team.joined)

    def round(self, kills: int, *, cluster: bool = False) -> dict[str, Any]:
        """Run all deployments from the beginning, `kills` times disturbed, and return what is stored then."""
        self.team.begin()
        moments = sorted(self.drawn.choices(range(len(DEPLOYMENTS)), (3, 8, 1), k=kills))
        for place, name in enumerate(DEPLOYMENTS):
            self._deployment(name, moments.count(place), cluster)
        self.team.vqbet("team", "up")
        if kills:
            self._nobody_left()
        return self.team.stored()

    def _deployment(self, name: str, kills: int, cluster: bool) -> None:
        """Run one deployment until it is complete."""
        run, began = self.runs.start(name, self.team.task, cluster), time.monotonic()
        left, seen, changed = kills, "", began
        due = began + self.drawn.uniform(*NEXT_S)
        open_kills: list[Kill] = []
        while time.monotonic() < began + LONGEST_S:
            now, state = time.monotonic(), self.runs.state(run)
            at_work = bool(victims.engines(self.team.folder, str(run)))
            told = f"{state.name if state else 'no answer'}{'' if at_work else ', no process'}"
            if told != seen:
                seen, changed = told, now
                for kill in open_kills:
                    kill.followed += f" > {told}"
            if state and (state.is_completed() or (state.is_running() and at_work)):
                for kill in open_kills:
                    kill.recovered_s = now - kill.began
                    self._say(kill)
                open_kills = []
            if state and state.is_completed():
                return
            if state and (state.is_failed() or (now > changed + PATIENCE_S and not (state.is_running() and at_work))):
                self._by_hand(run, name, seen, str(state.message))
                changed = now
            if left and now > due and (made := self._kills(name, now - began, left)):
                left -= len(made)
                open_kills += made
                time.sleep(self.drawn.uniform(0, 3))
                if not all(victims.of_part(self.team.folder, part) for part in victims.PARTS):
                    self.team.vqbet("team", "up")
                due = time.monotonic() + self.drawn.uniform(*NEXT_S)
            time.sleep(POLL_S)
        self.tally.wrong.append(f"{name}: {seen} after {LONGEST_S:.0f} s")
        raise TimeoutError(self.tally.wrong[-1])

    def _kills(self, during: str, at_s: float, most: int) -> list[Kill]:
        """Kill one victim, or two at once."""
        made = [self._kill(during, at_s) for _ in range(min(most, self.drawn.choice(AT_ONCE)))]
        return [kill for kill in made if kill]

    def _kill(self, during: str, at_s: float) -> Kill | None:
        kinds = victims.KINDS
        kind = self.drawn.choices(list(kinds), list(kinds.values()))[0]
        doing = victims.doing(self.team.folder)
        name, found = victims.chosen(self.team.folder, kind, self.drawn)
        if not found:
            return None
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        kill = Kill(len(self.tally.kills) + 1, name, f"{during.partition('/')[0]}, {doing}", at_s, time.monotonic())
        self.tally.kills.append(kill)
        return kill

    def _by_hand(self, run: Any, name: str, seen: str, message: str) -> None:
        self.tally.by_hand.append(f"{name}: {seen}: {message[:300]}")
        print(f"      BY HAND {self.tally.by_hand[-1]}", flush=True)
        self.runs.again(run)

    def _say(self, kill: Kill) -> None:
        print(
            f"{kill.number:4d}  {kill.what:<16} {kill.during:<28} {kill.at_s:5.0f} s  recovered in "
            f"{kill.recovered_s:4.0f} s {kill.followed}",
            flush=True,
        )

    def _nobody_left(self) -> None:
        """Wait until no process of a run is left, and try every lock of a run."""
        began = time.monotonic()
        while there := self._remaining():
            if time.monotonic() > began + LEFT_S:
                self.tally.wrong.append(f"left after {LEFT_S:.0f} s: {'; '.join(there)}")
                break
            time.sleep(1.0)
        self.tally.left_s.append(time.monotonic() - began)
        for path in (self.team.folder / "runs").glob("*.lock"):
            with closing(path.open("a")) as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self.tally.wrong.append(f"{path.name} is still locked")
        self.tally.wrong += self.runs.slots()

    def _remaining(self) -> list[str]:
        """Return the processes in a run's clone, and those of workers that are not the worker itself."""
        runs, found = self.team.folder / "runs", []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(runs):
                    found.append(f"{process.pid} {victims.named(process)}")
        return found


def differences(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return sentences on what differs from the undisturbed run, and on what is broken."""
    said = list(found.get("broken", ()))
    for name, value in wanted.items():
        if name not in MAY_DIFFER and found.get(name) != value:
            said.append(f"{name}: expected {str(value)[:300]}, got {str(found.get(name))[:300]}")
    return said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--a-round", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--task", default="blockpush")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as home:
        team = Team(Path(home), chosen.task)
        campaign = Campaign(team, chosen.seed)
        try:
            wanted = campaign.round(0)
            print(f"undisturbed: {json.dumps({**wanted, 'objects': len(wanted['objects'])})}", flush=True)
            _rounds(campaign, wanted, chosen.kills, chosen.a_round)
        finally:
            team.end()
            if not campaign.tally.wrong:
                shutil.rmtree(team.folder)
            shutil.rmtree(team.kept)
    _table(campaign.tally)
    return bool(campaign.tally.wrong)


def _rounds(campaign: Campaign, wanted: dict[str, Any], kills: int, each: int) -> None:
    tally, number = campaign.tally, 0
    tally.wrong += wanted["broken"]
    while len(tally.kills) < kills:
        number += 1
        cluster, began = number % CLUSTER_EVERY == 0, time.monotonic()
        told = f"round {number}{', on Dask' if cluster else ''}, {datetime.now(UTC):%H:%M}"
        print(told, flush=True)
        try:
            found = campaign.round(min(each, kills - len(tally.kills)), cluster=cluster)
        except TimeoutError:
            return
        wrong = differences(wanted, found)
        tally.wrong += [f"{told}: {sentence}" for sentence in wrong]
        took = time.monotonic() - began
        running = f"; {len(found.get('running', ()))} of MLflow's runs say that they run"
        print(f"  {took:.0f} s: {'; '.join(wrong) or 'all is as in the undisturbed run'}{running}", flush=True)


def _table(tally: Tally) -> None:
    print(f"\n{'killed':<18} times   seconds to recovery: median, longest")
    for what, times in Counter(kill.what for kill in tally.kills).most_common():
        took = sorted(kill.recovered_s for kill in tally.kills if kill.what == what)
        print(f"{what:<18} {times:5d}   {took[len(took) // 2]:6.0f} {took[-1]:6.0f}")
    left_s = max(tally.left_s, default=0)
    by_hand = len(tally.by_hand)
    print(f"{len(tally.kills)} kills, {by_hand} retries by hand; no process of a run is left after {left_s:.0f} s")
    for sentence in tally.wrong:
        print(f"WRONG {sentence}")


if __name__ == "__main__":
    sys.exit(main())
