"""`vqbet new --world`: an environment's spaces become the section's world, or a sentence with the readings."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from tests.support.made_source import MadeSource, made
from vqbet import config
from vqbet.commands import located
from vqbet.commands.new import run, simulator
from vqbet.commands.new.findings import Asked
from vqbet.contract import ConfigError, WorldError
from vqbet.stages.progress import Watch

PARAMS = Path(__file__).resolve().parents[3] / "params.yaml"
POINT = "tests.support.gym_worlds:Stranger/Point-v0"
FRONT = "camera/Front View"
New = Callable[..., config.TaskParams]


@pytest.fixture
def new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> New:
    """Run `vqbet new arm --world ...` over a source in memory, and return the parameters of the task."""
    shutil.copy(PARAMS, tmp_path / "params.yaml")

    def ran(source: MadeSource, **asked: Any) -> config.TaskParams:
        @contextmanager
        def opened(*_: object) -> Iterator[MadeSource]:
            yield source

        monkeypatch.setattr(located, "opened", opened)
        run.run(tmp_path, "arm", Asked(path="/data/arm", **asked), Watch())
        return config.task(tmp_path / "params.yaml", "arm")

    return ran


class TwoPlaces(gymnasium.Env[Any, Any]):
    """Two places of two numbers, of which none has the name of a field."""

    observation_space = spaces.Dict({"left": spaces.Box(-1, 1, (2,)), "right": spaces.Box(-1, 1, (2,))})
    action_space = spaces.Box(-1, 1, (2,))

    def __init__(self, render_mode: str = "rgb_array") -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self._seen(), 0.0, False, False, {"is_success": np.bool_(False), "left": {"success": 0.0}}

    def _seen(self) -> dict[str, np.ndarray]:
        return {"left": self.place, "right": self.place}


gymnasium.register("Stranger/TwoPlaces-v0", entry_point=TwoPlaces, max_episode_steps=70)


def test_the_world_is_looked_at_tried_and_written(new: New) -> None:
    source = made(pictures=True)
    source.fields[FRONT] = replace(source.fields[FRONT], shape=(12, 12, 3))
    params = new(source, world=POINT, success="info.near")
    found = params.evaluate.world
    assert found is not None
    assert (found.gymnasium, found.success, found.score) == (POINT, "info.near", "success")
    assert (found.observation, found.cameras) == ({"state": "agent.place"}, {"front_view": "pixels"})
    assert found.max_steps == 90, "twice the longest demonstration: this environment has no limit"
    assert params.gate.evidence == ["simulated"]
    assert params.gate.baselines == ["noop"]


def test_an_info_that_nobody_calls_success_is_not_guessed(new: New) -> None:
    sentence = (
        r"Point-v0: which info says that an episode has succeeded.* there are: info.closeness, info.near; say --s"
    )
    with pytest.raises(ConfigError, match=sentence):
        new(made(), world=POINT)
    asked: list[Sequence[str]] = []

    def ask(question: str, answers: Sequence[str]) -> str:
        asked.append(answers)
        return "info.near"

    found = new(made(), world=POINT, ask=ask).evaluate.world
    assert found is not None
    assert found.success == "info.near"
    assert asked == [["info.closeness", "info.near", "terminated"]]


def test_two_places_that_fit_are_refused_with_both(new: New) -> None:
    with pytest.raises(ConfigError, match=r"where is state \(2 numbers\)\? 2 readings: 'left', 'right'"):
        new(made(), world="Stranger/TwoPlaces-v0", success="terminated")
    found = new(made(), world="Stranger/TwoPlaces-v0", ask=lambda question, answers: answers[0]).evaluate.world
    assert found is not None
    assert (found.observation, found.success, found.max_steps) == ({"state": "left"}, "info.is_success", 70)


def test_its_arguments_are_used_and_written(new: New) -> None:
    with pytest.raises(WorldError, match="is not determined by its seed"):
        new(made(), world=POINT, success="info.near", world_kwargs={"fault": "unseeded", "seed": 4})
    kwargs = {"fault": "unseeded", "seed": "{seed}"}
    found = new(made(), world=POINT, success="info.near", world_kwargs=kwargs).evaluate.world
    assert found is not None
    assert found.kwargs == kwargs


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("{seed: 1}", "--world-kwargs: is not strict JSON"), ("[1]", r"--world-kwargs: expected an object, .* got \[1\]")],
)
def test_arguments_that_are_none(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        simulator.arguments(text)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"world_kwargs": {"size": 3}}, "--world-kwargs: are arguments of an environment, but none is named"),
        ({"world": POINT, "world_kwargs": {"size": 3}}, "cannot be made and stepped: TypeError: .*arguments right"),
    ],
)
def test_arguments_of_no_environment_or_of_another(
    new: New, tmp_path: Path, asked: dict[str, Any], sentence: str
) -> None:
    with pytest.raises((WorldError, ConfigError), match=sentence):
        new(made(), success="info.near", **asked)
    assert (tmp_path / "params.yaml").read_text() == PARAMS.read_text()


@pytest.mark.parametrize(
    ("world", "sentence"),
    [
        ("Stranger/Nothing-v0", "Stranger/Nothing-v0: cannot be made and stepped: .*; is the package installed"),
        ("no_such_module:Any-v0", "No module named 'no_such_module'"),
        ("CartPole-v1", "CartPole-v1: expected a box of numbers as actions, got Discrete"),
        ("MountainCarContinuous-v0", "takes 1 numbers as actions, the demonstrations have 2"),
    ],
)
def test_a_world_that_does_not_fit_is_refused_and_nothing_written(
    new: New, tmp_path: Path, world: str, sentence: str
) -> None:
    with pytest.raises((WorldError, ConfigError), match=sentence):
        new(made(), world=world, success="terminated")
    assert (tmp_path / "params.yaml").read_text() == PARAMS.read_text()
