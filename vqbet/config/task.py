"""The sections of one task: a class per stage, named as the stage."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vqbet.config.section import (
    Batch,
    Count,
    Fraction,
    Name,
    Positive,
    Rate,
    Reason,
    Section,
    Seed,
    Share,
    Steps,
    Temperature,
    Transformer,
    Weight,
    finishes,
    fits,
)

View = Literal["mirrored", "goal_frame", "absolute"]
MOST_OFFSETS = 2**27  # weights of the offset head for each action channel: hidden units x chunk x codes of all layers


class DemosParams(Section):
    """How a scripted oracle makes demonstrations, and the views of them that policies learn from.

    Imported data ignores `seed` and must hold `episodes` episodes.
    """

    episodes: Count
    seed: Seed
    views: Annotated[list[View], Field(max_length=3)]

    @model_validator(mode="after")
    def distinct(self) -> DemosParams:
        if len(set(self.views)) != len(self.views):
            raise ValueError(f"views: expected each view once, got {', '.join(self.views)}")
        return self


class ValidateParams(Section):
    """Bounds of the advice and errors that validation gives about a store.

    waive: reasons by name of a check whose errors are advice for this task.
    """

    min_steps: Count
    max_steps: Count
    max_saturated: Fraction
    max_duplicates: Fraction
    min_success: Fraction
    waive: dict[Name, Reason] = Field(default_factory=dict)

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
    """The quantiser of action chunks, the networks around it, and their training."""

    kind: Literal["residual", "kmeans", "fsq"]
    chunk: Annotated[int, Field(ge=1, le=64)]
    layers: Annotated[int, Field(ge=1, le=4)]
    codes: Annotated[int, Field(ge=2, le=1024)]
    latent: Annotated[int, Field(ge=1, le=2048)]
    hidden: Annotated[int, Field(ge=1, le=4096)]
    batch: Batch
    steps: Steps
    lr: Rate
    weight_decay: Weight
    commitment_weight: Weight
    decay: Share
    revive_below: Weight
    seed: Seed
    health: HealthParams


class PriorParams(Transformer):
    """The GPT over observations, its heads, its losses and its training."""

    unseen: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=1000)]
    goal_steps: Annotated[int, Field(ge=0, le=64)]
    goal_as: Literal["tokens", "features"]
    head_hidden: Annotated[int, Field(ge=0, le=8192)]
    batch: Batch
    steps: Steps
    lr: Rate
    warmup: Annotated[int, Field(ge=0, le=100_000_000)]
    min_lr: Fraction
    weight_decay: Weight
    clip: Positive
    ema: Share
    precision: Literal["fp32", "bf16"]
    focal_gamma: Weight
    primary_weight: Weight
    secondary_weight: Weight
    offset: bool
    offset_weight: Weight
    offset_target: Literal["sampled", "true"]
    sequential: bool
    observation_noise: Weight
    goal_noise: Weight
    supervise: Literal["all", "last"]
    seed: Seed

    @model_validator(mode="after")
    def possible(self) -> PriorParams:
        fits(self.window + self.goal_steps, self.batch)
        finishes(self, self.batch, self.steps)
        return self


class BundleParams(Section):
    """How the trained policy acts: how codes are drawn, and how a chunk is executed."""

    temperature: Temperature
    argmax: bool
    execute: Literal["first", "chunk", "average"]


class EvaluateParams(Section):
    """Rollouts of the candidate to look at and to choose by, on seeds first_seed, first_seed + 1, ..."""

    episodes: Count
    first_seed: Seed
    videos: Annotated[int, Field(ge=0, le=32)]


class SliceParams(Section):
    """Conditions under which a share of the gate's episodes is played."""

    share: Fraction
    observation_noise: Fraction = 0.0
    action_noise: Fraction = 0.0


class GateParams(Section):
    """The plan a verdict is read from, fixed before the first episode. `Plan` checks how its parts fit together."""

    metric: Literal["score", "success"]
    question: Literal["better", "not_worse"]
    margin: Annotated[float, Field(ge=1e-6, lt=1)]
    alpha: Annotated[float, Field(ge=1e-6, lt=0.5)]
    power: Annotated[float, Field(gt=0.5, le=0.999999)]
    floor: Fraction
    min_modes: Annotated[int, Field(ge=0, le=1000)]
    baselines: Annotated[list[Literal["noop", "nearest"]], Field(max_length=2)]
    stopping: Literal["fixed", "group_sequential", "anytime"]
    looks: Annotated[list[Count], Field(min_length=1, max_length=100)]
    first_seed: Seed
    latency_ms: Positive
    slices: Annotated[dict[Name, SliceParams], Field(min_length=1, max_length=100)]


class PromotionParams(Section):
    """What a promotion needs beside its verdict."""

    approvals: Annotated[int, Field(ge=0, le=5)]
    approval_hours: Annotated[float, Field(gt=0, le=8760)]
    four_eyes: bool
    clean: bool
    publish: Literal["none", "git", "s3"]


class DriftParams(Section):
    """How far new demonstrations may lie from the champion's before they ask for a new tokenizer or policy."""

    max_shift: Positive
    max_divergence: Annotated[float, Field(gt=0, le=1)]
    max_tail: Annotated[float, Field(ge=1, le=1e6, allow_inf_nan=False)]


class TaskParams(Section):
    """One task: a section per stage, named as the stage."""

    demos: DemosParams
    validate_: Annotated[ValidateParams, Field(alias="validate")]
    tokenizer: TokenizerParams
    prior: PriorParams
    bundle: BundleParams
    evaluate: EvaluateParams
    gate: GateParams
    promotion: PromotionParams
    drift: DriftParams

    @model_validator(mode="after")
    def one_head(self) -> TaskParams:
        chosen, hidden = self.tokenizer, self.prior.head_hidden or self.prior.width
        weights = hidden * chosen.chunk * chosen.codes * chosen.layers
        if self.prior.offset and weights > MOST_OFFSETS:
            raise ValueError(
                f"an offset head of {hidden} hidden units for {chosen.layers} x {chosen.codes} codes and chunk "
                f"{chosen.chunk} has {weights:,} weights an action channel, at most {MOST_OFFSETS:,}; lower one of them"
            )
        return self

    def reseeded(self, by: int) -> Self:
        """The same recipe with the seeds of its trainings higher by so much."""
        tokenizer = self.tokenizer.model_copy(update={"seed": self.tokenizer.seed + by})
        prior = self.prior.model_copy(update={"seed": self.prior.seed + by})
        return self.model_copy(update={"tokenizer": tokenizer, "prior": prior})
