"""Policy kinds: the class of each `kind`, and loading a bundle from disk as a policy that acts.

`vqbet.bundle` imports no policy, so that training depends on none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vqbet.bundle import Bundle, read
from vqbet.contract import BundleError, Spec
from vqbet.policies import exported
from vqbet.policies.actor import TERMS, Actor, Planner, understood

Components = Mapping[str, Mapping[str, np.ndarray]]
Kinds = Mapping[str, Callable[[Mapping[str, Any], Components], Planner]]


def _vqbet(arguments: Mapping[str, Any], components: Components) -> Planner:
    from vqbet.policies.vqbet import VQBeT

    return VQBeT.from_components(arguments, components)


POLICIES: Kinds = {"vqbet": _vqbet}


def load(
    folder: Path, digest: str | None = None, *, kinds: Kinds = POLICIES, watched: bool = False
) -> tuple[Actor, Bundle]:
    """Read a bundle, or what `vqbet export` made of one, and build its policy, ready to act.

    An exported policy runs in onnxruntime, imports no torch, and its plans always come with signals; its bundle's only
    component is `guard`, if any. kinds: constructors by kind; the comparison passes its own table. watched: let plans
    come with signals, where the planner has any. The component `guard` is no part of the policy, and may be absent.
    Raises BundleError where a file is damaged, the bundle's kind is not in `kinds`, or this code cannot build it.
    """
    if exported.is_exported(folder):
        found = exported.read(folder, digest)
        return found.policy, found.bundle
    bundle = read(folder, digest)
    if bundle.kind not in kinds:
        known = ", ".join(sorted(kinds))
        raise BundleError(f"{folder}: kind {bundle.kind!r} is no policy that this code can play; it knows {known}")
    try:
        policy = build(bundle.kind, bundle.spec, bundle.arguments, bundle.components, kinds=kinds)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"{folder}: this code cannot build a {bundle.kind!r} policy from it ({type(error).__name__}: {error}); "
            f"it was made by code {bundle.provenance.get('code', 'unknown')!r}: use that version, or build it again"
        ) from error
    if watched and hasattr(policy.planner, "watched"):
        policy.planner.watched = True
    return policy, bundle


def build(
    kind: str, spec: Spec, arguments: Mapping[str, Any], components: Components, *, kinds: Kinds = POLICIES
) -> Actor:
    """Return the policy of this kind, ready to act. Raises BundleError where the parts do not fit together."""
    rest = {name: value for name, value in arguments.items() if name not in ("execute", *TERMS)}
    try:
        execute, terms = arguments["execute"], understood(arguments)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{kind} policy: arguments are not those of this version: {error}") from error
    return Actor(spec, kinds[kind](rest, components), execute=execute, **terms)
