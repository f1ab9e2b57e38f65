"""A session of 60 trials, killed three times, beside the undisturbed one: both must end with one verdict.

    python -m bench.killed_session <project>      a copy of a project that has a champion and another candidate

The salt is the same in both, so that both have one order. Killed with SIGKILL: the policy server, the desk (and with it
the operator's page), and the simulated robot. Prints outcomes and verdicts of both, and what was irregular.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from vqbet.evaluation.trials import judging
from vqbet.evaluation.trials.trial_folder import TrialFolder

KILLS = (("trials serve", 10), ("simrobot", 25), ("", 40))  # which process, after how many outcomes; "": the desk
LONGEST_S = 900.0


def main(project: Path) -> None:
    plain = _session(project)
    planned = plain.path.name
    shutil.copytree(plain.path, spare := Path(tempfile.mkdtemp()) / planned)
    _finish(project, planned, ())
    shutil.copytree(plain.path, whole := Path(tempfile.mkdtemp()) / "whole")
    shutil.rmtree(plain.path)
    shutil.copytree(spare, plain.path)
    _finish(project, planned, KILLS)
    for name, folder in (("undisturbed", whole), ("killed", plain.path)):
        with tempfile.TemporaryDirectory() as staging:
            after = TrialFolder(folder).read().plan.after
            found = judging.stage(
                folder, Path(staging), simulated=project / ".vqbet" / "verdicts" / after if after else None
            )
        said = Counter(f"{row['arm']}, {row['stage']}" for row in found.summary["trials"] if row["counts"])
        print(f"{name}: {found.verdict.outcome}, {len(found.summary['trials'])} trials: {dict(said)}")
        print("  ", found.verdict.reason.partition("; cost")[0][:300])
        print("   irregular:", "; ".join(found.summary["irregular"]) or "nothing")


def _session(project: Path) -> TrialFolder:
    subprocess.run([sys.executable, "-m", "vqbet", "trials", "plan", "blockpush", "--again"], cwd=project, check=True)
    home = project / ".vqbet" / "trials" / "blockpush"
    return TrialFolder(max(home.iterdir(), key=lambda folder: (folder / "plan.json").stat().st_mtime))


def _finish(project: Path, plan: str, kills: tuple[tuple[str, int], ...]) -> None:
    """Run the session to its end; start the desk again after it was killed. Raises TimeoutError."""
    waiting, until = list(kills), time.monotonic() + LONGEST_S
    command = [sys.executable, "-m", "vqbet", "trials", "run", "blockpush", "--plan", plan, "--simulated", "--scripted"]
    while time.monotonic() < until:
        desk = subprocess.Popen([*command, "--port", "0"], cwd=project, stdout=subprocess.DEVNULL)
        while desk.poll() is None:
            time.sleep(0.1)
            if waiting and _entered(project, plan) >= waiting[0][1]:
                _kill(desk.pid, waiting.pop(0)[0])
        if desk.returncode == 0:
            return
    raise TimeoutError(f"the session was not over after {LONGEST_S:g} s")


def _kill(desk: int, verb: str) -> None:
    there = psutil.Process(desk).children(recursive=True) if verb else [psutil.Process(desk)]
    for process in there:
        if verb in " ".join(process.cmdline()):
            os.kill(process.pid, signal.SIGKILL)


def _entered(project: Path, plan: str) -> int:
    log = project / ".vqbet" / "trials" / "blockpush" / plan / "session.jsonl"
    return log.read_text().count('"kind":"graded"') if log.exists() else 0


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
