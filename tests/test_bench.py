"""What the measurements compare with does the work it claims to do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.onnx import measured as measured_plans
from bench.onnx import read_bytes, works
from bench.onnx import shipped as shipped_prior
from bench.policies import measured, shipped
from bench.sizes import CODES, GPT, SIZES, vqbet
from bench.slices import Slices, batches
from bench.standin import StandIn
from bench.training import trained
from bench.unchanged import differences, facts
from tests.support.synthetic import synthetic
from vqbet.demos.windows import Windows
from vqbet.tasks import TASKS


@pytest.mark.parametrize(("window", "chunk"), [(5, 5), (1, 1), (2, 16), (16, 1)])
def test_slices_are_the_windows(window: int, chunk: int) -> None:
    demos = synthetic(6)
    windows, slices = Windows(demos, window=window, chunk=chunk), Slices(demos, window=window, chunk=chunk)
    assert len(slices) == len(windows)
    for index, expected in enumerate(zip(*windows.gather(np.arange(len(windows))).values(), strict=True)):
        for one, other in zip(slices[index].values(), expected, strict=True):
            assert np.array_equal(one.numpy(), other)


def test_the_stand_in_trains_everything_but_the_tokenizer() -> None:
    slices = Slices(synthetic(6, D=20), window=GPT.window, chunk=CODES.chunk)
    model = StandIn(vqbet().tokenizer, observation=20, window=GPT.window)
    parts = {"gpt": model.gpt, "codes": model.code_head, "offsets": model.offset_head}
    before = {name: [value.clone() for value in part.parameters()] for name, part in parts.items()}
    loader = batches(slices, 16)
    losses = [model.step(next(loader)) for _ in range(2)]
    assert np.isfinite(losses).all()
    for name, part in parts.items():
        assert not any(torch.equal(*pair) for pair in zip(before[name], part.parameters(), strict=True)), name


@pytest.mark.slow
def test_a_measured_step_trains_as_the_training_loop_does() -> None:
    windows = Windows(synthetic(6, D=20), window=GPT.window, chunk=CODES.chunk)
    step = trained(vqbet(), windows, 32)
    losses = [step() for _ in range(12)]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_a_measured_policy_plays() -> None:
    actors = {name: SIZES[name].actor() for name in ("VQ-BeT", "BeT, BlockPush", "BESO, BlockPush")}
    times = measured(actors | {"shipped": shipped().actor()}, 2, 1)
    assert all(rows.shape == (1, 8) and (rows > 0).all() for rows in times.values())


def run_of_the_graph(
    folder: Path, *, weights: bytes = b"w", score: float = 1.0, digest: str = "a", reason: str = "fit"
) -> Path:
    """What bench.unchanged reads of artifacts/<task>."""
    for name in ("policy", "evaluation", "gate"):
        (folder / name).mkdir(parents=True)
    (folder / "policy" / "prior.safetensors").write_bytes(weights)
    for name in ("evaluation", "gate"):
        line = json.dumps({"digest": digest, "plan": digest, "machine": digest, "score": score})
        (folder / name / "records.jsonl").write_text(line + "\n", encoding="utf-8")
    verdict = {"outcome": "PROMOTE", "reason": reason, "checks": [], "episodes": 1, "more_episodes": 0, "plan": digest}
    (folder / "gate" / "verdict.json").write_text(json.dumps(verdict), encoding="utf-8")
    return folder


def test_a_run_that_differs_in_names_of_versions_alone_is_unchanged(tmp_path: Path) -> None:
    before = facts(run_of_the_graph(tmp_path / "before"))
    assert differences(before, facts(run_of_the_graph(tmp_path / "after", digest="b"))) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights": b"v"}, ["policy/prior.safetensors: differs"]),
        (
            {"score": 0.5},
            [f"{name}/records.jsonl: 1 of 1 records differ, the first is line 1" for name in ("evaluation", "gate")],
        ),
        ({"reason": "unfit"}, ["gate/verdict.json: differs"]),
    ],
)
def test_a_run_that_computed_something_else_is_told(tmp_path: Path, change: dict, said: list[str]) -> None:
    before = facts(run_of_the_graph(tmp_path / "before"))
    assert differences(before, facts(run_of_the_graph(tmp_path / "after", **change))) == said


def test_weights_that_a_plan_reads_are_all_but_the_offsets_of_other_codes() -> None:
    prior = vqbet()
    last = prior.offset_head.head.products[-1]
    numbers = sum(value.size for value in prior.components()["prior"].values())
    rest = sum(part.numel() for part in last) * 15 // 16  # one of 16 codes in each layer
    assert read_bytes(prior) == 4 * (numbers - rest)


def test_shapes_of_params_have_the_channels_of_their_tasks() -> None:
    assert shipped_prior("kitchen").normalizer.channels == len(TASKS["kitchen"].spec.observation)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_torch_and_the_graph_take_turns() -> None:
    plans, nodes = works(shipped_prior("blockpush"))
    times = measured_plans(plans, 1)
    assert times.shape == (1, 3)
    assert (times > 0).all()
    assert nodes > 50
