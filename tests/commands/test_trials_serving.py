"""`vqbet trials serve`: a plan's policies from the registry or from folders, under the server's key, blind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support import graphs, people, point, untrained
from tests.support.synthetic import synthetic
from vqbet import environment, registry
from vqbet.commands.trials import server_key, serving
from vqbet.commands.trials.serving import TrialServing
from vqbet.contract import GateError, RegistryError, ServingError, VqbetError
from vqbet.evaluation.plan import Slice, spec_sha256
from vqbet.evaluation.trials.blinding import committed
from vqbet.evaluation.trials.trial_plan import Condition, Grade, TrialPlan
from vqbet.serving.client import connect
from vqbet.serving.server import ServerOptions
from vqbet.serving.trial_line import TrialLine
from vqbet.signing import keys
from vqbet.signing.statements import commitment, genuine
from vqbet.stages.paths import Paths

DEMOS = synthetic(4)
ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 200
TOKEN, SECRET, ROBOT = "desk-secret", "0f" * 32, "arm-3"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project around the working directory; the environment is put back afterwards."""
    (tmp_path / "params.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VQBET_PROJECT", "")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv(serving.DESK_TOKEN, TOKEN)
    for name, value in environment.embedded(tmp_path).items():
        monkeypatch.setenv(name, value)
    return environment.prepare()


def arms(root: Path) -> dict[str, Path]:
    """Return two policies of "synthetic", the folder of each by its digest."""
    found: dict[str, Path] = {}
    for number, size in enumerate((16, 24)):
        folder = root / f"policy-{number}"
        _, digest = untrained.written(folder, DEMOS, head_hidden=size)
        found[digest] = folder
    return found


def planned(root: Path, candidate: str, champion: str, key: str) -> TrialPlan:
    judged = replace(
        point.planned(),
        task="synthetic",
        world=f"robot:{ROBOT}",
        spec=spec_sha256(DEMOS.spec),
        candidate=candidate,
        champion=champion,
        machine=ROBOT,
        looks=(10,),
        reserved={},
        slices=(Slice("all", 1.0),),
        metric="success",
        question="not_worse",
        min_modes=0,
        baselines=(),
    )
    plan = TrialPlan(
        judged=judged,
        robot=ROBOT,
        conditions=(Condition("any"),),
        block=5,
        rubric=(Grade("nothing", 0.0), Grade("success", 1.0)),
        tags=(),
        invalid=("lost",),
        most_invalid=0.2,
        timeout_s=60.0,
        salt=committed(b"s" * 32),
        server_key=key,
    )
    folder = Paths(root, "synthetic").trials(plan.sha256)
    folder.mkdir(parents=True)
    plan.write(folder / "plan.json")
    return plan


class TrialProcess:
    """A process of `vqbet trials serve` and what it prints."""

    def __init__(self, *arguments: str, folder: Path | None = None) -> None:
        command = [sys.executable, "-m", "vqbet", "trials", "serve", "synthetic", *arguments, "--port", "0"]
        variables = os.environ | {"PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables, cwd=folder
        )
        self.read: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.read.append(line)
            if found := re.search(r"address\s+(ws://\S+[0-9])", line):
                self.url = found[1]
                return
        raise AssertionError("".join(self.read))


@contextmanager
def process(*arguments: str, folder: Path | None = None) -> Iterator[TrialProcess]:
    made = TrialProcess(*arguments, folder=folder)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait(WAIT_S)


def play(url: str, plan: TrialPlan, digests: list[str]) -> list[np.ndarray]:
    """Return the first plan of a trial with each of the digests, in the same scene; statements are verified."""
    found = []
    with TrialLine(url, TOKEN) as line, connect(url, robot=ROBOT, digest=plan.sha256) as policy:
        assert set(line.arms().digests) == set(plan.arms.values())
        for number, digest in enumerate(digests):
            order = {"plan": plan.sha256, "trial": f"T{number}", "robot": ROBOT, "nonce": "n", "key": SECRET}
            made = line.arm(digest=digest, **order)
            assert genuine(keys.parse(plan.server_key), made.signature, made.statement)
            assert made.statement.commitment == commitment(SECRET, digest)
            policy.start(1, trial=f"T{number}")
            observed = np.repeat(DEMOS.observation[:1], policy.handshake.window, axis=0)
            found.append(policy.plan(observed, 0).chunk)
    return found


@pytest.mark.slow
def test_from_the_registry_by_digest(project: Path) -> None:
    """Also an arm that no alias names any more; the process that acts knows no registry."""
    made = arms(project)
    for digest, folder in made.items():
        registry.register("synthetic", folder, tags={"digest": digest}, spec=DEMOS.spec)
    one, two = made
    plan = planned(project, one, two, server_key.own(project).public)
    with process() as own:
        first, second, again = play(own.url, plan, [one, two, one])
        own.process.send_signal(signal.SIGTERM)
        assert own.process.wait(WAIT_S) == 0
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)
    said = "".join(own.read)
    assert f"serving the trials of plan {plan.sha256[:12]}, 2 policies, to robot {ROBOT}" in said
    assert one[:12] not in said
    assert two[:12] not in said


@pytest.mark.slow
def test_from_folders_without_a_project(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("server")
    made = arms(elsewhere)
    key = keys.make(elsewhere / "key.pem")
    plan = planned(project, *made, key.public)
    plan.write(elsewhere / "plan.json")
    words = [word for folder in made.values() for word in ("--arm", str(folder))]
    with process("--plan", "plan.json", *words, "--server-key", "key.pem", folder=elsewhere) as own:
        first, second = play(own.url, plan, list(made))
    assert not np.array_equal(first, second)
    assert sorted(path.name for path in elsewhere.iterdir()) == ["key.pem", "plan.json", "policy-0", "policy-1"]


def test_the_servers_key_is_made_once(project: Path) -> None:
    key = server_key.own(project)
    assert server_key.own(project) == key
    assert (project / server_key.NAME).stat().st_mode & 0o777 == 0o600


def refused(project: Path, *, token: str = TOKEN, **asked: object) -> str:
    with pytest.raises(VqbetError) as caught:
        serving.run(project, "synthetic", TrialServing(**asked), ServerOptions(), token, lambda _: None)  # type: ignore[arg-type]
    assert isinstance(caught.value, GateError | ServingError | RegistryError)
    return str(caught.value)


def test_what_does_not_belong_together_is_said(project: Path) -> None:
    made = arms(project)
    one, two = made
    folders = list(made.values())
    assert "synthetic: no plan of trials ''; there are: none; make one: vqbet trials plan synthetic" in refused(project)
    plan = planned(project, one, two, server_key.own(project).public)
    assert f"no plan of trials 'abc'; there are: {plan.sha256[:12]}" in refused(project, plan="abc")
    assert "not " + plan.sha256[:13] + "zz" in refused(project, plan=plan.sha256[:13] + "zz")
    assert "the folders hold" in refused(project, folders=folders[:1])
    assert "expected the desk's secret in VQBET_DESK_TOKEN" in refused(project, folders=folders, token="")
    other = keys.make(project / ".vqbet" / "other.pem")
    sentence = refused(project, folders=folders, key=project / ".vqbet" / "other.pem")
    assert f"this server's key is {other.public}; serve with that key (--server-key), or plan again" in sentence
    file = Paths(project, "synthetic").trials(plan.sha256) / "plan.json"
    replace(plan, timeout_s=61.0).write(file)
    assert f"not {plan.sha256[:12]}; bring the locked plan back" in refused(project, folders=folders)


def test_a_plan_of_another_task(project: Path) -> None:
    plan = planned(project, "a" * 64, "b" * 64, server_key.own(project).public)
    with pytest.raises(GateError, match="is of task synthetic, not of blockpush"):
        serving.planned(project, "blockpush", str(Paths(project, "synthetic").trials(plan.sha256) / "plan.json"))


@pytest.mark.slow
def test_a_policy_that_the_registry_does_not_have(project: Path) -> None:
    planned(project, "a" * 64, "b" * 64, server_key.own(project).public)
    assert "no version has the digest aaaaaaaaaaaa" in refused(project)


def test_a_key_without_the_role(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = people.repository(tmp_path / "project")
    monkeypatch.chdir(root)
    key = server_key.own(root)
    people.trusted(root, "server-1", key, "judge")
    people.commit(root)
    made = arms(root)
    planned(root, *made, key.public)
    sentence = refused(root, folders=list(made.values()))
    assert f"nobody with the role serve has the server's key {key.id[:12]}; vqbet keys trust <name>" in sentence
    people.trusted(root, "server-1", key, "serve")
    people.commit(root)
    assert "expected the desk's secret" in refused(root, folders=list(made.values()), token="")


def test_without_cryptography(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    with pytest.raises(ServingError, match=r"which needs .*: pip install 'vqbet\[serve,trials\]'"):
        server_key.own(project)


@pytest.mark.slow
def test_exported_policies_need_neither_torch_nor_a_pipeline(project: Path) -> None:
    """On a machine with the extras serve and trials; simulated by packages that cannot be imported."""
    graphs.written(project / "arm")
    key = keys.make(project / ".vqbet" / "key.pem")
    planned(project, graphs.DIGEST, "", key.public).write(project / "plan.json")
    absent = (
        "mlflow",
        "prefect",
        "dvc",
        "zarr",
        "boto3",
        "scipy",
        "jinja2",
        "matplotlib",
        "ruamel",
        "sqlalchemy",
    )
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent}))\n"
        "from vqbet.serving import server\n"
        "async def run(self, ready): assert 'torch' not in sys.modules; ready(1)\n"
        "server.Server.run = run\n"
        "sys.argv = ['vqbet', 'trials', 'serve', 'synthetic', '--plan', 'plan.json', '--arm', 'arm', '--server-key', "
        "'.vqbet/key.pem']\n"
        "from vqbet.__main__ import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
    assert "1 policies, to robot arm-3" in done.stdout
