"""Training of a cell: a tokenizer if needed, then as many steps as its time allows; stored as a bundle."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vqbet import bundle, environment, policies, tasks
from vqbet.comparison import grid, trainable
from vqbet.comparison.grid import VQBET, Cell
from vqbet.comparison.policies import KINDS
from vqbet.comparison.trainable import Trainable
from vqbet.contract import ConfigError, Demonstrations, TrainingError
from vqbet.models.tokenizer import Tokenizer
from vqbet.policies.actor import Actor, understood
from vqbet.policies.vqbet import VQBeT
from vqbet.stages import artifacts, code_version, tokenizer
from vqbet.stages.bundle import acting
from vqbet.stages.progress import Watch
from vqbet.training import checkpoint, loop

if TYPE_CHECKING:
    from vqbet.comparison.params import Params

PROBE_S = 3.0  # duration of the speed measurement that fixes the number of steps
NUMBERS = ("train_s", "tokenizer_s", "steps", "batch", "samples_per_s", "parameters")  # stored in the result

SPEEDS = dict.fromkeys(("train_s", "tokenizer_s", "samples_per_s"), float)


@dataclass(frozen=True, slots=True)
class Job:
    """A cell with its inputs. chosen: resolved parameters; demos: its share of the demonstrations; home: folder of all
    trainings."""

    params: Params
    cell: Cell
    chosen: Mapping[str, Any]
    demos: Demonstrations
    home: Path
    watch: Watch

    @property
    def key(self) -> str:
        return grid.training_key(self.cell, self.chosen, self.demos.digest)

    @property
    def folder(self) -> Path:
        return self.home / self.key[:16]


def trained(job: Job) -> dict[str, Any]:
    """Train the cell unless it was trained; return the training's numbers and the digest of the policy's bundle."""
    note = job.folder / "trained.json"
    if note.is_file():
        return artifacts.read_object(note, digest=str, made_with=dict, steps=int, batch=int, parameters=int, **SPEEDS)
    build, tokenizer_s = _builder(job)
    steps = _steps(job, build, job.cell.train_s - tokenizer_s)
    ready = build()
    recipe, began = ready.recipe(steps), loop.clock()
    with job.watch.bar(f"{job.cell.name}: train") as advance:
        done = loop.train(
            ready.model,
            ready.windows.gather,
            len(ready.windows),
            recipe,
            folder=job.folder / "checkpoints",
            fingerprint=job.key,
            track=job.watch.track,
            progress=advance,
            compiled=False,  # its time would be of the training, and not of the measured step
        )
    seconds = (loop.clock() - began) * steps / max(1, steps - done.resumed_from)  # extrapolated for a resumed training
    found = {
        "digest": _write(job, ready),
        "train_s": round(seconds + tokenizer_s, 1),
        "tokenizer_s": round(tokenizer_s, 1),
        "steps": steps,
        "batch": recipe.batch,
        "samples_per_s": round(steps * recipe.batch / seconds, 1),
        "parameters": sum(value.numel() for value in ready.model.parameters()),
        "made_with": _made_with(),
    }
    artifacts.write_json(note, found)
    checkpoint.clear(job.folder / "checkpoints")
    return found


def actor(job: Job) -> Actor:
    """Return the trained policy, read back from its bundle as a promoted policy would be."""
    policy, packed = policies.load(job.folder / "policy", kinds=KINDS)
    bundle.expect(packed, job.demos.spec)
    planner = policy.planner
    if not isinstance(planner, VQBeT):
        return Actor(policy.spec, planner, execute=job.chosen["execute"], **understood(policy.terms()))
    chosen = grid.sections(job.params, job.cell).bundle
    return acting(planner.prior, chosen, policy.spec, policy.terms())


def baseline(params: Params, cell: Cell, chosen: Mapping[str, Any], demos: Demonstrations) -> Trainable:
    """Return an untrained baseline. Raises ConfigError with its path if it cannot be built on these data."""
    goal, steps = (tasks.TASKS[cell.task].goal, params.paper.goal_steps) if cell.goal else ((), 0)
    try:
        root = params.project.parent
        return trainable.baseline(cell.policy, chosen, demos, goal=goal, goal_steps=steps, seed=cell.seed, root=root)
    except TrainingError as error:
        raise ConfigError(f"{params.own}: baselines.{cell.task}.{error}") from error


def _builder(job: Job) -> tuple[Callable[[], Trainable], float]:
    """Return a function that builds the cell's model, and the seconds for which its tokenizer was trained."""
    demos = job.demos
    if job.cell.policy != VQBET:
        return lambda: baseline(job.params, job.cell, job.chosen, demos), 0.0
    params = grid.sections(job.params, job.cell)
    kept, note = job.folder / "tokenizer", job.folder / "tokenizer.json"
    if not note.is_file():
        fit = tokenizer.fit(
            params.tokenizer,
            demos,
            wanted=params.demos.views,
            folder=job.folder / "codes",
            fingerprint=job.key,
            watch=job.watch,
        )
        bundle.write(
            kept,
            kind="tokenizer",
            spec=demos.spec,
            arguments=fit.tokenizer.arguments(),
            components=fit.tokenizer.components(),
            provenance={"data": demos.digest},
        )
        artifacts.write_json(note, fit.seconds)
        checkpoint.clear(job.folder / "codes")
    packed = bundle.read(kept)
    goal = tasks.TASKS[job.cell.task].goal if job.cell.goal else ()

    def build() -> Trainable:
        frozen = Tokenizer.from_components(packed.arguments, packed.components)
        return trainable.vqbet(params, demos, frozen, goal, root=job.params.project.parent)

    return build, artifacts.read_number(note)


def _steps(job: Job, build: Callable[[], Trainable], seconds: float) -> int:
    """Return the number of steps that fit into `seconds`; measured once, so that a resumed training has the same."""
    note = job.folder / "steps.json"
    if note.is_file():
        return int(artifacts.read_number(note))
    probe = build()
    step_s = loop.step_seconds(probe.model, probe.windows.gather, len(probe.windows), probe.recipe(10_000), PROBE_S)
    steps = max(1, round(max(seconds, 0.0) / step_s))
    job.watch.say(f"{job.cell.name}: {1000 * step_s:.1f} ms a step, {steps} steps in {seconds:.0f} s")
    artifacts.write_json(note, steps)
    return steps


def _write(job: Job, ready: Trainable) -> str:
    policy = ready.actor()
    return bundle.write(
        job.folder / "policy",
        kind=ready.kind,
        spec=policy.spec,
        arguments=policy.arguments(),
        components=policy.components(),
        provenance={"code": code_version.digest(__name__), "data": job.demos.digest, "training": job.key},
    )


def _made_with() -> dict[str, Any]:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else environment.processor()
    return {
        "device": device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "code": code_version.digest(__name__),
    }
