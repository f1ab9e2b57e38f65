"""The sections of one task: one class per stage, named after the stage."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from vqbet.config.section import (
    Batch,
    Count,
    Fraction,
    Name,
    Positive,
    Rate,
    Reason,
    Seconds,
    Section,
    Seed,
    Share,
    Steps,
    Temperature,
    Transformer,
    Weight,
    Words,
    finishes,
    fits,
)

View = Literal["mirrored", "goal_frame", "absolute"]
MOST_OFFSETS = 2**27  # offset-head weights per action channel: hidden units x chunk x codes of all layers


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

    @model_validator(mode="after")
    def distinct(self) -> DemosParams:
        if len(set(self.views)) != len(self.views):
            raise ValueError(f"views: expected each view once, got {', '.join(self.views)}")
        return self

    def learned(self) -> dict[str, Any]:
        """Return what determines a policy besides the data, for its provenance; defaults of later versions are left
        out, so that the provenance of earlier policies still compares as equal."""
        return {"views": self.views} | ({} if self.corrections == "all" else {"corrections": self.corrections})


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
    precision: Literal["fp32", "bf16"] = Field(
        description="Precision of products: `fp32`, or `bf16` for GPUs; weights stay in float32."
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

    @model_validator(mode="after")
    def possible(self) -> PriorParams:
        fits(self.window + self.goal_steps, self.batch)
        finishes(self, self.batch, self.steps)
        return self


class BundleParams(Section):
    """Acting with the trained policy: sampling of codes and execution of a chunk."""

    temperature: Temperature = Field(description="Temperature of the codes that are drawn when acting.")
    argmax: bool = Field(description="Whether the likeliest codes are taken instead of drawn ones.")
    execute: Literal["first", "chunk", "average"] = Field(
        description="Execution of a chunk: `first` (predict at every step), `chunk` (play it to its end) or `average` "
        "(mean of overlapping chunks of the same codes)."
    )


class EvaluateParams(Section):
    """Rollouts of the candidate for inspection and selection, on seeds first_seed, first_seed + 1, ..."""

    episodes: Count = Field(description="Episodes that people look at and choose by.")
    first_seed: Seed = Field(description="Seed of the first of them; the others follow one by one.")
    videos: Annotated[int, Field(ge=0, le=32)] = Field(description="Number of episodes that are filmed.")


class SliceParams(Section):
    """Conditions for a share of the gate's episodes."""

    share: Fraction = Field(
        description="Share of the gate's episodes that are played under these conditions; the shares of all slices add "
        "up to 1."
    )
    observation_noise: Fraction = Field(
        default=0.0,
        description="Standard deviation of the noise on observations, as a fraction of half of each channel's range; "
        "may be left out.",
    )
    action_noise: Fraction = Field(
        default=0.0,
        description="Standard deviation of the noise on actions, as a fraction of half of each channel's range; may be "
        "left out.",
    )


class GateParams(Section):
    """Plan of the gate, fixed before the first episode. `Plan` checks that its parts are consistent."""

    metric: Literal["score", "success"] = Field(description="Number that is compared: `score` or `success`.")
    question: Literal["better", "not_worse"] = Field(
        description="What a candidate must be shown to be: `better` than the champion, or `not_worse` by the margin."
    )
    margin: Annotated[float, Field(ge=1e-6, lt=1)] = Field(
        description="Largest loss that is accepted (`not_worse`), or least improvement worth having (`better`)."
    )
    alpha: Annotated[float, Field(ge=1e-6, lt=0.5)] = Field(
        description="Probability of promoting a policy that is just not good enough, over all attempts on it together; "
        "the first attempt has 3/4 of it."
    )
    power: Annotated[float, Field(gt=0.5, le=0.999999)] = Field(
        description="Probability with which an improvement by the margin should be found."
    )
    floor: Fraction = Field(description="Lower end of the interval that a policy must reach in any case.")
    min_modes: Annotated[int, Field(ge=0, le=1000)] = Field(description="Fewest modes that a policy must visit.")
    baselines: Annotated[list[Literal["noop", "nearest"]], Field(max_length=2)] = Field(
        description="Policies it must be better than: `noop` (stays where it is), `nearest` (replays the nearest "
        "demonstration)."
    )
    stopping: Literal["fixed", "group_sequential", "anytime"] = Field(
        description="Price of looking more than once: `fixed` (one look), `group_sequential` (a share of alpha for "
        "each look) or `anytime` (by betting; costs power, holds whatever the scores are like)."
    )
    looks: Annotated[list[Count], Field(min_length=1, max_length=100)] = Field(
        description="Numbers of episodes of each policy after which a verdict is sought, ascending; the last is the "
        "most that are played."
    )
    first_seed: Seed = Field(
        description="Seed of the gate's first episode; seeds that another purpose has are refused."
    )
    latency_ms: Positive = Field(
        description="Milliseconds that one of a hundred calls may take, one episode on one thread, in the process that "
        "must serve the candidate before it is judged."
    )
    slices: Annotated[dict[Name, SliceParams], Field(min_length=1, max_length=100)] = Field(
        description="Conditions under which shares of the episodes are played, by name; a candidate that is worse in "
        "one of them is rejected."
    )
    evidence: Annotated[list[Literal["simulated", "robot"]], Field(min_length=1, max_length=2)] = Field(
        description="Kinds of verdict that a promotion needs, each PROMOTE by itself: `simulated` (this section), "
        "`robot` (section `trials`, docs/robot-trials.md), or both. Without `simulated` the gate plays nothing."
    )

    @model_validator(mode="after")
    def each_once(self) -> GateParams:
        if len(set(self.evidence)) < len(self.evidence):
            raise ValueError(f"evidence names a kind twice: {', '.join(self.evidence)}")
        return self


class ConditionParams(Section):
    """An initial condition of robot trials that a person sets up."""

    name: Words = Field(description="Name of an initial condition; no other one of the list has it.")
    text: Annotated[str, Field(max_length=200)] = Field(
        default="", description="Sentence for the operator on how to set it up; may be left out."
    )
    picture: Annotated[str, Field(max_length=1000)] = Field(
        default="",
        description="Path of a PNG picture of it, in the project, which the operator's page lays over the live camera; "
        "may be left out.",
    )


class TrialsParams(Section):
    """Trials on a robot: `vqbet trials plan` locks these rules in a plan. No stage of the graph reads this section."""

    metric: Literal["score", "success"] = Field(description="Number that is compared: `score` (credit) or `success`.")
    question: Literal["better", "not_worse"] = Field(
        description="What a candidate must be shown to be on the robot: `better` than the champion, or `not_worse` by "
        "the margin."
    )
    margin: Annotated[float, Field(ge=1e-6, lt=1)] = Field(
        description="Largest loss that is accepted (`not_worse`), or least improvement worth having (`better`)."
    )
    alpha: Annotated[float, Field(ge=1e-6, lt=0.5)] = Field(
        description="Probability of promoting a policy that is just not good enough, over all sessions about it "
        "together; the first session has 3/4 of it."
    )
    power: Annotated[float, Field(gt=0.5, le=0.999999)] = Field(
        description="Probability with which the question should be decided in the candidate's favour where that is "
        "right; `vqbet trials plan` says how many pairs it takes."
    )
    floor: Fraction = Field(description="Lower end of the interval that a policy must reach in any case.")
    stopping: Literal["fixed", "group_sequential", "anytime"] = Field(
        description="Price of looking more than once, as for `gate.stopping`."
    )
    looks: Annotated[list[Count], Field(min_length=1, max_length=100)] = Field(
        description="Numbers of pairs after which a verdict is sought, ascending; the last is the most that are run. A "
        "pair is one initial condition that each policy meets once."
    )
    block: Annotated[int, Field(ge=1, le=1000)] = Field(
        description="Pairs in a block, whose trials are in random order; it divides every look. Larger blocks hide "
        "better which trials belong together."
    )
    conditions: Literal["drawn"] | Annotated[list[ConditionParams], Field(min_length=1, max_length=1000)] = Field(
        description="Initial conditions: a list, met in turn, or `drawn`: one per pair, that of the world's seed, from "
        "`gate.first_seed` on, or any where the task has no world."
    )
    rubric: Annotated[dict[Words, Fraction], Field(min_length=2, max_length=9)] = Field(
        description="Stages that a trial can reach, with their credit, from 0 to 1 and rising; the operator enters the "
        "furthest one, and the last one is a success."
    )
    tags: Annotated[list[Words], Field(max_length=20)] = Field(description="Reasons of a failure to choose from.")
    invalid: Annotated[list[Words], Field(min_length=1, max_length=20)] = Field(
        description="Reasons for which a trial may be declared invalid, before its outcome is entered; it is repeated "
        "at the end of its block."
    )
    most_invalid: Annotated[float, Field(gt=0, le=1)] = Field(
        description="Largest share of invalid trials that a verdict may rest on."
    )
    timeout_s: Seconds = Field(description="Seconds after which a trial is stopped.")


class PromotionParams(Section):
    """Requirements of a promotion in addition to the verdict."""

    approvals: Annotated[int, Field(ge=0, le=5)] = Field(
        description="Number of different people who must have approved a verdict (`vqbet approve`) before its "
        "candidate can become champion."
    )
    approval_hours: Annotated[float, Field(gt=0, le=8760)] = Field(description="Hours for which an approval holds.")
    four_eyes: bool = Field(
        description="Whether the approval of somebody who trained the candidate is refused: whoever started the stages "
        "tokenizer, prior or bundle that made it, by the registry's runs; where no run says who that was, "
        "nobody may approve."
    )
    clean: bool = Field(
        description="Whether nothing is judged or promoted from a working copy whose files differ from the last "
        "commit; `dvc.lock`, which every run writes, may differ. Where false, the evidence and `show` name the files "
        "that differ."
    )
    publish: Literal["none", "git", "s3"] = Field(
        description="Place where the ledger's last hash is published after each promotion, forced promotion and "
        "rollback: `git` (an annotated tag `vqbet/<task>/<seq>` in this clone, which a person pushes), `s3` (an object "
        "`heads/<task>/<seq>.json` in `VQBET_STORAGE`, with a retention where the bucket has object lock) or "
        "`none`. `vqbet audit` compares what was published with the ledger."
    )


class CanaryParams(Section):
    """Limits of the first episodes of a new champion, on one robot; a promotion seals them beforehand."""

    episodes: Annotated[int, Field(ge=0, le=1000)] = Field(
        description="Number of episodes of a new champion on one robot (`vqbet canary`), before `vqbet serve` gives it "
        "to the others; until then they keep the champion before it. 0: all robots get it at once. What is committed "
        "at the promotion counts."
    )
    max_hold_share: Fraction = Field(
        description="Largest share of an episode's control steps at which the guard refuses the action, on average "
        "over the canary's episodes; beyond it the champion before comes back."
    )
    max_stop_share: Fraction = Field(
        description="Largest share of the canary's episodes in which the guard stops the robot."
    )
    max_intervention_share: Fraction = Field(
        description="Largest share of the canary's episodes in which a person takes over."
    )
    latency_ms: Positive = Field(
        description="Milliseconds that 99 of 100 answers of an episode may take, as the robot sees them; the champion "
        "before comes back if more than half of the canary's episodes are slower."
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
    """All sections of one task: one per stage, named after the stage."""

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
