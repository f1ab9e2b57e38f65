"""The sections of one task: one class per stage, named after the stage."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from vqbet.config.encoder import EncoderParams
from vqbet.config.promotion import CanaryParams, GateParams, PromotionParams, TrialsParams
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
from vqbet.config.source import SourceParams

View = Literal["mirrored", "goal_frame", "absolute"]
MOST_OFFSETS = 2**27  # offset-head weights per action channel: hidden units x chunk x codes of all layers


class ExcludeParams(Section):
    """Episodes that are left out of learning, and why."""

    episodes: list[int | Annotated[str, Field(max_length=200)]] = Field(
        default_factory=list, description="Their numbers in the store, or their values in the column `source`."
    )
    where: Annotated[str, Field(max_length=200)] = Field(
        default="",
        description="Or a rule, such as `steps < 30`, `success == false` or `session == tuesday`.",
    )
    reason: Reason = Field(description="Why they are left out.")

    @model_validator(mode="after")
    def one_way(self) -> ExcludeParams:
        if bool(self.episodes) == bool(self.where):
            raise ValueError("expected episodes or where, got both or neither")
        return self


class DemosParams(Section):
    """Demonstrations by a scripted oracle, and the views of the demonstrations that policies learn from.

    Imported data ignores both.
    """

    episodes: Count = Field(
        description="Number of demonstrations that the task's oracle makes; imported data ignores it."
    )
    seed: Seed = Field(
        description="Seed of the oracle's first demonstration, the next ones have seed + 1, seed + 2, ...; imported "
        "data ignores it."
    )
    views: Annotated[list[View], Field(max_length=3)] = Field(
        description="Ways in which policies see the demonstrations, baselines included. `mirrored`: their mirror "
        "images too. `goal_frame`: moved and turned so that each ends exactly at the world's goal; with goals, the "
        "policy then acts in the frame of the goal it is given. `absolute`: the positions that relative "
        "commands lead to; the policy gives at each step the command that leads to the planned position. A "
        "view is refused where the world is not made for it."
    )
    corrections: Literal["all", "only"] = Field(
        description="Steps of recorded episodes that policies learn from. `all`: every step. `only`: of episodes in "
        "which a person intervened, only the steps at which the person acted. Baselines of the comparison learn from "
        "all."
    )
    held_out: Share = Field(
        description="Share of the episodes that no policy learns from, those with the lowest sha256 of their content; "
        "0: none. A task without a world is judged on them; docs/your-task.md."
    )
    held_out_sessions: Annotated[int, Field(ge=0, le=1000)] = Field(
        description="Number of the newest sessions that no policy learns from, besides `held_out`; 0: none. Errors on "
        "them say what another day, another person or another posture does."
    )

    exclude: Annotated[list[ExcludeParams], Field(max_length=1000)] = Field(
        description="Episodes that no policy learns from and none is judged on, such as "
        "`[{episodes: [3], reason: the cable hung}, {where: steps < 30, reason: aborted}]`; the data stays as it is."
    )

    @model_validator(mode="after")
    def distinct(self) -> DemosParams:
        if len(set(self.views)) != len(self.views):
            raise ValueError(f"views: expected each view once, got {', '.join(self.views)}")
        return self

    def learned(self) -> dict[str, Any]:
        """Return what determines a policy besides the data, for its provenance; defaults of later versions are left
        out, so that the provenance of earlier policies still compares as equal."""
        later = {"corrections": "all", "exclude": [], "held_out": 0.0, "held_out_sessions": 0}
        chosen = {name: getattr(self, name) for name in later}
        chosen["exclude"] = [one.model_dump(mode="json", exclude={"reason"}) for one in self.exclude]
        return {"views": self.views} | {name: value for name, value in chosen.items() if value != later[name]}


class ValidateParams(Section):
    """Thresholds of the warnings and errors that validation reports about a store.

    waive: name of a check whose errors are downgraded to advice for this task -> reason.
    """

    min_steps: Count = Field(description="Fewest steps of an episode; a shorter one is an error.")
    max_steps: Count = Field(description="Most steps of an episode; a longer one is an error.")
    max_saturated: Fraction = Field(
        description="Largest share of steps at a limit of an action channel, beyond which validation reports it."
    )
    max_duplicates: Fraction = Field(description="Largest share of episodes that repeat another one; more is an error.")
    min_success: Fraction = Field(description="Least share of episodes that are labelled successful.")
    waive: dict[Name, Reason] = Field(
        default_factory=dict,
        description="Checks whose errors are advice for this task, each with its reason, such as "
        '`{motion: "the gripper\'s log is late"}`; may be left out, and the page of validation lists them.',
    )

    @model_validator(mode="after")
    def ordered(self) -> ValidateParams:
        if self.min_steps > self.max_steps:
            raise ValueError(f"min_steps {self.min_steps} is above max_steps {self.max_steps}")
        return self


class HealthParams(Section):
    """Limits at which the tokenizer is rejected: errors over each channel's standard deviation, share of codes used."""

    max_mean_error: Positive = Field(
        description="Largest mean reconstruction error of an action channel, over that channel's standard deviation."
    )
    max_p99_error: Positive = Field(
        description="Largest 99th percentile of the reconstruction error of an action channel, over that channel's "
        "standard deviation."
    )
    min_used: Fraction = Field(
        description="Least share of codes in use in each layer. Changing a limit of `health` judges again and trains "
        "nothing."
    )


class TokenizerParams(Section):
    """The quantiser of action chunks, the networks around it, and their training."""

    kind: Literal["residual", "kmeans", "fsq"] = Field(
        description="Quantiser of chunks: `residual` (the paper's residual VQ; one layer is plain VQ), `kmeans` (bins "
        "of the chunks themselves, as in BeT; without networks, nothing is trained) or `fsq` (finite scalar "
        "quantisation)."
    )
    chunk: Annotated[int, Field(ge=1, le=64)] = Field(
        description="Number of future actions, H, that one tuple of codes stands for."
    )
    layers: Annotated[int, Field(ge=1, le=4)] = Field(
        description="Number of codebooks, Q; with `fsq` the number of latent numbers."
    )
    codes: Annotated[int, Field(ge=2, le=1024)] = Field(
        description="Number of codes in a layer, K; with `fsq` the number of levels of a latent number."
    )
    latent: Annotated[int, Field(ge=1, le=2048)] = Field(
        description="Width of a code vector; `fsq` and `kmeans` do not read it."
    )
    hidden: Annotated[int, Field(ge=1, le=4096)] = Field(
        description="Width of the two hidden layers of encoder and decoder; `kmeans` does not read it."
    )
    batch: Batch = Field(description="Windows in a training step.")
    steps: Steps = Field(description="Training steps.")
    lr: Rate = Field(description="Learning rate of AdamW, constant.")
    weight_decay: Weight = Field(description="Decoupled weight decay of AdamW.")
    commitment_weight: Weight = Field(
        description="Weight of the commitment loss beside the L1 error, which has weight 1; `fsq` and `kmeans` have no "
        "commitment loss."
    )
    decay: Share = Field(description="Decay per step of the moving averages that are the codebooks (`residual`).")
    revive_below: Weight = Field(
        description="Uses in a step, on average, below which a code is put onto a data point again (`residual`)."
    )
    seed: Seed = Field(description="Seed of initialisation, k-means and the order of windows.")
    health: HealthParams = Field(description="Limits beyond which the graph stops after the tokenizer was trained.")


class PriorParams(Transformer):
    """The GPT over observations, its heads, its losses and its training."""

    unseen: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=1000)] = Field(
        description="Patterns of the names of observation channels that no policy of this task looks at, such as "
        "`*_velocity`; baselines included."
    )
    goal_steps: Annotated[int, Field(ge=0, le=64)] = Field(
        description="Number of future observations, G, that are given as the goal; 0: no goal. Acting repeats the one "
        "goal it has."
    )
    goal_as: Literal["tokens", "features"] = Field(
        description="Way in which goals are given: `tokens` (before the observations, as in the paper) or `features` "
        "(joined with every observation, which takes half the time where the window is one observation)."
    )
    head_hidden: Annotated[int, Field(ge=0, le=8192)] = Field(
        description="Width of the two hidden layers of the code head and the offset head; 0: one linear layer each, as "
        "in BeT."
    )
    batch: Batch = Field(description="Windows in a training step, of all processes together.")
    steps: Steps = Field(description="Training steps.")
    lr: Rate = Field(description="Learning rate of AdamW after the warm-up.")
    warmup: Annotated[int, Field(ge=0, le=100_000_000)] = Field(description="Steps of linear warm-up.")
    min_lr: Fraction = Field(description="Learning rate at the last step, as a fraction of `lr`; a cosine leads there.")
    weight_decay: Weight = Field(description="Decoupled weight decay of AdamW, on weight matrices only.")
    clip: Positive = Field(description="Largest norm of the gradient.")
    ema: Share = Field(description="Decay per step of the averaged weights that are kept; 0 keeps the last weights.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        description="Precision of products: `fp32`, `bf16`, or `auto`: `bf16` on a GPU that computes in it, else "
        "`fp32`; weights stay in float32. Provenance names the one that was used."
    )
    focal_gamma: Weight = Field(
        description="Focusing of the code loss; 0 is cross entropy, and only then are codes drawn as often as they "
        "were seen."
    )
    primary_weight: Weight = Field(description="Weight of the code loss of the first layer.")
    secondary_weight: Weight = Field(description="Weight of the code losses of all other layers.")
    offset: bool = Field(description="Whether there is an offset head.")
    offset_weight: Weight = Field(description="Weight of the L1 error of the chunk after the offset.")
    offset_target: Literal["sampled", "true"] = Field(
        description="Codes whose offset is trained: `true` (those of the chunk, so that each code keeps its own "
        "chunks) or `sampled` (drawn from the prediction, as the paper's code does; it pulls all codes to one median "
        "and repairs wrong ones)."
    )
    sequential: bool = Field(
        description="Whether the code of each layer is predicted given the codes of the layers before it, so that only "
        "codes that belong together are drawn."
    )
    observation_noise: Weight = Field(
        description="Standard deviation of the noise on observations in training, in normalised units; baselines "
        "included."
    )
    goal_noise: Weight = Field(
        description="Standard deviation of the noise on goals in training, in normalised units; it keeps a policy from "
        "taking a goal for the name of a demonstration; baselines included."
    )
    supervise: Literal["all", "last"] = Field(
        description="Positions of a window at which a chunk is predicted: `all` (the paper) or the `last` one, which "
        "is the one that acts and costs the heads 1 / T."
    )
    seed: Seed = Field(description="Seed of initialisation, dropout, noise and the order of windows.")
    encoder: EncoderParams | None = Field(
        default=None, description="Encoder of the pictures; may be left out, and is where a task has no cameras."
    )

    @model_validator(mode="after")
    def possible(self) -> PriorParams:
        fits(self.window + self.goal_steps, self.batch)
        finishes(self, self.batch, self.steps)
        return self

    @model_serializer(mode="wrap")
    def without_cameras(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out an absent encoder, so that digests and provenance of policies without cameras stay as they were."""
        return {name: value for name, value in serialise(self).items() if name != "encoder" or value is not None}


class BundleParams(Section):
    """Acting with the trained policy: sampling of codes and execution of a chunk."""

    temperature: Temperature = Field(description="Temperature of the codes that are drawn when acting.")
    argmax: bool = Field(description="Whether the likeliest codes are taken instead of drawn ones.")
    execute: Literal["first", "chunk", "average"] = Field(
        description="Execution of a chunk: `first` (predict at every step), `chunk` (play it to its end) or `average` "
        "(mean of overlapping chunks of the same codes)."
    )


Path = Annotated[str, Field(max_length=200)]
Scalar = bool | int | float | str


class WorldParams(Section):
    """A simulator of Gymnasium that a task declares."""

    gymnasium: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        description="Id of the environment; `module:Id-v0` imports the module first, as Gymnasium has it."
    )
    kwargs: dict[Annotated[str, Field(max_length=100)], Scalar] = Field(
        default_factory=dict,
        description="Arguments of the environment; `{seed}` in the place of a value is the seed of an episode, for "
        "environments whose reset does not obey it: they are made anew for each episode.",
    )
    observation: dict[Annotated[str, Field(max_length=200)], Path] = Field(
        description="For each observed field of `source`, the place in the environment's observation: empty for all of "
        "it, keys joined by dots within dictionaries."
    )
    cameras: dict[Name, Path] = Field(
        default_factory=dict,
        description="For each camera, the place of its picture in the observation, or `render()` for the environment's "
        "own picture.",
    )
    success: Annotated[str, Field(max_length=200)] = Field(
        description="Rule of success: `info.<key>`, `return >= x`, `reward >= x` or `terminated`."
    )
    score: Annotated[str, Field(max_length=200)] = Field(
        default="success", description="Rule of the score, 0 to 1: `success`, `info.<key>` or `return / x`."
    )
    max_steps: Count = Field(description="Most steps of an episode.")


class EvaluateParams(Section):
    """Rollouts of the candidate for inspection and selection, on seeds first_seed, first_seed + 1, ..."""

    episodes: Count = Field(description="Episodes that people look at and choose by.")
    first_seed: Seed = Field(description="Seed of the first of them; the others follow one by one.")
    videos: Annotated[int, Field(ge=0, le=32)] = Field(description="Number of episodes that are filmed.")
    world: WorldParams | None = Field(
        default=None,
        description="Simulator of a declared task, an environment of Gymnasium; none: the task's own, or held-out "
        "episodes alone.",
    )


class DriftParams(Section):
    """Distances of new demonstrations from the champion's beyond which a new tokenizer or policy is advised."""

    max_shift: Positive = Field(
        description="Largest distance of a channel's values from the champion's demonstrations (Wasserstein's distance "
        "over their standard deviation); an action channel beyond it asks for a new tokenizer, an observation "
        "channel for a new policy. No stage of the graph reads this section."
    )
    max_divergence: Annotated[float, Field(gt=0, le=1)] = Field(
        description="Largest difference in how a layer of the champion's tokenizer is used (Jensen-Shannon divergence "
        "in bits, 0 to 1)."
    )
    max_tail: Annotated[float, Field(ge=1, le=1e6, allow_inf_nan=False)] = Field(
        description="Largest ratio of the 99th percentile of a channel's reconstruction error to that of the "
        "champion's demonstrations."
    )


class TaskParams(Section):
    """All sections of one task: one per stage, named after the stage; a declared task says its source as well."""

    source: SourceParams | None = None
    demos: DemosParams
    validate_: Annotated[ValidateParams, Field(alias="validate")]
    tokenizer: TokenizerParams
    prior: PriorParams
    bundle: BundleParams
    evaluate: EvaluateParams
    gate: GateParams
    promotion: PromotionParams
    canary: CanaryParams
    drift: DriftParams
    trials: TrialsParams

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
        """Return these parameters with the training seeds of tokenizer and prior increased by `by`."""
        tokenizer = self.tokenizer.model_copy(update={"seed": self.tokenizer.seed + by})
        prior = self.prior.model_copy(update={"seed": self.prior.seed + by})
        return self.model_copy(update={"tokenizer": tokenizer, "prior": prior})
