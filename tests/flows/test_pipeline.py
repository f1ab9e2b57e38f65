"""The whole loop as a stranger meets it, on a task small enough for a test: flow, graph, registry, command line.

One project for the file; the tests build on one another in their order.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.project import Project
from tests.support.s3_faults import Between
from tests.support.waiting import until
from vqbet import registry, versions
from vqbet.commands import audit, release
from vqbet.commands.audit import AuditFinding
from vqbet.contract import BundleError
from vqbet.registry import connection, runs
from vqbet.stages.progress import Watch
from vqbet.training import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SILENCE = Path(__file__).parent / "silence"
LOGIN = "team:word"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("demo"))
    project.small()
    project.commit()
    return project


@pytest.fixture(scope="module")
def outside(project: Project) -> Path:
    return project.root.parent / "outside.log"


@pytest.fixture(scope="module")
def demo(project: Project, outside: Path) -> str:
    """The first run of the demo, with every process watched for connections to elsewhere."""
    path = os.pathsep.join([str(SILENCE), str(project.root)])
    return project.run("vqbet", "flow", "demo", OUTSIDE_LOG=str(outside), PYTHONPATH=path).stdout


@pytest.fixture(scope="module")
def committed(project: Project, demo: str) -> bytes:
    project.commit("after the demo")
    return (project.root / "dvc.lock").read_bytes()


def read(project: Project, name: str) -> dict:
    return json.loads((project.root / "artifacts" / "blockpush" / name).read_text(encoding="utf-8"))


def test_the_demo_ends_with_a_champion_on_one_screen(project: Project, demo: str) -> None:
    screen = demo[demo.index("task  ") :]
    verdict = read(project, "gate/verdict.json")
    assert verdict["outcome"] == "PROMOTE", verdict["reason"]
    assert "no champion yet" in verdict["reason"]
    assert re.search(r"demonstrations +120 episodes", screen)
    assert re.search(rf"champion +version 1, digest {verdict['candidate'][:12]}", screen)
    assert re.search(r"stages run now +validate, tokenizer, prior, bundle, evaluate, gate, report", screen)
    assert re.search(r"seconds per stage +validate \d+, tokenizer \d+", screen)
    for name in re.findall(r"(artifacts/\S+)", screen):
        assert (project.root / name).stat().st_size > 1000, name


def test_the_demo_speaks_to_nobody_outside(demo: str, outside: Path) -> None:
    assert not outside.exists(), outside.read_text(encoding="utf-8")


def test_the_watch_itself_notices(tmp_path: Path) -> None:
    """The planted fault: a process that asks for an address outside is written down."""
    log = tmp_path / "log"
    code = "import socket\ntry: socket.getaddrinfo('telemetry.invalid', 443)\nexcept OSError: pass"
    environment = {**os.environ, "PYTHONPATH": str(SILENCE), "OUTSIDE_LOG": str(log)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert "telemetry.invalid" in log.read_text(encoding="utf-8")


def test_a_second_repro_runs_nothing_and_changes_nothing(project: Project, committed: bytes) -> None:
    done = project.run("dvc", "repro")
    assert re.findall(r"Running stage '(\w+)@", done.stdout) == ["code"], "which only looks"
    assert (project.root / "dvc.lock").read_bytes() == committed


def test_metrics_plots_and_graph_answer(project: Project, committed: bytes) -> None:
    assert "artifacts/blockpush/metrics/evaluate.json" in project.run("dvc", "metrics", "show").stdout
    assert "gate@blockpush" in project.run("dvc", "dag", "--dot").stdout
    page = project.run("dvc", "plots", "show").stdout.strip().splitlines()[-1]
    text = Path(page.removeprefix("file://")).read_text(encoding="utf-8")
    assert "artifacts/blockpush/plots/prior.csv" in text.replace("::", "/")
    assert not re.search(r"(src|href)=.?https?://", text)


def test_show_history_and_rollout(project: Project, committed: bytes) -> None:
    shown = project.run("vqbet", "show", "blockpush@champion").stdout
    digest = read(project, "gate/verdict.json")["candidate"]
    assert digest in shown
    assert versions.data_version(project.root) in shown
    assert "PROMOTE" in shown
    assert "blockpush/1" in project.run("vqbet", "history", "blockpush").stdout
    project.run("vqbet", "rollout", "blockpush@champion", "--episodes", "2", "--out", "two.webm")
    assert (project.root / "two.webm").read_bytes()[:4] == b"\x1a\x45\xdf\xa3"


def test_promoting_the_champion_again_changes_nothing(project: Project, committed: bytes) -> None:
    before = project.run("vqbet", "history", "blockpush").stdout
    project.run("vqbet", "promote", "blockpush")
    assert project.run("vqbet", "history", "blockpush").stdout == before


def test_the_champion_before_the_gate_again_is_nothing_to_compare(project: Project, committed: bytes) -> None:
    """As after a new version of the gate: no seed is used, and the champion keeps the verdict that made it one."""
    shown = project.run("vqbet", "show", "blockpush@champion").stdout
    project.run("dvc", "repro", "--force", "--single-item", "gate@blockpush")
    assert "are the same policy" in read(project, "gate/verdict.json")["reason"]
    project.run("dvc", "repro", "--single-item", "report@blockpush")
    assert "the champion already" in project.run("vqbet", "register", "blockpush").stdout
    assert "the same policy" in (project.root / "artifacts/blockpush/report/index.html").read_text(encoding="utf-8")
    assert project.run("vqbet", "show", "blockpush@champion").stdout == shown
    (project.root / "dvc.lock").write_bytes(committed)
    project.run("dvc", "checkout")


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("vqbet", "show", "blockpush@nobody"), "nobody"),
        (("vqbet", "show", "bathroom@champion"), "bathroom"),
        (("vqbet", "stage", "polish", "blockpush"), "no stage 'polish'"),
        (("vqbet", "stage", "prior", "bathroom"), "no section 'bathroom'"),
        (("vqbet", "ingest", "pusht"), "expected a path or URL"),
        (("vqbet", "ingest", "pusht", "nowhere.zarr"), "nowhere.zarr"),
        (("vqbet", "rollback", "blockpush", "--why", "test"), "no champion to go back to"),
    ],
)
def test_a_mistake_is_a_sentence(project: Project, committed: bytes, argv: tuple[str, ...], named: str) -> None:
    done = project.run(*argv, check=False)
    assert done.returncode != 0
    assert named in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_registry_out_of_reach_is_a_sentence(project: Project, committed: bytes) -> None:
    done = project.run("vqbet", "show", "blockpush@champion", check=False, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode != 0
    assert "127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_changed_policy_is_not_registered(project: Project, committed: bytes) -> None:
    path = project.root / "artifacts" / "blockpush" / "policy" / "prior.safetensors"
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    done = project.run("vqbet", "register", "blockpush", check=False)
    path.write_bytes(good)
    assert done.returncode != 0
    assert "component 'prior'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_verdict_is_replayed_by_its_id_here_and_from_the_registry(project: Project, committed: bytes) -> None:
    store = project.root / ".vqbet" / "verdicts"
    (packed,) = [path for path in store.iterdir() if len(path.name) == 64]
    assert packed.name[:12] in project.run("vqbet", "verdict", "list").stdout
    assert packed.name in project.run("vqbet", "history", "blockpush").stdout.replace("\n", "").replace(" ", "")
    assert "byte for byte the same" in project.run("vqbet", "verdict", "replay", packed.name[:8]).stdout
    shutil.rmtree(packed)
    assert "byte for byte the same" in project.run("vqbet", "verdict", "replay", packed.name[:8]).stdout
    played = packed / "records.jsonl"
    good = played.read_bytes()
    played.write_bytes(good.replace(b'"score":', b'"score" :', 1))
    done = project.run("vqbet", "verdict", "replay", packed.name[:8], check=False)
    played.write_bytes(good)
    assert done.returncode != 0
    assert "records.jsonl: was changed" in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_a_verdict_in_a_bucket_is_replayed_where_nothing_else_is(
    project: Project, committed: bytes, s3: Between, tmp_path: Path
) -> None:
    bucket = f"s3://{s3.bucket}/team"
    stored = project.run("vqbet", "register", "blockpush", VQBET_STORAGE=bucket).stdout
    (address,) = re.findall(rf"stored +({bucket}/evidence/[0-9a-f]{{64}})", stored)
    assert address in project.run("vqbet", "show", "blockpush@champion").stdout
    packed = project.root / ".vqbet" / "verdicts" / address.rpartition("/")[2]
    shutil.rmtree(packed)
    elsewhere = {"VQBET_STORAGE": bucket, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'empty.db'}"}
    replayed = project.run("vqbet", "verdict", "replay", packed.name[:8], **elsewhere).stdout
    assert "byte for byte the same" in replayed
    done = project.run("vqbet", "register", "blockpush", check=False, VQBET_STORAGE="s3://nowhere-at-all")
    assert done.returncode == 1
    assert re.fullmatch(r"error: s3://nowhere-at-all/: cannot be listed: NoSuchBucket; .*\n", done.stderr)


@pytest.fixture
def audited(
    project: Project, committed: bytes, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, AuditFinding]]:
    """An audit of the demo's project in this process; it does not pay for a start."""
    home = project.root / ".vqbet"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")

    def run(*, repair: bool = False) -> dict[str, AuditFinding]:
        found = audit.run(project.root, "blockpush", Watch(), repair=repair)
        assert len({one.what for one in found}) == len(found)
        return {one.what: one for one in found}

    return run


def test_an_audit_looks_at_all_that_a_promotion_rests_on(
    project: Project, audited: Callable[..., dict[str, AuditFinding]]
) -> None:
    found = audited()
    seen = ["ledger", "blockpush@champion", "blockpush/1", "entry 1, evidence", "published", "signatures"]
    assert list(found) == seen
    assert not any(one.wrong for one in found.values())
    shown = project.run("vqbet", "audit", "blockpush").stdout
    assert shown.count("as it should be") == 4
    assert "nothing is published outside" in shown
    assert "unsigned: no committed trust file" in shown


@pytest.mark.parametrize("component", ["tokenizer", "prior", "normalizer"])
def test_a_swapped_component_in_the_registry_is_found_and_never_promoted(
    project: Project, audited: Callable[..., dict[str, AuditFinding]], component: str
) -> None:
    (path,) = (
        path
        for path in (project.root / ".vqbet" / "mlartifacts").rglob(f"{component}.safetensors")
        if (path.parent / "prior.safetensors").exists()
    )
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    try:
        wrong = audited()["blockpush/1"]
        with pytest.raises(BundleError, match=component):
            release.promote(project.root, "blockpush", candidate=1, why="w", watch=Watch())
        with pytest.raises(BundleError, match=component):
            release.force(project.root, "blockpush", candidate=1, why="w")
    finally:
        path.write_bytes(good)
    assert wrong.open
    assert component in wrong.wrong


def test_an_audit_puts_the_alias_back_and_ends_the_runs_of_the_dead(
    audited: Callable[..., dict[str, AuditFinding]],
) -> None:
    registry.check()
    client = connection.client()
    client.delete_registered_model_alias("blockpush", "champion")
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    with registry.run("blockpush", "alive", params={}, tags={}):
        left = client.create_run(
            runs.experiment(client, "blockpush"), tags={runs.PROCESS: f"{platform.node()} {dead.pid} 1.00"}
        ).info.run_id
        found = audited()
        assert found["blockpush@champion"].wrong == "the champion is none, entry 1 of the ledger says version 1"
        assert [one.what for one in found.values() if one.open] == ["blockpush@champion", f"run {left[:12]}"]
        assert not any(one.open for one in audited(repair=True).values())
    assert client.get_run(left).info.status == "KILLED"
    assert not any(one.wrong for one in audited().values())
    assert registry.resolve("blockpush@champion").version == 1


def test_deleted_evidence_is_fetched_again_or_missed(
    project: Project, audited: Callable[..., dict[str, AuditFinding]], tmp_path: Path
) -> None:
    store = project.root / ".vqbet" / "verdicts"
    (packed,) = [path for path in store.iterdir() if len(path.name) == 64]
    shutil.rmtree(packed)
    assert not audited()["entry 1, evidence"].wrong
    assert packed.is_dir()
    (kept,) = (project.root / ".vqbet" / "mlartifacts").rglob(packed.name)
    shutil.move(kept, tmp_path / "kept")
    shutil.move(packed, tmp_path / "packed")
    try:
        assert audited()["entry 1, evidence"].open
    finally:
        shutil.move(tmp_path / "kept", kept)
        shutil.move(tmp_path / "packed", packed)


def test_a_tampered_ledger_hides_nothing_else(
    project: Project, audited: Callable[..., dict[str, AuditFinding]]
) -> None:
    with closing(sqlite3.connect(project.root / ".vqbet" / "ledger.db")) as database:
        with database:
            database.execute(
                "UPDATE vqbet_ledger SET line = replace(line, 'verdict', 'hunch') WHERE chain = 'blockpush'"
            )
        found = audited(repair=True)
        with database:
            database.execute(
                "UPDATE vqbet_ledger SET line = replace(line, 'hunch', 'verdict') WHERE chain = 'blockpush'"
            )
    assert list(found) == [
        "ledger, entry 1",
        "ledger beside the registry",
        "blockpush@champion",
        "published",
        "signatures",
    ]
    assert "the chain is broken" in found["ledger, entry 1"].wrong
    assert not any(one.wrong for one in audited().values())


def test_who_was_champion_then(project: Project, committed: bytes) -> None:
    assert "blockpush/1" in project.run("vqbet", "history", "blockpush", "--at", "2099-01-01").stdout
    assert "no champion then" in project.run("vqbet", "history", "blockpush", "--at", "2020-01-01T12:00").stdout
    done = project.run("vqbet", "history", "blockpush", "--at", "yesterday", check=False)
    assert "expected a date or a time such as 2026-05-01T14:30, got 'yesterday'" in done.stderr.replace("\n", " ")


def test_a_damaged_store_stops_the_graph(project: Project, committed: bytes) -> None:
    chunk = next((project.root / "data" / "blockpush.zarr" / "data" / "action").rglob("c/0/0"))
    good = chunk.read_bytes()
    chunk.chmod(0o644)
    chunk.write_bytes(good[:100] + bytes([good[100] ^ 1]) + good[101:])
    done = project.run("vqbet", "stage", "validate", "blockpush", check=False)
    chunk.write_bytes(good)
    assert done.returncode != 0
    assert "data/action" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_changed_number_runs_what_follows_and_the_champion_again(project: Project, committed: bytes) -> None:
    project.edit(lambda params: params["blockpush"]["prior"].update(focal_gamma=1.0))
    done = project.run("dvc", "repro")
    ran = re.findall(r"Running stage '(\w+)@blockpush'", done.stdout)
    assert [name for name in ran if name != "code"] == ["prior", "bundle", "evaluate", "gate", "report"]
    verdict = read(project, "gate/verdict.json")
    assert verdict["champion"], "the present champion is played again"
    rivals = (project.root / "artifacts" / "blockpush" / "gate" / "records.jsonl").read_text(encoding="utf-8")
    assert verdict["champion"] in rivals
    assert "blockpush" in project.run("dvc", "metrics", "diff").stdout


def test_an_interrupted_flow_leaves_nobody_and_goes_on(project: Project, committed: bytes) -> None:
    project.edit(lambda params: params["blockpush"]["prior"].update(steps=100_000))
    training = project.root / ".vqbet" / "checkpoints" / "prior" / "blockpush"
    taken = training / checkpoint.LOCK  # by a training that has begun
    taken.unlink(missing_ok=True)
    flow = subprocess.Popen(
        [sys.executable, "-m", "vqbet", "flow", "pipeline"],
        cwd=project.root,
        env=project.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # jobs in the background ignore it
    )
    until(lambda: taken.exists(), 150)
    time.sleep(2)  # into the training
    children = living(flow.pid)
    os.killpg(flow.pid, signal.SIGINT)
    try:
        output, _ = flow.communicate(timeout=60)
    finally:
        flow.kill()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, [child.cmdline() for child in alive]
    assert flow.returncode == 130
    assert b"the same command goes on from there" in output
    assert b"Traceback" not in output, output.decode()[-2000:]
    assert any(training.glob("step-*")), "the training wrote a checkpoint to go on from"


def living(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@pytest.fixture
def server(project: Project) -> Iterator[str]:
    """A real Prefect server on a free port of this machine."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    login = {"PREFECT_SERVER_API_AUTH_STRING": LOGIN}
    with started(project, [sys.executable, "-m", "vqbet", "flow", "ui", "--port", str(port)], **login):
        until(lambda: asked(port, "api/health") is True, 120)
        yield f"http://127.0.0.1:{port}/api"


def asked(port: int, path: str) -> Any:
    """What the server answers; None while there is none."""
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=2) as answer:
            return json.load(answer)
    except OSError:
        return None


class started:
    """A process of the project for the time of a `with`, ended with everything it started."""

    def __init__(self, project: Project, command: list[str], **variables: str) -> None:
        environment = project.environment(**variables)
        self.process = subprocess.Popen(
            command,
            cwd=project.root,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> subprocess.Popen:
        return self.process

    def __exit__(self, *_: object) -> None:
        everybody = [*living(self.process.pid), psutil.Process(self.process.pid)]
        os.killpg(self.process.pid, signal.SIGTERM)
        _, left = psutil.wait_procs(everybody, timeout=15)
        for process in left:  # a worker now and then waits for ever after it was asked to end
            process.kill()
        self.process.wait()


def test_the_deployments_run_on_a_server_and_a_worker(project: Project, committed: bytes, server: str) -> None:
    subprocess.run(["git", "-C", project.root, "checkout", "-q", "params.yaml", "dvc.lock"], check=True)
    project.run("dvc", "repro")
    team = {"PREFECT_API_URL": server, "PREFECT_API_AUTH_STRING": LOGIN, "VQBET_ROOT": str(project.root)}
    assert asked(int(server.split(":")[2].split("/")[0]), "ui-settings")["api_url"] == server
    refused = project.run("vqbet", "flow", "ui", check=False, **team)
    assert refused.returncode == 1
    assert f"that server has its own pages: {server.removesuffix('/api')}" in refused.stderr
    project.run("prefect", "work-pool", "create", "cpu", "--type", "process", **team)
    told = project.run("prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "infra/prefect.yaml", **team)
    for name in ("pipeline/nightly", "ingest/on-demand", "promote/by-hand"):
        assert name in told.stdout.replace("\n", "")
    worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "cpu"]
    with started(project, worker, **team):
        done = project.run("prefect", "deployment", "run", "pipeline/nightly", "--watch", check=False, **team)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Completed" in done.stdout


def test_changed_demonstrations_are_compared_with_the_champions(project: Project, committed: bytes) -> None:
    """The oracle moves more slowly: the flow tells what that means for the champion's tokenizer, and does not fail."""
    oracle = project.root / "vqbet" / "sims" / "blockpush_oracle.py"
    text = oracle.read_text(encoding="utf-8")
    oracle.write_text(text.replace("FREE_M = 0.020", "FREE_M = 0.012").replace("PUSH_M = 0.012", "PUSH_M = 0.008"))
    assert "drift: a new tokenizer is needed: " in project.run("vqbet", "flow", "ingest", "blockpush").stdout
    done = project.run("vqbet", "drift", "blockpush", "--check", check=False)
    assert done.returncode == 3, done.stderr
    assert "a new tokenizer is needed: " in done.stdout
    assert re.search(r"episodes +0 kept, 0 added, 0 removed, 120 changed", done.stdout)
    found = read(project, "drift/drift.json")
    assert {"max_divergence"} <= {each["threshold"] for each in found["exceeded"]}
    assert found["against"]["data_dvc"] != found["present"]["data_dvc"] == versions.data_version(project.root)
    assert "NEW TOKENIZER NEEDED" in (project.root / "artifacts/blockpush/drift/index.html").read_text(encoding="utf-8")
