"""Baselines (cloning, BeT, BESO, Diffusion Policy) and the table of all policy kinds in the comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vqbet.policies import POLICIES, Components, Kinds
from vqbet.policies.actor import Planner


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


KINDS: Kinds = {
    **POLICIES,
    "bc": _bc,
    "bet": _bet,
    "beso": _beso,
    "diffusion_cnn": _diffusion,
    "diffusion_transformer": _diffusion,
}
