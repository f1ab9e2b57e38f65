"""What every test of a policy begins with and leaves behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Random numbers that no other test has a part in; and `seed_everything` lasts no longer than the test."""
    torch.manual_seed(0)
    yield
    torch.use_deterministic_algorithms(False)
