"""Fixtures of the tests of infra/: programs that check its files, in an environment of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import infra
from tests.support.once import once


@pytest.fixture(scope="session")
def checkers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the programs that check Dockerfiles, compose, Kubernetes and Terraform files."""
    return once(tmp_path_factory, "checkers", infra.install) / "env" / "bin"
