"""A planner in onnxruntime: plans of rows, refusals, no torch, and no telemetry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support import graphs
from tests.support.graphs import SHAPE
from tests.support.small import SEEDS, A, D, observations, play
from tests.support.untrained import H, K, Q, T
from vqbet.contract import BundleError, WorldError
from vqbet.policies.actor import Undecided
from vqbet.policies.draws import uniforms
from vqbet.policies.in_onnx import GraphShape, InOnnx

ROOT = Path(__file__).resolve().parents[2]


def test_a_plan_is_what_the_graph_computes() -> None:
    rng = np.random.default_rng(0)
    for rows in (1, 7):
        observation, uniform = rng.normal(size=(rows, T, D)).astype(np.float32), rng.uniform(size=(rows, Q))
        chunk, codes, signals = InOnnx(graphs.graph(), SHAPE).plan(observation, None, uniform)
        factors = np.arange(1, H * A + 1).reshape(1, H, A)
        np.testing.assert_allclose(chunk, observation.mean((1, 2))[:, None, None] * factors, rtol=1e-4, atol=1e-5)
        assert np.array_equal(codes, (uniform * K).astype(np.int64))
        assert signals.shape == (rows, 0)


def test_it_acts_as_any_planner_does() -> None:
    """Equal seeds and observations give bitwise equal actions, and limits hold."""
    one, two = play(graphs.actor("average"), observations()), play(graphs.actor("average"), observations())
    assert np.array_equal(one, two)
    assert one.shape == (10, len(SEEDS), A)
    assert np.abs(one).max() <= np.float32(0.8)


def test_a_row_that_is_not_decided_is_named() -> None:
    planner = InOnnx(graphs.graph(), SHAPE)
    observation = np.zeros((3, T, D), np.float32)
    observation[1, 0, 0] = np.inf
    with pytest.raises(Undecided) as caught:
        planner.plan(observation, None, np.zeros((3, Q)))
    assert caught.value.row == 1


def test_an_episode_whose_logits_are_not_finite_is_named_as_with_torch() -> None:
    policy = graphs.actor()
    policy.reset(SEEDS)
    observation = np.zeros((2, D), np.float32)
    observation[1] = 3e38
    with pytest.raises(WorldError, match="its logits for episode 4 are not finite"):
        policy.act(observation, np.array([2, 4]))


@pytest.mark.parametrize(
    ("change", "side"),
    [
        *(({name: 9}, "inputs") for name in ("window", "draws", "goal_steps")),
        *(({name: 9}, "outputs") for name in ("chunk", "tags", "signals")),
    ],
)
def test_a_graph_with_other_numbers_is_refused(change: dict[str, int], side: str) -> None:
    with pytest.raises(BundleError, match=f"here: expected {side} .* after the batch, got .*; export it again"):
        InOnnx(graphs.graph(), replace(SHAPE, **change), where="here")


@pytest.mark.parametrize("content", [b"", b"no graph", graphs.graph.__doc__.encode() * 100])
def test_a_file_that_is_no_graph_is_refused_in_one_sentence(content: bytes) -> None:
    with pytest.raises(BundleError, match=r"^here: onnxruntime [\d.]+ does not run it: .+$"):
        InOnnx(content, SHAPE, where="here")


def test_the_numbers_of_a_graph_survive_json() -> None:
    assert GraphShape.from_json(json.loads(json.dumps(SHAPE.to_json()))) == SHAPE


@pytest.mark.parametrize("change", [{"chunk": -1}, {"chunk": 1.0}, {"channels": [1, 2]}, {"wings": 1}, {"tags": True}])
def test_numbers_that_are_none_are_refused(change: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        GraphShape.from_json({**SHAPE.to_json(), **change})


def test_without_onnxruntime_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BundleError, match=r"needs onnxruntime, which is not here: pip install 'vqbet\[serve\]'"):
        InOnnx(graphs.graph(), SHAPE)


# --- alone in a process ----------------------------------------------------------------------------------------------

ACTING = """
import json, os, sys
import numpy as np
import vqbet
session = vqbet.load(sys.argv[1])
for _ in range(20):
    action = session.act(np.zeros(len(session.spec.observation), np.float32))
names = ("torch", "safetensors", "einops", "scipy", "pydantic", "typer", "mlflow", "zarr", "onnx")
sockets = [fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")
           and os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")] if os.path.isdir("/proc/self/fd") else []
threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1
print(json.dumps({"foreign": [name for name in names if name in sys.modules], "sockets": sockets, "threads": threads,
                  "runtime": "onnxruntime" in sys.modules}))
"""


def acted(folder: Path, home: Path, code: str = ACTING, wrapped: tuple[str, ...] = ()) -> dict[str, object]:
    """Act in a new process with an empty home; return its report."""
    home.mkdir()
    caches = {name: str(home / name) for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TMPDIR")}
    (home / "TMPDIR").mkdir()
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*wrapped, sys.executable, "-c", code, str(folder)],
        cwd=home,
        env={**kept, "HOME": str(home), **caches},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def left(home: Path) -> list[str]:
    """Return the files in a home."""
    return sorted(path.relative_to(home).as_posix() for path in home.rglob("*") if not path.is_dir())


@pytest.mark.slow
def test_it_acts_without_torch_writes_nothing_and_sends_nothing(tmp_path: Path) -> None:
    report = acted(graphs.written(tmp_path / "policy"), tmp_path / "home")
    assert report["runtime"], "the control: it did act in onnxruntime"
    assert report == {"foreign": [], "sockets": [], "threads": 1, "runtime": True}
    assert left(tmp_path / "home") == []


ALONE = ("unshare", "--user", "--map-root-user", "--net")  # a process without any network


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="its telemetry is of the Linux build")
def test_telemetry_that_is_on_is_seen(tmp_path: Path) -> None:
    """The planted fault: the variable is not set. Without a network, so that nothing leaves this machine."""
    if not shutil.which("unshare") or subprocess.run([*ALONE, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody make a process without network")
    loud = ACTING.replace("import vqbet\n", "import vqbet\nimport vqbet.policies.in_onnx as door\nLOUD\n").replace(
        "LOUD", "door.os = type('os', (), {'environ': {}})  # the variable goes nowhere"
    )
    report = acted(graphs.written(tmp_path / "policy"), tmp_path / "home", loud, ALONE)
    assert left(tmp_path / "home") or report["threads"] > 1


def test_random_numbers_are_those_of_every_planner() -> None:
    policy = graphs.actor()
    plan = policy.plan(
        np.zeros((2, T, D), np.float32), np.zeros((2, 0), np.float32), np.array([5, 6]), np.array([0, 3])
    )
    expected = (uniforms(np.array([5, 6]), np.array([0, 3]), Q) * K).astype(np.int64)
    assert np.array_equal(plan.tags, expected)
