"""A run whose process and worker are killed with SIGKILL: when is it Crashed, when does it run again, does it complete?

    OMP_NUM_THREADS=1 python -m bench.lost [--lost 60]

A team of its own in a temporary folder, a task with tiny parameters, one run of pipeline/nightly-retrain. Worker, run
and every process below them are killed while the prior trains. Then `vqbet team up`, and nothing else. Prints the run's
states with their times, from which step the training resumed, and what $VQBET_NOTIFY heard.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from tests.support.team import StartedTeam, started_team

LONGEST_S = 1200.0
STATES = """
import json, sys, uuid
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    states = client.read_flow_run_states(uuid.UUID(sys.argv[1]))
    print(json.dumps([[state.timestamp.timestamp(), state.name, state.message or ""] for state in states]))
    print(json.dumps(sorted(each.name for each in client.read_automations())))
"""


def main(lost_s: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        book = Path(folder) / "book.jsonl"
        with started_team(Path(folder)) as team:
            measured(team, lost_s, book)


def measured(team: StartedTeam, lost_s: int, book: Path) -> None:
    """Kill a run of the team and print what becomes of it. Raises TimeoutError where it does not complete."""
    for _ in range(2):  # the second time makes none anew
        team.vqbet("flow", "deploy", "--lost", str(lost_s), joined=True)
    start = ("--no-prompt", "deployment", "run")
    team.project.run("prefect", *start, "ingest/new-data", "--watch", check=True, **team.joined)
    command = (*start, "pipeline/nightly-retrain", "--param", "task_name=blockpush")
    run = re.search(r"UUID: ([0-9a-f-]{36})", team.project.run("prefect", *command, check=True, **team.joined).stdout)
    assert run, "no run was made"
    waited(lambda: _training(team))
    time.sleep(4)  # into the training
    killed = time.time()
    for process in [each for name in ("worker-gpu", "worker-cpu") for each in _family(team, name)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    print(f"killed worker, run and stage after {killed - states(team, run[1])[0][0][0]:.0f} s of the run", flush=True)
    program = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + chr(10))"
    hook = f"{sys.executable} -c {shlex.quote(program)} {book}"
    team.project.run("vqbet", "team", "up", check=True, **team.variables, VQBET_NOTIFY=hook)
    print(f"vqbet team up: done {time.time() - killed:.0f} s after the kill", flush=True)
    waited(lambda: states(team, run[1])[0][-1][1] == "Completed")
    found, automations = states(team, run[1])
    for when, name, message in found:
        print(f"  {when - killed:+7.0f} s  {name:<14} {message[:110]}")
    print("automations:", ", ".join(automations))
    log = (team.folder / "worker-gpu" / "log").read_text(errors="replace")
    print("resumed:", "; ".join(re.findall(r"[^\n]*resum[^\n]*", log))[-300:] or "no word of it in the log")
    print("heard:", *(json.loads(line)["sentence"] for line in book.read_text().splitlines()), sep="\n  ")


def states(team: StartedTeam, run: str) -> tuple[list[Any], list[str]]:
    """Return the run's states (time, name, message), oldest first, and the names of all automations."""
    environment = team.project.environment(**team.joined)
    done = subprocess.run(
        [sys.executable, "-c", STATES, run], env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    first, second = done.stdout.strip().splitlines()
    return sorted(json.loads(first)), json.loads(second)


def waited(condition: Callable[[], object]) -> None:
    """Wait for a condition. Raises TimeoutError."""
    deadline = time.monotonic() + LONGEST_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("waited in vain")
        time.sleep(2)


def _family(team: StartedTeam, part: str) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(team.pids()[part])
        return [first, *first.children(recursive=True)]
    return []


def _training(team: StartedTeam) -> bool:
    for process in _family(team, "worker-gpu"):
        with suppress(psutil.NoSuchProcess):
            if "prior@blockpush" in " ".join(process.cmdline()) and "stage" in process.cmdline():
                return True
    return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--lost", type=int, default=60, help="seconds without a heartbeat until a run counts as crashed"
    )
    main(parser.parse_args().lost)
