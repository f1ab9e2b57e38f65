"""Configuration and fixtures of all tests: a silent, private environment, the published demonstrations, and S3."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.support import examples
from tests.support.once import once
from tests.support.s3_faults import Between
from vqbet import environment

ROOT = Path(__file__).resolve().parent.parent
os.environ.update(environment.SILENCE)
os.environ["OMP_NUM_THREADS"] = "1"  # tests run in parallel, where spinning threads would compete
os.environ["VQBET_WORKERS"] = "1"  # a test sets how many processes play; starting one takes seconds
for name in ("STORAGE", "LEDGER", "KEY", "TRUST", "PROJECT"):  # unset, unless a test sets them
    os.environ.pop(f"VQBET_{name}", None)
for name in ("SDL_VIDEODRIVER", "PYGAME_HIDE_SUPPORT_PROMPT", "MPLCONFIGDIR"):
    os.environ.setdefault(name, environment.embedded(ROOT)[name])
examples.profiles()
STARTING = {"moto", "demo", "judged_once"}  # fixtures that start a server or run stages


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that use a slow fixture, and put slow tests first, so that the parallel processes end together."""
    for item in items:
        if STARTING & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """Take back what a test, or code that prepares its environment, has set: the next test shares the process.

    A fixture of a whole module that prepares a project leaves its folder to all that follow: forgotten here.
    """
    os.environ.pop("VQBET_PROJECT", None)
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def real_demos() -> Callable[[str], Path]:
    """Return a function from a task to the folder of its published demonstrations, in $VQBET_DEMOS or ../shared/data.

    A missing folder fails the test where $VQBET_DEMOS is set, and skips it otherwise, since not everybody has the data.
    """

    def folder(task: str) -> Path:
        found = Path(os.environ.get("VQBET_DEMOS", ROOT.parent / "shared" / "data")) / task
        if not found.is_dir():
            without = pytest.fail if "VQBET_DEMOS" in os.environ else pytest.skip
            without(
                f"no real demonstrations at {found}: unpack the published replay buffer of {task} to <folder>/{task}/ "
                "and set VQBET_DEMOS=<folder>"
            )
        return found

    return folder


@pytest.fixture(scope="session")
def judged_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after its gate, to be copied: see tests/support/judging.py."""
    from tests.support.judging import judged

    def make(folder: Path) -> None:
        with judged(folder / "project"):
            pass

    return once(tmp_path_factory, "judged", make) / "project"


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """Yield the address of moto's S3 on loopback."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def s3(moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Between]:
    """Yield a server with a new bucket that can inject faults; boto3 connects only to this server."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "very-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("vqbet.storage.patience.PATIENCE_S", 1.0)  # faults of a few requests, not of a restart
    with Between(moto).serving() as between:
        urlopen(Request(f"{moto}/{between.bucket}", method="PUT")).close()
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.address)
        yield between
