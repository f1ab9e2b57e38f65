"""Scheduled runs of two tasks on two workers, in a row: all must complete, without a lock error, without a person.

    OMP_NUM_THREADS=1 VQBET_DEMOS=<folder with pusht/> python -m bench.scheduled [--runs 30]

A team of its own in a temporary folder, BlockPush and Push-T with tiny parameters, a deployment for each, two workers
in pool gpu. Runs are scheduled two seconds ahead, one per task at a time, so that two always work side by side. Before
two of three runs a commit changes the seed of the task's prior; the third has nothing to do. Prints what came out:
states, lock errors in logs, shape of branch `runs`, champions, `vqbet audit`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.team import StartedTeam, started_team

TASKS = ("blockpush", "pusht")
TINY: dict[str, dict[str, Any]] = {
    "tokenizer": {
        "steps": 200,
        "batch": 128,
        "health": {"max_mean_error": 2.0, "max_p99_error": 9.0, "min_used": 0.1},
    },
    "prior": {"steps": 40, "batch": 64, "width": 32, "depth": 1, "head_hidden": 32, "warmup": 5, "ema": 0.9},
    "evaluate": {"episodes": 4, "videos": 1},
    "gate": {"floor": 0.0, "min_modes": 0, "baselines": ["noop"], "looks": [4], "latency_ms": 5000.0},
}
KEPT = ("new-data", "crashed")  # deployments, beside one of the pipeline for each task
LOCKED = re.compile(r"(?i)unable to acquire lock|database is locked|index\.lock|could not obtain lock|deadlock")
EACH_S = 1200.0  # the longest that one run may take
TRIES = 20  # of a commit that the other task's run overtakes
RUN = """
import json, sys, time
from datetime import UTC, datetime, timedelta
from prefect.client.orchestration import get_client
from prefect.states import Scheduled
with get_client(sync_client=True) as client:
    deployment = client.read_deployment_by_name(f"pipeline/nightly-{sys.argv[1]}")
    when = datetime.now(UTC) + timedelta(seconds=2)
    run = client.create_flow_run_from_deployment(deployment.id, state=Scheduled(scheduled_time=when))
    deadline = time.monotonic() + float(sys.argv[2])
    while not (run := client.read_flow_run(run.id)).state.is_final() and time.monotonic() < deadline:
        time.sleep(2)
    print(json.dumps([str(run.id), run.state_name, run.state.message or "", run.total_run_time.total_seconds()]))
"""


def main(runs: int) -> None:
    demos = Path(os.environ["VQBET_DEMOS"])
    with tempfile.TemporaryDirectory() as folder, started_team(Path(folder)) as team, second_worker(team):
        prepare(team, demos)
        began = time.monotonic()
        with ThreadPoolExecutor(len(TASKS)) as pool:
            ended = list(pool.map(lambda task: in_a_row(team, task, runs // len(TASKS)), TASKS))
        print(f"{runs} runs in {time.monotonic() - began:.0f} s", flush=True)
        judge(team, [run for of_task in ended for run in of_task])


@contextmanager
def second_worker(team: StartedTeam) -> Iterator[None]:
    """Run another worker of pool gpu beside the team's."""
    environment = team.project.environment(**team.joined, VQBET_RUNS=str(team.folder / "runs"))
    command = [sys.executable, "-m", "vqbet", "worker", "--pool", "gpu", "--name", "second"]
    with (team.folder / "second.log").open("w") as log:
        worker = subprocess.Popen(command, cwd=team.project.root, env=environment, stdout=log, stderr=log)
    try:
        yield
    finally:
        worker.terminate()
        try:
            worker.wait(60)
        except subprocess.TimeoutExpired:
            worker.kill()


def prepare(team: StartedTeam, demos: Path) -> None:
    """Deploy the pipeline once for each task, and bring in demonstrations of both by a worker."""
    project = team.project
    for task in TASKS:
        project.small(task, TINY)
    project.edit(lambda params: params.update(tasks=list(TASKS)))
    project.edit(lambda params: params["blockpush"]["demos"].update(episodes=60))
    project.edit(_deployments, "infra/prefect.yaml")
    project.commit("two tasks")
    print(team.vqbet("flow", "deploy", "--gpus", "2", joined=True).stdout, flush=True)
    for task in TASKS:
        source = "" if task == "blockpush" else str(demos / task)
        asked = ("--param", f"task_name={task}", "--param", f"source={source}")
        start = ("--no-prompt", "deployment", "run", "ingest/new-data", "--watch")
        project.run("prefect", *start, *asked, check=True, **team.joined)


def _deployments(content: Any) -> None:
    (nightly,) = [each for each in content["deployments"] if each["name"] == "nightly-retrain"]
    content["deployments"] = [each for each in content["deployments"] if each["name"] in KEPT]
    for task in TASKS:
        parameters = {"task_name": task, "allow_promotion": True}
        content["deployments"].append({**nightly, "name": f"nightly-{task}", "parameters": parameters, "schedules": []})


WRITING = threading.Lock()  # one person writes commits


def in_a_row(team: StartedTeam, task: str, count: int) -> list[dict[str, Any]]:
    """Run the task's deployment `count` times, each with a new seed except every third; return what became of each."""
    ended = []
    environment = team.project.environment(**team.joined)
    for number in range(count):
        changed = number % 3 != 2
        if changed:
            with WRITING:
                reseed(team, task, number)
        command = [sys.executable, "-c", RUN, task, str(EACH_S)]
        done = subprocess.run(command, cwd=team.project.root, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        found = dict(zip(("id", "state", "message", "seconds"), json.loads(done.stdout), strict=True))
        ended.append({"task": task, "changed": changed, **found})
        print(f"  {task} {number + 1}: {found['state']} in {found['seconds']:.0f} s, {changed=}", flush=True)
        if number == 0 and "champion" not in team.vqbet("show", f"{task}/1", joined=True).stdout:
            team.vqbet("promote", task, "--force", "--why", "so little training earns no verdict", joined=True)
    return ended


def reseed(team: StartedTeam, task: str, number: int) -> None:
    """Commit a new seed of the task's prior on top of what runs have committed. Raises RuntimeError."""
    project = team.project
    for _ in range(TRIES):
        project.git("reset", "--quiet", "--hard", "runs")
        project.edit(lambda params: params[task]["prior"].update(seed=100 + number))
        project.commit(f"{task}: seed {100 + number}")
        head = project.git("rev-parse", "HEAD")
        parent = project.git("rev-parse", "HEAD~1")
        try:
            project.git("update-ref", "refs/heads/runs", head, parent)  # refused where a run was faster
            return
        except subprocess.CalledProcessError:
            continue
    raise RuntimeError(f"{task}: runs were faster {TRIES} times")


def judge(team: StartedTeam, ended: list[dict[str, Any]]) -> None:
    """Print what must hold, and what does not."""
    project = team.project
    print("states:", dict(Counter(run["state"] for run in ended)))
    for run in ended:
        if run["state"] != "Completed":
            print("  ", run["id"], run["task"], run["message"][:300])
    logs = {path: path.read_text(errors="replace") for path in (*team.folder.glob("*/log"), team.folder / "second.log")}
    print("lock errors:", [(path.parent.name, line[:200]) for path, log in logs.items() for line in _locked(log)] or 0)
    taken = Counter(path.parent.name for path, log in logs.items() for _ in re.findall(r"submitting flow run", log))
    print("taken by:", dict(taken))
    said = project.git("log", "--format=%B", "runs")
    branches = project.git("branch", "--format=%(refname:short)").splitlines()
    print("merges on runs:", len(project.git("log", "--merges", "--format=%h", "runs").split()), "; aside:", end=" ")
    print([name for name in branches if name.startswith("runs-")] or 0)
    without = [run for run in ended if run["changed"] and run["id"] not in said]
    besides = [run for run in ended if not run["changed"] and run["id"] in said]
    print(f"runs with a change and without a commit: {len(without)}; without a change, with one: {len(besides)}")
    project.git("reset", "--quiet", "--hard", "runs")
    for task in TASKS:
        print(f"{task}:", team.vqbet("show", f"{task}@champion", joined=True, check=False).stdout.splitlines()[:2])
        audit = team.vqbet("audit", task, joined=True, check=False)
        print(f"audit {task}: {audit.returncode}", (audit.stdout + audit.stderr).strip().splitlines()[-1][:200])


def _locked(log: str) -> list[str]:
    return [line for line in log.splitlines() if LOCKED.search(line)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30)
    main(parser.parse_args().runs)
