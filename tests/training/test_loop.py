"""Training is a function of its recipe: however often it is stopped, and on however many processes."""

from __future__ import annotations

import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.support.examples import up_to
from vqbet.contract import TrainingError
from vqbet.environment import processes
from vqbet.training import checkpoint
from vqbet.training import loop as training
from vqbet.training.loop import Trained, train
from vqbet.training.recipe import Recipe, groups, learning_rate, order, seed_everything

ROOT = Path(__file__).resolve().parents[2]
COUNT = 50
RECIPE = Recipe(steps=12, batch=8, lr=1e-2, warmup=3, min_lr=0.1, weight_decay=0.1, clip=1.0, ema=0.9, seed=3)
DATA = np.random.Generator(np.random.Philox(0)).normal(size=(COUNT, 4)).astype(np.float32)
GOLDEN_ORDER = [0, 7, 8, 6, 9, 5, 1, 3, 2, 4, 9, 4]

Gather = Callable[[np.ndarray], dict[str, Any]]


class Model(nn.Module):
    """Dropout, an embedding, and buffers that change during loss(), one of them not persistent."""

    mean: Tensor
    calls: Tensor

    def __init__(self, dropout: float = 0.5, width: int = 16, drift: float = 0.01) -> None:
        super().__init__()
        self.drift = drift  # how much the buffer, which is of a process's own share, enters the loss
        self.place = nn.Embedding(2, width)
        self.body = nn.Sequential(nn.Linear(4, width), nn.LayerNorm(width), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Linear(width, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64), persistent=False)

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        x = batch["x"]
        if self.training:
            self.mean.lerp_(x.mean(0), 0.1)
            self.calls += 1
        y = self.head(self.body(x) + self.place.weight.mean(0)) + self.drift * self.mean
        error = (y - self.frozen(x)) ** 2
        return error.mean(), {"worst": error.max(), "calls": self.calls.float()}


def gather(index: np.ndarray) -> dict[str, Any]:
    return {"x": DATA[index]}


def run(folder: Path, source: Gather = gather, recipe: Recipe = RECIPE, **extra: Any) -> tuple[nn.Module, Trained]:
    seed_everything(recipe.seed)
    model = extra.pop("model", Model)()
    torch.rand(int(time.monotonic() * 1e6) % 97)  # whatever is drawn between building and training plays no part
    arguments: dict[str, Any] = {
        "folder": folder,
        "fingerprint": "data and code",
        "track": lambda step, metrics: None,
    } | extra
    return model, train(model, source, COUNT, recipe, **arguments)


def interrupting(step: int, action: Callable[[], None]) -> Gather:
    """Gathers, and acts while batch number `step` (from 1) is being gathered."""
    calls = itertools.count(1)

    def source(index: np.ndarray) -> dict[str, Any]:
        if next(calls) == step:
            action()
        return gather(index)

    return source


def stop_at(folder: Path, step: int, number: int = signal.SIGTERM, **extra: Any) -> None:
    with pytest.raises(KeyboardInterrupt, match=f"after step {step}"):
        run(folder, interrupting(step, lambda: signal.raise_signal(number)), **extra)


def values(model: nn.Module) -> dict[str, np.ndarray]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: value.detach().numpy().copy() for name, value in named}


def same(one: nn.Module, two: nn.Module) -> bool:
    a, b = values(one), values(two)
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


def steps_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "lock")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Trained]:
    return run(tmp_path_factory.mktemp("reference"))


@up_to(30)
@given(count=st.integers(1, 60), batch=st.integers(1, 90), seed=st.integers(0, 2**31 - 1), epochs=st.integers(1, 3))
def test_each_window_comes_once_per_epoch(count: int, batch: int, seed: int, epochs: int) -> None:
    steps = -(-count * epochs // batch)
    row = np.concatenate([order(seed, count, batch, step) for step in range(steps)])
    for epoch in range(epochs):
        assert sorted(row[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_order_has_not_changed() -> None:
    assert order(0, 10, 4, 0).tolist() == GOLDEN_ORDER[:4]
    assert order(0, 10, 6, 1).tolist() == GOLDEN_ORDER[6:]
    assert order(1, 10, 12, 0).tolist() != GOLDEN_ORDER


def test_learning_rate() -> None:
    recipe = replace(RECIPE, steps=100, warmup=10, lr=2.0, min_lr=0.1)
    rates = [learning_rate(recipe, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == 2.0
    assert rates[99] == pytest.approx(0.2)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert learning_rate(replace(recipe, steps=1, warmup=0), 0) == 2.0


def test_only_matrices_decay() -> None:
    model = Model()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, rest = ({names[id(parameter)] for parameter in group["params"]} for group in groups(model, 0.1))
    assert decayed == {"body.0.weight", "head.weight"}
    assert rest == {"place.weight", "body.0.bias", "body.1.weight", "body.1.bias", "head.bias"}


@pytest.mark.slow
def test_it_learns(tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=400, ema=0.0, weight_decay=0.0)
    _, trained = run(tmp_path, recipe=recipe, model=lambda: Model(dropout=0.0))
    assert len(trained.history) == 200
    assert trained.history[-1]["loss"] < 0.2 * trained.history[0]["loss"]
    assert trained.history[-1]["step"] == trained.steps == 400
    assert trained.samples_per_s == pytest.approx(400 * 8 / trained.seconds, rel=0.1)


def test_each_training_has_a_precision_of_its_own(tmp_path: Path) -> None:
    """As a retraining has them: the tokenizer in fp32 and the prior in bf16, one after the other in one process."""
    ends = []
    for index, precision in enumerate(("fp32", "bf16", "fp32", "bf16")):
        model, _ = run(tmp_path / str(index), recipe=replace(RECIPE, precision=precision))
        assert all(value.dtype == torch.float32 for value in model.parameters())
        ends.append(torch.cat([value.detach().flatten() for value in model.parameters()]))
    assert torch.equal(ends[0], ends[2])
    assert torch.equal(ends[1], ends[3])
    assert not torch.equal(ends[0], ends[1])
    assert torch.allclose(ends[0], ends[1], atol=0.05)


def test_rows_are_means_over_the_steps_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "ROWS", 3)
    _, trained = run(tmp_path)
    assert [row["step"] for row in trained.history] == [4, 8, 12]
    assert [row["calls"] for row in trained.history] == [2.5, 6.5, 10.5]
    assert list(trained.history[0]) == ["step", "lr", "loss", "worst", "calls", "gradient_norm"]


@pytest.mark.parametrize("step", range(1, 13))
def test_stopped_at_any_step_it_ends_the_same(
    step: int, tmp_path: Path, reference: tuple[nn.Module, Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, trained = reference
    stop_at(tmp_path, step)
    resumed, again = run(tmp_path)
    assert again.resumed_from == step
    assert same(resumed, model)
    assert again.history == trained.history


def test_stopped_within_a_row_it_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "ROWS", 2)
    _, trained = run(tmp_path / "straight")
    for step in (2, 3, 4):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "stopped", interrupting(step, lambda: signal.raise_signal(signal.SIGINT)))
    assert run(tmp_path / "stopped")[1].history == trained.history


def test_killed_between_checkpoints_it_ends_the_same(
    tmp_path: Path, reference: tuple[nn.Module, Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception at step 8 stands for a kill: no handler of ours runs, the last checkpoint is what is left."""
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", 0.0)

    def die() -> None:
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run(tmp_path, interrupting(8, die))
    assert steps_in(tmp_path) == ["step-0000000007"]
    model, trained = run(tmp_path)
    assert trained.resumed_from == 7
    assert same(model, reference[0])


def test_the_state_of_dropout_matters(tmp_path: Path, reference: tuple[nn.Module, Trained]) -> None:
    """Planted fault: with other random numbers after the resume the weights differ, so the tests above can fail."""
    stop_at(tmp_path, 5)
    found, _ = checkpoint.newest(tmp_path, key_of(tmp_path))
    assert found is not None
    other = dict(found.tensors) | {"random.cpu": torch.Generator().manual_seed(1).get_state()[None]}
    checkpoint.save(tmp_path, key_of(tmp_path), replace(found, tensors=other))
    assert not same(run(tmp_path)[0], reference[0])


@pytest.mark.parametrize("name", ["random.cpu", "adam.head.weight.exp_avg", "average.head.bias", "model.calls"])
def test_a_checkpoint_that_lacks_something_is_an_error(tmp_path: Path, name: str) -> None:
    stop_at(tmp_path, 5)
    found, _ = checkpoint.newest(tmp_path, key_of(tmp_path))
    assert found is not None
    rest = {key: value for key, value in found.tensors.items() if key != name}
    checkpoint.save(tmp_path, key_of(tmp_path), replace(found, tensors=rest))
    with pytest.raises(TrainingError, match=f"step 5 has no '{name}'.*remove"):
        run(tmp_path)


def key_of(folder: Path) -> str:
    state = next(folder.glob("step-*")) / "state.json"
    return json.loads(state.read_text())["content"]["key"]


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["first", "middle", "last", "short", "missing"])
def test_a_damaged_checkpoint_is_not_used(
    tmp_path: Path, name: str, damage: str, reference: tuple[nn.Module, Trained], caplog: pytest.LogCaptureFixture
) -> None:
    stop_at(tmp_path, 5)
    path = tmp_path / "step-0000000005" / name
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        path.write_bytes(data[:-7])
    else:
        data[{"first": 0, "middle": len(data) // 2, "last": -1}[damage]] ^= 4
        path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        model, trained = run(tmp_path)
    assert trained.resumed_from == 0
    assert "step-0000000005: damaged" in caplog.text
    assert same(model, reference[0])


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "other data"},
        {"recipe": replace(RECIPE, lr=2e-2)},
        {"model": lambda: Model(width=8)},
    ],
)
def test_a_checkpoint_of_another_training_is_not_used(
    tmp_path: Path, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    stop_at(tmp_path, 5)
    with caplog.at_level(logging.WARNING):
        _, trained = run(tmp_path, **change)
    assert trained.resumed_from == 0
    assert "belongs to a training with other parameters, data or code" in caplog.text
    assert steps_in(tmp_path) == ["step-0000000012"]


def test_a_checkpoint_holds_no_pickle(tmp_path: Path) -> None:
    stop_at(tmp_path, 5)
    assert steps_in(tmp_path / "step-0000000005") == ["state.json", "tensors.safetensors"]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at(tmp_path, 5)
    (tmp_path / ".step-0000000006").mkdir()
    (tmp_path / ".step-0000000006" / "tensors.safetensors").write_bytes(b"half")
    assert run(tmp_path)[1].resumed_from == 5
    assert steps_in(tmp_path) == ["step-0000000012"]


def test_a_finished_training_is_kept_until_it_is_cleared(tmp_path: Path, reference: tuple[nn.Module, Trained]) -> None:
    run(tmp_path)
    model, trained = run(tmp_path)
    assert trained.resumed_from == 12
    assert same(model, reference[0])
    assert trained.history == reference[1].history
    checkpoint.clear(tmp_path)
    assert steps_in(tmp_path) == []


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at(tmp_path, 5)

    def refuse(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(TrainingError, match="No space left on device"):
            run(tmp_path)
    assert steps_in(tmp_path) == ["step-0000000005"]
    assert run(tmp_path)[1].resumed_from == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_given_back(tmp_path: Path, number: int) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stop_at(tmp_path, 2, number)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_second_trainer_is_refused(tmp_path: Path) -> None:
    holder = "import fcntl, os, sys\nfile = open(sys.argv[1] + '/lock', 'w')\nfcntl.flock(file, fcntl.LOCK_EX)\n"
    holder += "print(os.getpid(), file=file, flush=True)\nprint('held', flush=True)\nsys.stdin.read()\n"
    command = [sys.executable, "-c", holder, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(TrainingError, match=f"another training \\(process {other.pid}\\)"):
            run(tmp_path)
        other.kill()
    assert run(tmp_path)[1].steps == 12


def test_not_finite_names_step_and_metrics(tmp_path: Path) -> None:
    stop_at(tmp_path, 5)

    def poison(index: np.ndarray) -> dict[str, Any]:
        calls.append(index)
        return {"x": DATA[index] * (np.float32("inf") if len(calls) == 3 else 1)}

    calls: list[np.ndarray] = []
    with pytest.raises(TrainingError, match=r"step 8: not finite: loss (nan|inf), worst (nan|inf).*kept"):
        run(tmp_path, poison)
    assert steps_in(tmp_path) == ["step-0000000005"]


def test_not_finite_is_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "ROWS", 1)
    stop_at(tmp_path, 5)

    def poison(index: np.ndarray) -> dict[str, Any]:
        signal.raise_signal(signal.SIGTERM)
        return {"x": DATA[index] * np.float32("nan")}

    with pytest.raises(TrainingError, match="step 6: not finite"):
        run(tmp_path, poison)
    assert steps_in(tmp_path) == ["step-0000000005"]


def test_averaged_weights(tmp_path: Path) -> None:
    """After each step the raw weights are copied; their bias-corrected average is what train leaves in the model."""
    copies: list[Tensor] = []

    class Watched(Model):
        def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            copies.append(self.head.weight.detach().clone())
            return super().loss(batch)

    raw, _ = run(tmp_path / "raw", recipe=replace(RECIPE, ema=0.0), model=Watched)
    after = [*copies[1:], raw.get_parameter("head.weight").detach()]
    averaged, _ = run(tmp_path / "averaged")
    share = np.array([0.1 * 0.9 ** (11 - step) for step in range(12)]) / (1 - 0.9**12)
    assert share.sum() == pytest.approx(1)
    expected = sum(float(one) * weight.double() for one, weight in zip(share, after, strict=True))
    torch.testing.assert_close(averaged.get_parameter("head.weight").double(), expected, rtol=1e-5, atol=1e-6)
    assert not averaged.training


def test_watchers_see_every_row_once_more_after_a_resume(tmp_path: Path) -> None:
    seen: list[tuple[int, list[str]]] = []
    shown: list[tuple[int, int, dict[str, float]]] = []
    stop_at(tmp_path, 5)
    run(
        tmp_path,
        track=lambda step, metrics: seen.append((step, sorted(metrics))),
        progress=lambda *state: shown.append(state),
    )
    assert [step for step, _ in seen] == list(range(1, 13))
    assert seen[0][1] == ["calls", "gradient_norm", "loss", "lr", "samples_per_s", "worst"]
    assert shown[0][:2] == (5, 12)
    assert shown[-1][:2] == (12, 12)
    assert shown[-1][2]["samples_per_s"] > 0


def test_metrics_must_stay_the_same(tmp_path: Path) -> None:
    class Moody(Model):
        def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            loss, metrics = super().loss(batch)
            return loss, metrics if self.calls < 4 else {"other": loss}

    with pytest.raises(TrainingError, match="step 4: loss\\(\\) must give the same metrics"):
        run(tmp_path, model=Moody)


def test_seed_comes_before_the_model(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="seed_everything"):
        train(Model(), gather, COUNT, RECIPE, folder=tmp_path, fingerprint="", track=lambda step, metrics: None)


@pytest.mark.parametrize("bad", [{"steps": 0}, {"batch": 0}])
def test_nothing_to_train_on(tmp_path: Path, bad: dict[str, int]) -> None:
    with pytest.raises(TrainingError, match="nothing to train on"):
        run(tmp_path, recipe=replace(RECIPE, **bad))


def test_one_process_in_place_of_two_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `accelerate launch --cpu --num_processes 2` does without a word."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="WORLD_SIZE asks for 2 processes, Accelerate runs 1"):
        run(tmp_path)


WORKER = """
import itertools, json, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import numpy as np
from tests.training import test_loop as t
from dataclasses import replace
from vqbet.contract import TrainingError

out, rank = Path(sys.argv[1]), int(os.environ["RANK"])
seen = []
def recording(index):
    seen.append(index.tolist())
    return t.gather(index)
class Alone(t.Model):
    single_process = True
refusals = []
for change in ({"model": Alone}, {"recipe": replace(t.RECIPE, batch=7)}):
    try:
        t.run(out / "refused", **change)
    except TrainingError as error:
        refusals.append(str(error))
_, plain = t.run(out / "plain", recording, model=lambda: t.Model(dropout=0.0, drift=0.0))
straight, _ = t.run(out / "straight")
action = (lambda: signal.raise_signal(signal.SIGTERM)) if rank == 1 else (lambda: None)
try:
    t.run(out / "stopped", t.interrupting(5, action))
    stopped = ""
except KeyboardInterrupt as error:
    stopped = str(error)
model, resumed = t.run(out / "stopped")
def refusing(function, **options):
    raise RuntimeError("no compiler on this machine")
t.torch.compile = refusing if rank == 1 else lambda function, **options: function
together, tried = t.run(out / "compiled", compiled=True)
(out / f"{rank}.json").write_text(json.dumps({
    "seen": seen, "history": plain.history, "refusals": refusals, "stopped": stopped,
    "resumed_from": resumed.resumed_from, "same": t.same(model, straight), "compiled": tried.ran.compiled,
    "without": t.same(together, straight), "processes": tried.ran.processes, "argv": sys.argv[3:],
    "threads": os.environ["OMP_NUM_THREADS"]}))
sys.exit(7)
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[int | None, list[dict[str, Any]], Path]:
    """Two real processes under torchrun, started as a stage starts them; what each of them saw."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "worker.py").write_text(WORKER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VQBET_PROCESSES", "2")
        patch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{ROOT}")
        code = processes.relaunch([str(folder), str(ROOT), "prior", "pusht"], module="worker")
    return code, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)], folder


@pytest.mark.slow
def test_two_processes_see_each_window_once(two: tuple[int, list[dict[str, Any]], Path]) -> None:
    _, ranks, _ = two
    together = [ranks[0]["seen"][step] + ranks[1]["seen"][step] for step in range(RECIPE.steps)]
    assert together == [order(RECIPE.seed, COUNT, RECIPE.batch, step).tolist() for step in range(RECIPE.steps)]
    assert all(len(half) == 4 for rank in ranks for half in rank["seen"])
    assert sorted(np.concatenate(together)[:COUNT]) == list(range(COUNT))


@pytest.mark.slow
def test_two_processes_learn_what_one_does(two: tuple[int, list[dict[str, Any]], Path], tmp_path: Path) -> None:
    _, ranks, _ = two
    _, one = run(tmp_path, model=lambda: Model(dropout=0.0, drift=0.0))
    assert ranks[0]["history"] == ranks[1]["history"]
    for row, expected in zip(ranks[0]["history"], one.history, strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], abs=1e-4)


@pytest.mark.slow
def test_two_processes_stop_together_and_resume(two: tuple[int, list[dict[str, Any]], Path]) -> None:
    """The signal reached one of them only."""
    _, ranks, _ = two
    for rank in ranks:
        assert "stopped after step 5" in rank["stopped"]
        assert rank["resumed_from"] == 5
        assert rank["same"]


@pytest.mark.slow
def test_where_one_process_cannot_compile_none_does(two: tuple[int, list[dict[str, Any]], Path]) -> None:
    _, ranks, _ = two
    assert [(rank["compiled"], rank["without"], rank["processes"]) for rank in ranks] == [(False, True, 2)] * 2


@pytest.mark.slow
def test_two_processes_refuse_what_they_cannot_share(two: tuple[int, list[dict[str, Any]], Path]) -> None:
    _, ranks, _ = two
    for rank in ranks:
        assert rank["refusals"][0].startswith("Alone trains in one process only, 2 were started")
        assert rank["refusals"][1].startswith("batch 7 cannot be split evenly over 2 processes")


@pytest.mark.slow
def test_relaunch_passes_on_arguments_and_exit_code(two: tuple[int, list[dict[str, Any]], Path]) -> None:
    code, ranks, _ = two
    assert code == 7
    assert ranks[0]["argv"] == ["prior", "pusht"]


@pytest.mark.parametrize("environment", [{}, {"VQBET_PROCESSES": "1"}, {"VQBET_PROCESSES": "2", "LOCAL_RANK": "1"}])
def test_nothing_to_relaunch(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VQBET_PROCESSES", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert processes.relaunch(["stage", "prior", "pusht"]) is None


@pytest.mark.parametrize("value", ["two", "0", "-1", "1.5", "", "²", "99999"])
def test_bad_number_of_processes(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQBET_PROCESSES", value)
    with pytest.raises(TrainingError, match="VQBET_PROCESSES: expected a number"):
        processes.processes()


@pytest.mark.parametrize(("rank", "expected"), [(None, True), ("0", True), ("1", False)])
def test_main_process(rank: str | None, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert processes.is_main() is expected


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
@pytest.mark.parametrize("guarded", [True, False])
def test_a_trainer_dies_with_its_parent(guarded: bool) -> None:
    """And without the guard it does not, which is the fault this is for."""
    guard = "processes.die_with_parent()" if guarded else ""
    child = f"import sys, time\nfrom vqbet.environment import processes\n{guard}\n"
    child += "print('up', flush=True)\ntime.sleep(600)"
    parent = (
        "import subprocess, sys\np = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdout=subprocess.PIPE)\n"
    )
    parent += "p.stdout.readline()\nprint(p.pid, flush=True)\np.wait()"
    with subprocess.Popen([sys.executable, "-c", parent, child], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert not gone(pid, within_s=0.0), "or the guard would not be what ends it"
        process.kill()
    try:
        assert gone(pid, within_s=120.0 if guarded else 0.5) is guarded
    finally:
        if not guarded:
            os.kill(pid, signal.SIGKILL)


LINGERER = """
import os, signal, sys, time
from pathlib import Path
from vqbet.environment.processes import die_with_parent
die_with_parent()
note = Path(sys.argv[1]) / os.environ["RANK"]
def leave(number, frame):
    note.with_suffix(".left").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
note.with_suffix(".new").write_text(str(os.getpid()))
note.with_suffix(".new").rename(note)
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_ends_the_command_reaches_every_process(number: signal.Signals, tmp_path: Path) -> None:
    """Each process gets the chance to write its checkpoint, and none is left behind."""
    (tmp_path / "lingerer.py").write_text(LINGERER)
    environment = {**os.environ, "VQBET_PROCESSES": "2", "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    code = "import sys\nfrom vqbet.environment.processes import relaunch\n"
    code += "sys.exit(relaunch([sys.argv[1]], module='lingerer'))"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment) as command:
        notes = [tmp_path / "0", tmp_path / "1"]
        while not all(note.exists() for note in notes):
            assert command.poll() is None
            time.sleep(0.1)
        command.send_signal(number)
        expected = -signal.SIGKILL if number == signal.SIGKILL else 128 + signal.SIGINT
        assert command.wait(240) == expected
    assert all(gone(int(note.read_text()), within_s=120.0) for note in notes)
    assert all(note.with_suffix(".left").exists() for note in notes)


def gone(pid: int, within_s: float) -> bool:
    end = time.monotonic() + within_s
    while not ended(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.slow
def test_seeding_asks_for_deterministic_algorithms_without_the_compiler() -> None:
    """The compiler of torch takes more than a second to import, in each training process."""
    code = "import sys, torch\nfrom vqbet.training.recipe import seed_everything\nseed_everything(0)\n"
    code += "print(torch.are_deterministic_algorithms_enabled(), 'torch._inductor.config' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
