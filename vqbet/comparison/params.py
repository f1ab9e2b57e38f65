"""The comparison's own params.yaml: worlds, policies, sizes, and the parameters of every baseline.

The section of a task, which all policies share, is in the project's params.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from vqbet import config
from vqbet.config import document
from vqbet.config.section import (
    Batch,
    Count,
    Fraction,
    Name,
    Positive,
    Rate,
    Seconds,
    Section,
    Seed,
    Seeds,
    Share,
    Temperature,
    Transformer,
    Weight,
    Width,
    Window,
    fits,
)
from vqbet.config.task import BundleParams, DemosParams, PriorParams, TaskParams, TokenizerParams
from vqbet.files import reading

OWN = Path(__file__).with_name("params.yaml")
Chunk = Annotated[int, Field(ge=1, le=64)]
Denoising = Annotated[int, Field(ge=1, le=10_000)]
Execute = Literal["first", "chunk", "average"]
Unconditional = Literal["vqbet", "bc", "bet", "diffusion_cnn", "diffusion_transformer"]
Conditional = Literal["vqbet", "bc", "bet", "beso", "cfg_beso"]

Changes = dict[Annotated[str, Field(max_length=100)], Any]
# Type of every parameter that an ablation may change, by dotted key.
CHANGED: Mapping[str, Any] = {
    **{
        f"{section}.{name}": Annotated[field.annotation, field]
        for section, kind in (("tokenizer", TokenizerParams), ("prior", PriorParams), ("bundle", BundleParams))
        for name, field in kind.model_fields.items()
    },
    "demos.views": DemosParams.model_fields["views"].annotation,
    "data": Annotated[float, Field(gt=0, le=1)],
    "observation_noise": Fraction,
    "action_noise": Fraction,
}


class TrainingParams(Section):
    """Training of a baseline. The number of steps follows from the seconds of the chosen size; warmup is a share."""

    batch: Batch
    lr: Rate
    warmup: Share
    min_lr: Fraction
    weight_decay: Weight
    clip: Weight
    ema: Share
    precision: Literal["auto", "fp32", "bf16"]


class Baseline(Section):
    """Base class of all baselines, which add `shape` and `options`."""

    training: TrainingParams
    execute: Execute

    @model_validator(mode="after")
    def possible(self) -> Baseline:
        fits(getattr(self, "shape").window, self.training.batch)  # noqa: B009  # defined by each subclass
        return self


class BCSize(Section):
    window: Window
    chunk: Chunk
    depth: Annotated[int, Field(ge=1, le=16)]
    hidden: Width
    dropout: Share


class BCOptions(Section):
    loss: Literal["l1", "l2"]


class BCParams(Baseline):
    """MLP-BC; with goals, GCBC."""

    shape: BCSize
    options: BCOptions


class BeTSize(Transformer):
    chunk: Chunk
    bins: Annotated[int, Field(ge=2, le=1024)]


class BeTOptions(Section):
    focal_gamma: Weight
    offset_weight: Weight
    temperature: Temperature


class BeTParams(Baseline):
    """BeT; with goals, C-BeT."""

    shape: BeTSize
    options: BeTOptions


class Executed(Section):
    """Number of actions that diffusion predicts, and number executed before the next prediction."""

    window: Window
    horizon: Chunk
    execute_steps: Chunk

    @model_validator(mode="after")
    def fits(self) -> Executed:
        if self.execute_steps > self.horizon:
            raise ValueError(f"execute_steps {self.execute_steps} is above horizon {self.horizon}")
        return self


class CNNSize(Executed):
    width: Width
    levels: Annotated[int, Field(ge=1, le=5)]
    kernel: Annotated[int, Field(ge=1, le=63)]
    groups: Width
    step_width: Width


class TransformerSize(Executed, Transformer):
    pass


class DiffusionOptions(Section):
    diffusion_steps: Denoising
    inference_steps: Denoising
    eta: Fraction


class DiffusionCNNParams(Baseline):
    """Diffusion Policy with the 1-D U-Net."""

    shape: CNNSize
    options: DiffusionOptions


class DiffusionTransformerParams(Baseline):
    """Diffusion Policy with the transformer."""

    shape: TransformerSize
    options: DiffusionOptions


class BesoOptions(Section):
    guidance: Weight
    goal_dropout: Share
    sampler: Literal["ddim", "euler", "euler_ancestral"]
    schedule: Literal["exponential", "karras"]
    rho: Positive
    steps: Denoising
    sigma_min: Annotated[float, Field(ge=1e-6, le=1e6)]
    sigma_max: Annotated[float, Field(ge=1e-6, le=1e6)]


class BesoParams(Baseline):
    """C-BESO; with guidance, CFG-BESO."""

    shape: Transformer
    options: BesoOptions


class BaselinesParams(Section):
    """The baselines of one task."""

    bc: BCParams
    bet: BeTParams
    diffusion_cnn: DiffusionCNNParams
    diffusion_transformer: DiffusionTransformerParams
    beso: BesoParams
    cfg_beso: BesoParams


class SizeParams(Section):
    """Size of a cell: seconds of training, episodes and seeds (separately for `main` policies); seconds and seeds of
    ablations."""

    train_s: Seconds
    ablation_s: Seconds
    ablation_seeds: Seeds
    episodes: Count
    seeds: Seeds
    main_episodes: Count
    main_seeds: Seeds


class PaperParams(Section):
    """The comparison. goal_changes: changes of VQ-BeT's sections by dotted key; ablations: name -> changes."""

    size: Name
    sizes: dict[Name, SizeParams]  # ascending
    tasks: list[Name]
    first_seed: Seed
    policies: list[Unconditional]
    goal_policies: list[Conditional]
    main: list[Name]
    goal_steps: Annotated[int, Field(ge=1, le=64)]
    goal_changes: Changes
    ablation_tasks: list[Name]
    ablations: dict[Annotated[str, Field(min_length=1, max_length=100)], Changes]
    baselines: dict[Name, BaselinesParams]

    @model_validator(mode="after")
    def known(self) -> PaperParams:
        if self.size not in self.sizes:
            raise ValueError(f"size {self.size!r} is none of {reading.cut(', '.join(self.sizes), 400)}")
        return self

    @model_validator(mode="after")
    def possible(self) -> PaperParams:
        _check("goal_changes", self.goal_changes)
        for variant, changes in self.ablations.items():
            _check(f"ablations.{variant}", changes)
        return self


@dataclass(frozen=True, slots=True)
class Params:
    """All parameters of the comparison: those of its own file, and the sections of its tasks.

    project: path of the project's params.yaml; own: path of the comparison's.
    """

    project: Path
    own: Path
    paper: PaperParams
    tasks: Mapping[str, TaskParams]

    def task(self, name: str) -> TaskParams:
        """Return a task's section, read from the file if the task is not compared. Raises like `config.task`."""
        return self.tasks[name] if name in self.tasks else config.task(self.project, name)

    def sized(self, size: str) -> Self:
        """Return these parameters at another size of the comparison."""
        return replace(self, paper=self.paper.model_copy(update={"size": size}))


def read(project: Path, *, size: str = "", own: Path = OWN) -> Params:
    """Read both files. size: overrides the comparison's size.

    project: the params.yaml with a section for each task. Raises ConfigError naming every invalid key.
    """
    content = {**document.read(own), **({"size": size} if size else {})}
    paper = config.validated(own, "", PaperParams, content)
    names = dict.fromkeys([*paper.tasks, *paper.ablation_tasks])
    return Params(project, own, paper, {name: config.task(project, name) for name in names})


def _check(where: str, changes: Mapping[str, Any]) -> None:
    """Raise ValueError for an invalid value of a known key.

    Unknown keys, and conflicts with the task's other values, are refused when cells are made.
    """
    for key, value in changes.items():
        kind = CHANGED.get(key)
        if kind is None:
            continue
        try:
            TypeAdapter(kind).validate_python(value, strict=True)
        except ValidationError as error:
            problem = error.errors()[0]
            raise ValueError(f"{where}: {key}: {problem['msg']}, got {reading.short(problem['input'])}") from error
