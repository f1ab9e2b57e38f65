"""`vqbet trials run` as a process, with its policy server and its simulated robot: whole, killed, and refused."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.support import trial_session_made, untrained
from tests.support.waiting import until
from vqbet import environment, registry
from vqbet.commands.trials import run, server_key, sessions
from vqbet.commands.trials.desk_secrets import NAME, DeskSecrets
from vqbet.commands.trials.run import TrialRun
from vqbet.commands.trials.web import Door
from vqbet.contract import GateError
from vqbet.evaluation.plan import spec_sha256
from vqbet.evaluation.trials import judging, trial_log
from vqbet.evaluation.trials.blinding import committed
from vqbet.evaluation.trials.trial_folder import TrialFolder
from vqbet.evaluation.trials.trial_plan import Condition, TrialPlan
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.tasks.blockpush.oracle import demonstrations

ROOT = Path(__file__).resolve().parents[3]
TASK, PAIRS = "blockpush", 6
WAIT_S = 200.0


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty project with two untrained policies: champion and candidate of blockpush."""
    root = tmp_path_factory.mktemp("project")
    (root / "params.yaml").touch()
    demos = demonstrations(2, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("VQBET_PROJECT", "")
        patch.setenv("PYTHONPATH", str(ROOT))
        for name, value in environment.embedded(root).items():
            patch.setenv(name, value)
        environment.prepare()
        for number, size in enumerate((16, 24)):
            _, digest = untrained.written(root / f"policy-{number}", demos, head_hidden=size, window=1)
            version = registry.register(TASK, root / f"policy-{number}", tags={"digest": digest}, spec=demos.spec)
            registry.set_candidate(TASK, version)
            if number == 0:
                registry.force(TASK, version, who="a test", why="a test")
        yield root


def planned(root: Path, seed: int, *, sealed: bool = True) -> TrialFolder:
    """Make a plan of champion and candidate with a salt of its own, and return its folder."""
    candidate, champion = (registry.resolve(f"{TASK}@{alias}").digest for alias in ("candidate", "champion"))
    first, _ = trial_session_made.by_hand(server_key.own(root).public)
    spec = demonstrations(1, 0).spec
    judged = replace(
        first.judged,
        task=TASK,
        spec=spec_sha256(spec),
        candidate=candidate,
        champion=champion,
        looks=(PAIRS,),
    )
    salt = bytes([seed]) * 32
    plan = replace(
        first,
        judged=judged,
        block=3,
        conditions=tuple(Condition(f"place {number}") for number in range(PAIRS)),
        timeout_s=4.0,
        salt=committed(salt),
    )
    folder = TrialFolder(Paths(root, TASK).trials(plan.sha256))
    folder.keep(plan, salt)
    attempts = registry.Attempts(TASK)
    if sealed and attempts.under(plan.plan.sha256) is None:
        attempts.seal_plan(candidate, plan.plan.sha256, plan.plan.to_json())
    return folder


class RunProcess:
    """A process of `vqbet trials run`, with a script and a simulated robot, and what it prints."""

    def __init__(self, folder: TrialFolder, *words: str) -> None:
        command = [sys.executable, "-m", "vqbet", "trials", "run", TASK, "--plan", folder.path.name, "--port", "0"]
        self.folder = folder
        self.process = subprocess.Popen(
            [*command, *(words or ("--simulated", "--scripted"))],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"},
        )

    def graded(self) -> int:
        path = self.folder.log
        return path.read_text().count('"kind":"graded"') if path.exists() else 0

    def children(self, verb: str = "") -> list[psutil.Process]:
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [one for one in found if verb in " ".join(one.cmdline())]

    def ended(self) -> str:
        """Return what it has printed, once it has ended by itself."""
        said, _ = self.process.communicate(timeout=WAIT_S)
        assert self.process.returncode == 0, said
        return str(said)

    def __enter__(self) -> RunProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(WAIT_S)


def outcomes(folder: TrialFolder) -> dict[tuple[int, str], str]:
    """Return the stage of every counted trial by pair and arm."""
    opened = folder.read()
    graded = [trial for trial in opened.progress.trials.values() if trial.state == "graded"]
    return {(trial.slot.pair, trial.slot.arm): trial.stage for trial in graded}


@pytest.mark.slow
def test_a_session_that_was_killed_ends_as_the_undisturbed_one(project: Path, tmp_path: Path) -> None:
    """kill -9 of the desk in a trial, and of the policy server; the children of a killed desk do not stay behind."""
    folder = planned(project, 1)
    with RunProcess(folder) as first:
        until(lambda: first.graded() >= 3, WAIT_S)
        family = first.children()
        assert len(family) == 2
        first.process.send_signal(signal.SIGKILL)
    gone, left = psutil.wait_procs(family, timeout=20)
    assert (len(gone), left) == (2, [])
    with RunProcess(folder) as second:
        until(lambda: second.graded() >= 6, WAIT_S)
        for server in second.children("serve"):
            server.kill()
        said = second.ended()
    assert f"unblind and judge  vqbet trials judge {TASK}" in said
    assert "closed: complete" in said
    disturbed = judging.stage(folder.path, tmp_path / "disturbed").verdict
    found = outcomes(folder)
    folder.path.rename(tmp_path / "killed")
    again = planned(project, 1)
    with RunProcess(again) as undisturbed:
        said = undisturbed.ended()
    assert found == outcomes(again)
    calm = judging.stage(again.path, tmp_path / "calm").verdict
    assert disturbed.outcome == calm.outcome
    assert [check.name for check in disturbed.checks] == [check.name for check in calm.checks]
    assert [check.value for check in disturbed.checks] == [check.value for check in calm.checks]
    kinds = [event.kind for event in trial_log.read(again.log)]
    assert kinds.count("armed") == kinds.count("graded") == 2 * PAIRS, "nothing was irregular"


@pytest.mark.slow
def test_from_the_command_line_until_it_is_stopped(project: Path) -> None:
    """It prints where page and robot go, keeps the secrets for the next start, and ends its children."""
    folder = planned(project, 2)
    found: list[list[str]] = []
    for operator in ("ada", "grace"):
        with RunProcess(folder, "--operator", operator) as desk:
            assert desk.process.stdout is not None
            said = []
            for line in desk.process.stdout:
                said.append(line)
                if "VQBET_TOKEN" in line:
                    break
            found.append(re.findall(r"/#(\S+)|TOKEN=(\S+)", "".join(said)))
            family = desk.children()
            desk.process.send_signal(signal.SIGTERM)
            assert desk.process.wait(WAIT_S) != 0
            _, left = psutil.wait_procs(family, timeout=20)
            assert not left
    assert found[0] == found[1]
    assert len(found[0]) == 3
    assert (folder.path / NAME).stat().st_mode & 0o777 == 0o600
    names = [event["operator"] for event in trial_log.read(folder.log)]
    assert names == ["ada", "grace"]


def refused(project: Path, folder: TrialFolder, **asked: object) -> str:
    with pytest.raises(GateError) as caught:
        run.run(project, TASK, TrialRun(plan=folder.path.name, **asked), Watch())  # type: ignore[arg-type]
    return str(caught.value)


def test_what_cannot_be_run(project: Path) -> None:
    folder = planned(project, 3)
    assert "expected --scripted or --terminal, got both" in refused(project, folder, scripted=True, terminal=True)
    assert "a script cannot see what a robot does" in refused(project, folder, scripted=True)
    wide = Door(host="0.0.0.0", certificate=Path("desk.pem"), key=Path("key.pem"))
    assert "needs a policy server that they reach" in refused(project, folder, door=wide)
    assert "knows no certificate" in refused(project, folder, simulated=True, door=replace(wide, host="127.0.0.1"))
    unsealed = planned(project, 5, sealed=False)
    assert "no plan of this content was sealed in the registry" in refused(project, unsealed)
    assert not folder.log.exists()
    with pytest.raises(GateError, match="no plan of trials 'abc'"):
        run.run(project, TASK, TrialRun(plan="abc"), Watch())


def test_a_policy_that_was_replaced_meanwhile(project: Path) -> None:
    """Before the first trial no session begins: its verdict could promote nothing."""
    folder = planned(project, 4)
    plan = TrialPlan.read(folder.plan)
    assert sessions.replaced(plan) == ""
    gone = replace(plan, judged=replace(plan.judged, candidate="f" * 64))
    assert "the candidate is gone from the registry" in sessions.replaced(gone)
    registry.force(TASK, 2, who="a test", why="a test")
    try:
        sentence = refused(project, folder)
    finally:
        registry.force(TASK, 1, who="a test", why="a test")
    assert "the champion was replaced meanwhile: the plan compares with" in sentence
    assert f"plan again: vqbet trials plan {TASK}" in sentence
    assert not folder.log.exists()


def test_secrets_of_a_desk(tmp_path: Path) -> None:
    made = DeskSecrets.read(tmp_path, {})
    assert DeskSecrets.read(tmp_path, {}) == made
    assert len({made.page, made.robot, made.desk, made.server}) == 4
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    replace(made, port=8123).write(tmp_path)
    assert DeskSecrets.read(tmp_path, {"VQBET_ROBOT_TOKEN": "own"}) == replace(made, robot="own", port=8123)
    for text in ("{", "[]", '{"page": "x"}', '{"page": "", "robot": "", "desk": "", "server": "", "port": "x"}'):
        (tmp_path / NAME).write_text(text)
        with pytest.raises(GateError, match=NAME):
            DeskSecrets.read(tmp_path, {})
