"""Stage: pack tokenizer, prior and the rule of execution into one executable policy with one digest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vqbet import bundle, policies, tasks
from vqbet.contract import BundleError, Demonstrations, Spec
from vqbet.coordinates import views
from vqbet.demos import goals, held_out, store
from vqbet.models.prior import Prior
from vqbet.models.tokenizer import Tokenizer
from vqbet.policies import envelope
from vqbet.policies.actor import TERMS, Actor, understood
from vqbet.policies.vqbet import VQBeT
from vqbet.stages import artifacts, code_version
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

if TYPE_CHECKING:
    from vqbet.config import BundleParams, TaskParams

LEARNED = ("views", "corrections", "held_out", "held_out_sessions")  # of section `demos`, in the prior's provenance


def run(paths: Paths, params: TaskParams, watch: Watch) -> dict[str, float]:
    tokenizer, prior = bundle.read(paths.tokenizer), bundle.read(paths.prior)
    trained_on = prior.provenance["tokenizer"]
    if trained_on != tokenizer.digest:
        raise BundleError(
            f"{paths.prior}: component 'prior' was trained on tokenizer {trained_on}, but {paths.tokenizer} is "
            f"{tokenizer.digest}; train the prior again: dvc repro prior@{paths.task}"
        )
    parts = Tokenizer.from_components(tokenizer.arguments, tokenizer.components)
    shape = {name: value for name, value in prior.arguments.items() if name not in TERMS}
    model = Prior.from_components(shape, prior.components, tokenizer=parts)
    chosen = params.bundle
    policy = acting(model, chosen, prior.spec, prior.arguments)
    demos = store.read(paths.store, fetch=paths.fetch)
    if demos.digest != prior.provenance["data"] or sorted(params.demos.views) != sorted(prior.provenance["views"]):
        raise BundleError(
            f"{paths.prior}: component 'prior' was trained on other demonstrations or views than those of "
            f"{paths.store} and {paths.task}.demos.views; train the prior again: dvc repro prior@{paths.task}"
        )
    guard = guarded(policy, held_out.learned(demos, prior.provenance).train, params.demos.views)
    digest = bundle.write(
        paths.policy,
        kind="vqbet",
        spec=prior.spec,
        arguments=policy.arguments(),
        components={**policy.components(), "guard": guard},
        provenance={
            "code": code_version.digest(__name__, paths.task),
            "data": prior.provenance["data"],
            "tokenizer": tokenizer.digest,
            "prior": prior.digest,
            "params": {
                "demos": {name: prior.provenance[name] for name in LEARNED if name in prior.provenance},
                "tokenizer": tokenizer.provenance["params"],
                "prior": prior.provenance["params"],
                "bundle": chosen.model_dump(mode="json"),
            },
        },
    )
    policies.load(paths.policy, digest)
    metrics = {"parameters": float(sum(value.size for part in policy.components().values() for value in part.values()))}
    artifacts.write_json(paths.metrics("bundle"), metrics)
    return metrics


def acting(prior: Prior, chosen: BundleParams, spec: Spec, terms: Mapping[str, Any]) -> Actor:
    """Return the policy of a trained prior. terms: a mapping that contains `Actor.terms`; other keys are ignored."""
    planner = VQBeT(prior, temperature=chosen.temperature, argmax=chosen.argmax)
    return Actor(spec, planner, execute=chosen.execute, **understood(terms))


def guarded(policy: Actor, demos: Demonstrations, wanted: Collection[str]) -> dict[str, np.ndarray]:
    """Return the component `guard` of a policy that was trained on these views of the demonstrations.

    Limits are of actions as the robot receives them: the view of positions shows no such actions.
    """
    facts = tasks.of(demos.spec)
    seen = views.seen(demos, wanted, facts)
    alike = set(wanted) - ({"absolute", "goal_frame"} if "absolute" in wanted else set())
    windows = goals.windows(
        seen,
        window=policy.planner.window,
        chunk=policy.planner.chunk,
        goal=policy.goal,
        goal_steps=policy.planner.goal_steps,
        ends_only="goal_frame" in wanted,
    )
    return envelope.component(policy, [demos, views.seen(demos, alike, facts)], seen, windows)
