"""Tests of infra/accelerate: Accelerate's own reader and launcher accept it, and a stage starts under it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.infra import INFRA, ROOT
from vqbet.contract import TrainingError
from vqbet.environment import processes

CONFIGS = sorted((INFRA / "accelerate").glob("*.yaml"))
SIZES = {"cpu": (1, 1), "cpu2": (2, 1), "gpu": (1, 1), "node": (8, 1), "nodes": (16, 2), "nodes-elastic": (16, 2)}
MEETING = {processes.MAIN: "node-0:29500", processes.MACHINE: "1"}


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (processes.VARIABLE, processes.CONFIG, processes.MACHINES, processes.MACHINE, processes.MAIN):
        monkeypatch.delenv(name, raising=False)


def launcher(monkeypatch: pytest.MonkeyPatch, config: str, **given: str) -> tuple[int, list[str]]:
    """Return what a stage passes to the agent under a configuration."""
    monkeypatch.setenv(processes.CONFIG, str(INFRA / "accelerate" / f"{config}.yaml"))
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return processes._launcher()


def launched(words: list[str]) -> Any:
    """Return the arguments of torchrun that Accelerate makes of these words, without starting anything."""
    from accelerate.commands import launch
    from accelerate.utils.launch import prepare_multi_gpu_env

    args = launch.launch_command_parser().parse_args([*words[1:], "-m", "vqbet"])
    args, *_ = launch._validate_launch_command(args)
    assert args.multi_gpu
    prepare_multi_gpu_env(args)
    return args


@pytest.mark.slow
def test_accelerate_reads_every_configuration(tmp_path: Path) -> None:
    from accelerate.commands.config.config_args import ClusterConfig

    assert {path.stem for path in CONFIGS} == SIZES.keys()
    for path in CONFIGS:
        found = ClusterConfig.from_yaml_file(str(path))
        assert (found.num_processes, found.num_machines) == SIZES[path.stem]
        assert found.use_cpu is (path.stem == "cpu")
        assert found.mixed_precision == "no", "precision is the recipe's"
        assert not found.dynamo_config
        assert found.main_process_ip is None, "an address is the environment's"
    faulty = tmp_path / "faulty.yaml"
    faulty.write_text(CONFIGS[0].read_text() + "num_proceses: 8\n")
    with pytest.raises(ValueError, match="num_proceses"):
        ClusterConfig.from_yaml_file(str(faulty))


@pytest.mark.parametrize("config", ["cpu", "gpu"])
def test_one_process_needs_no_launcher(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert launcher(monkeypatch, config) == (1, [])


@pytest.mark.slow
def test_one_node_of_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    count, words = launcher(monkeypatch, "node")
    assert count == 8
    args = launched(words)
    assert (args.nproc_per_node, args.module) == ("8", True)
    _, fewer = launcher(monkeypatch, "node", VQBET_PROCESSES="4")
    assert launched(fewer).nproc_per_node == "4"


@pytest.mark.slow
def test_several_nodes_static(monkeypatch: pytest.MonkeyPatch) -> None:
    args = launched(launcher(monkeypatch, "nodes", **MEETING)[1])
    assert (args.nnodes, args.nproc_per_node, args.node_rank) == ("2", "8", 1)
    assert (args.rdzv_endpoint, args.rdzv_backend) == ("node-0:29500", "static")
    assert not args.max_restarts
    count, words = launcher(monkeypatch, "nodes", VQBET_MACHINES="4", VQBET_PROCESSES="1")
    args = launched(words)
    assert (count, args.nnodes, args.nproc_per_node) == (1, "4", "1")


@pytest.mark.slow
def test_several_nodes_elastic(monkeypatch: pytest.MonkeyPatch) -> None:
    args = launched(launcher(monkeypatch, "nodes-elastic", **MEETING)[1])
    assert (args.nnodes, args.rdzv_backend, args.rdzv_endpoint) == ("2", "c10d", "node-0:29500")
    assert args.max_restarts == processes.RESTARTS


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"VQBET_MACHINES": "2"}, "VQBET_MACHINES is 2 and VQBET_ACCELERATE is not set; set it to infra/accelerate/"),
        ({"VQBET_MACHINES": "no"}, "VQBET_MACHINES: expected a number from 1 to 1024, got 'no'"),
        ({"VQBET_ACCELERATE": "no.yaml"}, "VQBET_ACCELERATE: no.yaml cannot be read"),
        ({"VQBET_ACCELERATE": "params.yaml"}, "params.yaml: num_machines: expected a number from 1"),
        ({"VQBET_ACCELERATE": "infra/accelerate/nodes.yaml"}, "VQBET_MACHINE: expected the rank of this machine"),
        (
            {"VQBET_ACCELERATE": "infra/accelerate/nodes.yaml", "VQBET_MACHINE": "2"},
            "VQBET_MACHINE: expected the rank of this machine, from 0 to 1",
        ),
        (
            {"VQBET_ACCELERATE": "infra/accelerate/nodes.yaml", "VQBET_MACHINE": "one"},
            "VQBET_MACHINE: expected a rank",
        ),
        (
            {"VQBET_ACCELERATE": "infra/accelerate/nodes.yaml", "VQBET_MACHINE": "0", "VQBET_MAIN": "node-0"},
            "VQBET_MAIN: expected <host>:<port> of the first machine, got 'node-0'",
        ),
    ],
)
def test_a_wrong_variable_is_a_sentence(given: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError) as raised:
        processes.relaunch(["stage", "prior", "pusht"])
    assert sentence in str(raised.value)


WORKER = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.training import test_loop as t
out, rank = Path(sys.argv[1]), os.environ["RANK"]
_, trained = t.run(out / "training", model=lambda: t.Model(dropout=0.0, drift=0.0))
facts = {"history": trained.history, "world": os.environ["WORLD_SIZE"], "argv": sys.argv[3:]}
(out / f"{rank}.json").write_text(json.dumps(facts))
"""


@pytest.mark.slow
def test_accelerate_launch_trains_in_two_processes_what_one_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`accelerate launch --cpu --num_processes 2` would silently run one."""
    from tests.training import test_loop as training

    (tmp_path / "worker.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.setenv(processes.CONFIG, str(INFRA / "accelerate" / "cpu2.yaml"))
    code = processes.relaunch([str(tmp_path), str(ROOT), "prior", "pusht"], module="worker")
    assert code == 0
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert all((rank["world"], rank["argv"]) == ("2", ["prior", "pusht"]) for rank in ranks)
    assert ranks[0]["history"] == ranks[1]["history"]
    _, one = training.run(tmp_path / "one", model=lambda: training.Model(dropout=0.0, drift=0.0))
    for row, expected in zip(ranks[0]["history"], one.history, strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], rel=1e-4, abs=1e-4)
