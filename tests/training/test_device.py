"""A training's choices for its device: none on a CPU, unless asked; recorded, and part of a checkpoint's key."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.test_loop import COUNT, RECIPE, Model, gather, interrupting, run, same, stop_at, values
from vqbet.contract import TrainingError
from vqbet.training import device
from vqbet.training.device import Ran
from vqbet.training.recipe import order

CPU, GPU = torch.device("cpu"), torch.device("cuda")
LONG = device.WORTH_STEPS


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that fails when the loss is first called, after it has drawn random numbers and moved a buffer."""

    def compiled(function: Any, **options: Any) -> Any:
        def broken(batch: dict[str, Tensor]) -> Any:
            function(batch)
            raise RuntimeError("no compiler here")

        return broken

    monkeypatch.setattr(torch, "compile", compiled)


class Varying(Model):
    varying_shapes = True


def test_without_a_gpu_auto_is_float32_and_changes_no_bit(tmp_path: Path) -> None:
    model, trained = run(tmp_path / "auto", recipe=replace(RECIPE, precision="auto"))
    reference, _ = run(tmp_path / "fp32")
    assert same(model, reference)
    assert trained.ran == Ran("cpu", "fp32", compiled=False, fused=True, processes=1)
    assert trained.ran.tags() == {
        **{"device": "cpu", "precision": "fp32", "compiled": "false"},
        **{"fused": "true", "processes": "1"},
    }
    assert trained.checked == {}, "nothing to compare"


@pytest.mark.parametrize(("able", "chosen"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bfloat16_where_a_gpu_computes_in_it(able: bool, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: able and not including_emulation)
    assert device.precision("auto", GPU) == chosen
    assert device.precision("auto", CPU) == "fp32"
    assert [device.precision(wanted, GPU) for wanted in ("fp32", "bf16")] == ["fp32", "bf16"]


def test_what_bfloat16_costs_is_measured_on_one_batch(tmp_path: Path) -> None:
    model, trained = run(tmp_path, recipe=replace(RECIPE, precision="bf16"))
    assert list(trained.checked) == ["loss_fp32", "loss_bf16"]
    assert trained.checked["loss_bf16"] == pytest.approx(trained.checked["loss_fp32"], rel=0.02)
    assert trained.checked["loss_bf16"] != trained.checked["loss_fp32"]
    with torch.no_grad():
        batch = {"x": torch.as_tensor(gather(order(RECIPE.seed, COUNT, RECIPE.batch, RECIPE.steps))["x"])}
        loss, _ = device.Loss(model, "fp32")(batch)
    assert float(loss) == trained.checked["loss_fp32"], "of the weights that are kept"


@pytest.mark.parametrize(
    ("asked", "steps", "where", "wanted"),
    [
        ("", LONG, GPU, True),
        ("", LONG - 1, GPU, False),
        ("", LONG, CPU, False),
        ("0", LONG, GPU, False),
        ("1", 1, CPU, True),
    ],
)
def test_long_trainings_on_a_gpu_are_compiled_unless_told_otherwise(
    asked: str, steps: int, where: torch.device, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(device.VARIABLE, asked)
    assert device.worth_compiling(Model(), steps, where) is wanted
    assert not device.worth_compiling(Varying(), steps, where), "the compiler would begin again at each size"


def test_another_value_is_refused_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(device.VARIABLE, "yes")
    with pytest.raises(TrainingError, match="VQBET_COMPILE: expected 0 or 1, got 'yes'"):
        run(tmp_path)


@pytest.mark.usefixtures("refusing")
def test_where_the_compiler_fails_training_goes_on_bit_for_bit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model, trained = run(tmp_path / "failed", compiled=True)
    assert [record.message for record in caplog.records] == [
        "the loss cannot be compiled, training goes on without: RuntimeError: no compiler here"
    ]
    assert not trained.ran.compiled
    reference, _ = run(tmp_path / "without")
    assert same(model, reference)


def test_trying_the_compiler_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted fault: without restoring, buffers and random numbers would be those of one step later."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    model = Model()
    before, state = values(model), torch.get_rng_state()
    assert device.Loss(model, "fp32").compile_for({"x": torch.ones(8, 4)}) == ""
    after = values(model)
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(weight.grad is None for weight in model.parameters())


def test_a_checkpoint_is_not_resumed_in_another_precision_or_with_another_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        stop_at(tmp_path / name, 5, recipe=replace(RECIPE, precision="auto"))
    assert run(tmp_path / "a")[1].resumed_from == 5, "auto is fp32 here"
    assert run(tmp_path / "b", recipe=replace(RECIPE, precision="bf16"))[1].resumed_from == 0
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    assert run(tmp_path / "c", compiled=True)[1].resumed_from == 0


@pytest.mark.slow
def test_compiled_it_learns_the_same_and_the_checkpoint_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real compiler, on a CPU: the same random numbers, sums in another order."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    plain, without = run(tmp_path / "plain")
    monkeypatch.setenv(device.VARIABLE, "1")
    model, trained = run(tmp_path / "compiled")
    assert trained.ran.compiled
    assert list(model.state_dict()) == list(plain.state_dict())
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert trained.history[-1]["loss"] == pytest.approx(without.history[-1]["loss"], abs=1e-5)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", interrupting(6, lambda: signal.raise_signal(signal.SIGTERM)))
    resumed, again = run(tmp_path / "stopped")
    assert again.resumed_from == 5
    assert same(resumed, model)
