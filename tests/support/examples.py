"""How many examples Hypothesis tries: few while somebody waits (`make check`), many before a change is handed over."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

FEW, MANY = 10, 60


def profiles() -> None:
    """Make the profiles known: `dev`, which holds unless --hypothesis-profile says otherwise, and `ci`.

    None has a deadline, since a busy machine is no fault. A fixture of one test may serve all its examples: what they
    share is a folder.
    """
    shared = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    for name, count in {"dev": FEW, "ci": MANY}.items():
        settings.register_profile(name, max_examples=count, deadline=None, suppress_health_check=shared)
    settings.load_profile("dev")


def up_to(count: int) -> settings:
    """As many examples as the profile has, and no more than `count`: for a test whose single example is long."""
    return settings(max_examples=min(count, settings().max_examples))


def more(count: int) -> settings:
    """`count` examples where the profile has many: for a test that needs them to come upon what it looks for."""
    return settings(max_examples=count if settings().max_examples >= MANY else settings().max_examples)
