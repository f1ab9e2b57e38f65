"""Stage: train the prior over the frozen tokenizer's codes. The prior's bundle names that tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqbet import bundle, tasks
from vqbet.contract import GOAL_PICTURES, ConfigError, Demonstrations, Frames, TrainingError
from vqbet.coordinates import views
from vqbet.demos import goals, held_out, store
from vqbet.demos.goals import GoalWindows
from vqbet.demos.windows import Corrections, Windows
from vqbet.environment import processes
from vqbet.models.encoders import Encoder
from vqbet.models.prior import Objective, Prior, PriorShape
from vqbet.models.spaces import Spaces
from vqbet.models.tokenizer import Tokenizer
from vqbet.stages import artifacts, code_version, eyes, fitting
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.training import checkpoint, loop
from vqbet.training.recipe import Recipe, seed_everything

if TYPE_CHECKING:
    from vqbet.config import PriorParams, TaskParams

HERE = Path()


def run(paths: Paths, params: TaskParams, watch: Watch) -> dict[str, float]:
    chosen = params.prior
    demos = held_out.learned(store.read(paths.store, fetch=paths.fetch), params.demos.learned()).train
    tokenizer = bundle.read(paths.tokenizer)
    bundle.expect(tokenizer, demos.spec)
    refuse_other_episodes(paths, params.demos.learned(), tokenizer.provenance)
    frozen = Tokenizer.from_components(tokenizer.arguments, tokenizer.components)
    goal = goal_channels(paths.task, chosen.goal_steps)
    seed_everything(chosen.seed)
    model, windows = build(
        chosen,
        frozen,
        demos,
        goal,
        wanted=params.demos.views,
        corrections=params.demos.corrections,
        root=paths.root,
        cached=partial(eyes.cached, paths, params.demos),
    )
    code = code_version.digest(__name__, paths.task)
    with watch.bar(f"prior {paths.task}") as advance:
        trained = loop.train(
            model,
            windows.gather,
            len(windows),
            recipe(chosen),
            folder=paths.scratch("checkpoints/prior"),
            fingerprint=f"{tokenizer.digest}:{demos.digest}:{code}:{params.demos.learned()}:{chosen.model_dump_json()}",
            track=watch.track,
            progress=advance,
        )
    if not processes.is_main():
        return {}
    watch.note(trained.ran.tags())
    artifacts.write_curves(paths.plot("prior"), trained.history)
    bundle.write(
        paths.prior,
        kind="prior",
        spec=demos.spec,
        arguments={**model.arguments(), **terms(paths.task, goal, params.demos.views)},
        components=model.eval().components(),
        provenance={
            "code": code,
            "data": demos.digest,
            "tokenizer": tokenizer.digest,
            "params": chosen.model_dump(mode="json") | {"precision": trained.ran.precision},
            **params.demos.learned(),
        },
    )
    checkpoint.clear(paths.scratch("checkpoints/prior"))
    metrics = {name: value for name, value in trained.history[-1].items() if name != "step"} | trained.checked
    artifacts.write_json(paths.metrics("prior"), metrics)
    return metrics


def refuse_other_episodes(paths: Paths, learned: Mapping[str, Any], tokenizer: Mapping[str, Any]) -> None:
    """Raise TrainingError where the provenance of the tokenizer names other held-out episodes than this section does.

    A tokenizer that has learned from an episode knows its actions, whatever the prior has seen.
    """
    for name, nothing in (("exclude", []), ("held_out", 0), ("held_out_sessions", 0)):
        mine, its = learned.get(name, nothing), tokenizer.get(name, nothing)
        if mine != its:
            raise TrainingError(
                f"{paths.task}.demos.{name}: is {mine}, and {paths.tokenizer} was trained with {its}; train it again: "
                f"dvc repro tokenizer@{paths.task}"
            )


def goal_channels(task: str, goal_steps: int) -> tuple[str, ...]:
    """Return the observation channels that form a goal in this task; empty where `goal_steps` is 0.

    Raises ConfigError where `goal_steps` is positive and the task has no goals.
    """
    if not goal_steps:
        return ()
    known = tasks.TASKS.get(task)
    if known is None or not known.goal:
        raise ConfigError(f"{task}.prior.goal_steps: {goal_steps}: the task has no goals; set it to 0")
    return known.goal


def build(
    chosen: PriorParams,
    tokenizer: Tokenizer,
    demos: Demonstrations,
    goal: tuple[str, ...],
    *,
    wanted: Collection[str],
    corrections: Corrections = "all",
    root: Path = HERE,
    cached: Callable[[Encoder, Demonstrations], Mapping[str, Frames]] | None = None,
) -> tuple[Prior, Windows | GoalWindows]:
    """Return an untrained prior over a trained tokenizer, and the windows to train it on.

    root: the project, at which a relative path of weights begins. cached: returns, by camera, the features that a
    frozen encoder has made of these demonstrations; None: windows hold pictures, which are encoded in every step.

    Raises as `views.seen`, `eyes.encoder` and `cached`, and ConfigError where there are cameras without an encoder, or
    an encoder without cameras.
    """
    for line in fitting.blind(chosen.encoder, demos.spec):
        raise ConfigError(f"{demos.spec.task}.prior.{line}")
    demos = views.seen(demos, wanted, tasks.of(demos.spec))
    try:
        spaces = Spaces.fit(demos, goal, unseen=chosen.unseen)
    except TrainingError as error:
        raise TrainingError(f"{demos.spec.task}.prior: {error}") from error
    try:
        encoder = None if chosen.encoder is None else eyes.encoder(chosen.encoder, demos.spec.cameras, root)
    except ConfigError as error:
        raise ConfigError(f"{demos.spec.task}.prior.{error}") from error
    if encoder is not None and encoder.shape.frozen and cached is not None:
        demos = replace(demos, cameras=cached(encoder, demos))
    model = Prior(
        tokenizer,
        spaces.observation,
        chosen.into(PriorShape),
        chosen.into(Objective),
        goal=spaces.goal,
        encoder=encoder,
        pictured=GOAL_PICTURES in goal,
    )
    chunk, steps = tokenizer.shape.chunk, chosen.goal_steps
    return model, goals.windows(
        demos,
        window=chosen.window,
        chunk=chunk,
        goal=goal,
        goal_steps=steps,
        ends_only="goal_frame" in wanted,
        corrections=corrections,
    )


def terms(task: str, goal: tuple[str, ...], wanted: Collection[str]) -> dict[str, Any]:
    """Return the coordinates of a policy that was trained on these views, in the form of `Actor.terms`.

    The goal's frame has a reference only for a policy that takes goals.
    """
    reference = tasks.TASKS[task].goal_frame if goal and "goal_frame" in wanted else ()
    counted = tasks.TASKS[task].action_reference if "absolute" in wanted else ()
    return {"goal": list(goal), "reference": list(reference), "absolute": [list(each) for each in counted]}


def recipe(chosen: PriorParams) -> Recipe:
    return chosen.into(Recipe)
