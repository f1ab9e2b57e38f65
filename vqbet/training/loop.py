"""The training loop, under Accelerate: any model with `loss(batch)`, on one process or several.

The order of windows, the learning rate and the weights after n steps are functions of the recipe alone. A training that
is stopped at any step and resumed ends with bitwise the same weights on a CPU (same machine, threads, versions and
number of processes). AdamW with decoupled weight decay (arXiv 1711.05101), warm-up and cosine (arXiv 1608.03983),
bias-corrected average of the weights (like Adam's moments, arXiv 1412.6980 section 3).
"""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Int
from torch import Tensor, nn

from vqbet.contract import Tracker, TrainingError
from vqbet.files import canonical
from vqbet.training import checkpoint, device
from vqbet.training.checkpoint import Checkpoint
from vqbet.training.device import Ran
from vqbet.training.meter import Meter
from vqbet.training.recipe import Recipe, groups, learning_rate, order

ROWS = 200  # approximate maximum in the history
CHECKPOINT_EVERY_S = 60.0
PROGRESS_EVERY_S = 0.2
BETAS, EPSILON = (0.9, 0.999), 1e-8  # as in the authors' VQ-BeT
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's state per parameter
GO_ON, SAVE, STOP = 0, 1, 2
log = logging.getLogger(__name__)

Gather = Callable[[np.ndarray], Mapping[str, Any]]
Progress = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class Trained:
    """Result of a training. `history` is the same for the same recipe; the other numbers depend on the machine.

    `checked`: the final loss in float32 and in the precision trained in, on one batch, see `device.checked`.
    """

    steps: int
    history: list[dict[str, float]]  # step, lr, and loss and the model's metrics as means since the previous row
    samples_per_s: float
    seconds: float
    resumed_from: int  # step of the checkpoint resumed from; 0: started anew
    ran: Ran
    checked: dict[str, float]


def train(
    model: nn.Module,
    gather: Gather,
    count: int,
    recipe: Recipe,
    *,
    folder: Path,
    fingerprint: str,
    track: Tracker,
    progress: Progress | None = None,
    compiled: bool | None = None,
) -> Trained:
    """Train `model` on `count` windows, or resume from a checkpoint in `folder`.

    `model.loss(batch)` returns the mean loss of a batch and 0-d metrics; all state that changes in training must be
    parameters or buffers. `gather(index (B,) int64)` returns the batch. `fingerprint` names everything else the weights
    depend on (data, params, code): a checkpoint of another fingerprint is removed. compiled: whether `loss` is to be
    compiled; None: as `device.worth_compiling` says. Afterwards the model is on the CPU, in eval mode, with averaged
    weights where the recipe has them. The last checkpoint stays until `checkpoint.clear(folder)`.

    SIGINT and SIGTERM let the step finish, write a checkpoint and raise KeyboardInterrupt. Raises TrainingError where
    the training cannot start, the folder is locked, writing fails, or a number is not finite.
    """
    accelerator = _accelerator(model, recipe, count)
    compiled = device.worth_compiling(model, recipe.steps, accelerator.device) if compiled is None else compiled
    main = accelerator.is_main_process
    with checkpoint.lock(folder) if main else nullcontext(), _Signals() as signals:
        run = _Run(model, gather, count, recipe, accelerator, compiled=compiled)
        recipe, key = run.recipe, _key(run, fingerprint)
        accelerator.wait_for_everyone()
        found, remarks = checkpoint.newest(folder, key)
        accelerator.wait_for_everyone()
        if found is not None:
            run.load(found)
        if main:
            for remark in remarks:
                log.warning("%s", remark)
            checkpoint.tidy(folder, keep=run.step or None)
        watch = _Watch(run, track if main else None, progress if main else None)
        while run.step < recipe.steps:
            run.advance()
            watch.tick()
            wanted = max(_wish(accelerator, signals, watch), SAVE if run.step == recipe.steps else GO_ON)
            if wanted != GO_ON:
                run.save(folder, key)
                watch.saved = time.monotonic()
            if wanted == STOP:
                raise KeyboardInterrupt(f"stopped after step {run.step}; started again, training goes on from there")
        checked = run.finish()
    return Trained(run.step, run.meter.rows, watch.samples_per_s(), watch.seconds(), watch.first, run.ran, checked)


def clock() -> float:
    """Return seconds for comparing trainings: elapsed time on a GPU, on CPUs the process time per thread.

    The latter does not depend on other work of the machine.
    """
    return time.perf_counter() if torch.cuda.is_available() else time.process_time() / torch.get_num_threads()


def step_seconds(
    model: nn.Module, gather: Gather, count: int, recipe: Recipe, seconds: float, *, compiled: bool = False
) -> float:
    """Return the median duration of a step by `clock`, from about `seconds` of training. Spoils `model`.

    compiled: whether `model.loss` is compiled first, which is not timed.
    """
    run = _Run(model, gather, count, recipe, _accelerator(model, recipe, count), compiled=compiled)
    took: list[float] = []
    until = time.monotonic() + seconds
    while len(took) < 8 or time.monotonic() < until:
        began = clock()
        run.advance()
        if run.accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        took.append(clock() - began)
    return float(np.median(took[3:]))


def _accelerator(model: nn.Module, recipe: Recipe, count: int) -> Accelerator:
    """Return the Accelerator, after checking seed, batch and number of processes. Raises TrainingError."""
    if count < 1 or recipe.steps < 1 or recipe.batch < 1:
        raise TrainingError(
            f"nothing to train on: {count} windows, {recipe.steps} steps, batch {recipe.batch}; each must be 1 or more"
        )
    if not torch.are_deterministic_algorithms_enabled():
        raise TrainingError("the model was built before the seed was set: call seed_everything(seed), then build it")
    accelerator = Accelerator(mixed_precision="no")  # its state is shared process-wide: `Loss` sets the precision
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != world:
        raise TrainingError(
            f"WORLD_SIZE asks for {world} processes, Accelerate runs {accelerator.num_processes}; "
            "on CPUs start with ACCELERATE_USE_CPU=true torchrun --standalone --nproc_per_node N"
        )
    if world > 1 and getattr(model, "single_process", False):
        raise TrainingError(f"{type(model).__name__} trains in one process only, {world} were started; start one")
    if recipe.batch % world:
        raise TrainingError(f"batch {recipe.batch} cannot be split evenly over {world} processes; change one of them")
    return accelerator


def _key(run: _Run, fingerprint: str) -> str:
    """Return the sha256 of everything that must be equal for a checkpoint to be resumed."""
    named = [*run.model.named_parameters(), *run.model.named_buffers()]
    facts = {
        "fingerprint": fingerprint,
        "recipe": asdict(run.recipe),
        "count": run.count,
        "tensors": [[name, list(tensor.shape), str(tensor.dtype)] for name, tensor in named],
        "ran": asdict(run.ran),
        "torch": torch.__version__,
    }
    return canonical.digest(facts)


def _wish(accelerator: Accelerator, signals: _Signals, watch: _Watch) -> int:
    """Return GO_ON, SAVE or STOP (save and stop): the maximum over all processes."""
    due = accelerator.is_main_process and time.monotonic() - watch.saved > CHECKPOINT_EVERY_S
    mine = STOP if signals.received else SAVE if due else GO_ON
    if accelerator.num_processes == 1:
        return mine
    return _over_all(accelerator, mine, torch.distributed.ReduceOp.MAX)


def _over_all(accelerator: Accelerator, mine: int, operation: torch.distributed.ReduceOp.RedOpType) -> int:
    """Return the minimum or maximum of a number over all processes."""
    found = torch.tensor([mine], device=accelerator.device)
    torch.distributed.all_reduce(found, operation)
    return int(found)


class _Run:
    """State that changes from step to step: weights, buffers, optimiser, averages, random numbers, measurements."""

    def __init__(
        self, model: nn.Module, gather: Gather, count: int, recipe: Recipe, accelerator: Accelerator, *, compiled: bool
    ) -> None:
        self.model, self.gather, self.count, self.accelerator = model, gather, count, accelerator
        chosen, fused = device.precision(recipe.precision, accelerator.device), accelerator.device.type in device.FUSED
        chosen = chosen if self._all(chosen == "bf16") else "fp32"
        self.recipe = replace(recipe, precision=chosen)
        self.step = 0
        self.meter = Meter(accelerator)
        model.to(accelerator.device).train()
        self.named = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self.weights = list(self.named.values())
        self.average = [torch.zeros_like(value) for value in self.weights] if recipe.ema else []
        self.optimizer = torch.optim.AdamW(
            groups(model, recipe.weight_decay), lr=recipe.lr, betas=BETAS, eps=EPSILON, fused=fused
        )
        loss = device.Loss(model, chosen)
        compiled = self._all(compiled) and self._compiled(loss)
        self.ran = Ran(accelerator.device.type, chosen, compiled, fused, accelerator.num_processes)
        self.loss = accelerator.prepare(loss)
        torch.manual_seed(recipe.seed + (accelerator.process_index + 1) * 2**32)

    def _all(self, mine: bool) -> bool:
        """Return whether all processes say so."""
        if self.accelerator.num_processes == 1:
            return mine
        return bool(_over_all(self.accelerator, int(mine), torch.distributed.ReduceOp.MIN))

    def _compiled(self, loss: device.Loss) -> bool:
        """Compile the loss in all processes, or in none and warn; return which."""
        refusal = loss.compile_for(self.batch())
        if refusal:
            log.warning("the loss cannot be compiled, training goes on without: %s", refusal)
        if self._all(not refusal):
            return True
        loss.as_written()
        return False

    def windows(self, count: int) -> Int[np.ndarray, " share"]:
        """Return this process's share of the next step's windows."""
        share = self.recipe.batch // self.accelerator.num_processes
        first = share * self.accelerator.process_index
        return order(self.recipe.seed, count, self.recipe.batch, self.step)[first : first + share]

    def batch(self) -> dict[str, Tensor]:
        """Return this process's share of the next step's batch, on the device."""
        found = self.gather(self.windows(self.count))
        return {name: torch.as_tensor(value).to(self.accelerator.device) for name, value in found.items()}

    def advance(self) -> None:
        """Take one optimiser step, and add a row to the history where one is due."""
        batch = self.batch()
        rate = learning_rate(self.recipe, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, metrics = self.loss(batch)
        self.accelerator.backward(loss)
        if self.recipe.clip:
            norm = nn.utils.clip_grad_norm_(self.weights, self.recipe.clip)
            metrics = {**metrics, "gradient_norm": norm}
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average:
            torch._foreach_lerp_(self.average, [weight.detach() for weight in self.weights], 1 - self.recipe.ema)
        self.step += 1
        self.meter.add(self.step, loss, metrics)
        if self.step % max(1, self.recipe.steps // ROWS) == 0 or self.step == self.recipe.steps:
            self.meter.row(rate)

    def finish(self) -> dict[str, float]:
        """Copy the averaged weights into the model; move it to the CPU, in eval mode. Return `device.checked`."""
        with torch.no_grad():
            for weight, average in zip(self.weights, self.average, strict=False):
                weight.copy_(average / (1 - self.recipe.ema**self.step))
        checked = device.checked(self.model, self.batch(), self.ran, self.recipe.seed) if self.ran.reduced else {}
        self.model.to("cpu").eval()
        return checked

    def save(self, folder: Path, key: str) -> None:
        """Write a checkpoint in the main process. Raises TrainingError, and writes none, on a non-finite number."""
        self.meter.settle()
        tensors = {f"model.{name}": value for name, value in self._values().items()}
        tensors |= {f"average.{name}": value for name, value in zip(self.named, self.average, strict=False)}
        optimised = [name for name, weight in self.named.items() if self.optimizer.state[weight]]
        for name in optimised:
            moments = self.optimizer.state[self.named[name]]
            tensors |= {f"adam.{name}.{moment}": moments[moment] for moment in MOMENTS}
        for kind, value in self._random().items():
            tensors[f"random.{kind}"] = self.accelerator.gather(value[None].to(self.accelerator.device))
        if self.accelerator.is_main_process:
            state = self.meter.state() | {"optimised": optimised}
            checkpoint.save(folder, key, Checkpoint(self.step, state, tensors))
        self.accelerator.wait_for_everyone()

    def load(self, found: Checkpoint) -> None:
        """Restore a checkpoint of `save`. Raises TrainingError where anything is missing, such as a random state."""
        place, rank = self.accelerator.device, self.accelerator.process_index
        try:
            with torch.no_grad():
                for name, value in self._values().items():
                    value.copy_(found.tensors[f"model.{name}"])
                for name, value in zip(self.named, self.average, strict=False):
                    value.copy_(found.tensors[f"average.{name}"])
            for name in found.state["optimised"]:
                self.optimizer.state[self.named[name]] = {
                    moment: found.tensors[f"adam.{name}.{moment}"].to(place) for moment in MOMENTS
                }
            # torch reads the state from the start of the storage and ignores the offset of a view: hence the clones
            torch.set_rng_state(found.tensors["random.cpu"][rank].clone())
            if place.type == "cuda":
                torch.cuda.set_rng_state(found.tensors["random.cuda"][rank].clone())
            self.meter.restore(found.step, found.state)
        except KeyError as error:
            raise TrainingError(
                f"the checkpoint of step {found.step} has no {error}, training cannot go on from it exactly; "
                "remove the checkpoint folder to start again"
            ) from error
        self.step = found.step

    def _values(self) -> dict[str, Tensor]:
        return dict(self.model.named_parameters()) | dict(self.model.named_buffers())

    def _random(self) -> dict[str, Tensor]:
        cuda = {"cuda": torch.cuda.get_rng_state()} if self.accelerator.device.type == "cuda" else {}
        return {"cpu": torch.get_rng_state()} | cuda


class _Watch:
    """The clock of a run; reports rows and progress to the callers."""

    def __init__(self, run: _Run, track: Tracker | None, progress: Progress | None) -> None:
        self.run, self.track, self.progress = run, track, progress
        self.first, self.tracked = run.step, 0
        self.started = self.saved = time.monotonic()
        self.shown = -math.inf
        self.tick()

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def samples_per_s(self) -> float:
        return (self.run.step - self.first) * self.run.recipe.batch / max(self.seconds(), 1e-9)

    def tick(self) -> None:
        """Report new rows, and progress a few times a second; a resumed training first reports its earlier rows."""
        rows, steps = self.run.meter.rows, self.run.recipe.steps
        if self.track:
            for row in rows[self.tracked :]:
                metrics = {name: value for name, value in row.items() if name != "step"}
                self.track(int(row["step"]), metrics | {"samples_per_s": self.samples_per_s()})
        self.tracked = len(rows)
        now = time.monotonic()
        if self.progress and (now - self.shown > PROGRESS_EVERY_S or self.run.step == steps):
            self.progress(self.run.step, steps, {**(rows[-1] if rows else {}), "samples_per_s": self.samples_per_s()})
            self.shown = now


class _Signals:
    """Records SIGINT and SIGTERM, so that the running step can finish. Python allows it in the main thread only."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *raised: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
