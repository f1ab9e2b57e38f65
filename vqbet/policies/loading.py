"""A bundle on disk becomes a policy that acts. Here, and not in `bundle`, so that training depends on no policy."""

from __future__ import annotations

from pathlib import Path

from vqbet.bundle import Bundle, read
from vqbet.contract import BundleError
from vqbet.policies import POLICIES, build
from vqbet.policies.actor import Actor


def load(folder: Path, digest: str | None = None) -> tuple[Actor, Bundle]:
    """Read a bundle and build its policy, ready to act. Raises BundleError also where this code cannot build it."""
    bundle = read(folder, digest)
    if bundle.kind not in POLICIES:
        known = ", ".join(sorted(POLICIES))
        raise BundleError(f"{folder}: kind {bundle.kind!r} is no policy that this code can play; it knows {known}")
    try:
        policy = build(bundle.kind, bundle.spec, bundle.arguments, bundle.components)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"{folder}: this code cannot build a {bundle.kind!r} policy from it ({type(error).__name__}: {error}); "
            f"it was made by code {bundle.provenance.get('code', 'unknown')!r}: use that version, or build it again"
        ) from error
    return policy, bundle
