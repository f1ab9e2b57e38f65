"""Fixture that isolates torch's global state between tests of policies."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Seed torch before each test, and undo the deterministic mode of `seed_everything` after it."""
    torch.manual_seed(0)
    yield
    torch.use_deterministic_algorithms(False)
