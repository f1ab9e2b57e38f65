"""`vqbet serve` and `vqbet fetch`: from a registry to robots, and to a folder for a machine without one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from websockets.sync.client import connect

from tests.support import graphs, small, untrained
from tests.support.synthetic import synthetic
from vqbet import bundle, environment, registry
from vqbet.commands import serve
from vqbet.contract import BundleError, RegistryError, ServingError
from vqbet.serving import wire
from vqbet.serving.handshake import KEY
from vqbet.serving.server import ServerOptions

DEMOS = synthetic(4)
ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 200


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project around the working directory; the environment is put back afterwards."""
    (tmp_path / "params.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VQBET_PROJECT", "")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for children, which start elsewhere
    for name, value in environment.embedded(tmp_path).items():
        monkeypatch.setenv(name, value)
    return environment.prepare()


def registered(root: Path, execute: str) -> tuple[int, str]:
    """Register a policy of "synthetic" that executes by this rule; return its version and digest."""
    folder = root / f"policy-{execute}"
    _, digest = untrained.written(folder, DEMOS, execute=execute, head_hidden=16 if execute == "first" else 24)
    return registry.register("synthetic", folder, tags={"digest": digest}, spec=DEMOS.spec), digest


class Serving:
    """A process of `vqbet serve` and what it prints."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "vqbet", "serve", *arguments, "--port", "0", "--every", "0.2", "--grace", "1"]
        variables = os.environ | {"PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables
        )
        self.url = self.until(r"address\s+(ws://\S+[0-9])")

    def until(self, pattern: str) -> str:
        """Return the first group of the next line that matches."""
        assert self.process.stdout is not None
        read = []
        for line in self.process.stdout:
            read.append(line)
            if found := re.search(pattern, line):
                return found[1]
        raise AssertionError("".join(read))


@contextmanager
def serving(*arguments: str) -> Iterator[Serving]:
    made = Serving(*arguments)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait(WAIT_S)


@pytest.mark.slow
def test_a_champion_is_served_and_followed(project: Path) -> None:
    (first, one), (second, two) = registered(project, "first"), registered(project, "chunk")
    registry.force("synthetic", first, who="test", why="the first")
    with serving("synthetic@champion") as own, connect(own.url, compression=None) as robot:
        said = wire.decode(robot.recv(), most=1 << 20)[KEY]
        assert (said["digest"], said["reference"]) == (one, f"synthetic@champion (synthetic/{first})")
        robot.send(wire.encode({"state": DEMOS.observation[0]}))
        assert wire.decode(robot.recv(), most=1 << 20)[KEY]["digest"] == one
        registry.force("synthetic", second, who="test", why="the second")
        assert own.until(r"from the next episode on: .* digest ([0-9a-f]{64})") == two
        robot.send(wire.encode({"state": DEMOS.observation[1]}))
        assert wire.decode(robot.recv(), most=1 << 20)[KEY]["digest"] == one, "an episode keeps its policy"
        with connect(own.url, compression=None) as other:
            assert wire.decode(other.recv(), most=1 << 20)[KEY]["digest"] == two
        own.process.send_signal(signal.SIGTERM)
        assert own.process.wait(WAIT_S) == 0


@pytest.mark.slow
def test_an_exported_policy_is_served_by_a_process_without_torch(project: Path) -> None:
    graphs.written(project / "arm")
    with serving("arm", "--digest", graphs.DIGEST) as own, connect(own.url, compression=None) as robot:
        assert wire.decode(robot.recv(), most=1 << 20)[KEY]["digest"] == graphs.DIGEST
        observation = np.full(small.D, 0.1, np.float32)
        robot.send(wire.encode({"state": observation}))
        actions = wire.decode(robot.recv(), most=1 << 20)["actions"]
        expected = small.play(graphs.actor(), observation[None, None], np.array([0]))
        assert np.array_equal(actions[0], expected[0, 0])
        maps = Path(f"/proc/{own.process.pid}/maps")
        if maps.is_file():
            assert "onnxruntime" in maps.read_text()
            assert "torch" not in maps.read_text()


@pytest.mark.slow
def test_the_process_that_acts_knows_no_registry(project: Path) -> None:
    """A folder is served by a process that imports neither MLflow nor anything else of a pipeline."""
    _, digest = untrained.written(project / "robots" / "arm", DEMOS)
    code = (
        "import sys; from vqbet.commands import serve; from vqbet.serving.server import ServerOptions\n"
        "import vqbet.serving.server as server, asyncio\n"
        "async def run(self, ready): ready(1)\n"
        "server.Server.run = run\n"
        f"serve.run('robots/arm', {digest!r}, ServerOptions(), print)\n"
        "print(sorted(set(sys.modules) & {'mlflow', 'prefect', 'dvc', 'zarr', 'pydantic', 'boto3', 'rich'}))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=WAIT_S)
    lines = done.stdout.splitlines()
    assert lines[0] == "serving arm"
    assert lines[-1] == "[]"


def test_what_cannot_be_served_is_said(project: Path) -> None:
    _, digest = untrained.written(project / "arm", DEMOS)
    said: list[str] = []
    with pytest.raises(BundleError, match="expected the bundle with digest bbbb"):
        serve.run("arm", "b" * 64, ServerOptions(), said.append)
    with pytest.raises(BundleError, match=r"no folder that holds bundle.json"):
        serve.run("nothing", None, ServerOptions(), said.append)
    with pytest.raises(ServingError, match="VQBET_TOKEN"):
        serve.run("arm", digest, ServerOptions(host="0.0.0.0"), said.append)
    assert said == []


@pytest.mark.slow
def test_a_version_that_is_not_there_is_said(project: Path) -> None:
    with pytest.raises(RegistryError, match="synthetic@champion: no such version"):
        serve.run("synthetic@champion", None, ServerOptions(), lambda line: None)


@pytest.mark.slow
def test_a_fetched_policy_is_whole_or_not_there(project: Path) -> None:
    version, digest = registered(project, "first")
    folder = project / "robots" / "arm"
    rows = serve.fetch(f"synthetic/{version}", folder)
    assert rows["digest"] == digest
    assert bundle.read(folder, digest).spec == DEMOS.spec
    assert [path.name for path in folder.parent.iterdir()] == ["arm"], "nothing is left beside it"
    with pytest.raises(BundleError, match="arm: expected a new or empty folder"):
        serve.fetch(f"synthetic/{version}", folder)
    (stored,) = (project / ".vqbet").rglob("prior.safetensors")
    content = bytearray(stored.read_bytes())
    content[-1] ^= 1
    stored.write_bytes(content)
    with pytest.raises(BundleError, match="component 'prior': was changed"):
        serve.fetch(f"synthetic/{version}", project / "other")
    assert not (project / "other").exists()


@pytest.mark.slow
def test_the_child_says_each_bundle_and_each_error_once(project: Path) -> None:
    (first, one), (second, two) = registered(project, "first"), registered(project, "chunk")
    acts = iter(
        [
            lambda: None,
            lambda: registry.force("synthetic", first, who="test", why="the first"),
            lambda: None,
            lambda: registry.force("synthetic", second, who="test", why="the second"),
        ]
    )

    def ended(seconds: float) -> bool:
        act = next(acts, None)
        if act is not None:
            act()
        return act is None

    said: list[str] = []
    serve.follow(serve.Followed("synthetic@champion", 0.0), project / "scratch", say=said.append, ended=ended)
    assert ["error" in said[0], *(digest in line for digest, line in zip((one, two), said[1:], strict=True))] == [
        True
    ] * 3
    assert bundle.read(project / "scratch" / two, two).digest == two
    assert np.isfinite(DEMOS.observation).all()
