"""`vqbet simrobot` against a served policy: a table, recordings, and sentences for what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.support.fake_server import Fake
from tests.support.serving import running, served
from vqbet.__main__ import app
from vqbet.commands import simrobot
from vqbet.commands.simrobot import Practice
from vqbet.contract import ServingError, WorldError
from vqbet.policies.actor import Actor, Planned
from vqbet.serving.handshake import Handshake
from vqbet.stages.progress import Watch
from vqbet.tasks import TASKS

SPEC = TASKS["blockpush"].spec


class Resting:
    """A planner that does not move; its window and chunk are those of a small policy."""

    window, chunk, goal_steps, draws, tags = 2, 3, 0, 0, 0
    channels = (len(SPEC.observation), len(SPEC.action), 0)

    def plan(self, observation: np.ndarray, goal: Any, uniform: np.ndarray) -> Planned:
        rows = len(observation)
        chunk = np.zeros((rows, self.chunk, len(SPEC.action)), np.float32)
        return Planned(chunk, np.zeros((rows, 0), np.int64), np.zeros((rows, 0)))

    def arguments(self) -> dict[str, Any]:
        return {}

    def components(self) -> dict[str, dict[str, np.ndarray]]:
        return {}


@pytest.fixture(scope="module")
def url() -> Any:
    with running(served(Actor(SPEC, Resting(), execute="chunk"))) as server:
        yield server.url


def test_episodes_and_a_table(url: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    class Bar:
        def __enter__(self) -> Any:
            return lambda done, total, numbers: seen.append((done, total))

        def __exit__(self, *_: object) -> None:
            return

    asked = Practice(server=url, episodes=2, seed=5, record=tmp_path / "recordings")
    rows = simrobot.run(tmp_path, "blockpush", asked, Watch(bar=lambda _: Bar()))
    assert seen == [(1, 2), (2, 2)]
    assert rows["policy"].startswith("fake@champion, digest aaaaaaaaaaaa")
    assert (rows["success"], rows["holds"].split(" of ")[0], rows["stops"]) == ("0 of 2", "0", "0 of 2 episodes")
    assert rows["reasons"] == "none"
    assert len([path for path in (tmp_path / "recordings").iterdir() if path.is_dir()]) == 2


def test_the_robots_own_limits_are_used(url: str, tmp_path: Path) -> None:
    low = SPEC.observation[0].low
    (tmp_path / "own.json").write_text('{"patience": 1, "observation": {"%s": {"high": %s}}}' % (  # noqa: UP031
        SPEC.observation[0].name, low,
    ))  # fmt: skip
    rows = simrobot.run(tmp_path, "blockpush", Practice(server=url, episodes=1, limits=tmp_path / "own.json"), Watch())
    assert (rows["stops"], rows["reasons"]) == ("1 of 1 episodes", "observation_limit 1")
    assert "last stop" in rows


@pytest.mark.parametrize(
    ("task", "change", "sentence"),
    [
        ("kitchen", {}, "was not made for this robot"),
        ("blockpush", {"digest": "b" * 64}, "HTTP 404: digest bbbb"),
        ("blockpush", {"faults": ["storm=1"]}, "fault 'storm=1'"),
        ("blockpush", {"server": "http://a"}, "expected a server such as ws://"),
        ("nothing", {}, "no world 'nothing'"),
    ],
)
def test_what_does_not_fit_is_a_sentence(
    url: str, tmp_path: Path, task: str, change: dict[str, Any], sentence: str
) -> None:
    asked = Practice(**({"server": url, "episodes": 1} | change))
    with pytest.raises((ServingError, WorldError), match=sentence):
        simrobot.run(tmp_path, task, asked, Watch())


def test_a_server_that_fails_is_a_sentence_with_the_episode(tmp_path: Path) -> None:
    said = Handshake(digest="ab" * 32, reference="", spec=SPEC, window=2, chunk=3, execute="chunk")
    fake = Fake(handshake=said)

    class Ending:
        def __enter__(self) -> Any:
            return lambda done, total, numbers: setattr(fake, "answers", lambda *_: "out of order")

        def __exit__(self, *_: object) -> None:
            return

    with fake.serving() as address, pytest.raises(ServingError, match=r"episode 1 of 3, seed 1: start: .*out of order"):
        simrobot.run(tmp_path, "blockpush", Practice(server=address, episodes=3), Watch(bar=lambda _: Ending()))


def test_from_the_command_line(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").touch()
    monkeypatch.chdir(tmp_path)
    words = [
        "simrobot",
        "blockpush",
        "--server",
        url,
        "--episodes",
        "1",
        "--fault",
        "noise=0.001",
        "--execute",
        "first",
    ]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "success" in done.output
    assert "0 of 1" in done.output
