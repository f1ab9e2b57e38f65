"""params.yaml as frozen, strict types. The only reader of that file; holds types and bounds, never a value.

Read with ruamel as DVC reads it (YAML 1.2), so that `1e-4` is a number and `no` is a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vqbet.contract import ConfigError

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]


class Section(BaseModel):
    """What every section has in common: frozen, strict, no unknown key."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class DemosParams(Section):
    """How a scripted oracle makes demonstrations; imported data ignores `seed` and must hold `episodes` episodes."""

    episodes: Count
    seed: Seed


class ValidateParams(Section):
    """Bounds of the advice and errors that validation gives about a store."""

    min_steps: Count
    max_steps: Count
    max_saturated: Fraction
    max_duplicates: Fraction
    min_success: Fraction

    @model_validator(mode="after")
    def ordered(self) -> ValidateParams:
        if self.min_steps > self.max_steps:
            raise ValueError(f"min_steps {self.min_steps} is above max_steps {self.max_steps}")
        return self


class HealthParams(Section):
    """When a tokenizer is too ill to go on: errors over each channel's standard deviation, share of codes used."""

    max_mean_error: Positive
    max_p99_error: Positive
    min_used: Fraction


class TokenizerParams(Section):
    """Residual VQ-VAE over action chunks and its training."""

    chunk: Annotated[int, Field(ge=1, le=64)]
    layers: Annotated[int, Field(ge=1, le=4)]
    codes: Annotated[int, Field(ge=2, le=1024)]
    latent: Annotated[int, Field(ge=1, le=2048)]
    hidden: Annotated[int, Field(ge=1, le=4096)]
    batch: Count
    steps: Count
    lr: Positive
    weight_decay: Weight
    reconstruction_weight: Positive
    commitment_weight: Weight
    decay: Annotated[float, Field(ge=0, lt=1)]
    revive_below: Weight
    seed: Seed
    health: HealthParams


class PriorParams(Section):
    """The GPT over observations, its heads, its losses and its training."""

    window: Annotated[int, Field(ge=1, le=512)]
    depth: Annotated[int, Field(ge=1, le=48)]
    heads: Count
    width: Annotated[int, Field(ge=4, le=4096)]
    head_hidden: Count
    dropout: Annotated[float, Field(ge=0, lt=1)]
    batch: Count
    steps: Count
    lr: Positive
    warmup: Annotated[int, Field(ge=0)]
    min_lr: Fraction
    weight_decay: Weight
    clip: Positive
    ema: Annotated[float, Field(ge=0, lt=1)]
    focal_gamma: Weight
    primary_weight: Weight
    secondary_weight: Weight
    offset_weight: Weight
    offset_target: Literal["sampled", "true", "mixed"]
    sequential: bool
    temperature: Positive
    mask_observation: Annotated[float, Field(ge=0, lt=1)]
    seed: Seed

    @model_validator(mode="after")
    def divisible(self) -> PriorParams:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class BundleParams(Section):
    """How the trained policy acts: how codes are drawn, and how a chunk is executed."""

    temperature: Positive
    argmax: bool
    execute: Literal["first", "chunk", "average"]


class EvaluateParams(Section):
    """Rollouts of the candidate and of the baselines, on seeds first_seed, first_seed + 1, ..."""

    episodes: Count
    first_seed: Seed
    videos: Annotated[int, Field(ge=0, le=32)]
    baselines: list[Literal["noop", "nearest"]]


class GateParams(Section):
    """The plan a verdict is read from, fixed before the first episode."""

    metric: Literal["score", "success"]
    margin: Annotated[float, Field(gt=0, lt=1)]
    alpha: Annotated[float, Field(gt=0, lt=0.5)]
    floor: Fraction
    min_modes: Annotated[int, Field(ge=0)]
    max_episodes: Count


class TaskParams(Section):
    """One task: a section per stage, named as the stage."""

    demos: DemosParams
    validate_: Annotated[ValidateParams, Field(alias="validate")]
    tokenizer: TokenizerParams
    prior: PriorParams
    bundle: BundleParams
    evaluate: EvaluateParams
    gate: GateParams


def read(path: Path) -> Mapping[str, Any]:
    """The file as plain mappings, lists and scalars. Raises ConfigError where it is not YAML."""
    try:
        value = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a mapping of tasks, got {type(value).__name__}")
    return value


def tasks(path: Path) -> list[str]:
    """The names of the tasks that the graph builds. Raises ConfigError where one has no section or a bad name."""
    value = read(path)
    names = value.get("tasks")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{path}: tasks: expected a list of names, got {names!r}")
    for name in names:
        if name not in value:
            raise ConfigError(f"{path}: tasks: {name!r} has no section of its own; sections: {_sections(value)}")
    return names


def task(path: Path, name: str) -> TaskParams:
    """The section of one task. Raises ConfigError naming the path of every key that is wrong."""
    value = read(path)
    if name == "tasks" or name not in value:
        raise ConfigError(f"{path}: no section {name!r}; sections: {_sections(value)}")
    try:
        return TaskParams.model_validate(value[name])
    except ValidationError as error:
        lines = [_sentence(name, problem) for problem in error.errors()]
        raise ConfigError(f"{path}: " + "; ".join(lines)) from error


def _sections(value: Mapping[str, Any]) -> str:
    return ", ".join(str(key) for key in value if key != "tasks") or "none"


def _sentence(name: str, problem: Any) -> str:
    where = ".".join([name, *(str(part) for part in problem["loc"])])
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown key (misspelled?)"
    if problem["type"] == "missing":
        return f"{where}: missing"
    return f"{where}: {problem['msg']}, got {problem['input']!r}"
