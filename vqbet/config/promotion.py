"""Sections that decide a promotion: the simulated gate, trials on a robot, requirements of a promotion, the canary."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from vqbet.config.section import Count, Fraction, Name, Positive, Seconds, Section, Seed, Words

Metric = Literal["score", "success"]
Question = Literal["better", "not_worse"]
Stopping = Literal["fixed", "group_sequential", "anytime"]
Reference = Literal["mean", "nearest", "linear", "previous", "measured"]
Margin = Annotated[float, Field(ge=1e-6, lt=1)]
Alpha = Annotated[float, Field(ge=1e-6, lt=0.5)]
Power = Annotated[float, Field(gt=0.5, le=0.999999)]
Looks = Annotated[list[Count], Field(min_length=1, max_length=100)]


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

    metric: Metric = Field(description="Number that is compared: `score` or `success`.")
    question: Question = Field(
        description="What a candidate must be shown to be: `better` than the champion, or `not_worse` by the margin."
    )
    margin: Margin = Field(
        description="Largest loss that is accepted (`not_worse`), or least improvement worth having (`better`)."
    )
    alpha: Alpha = Field(
        description="Probability of promoting a policy that is just not good enough, over all attempts on it together; "
        "the first attempt has 3/4 of it."
    )
    power: Power = Field(description="Probability with which an improvement by the margin should be found.")
    floor: Fraction = Field(description="Lower end of the interval that a policy must reach in any case.")
    min_modes: Annotated[int, Field(ge=0, le=1000)] = Field(description="Fewest modes that a policy must visit.")
    baselines: Annotated[list[Literal["noop", "nearest"]], Field(max_length=2)] = Field(
        description="Policies it must be better than: `noop` (stays where it is), `nearest` (replays the nearest "
        "demonstration)."
    )
    stopping: Stopping = Field(
        description="Price of looking more than once: `fixed` (one look), `group_sequential` (a share of alpha for "
        "each look) or `anytime` (by betting; costs power, holds whatever the scores are like)."
    )
    looks: Looks = Field(
        description="Numbers of episodes of each policy after which a verdict is sought, ascending; the last is the "
        "most that are played."
    )
    first_seed: Seed = Field(
        description="Seed of the gate's first episode; seeds that another purpose has are refused."
    )
    offline_floor: Fraction = Field(
        description="Score on held-out episodes (`demos.held_out`) below which a policy of a task without a world is "
        "rejected: 1 minus its mean action error over the standard deviation of each channel, so that 0 is an error of "
        "a whole deviation and 1 none."
    )
    offline_baselines: Annotated[list[Reference], Field(max_length=5)] = Field(
        description="Predictions of held-out actions that a policy of a task without a world must not be worse than: "
        "`mean`, `nearest` (the actions at the most similar training step), `linear` (ridge regression), `previous` "
        "(the action before, again) or `measured` (the measured value of the channel, where actions are absolute and "
        "have its name). All are shown; the last three are hard to beat at slow joints, and are no policies."
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
        for name in ("evidence", "offline_baselines"):
            named = getattr(self, name)
            if len(set(named)) < len(named):
                raise ValueError(f"{name} names a kind twice: {', '.join(named)}")
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

    metric: Metric = Field(description="Number that is compared: `score` (credit) or `success`.")
    question: Question = Field(
        description="What a candidate must be shown to be on the robot: `better` than the champion, or `not_worse` by "
        "the margin."
    )
    margin: Margin = Field(
        description="Largest loss that is accepted (`not_worse`), or least improvement worth having (`better`)."
    )
    alpha: Alpha = Field(
        description="Probability of promoting a policy that is just not good enough, over all sessions about it "
        "together; the first session has 3/4 of it."
    )
    power: Power = Field(
        description="Probability with which the question should be decided in the candidate's favour where that is "
        "right; `vqbet trials plan` says how many pairs it takes."
    )
    floor: Fraction = Field(description="Lower end of the interval that a policy must reach in any case.")
    stopping: Stopping = Field(description="Price of looking more than once, as for `gate.stopping`.")
    looks: Looks = Field(
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
