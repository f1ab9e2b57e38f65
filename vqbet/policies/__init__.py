"""What a bundle's policy kind means, and how one is built from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vqbet.contract import BundleError, Spec
from vqbet.policies.actor import TERMS, Actor, Planner, understood

Components = Mapping[str, Mapping[str, np.ndarray]]


def _vqbet(arguments: Mapping[str, Any], components: Components) -> Planner:
    from vqbet.policies.vqbet import VQBeT

    return VQBeT.from_components(arguments, components)


def _bc(arguments: Mapping[str, Any], components: Components) -> Planner:
    from vqbet.comparison.policies.bc import BehaviorCloning

    return BehaviorCloning.from_components(arguments, components)


def _bet(arguments: Mapping[str, Any], components: Components) -> Planner:
    from vqbet.comparison.policies.bet import BeT

    return BeT.from_components(arguments, components)


def _beso(arguments: Mapping[str, Any], components: Components) -> Planner:
    from vqbet.comparison.policies.beso import Beso

    return Beso.from_components(arguments, components)


def _diffusion(arguments: Mapping[str, Any], components: Components) -> Planner:
    from vqbet.comparison.policies.diffusion import DiffusionPolicy

    return DiffusionPolicy.from_components(arguments, components)


POLICIES: Mapping[str, Callable[[Mapping[str, Any], Components], Planner]] = {
    "vqbet": _vqbet,
    "bc": _bc,
    "bet": _bet,
    "beso": _beso,
    "diffusion_cnn": _diffusion,
    "diffusion_transformer": _diffusion,
}


def build(kind: str, spec: Spec, arguments: Mapping[str, Any], components: Components) -> Actor:
    """The policy of this kind, ready to act. Raises BundleError where arguments, components and spec do not fit."""
    rest = {name: value for name, value in arguments.items() if name not in ("execute", *TERMS)}
    try:
        execute, terms = arguments["execute"], understood(arguments)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{kind} policy: arguments are not those of this version: {error}") from error
    return Actor(spec, POLICIES[kind](rest, components), execute=execute, **terms)
