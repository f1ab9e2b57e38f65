"""`import vqbet`: its names, its page, whose examples run here, and what it refuses."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vqbet
from tests.support.synthetic import synthetic
from vqbet import bundle, environment, registry
from vqbet.commands.fit import FittedPolicy, Options
from vqbet.contract import (
    BundleError,
    ConfigError,
    Demonstrations,
    RegistryError,
    StoreError,
    TrainingError,
    ValidationError,
    WorldError,
)
from vqbet.models.normalizer import Normalizer
from vqbet.models.prior import Prior, PriorShape
from vqbet.models.tokenizer import Tokenizer, TokenizerShape
from vqbet.policies.actor import Actor
from vqbet.policies.vqbet import VQBeT

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
TINY: dict[str, Any] = {"steps": 20, "width": 16, "depth": 1, "heads": 2, "hidden": 16, "latent": 8, "quiet": True}
DEMOS = synthetic(4)


@pytest.fixture(scope="module")
def policy() -> FittedPolicy:
    return vqbet.fit(DEMOS, chunk=3, **TINY)


@pytest.fixture(scope="module")
def folder(policy: FittedPolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library") / "policy"
    assert policy.save(folder) == policy.digest
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project around the working directory; the environment is put back afterwards."""
    (tmp_path / "params.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VQBET_PROJECT", "")
    for name, value in environment.embedded(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path


def champion(folder: Path, task: str) -> None:
    """Make the bundle in `folder` the champion of a task, by force."""
    packed = vqbet.load(folder)
    number = registry.register(task, folder, tags={"digest": packed.digest}, spec=packed.spec)
    registry.force(task, number, who="a test", why="a test")


class TestSurface:
    def test_the_page_names_what_there_is(self) -> None:
        table = PAGE[PAGE.index("## Names") : PAGE.index("## Demonstrations")]
        assert sorted(re.findall(r"`vqbet\.(\w+)`", table)) == vqbet.__all__ == sorted(vqbet.__all__)

    def test_every_name_is_there_once_asked_for(self) -> None:
        assert dir(vqbet) == vqbet.__all__
        for name in vqbet.__all__:
            assert getattr(vqbet, name).__name__ == name
        with pytest.raises(AttributeError, match="no attribute 'train'; there are Channel, Demonstrations"):
            vqbet.train  # noqa: B018

    def test_the_import_loads_nothing(self) -> None:
        code = "import sys; before = set(sys.modules); import vqbet; print(*sorted(set(sys.modules) - before))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=240)
        assert {name.partition(".")[0] for name in done.stdout.split()} <= {"vqbet"} | set(sys.stdlib_module_names)

    def test_types_are_seen_without_running_anything(self) -> None:
        """What a type checker reads is what __getattr__ does."""
        source = (ROOT / "vqbet" / "__init__.py").read_text(encoding="utf-8")
        declared = dict(re.findall(r'^    "(\w+)": "([\w.]+)",$', source, re.MULTILINE))
        checked = {
            name: module
            for module, names in re.findall(r"^    from ([\w.]+) import (.+)$", source, re.MULTILINE)
            for name in names.split(", ")
        }
        assert checked == declared
        assert sorted(checked) == vqbet.__all__


class TestPage:
    @pytest.mark.slow
    def test_the_examples_run(self, project: Path) -> None:
        """Block after block, in one namespace and an empty folder; the champion is the policy saved before."""
        space: dict[str, Any] = {}
        for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
            if "@champion" in block:
                champion(project / "policy", "blockpush")
            exec(compile(block, "docs/library.md", "exec"), space)
        assert space["command"].shape == (2,)
        assert space["robot"].digest == space["digest"]

    def test_the_readme_has_the_same_ten_lines(self) -> None:
        (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
        lines = [line.partition("#")[0].strip() for line in block.splitlines()]
        assert 5 <= len(lines) <= 10
        for call in ("vqbet.Demonstrations.of(observation, action, episode_ends, control_hz=10)", "vqbet.load("):
            assert any(call in line for line in lines)
            assert call in PAGE

    def test_the_defaults_are_those_of_the_page(self) -> None:
        rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (.+?) \| ", PAGE, re.MULTILINE)
        stated = {
            name: value.strip('`"')
            for names, values in rows
            for name, value in zip(re.findall(r"`(\w+)`", names), values.split(", "), strict=True)
        }
        made = vars(Options(chunk=5, steps=8000, seed=0))
        assert stated.keys() | {"tokenizer_steps"} == made.keys()
        for name, value in stated.items():
            assert str(made[name]) == value or float(value) == made[name], name

    def test_the_defaults_of_fit_are_those_of_the_page(self) -> None:
        assert vqbet.fit.__kwdefaults__ == {"chunk": 5, "steps": 8000, "seed": 0, "quiet": False}


class TestOf:
    def test_names_limits_times_and_columns(self) -> None:
        observation = np.array([[0.0, 5.0, -200.0], [10.0, 5.0, -200.0], [20.0, 5.0, -200.0]])
        demos = Demonstrations.of(observation, [[1], [2], [3]], [2, 3], control_hz=4)
        names = [(one.name, one.unit, one.low, one.high) for one in demos.spec.observation]
        assert names == [
            ("observation_0", "", -2.0, 22.0),
            ("observation_1", "", 4.0, 6.0),
            ("observation_2", "", -220.0, -180.0),
        ]
        assert demos.spec.action[0] == vqbet.Channel("action_0", "", pytest.approx(0.8), pytest.approx(3.2))
        assert demos.time_s.tolist() == [0.0, 0.25, 0.0]
        assert (demos.observation.dtype, demos.episode_ends.tolist()) == (np.float32, [2, 3])
        assert demos.columns["success"].all()

    def test_a_store_takes_them(self, tmp_path: Path) -> None:
        from vqbet.demos import store

        demos = Demonstrations.of(DEMOS.observation, DEMOS.action, DEMOS.episode_ends, control_hz=10)
        store.write(tmp_path / "own.zarr", demos)
        assert np.array_equal(store.read(tmp_path / "own.zarr").action, demos.action)

    def test_a_spec_is_kept(self) -> None:
        made = Demonstrations.of(DEMOS.observation, DEMOS.action, DEMOS.episode_ends, spec=DEMOS.spec)
        assert made.spec == DEMOS.spec

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"observation": [1.0, 2.0]}, r"observation: expected real numbers of shape \(steps, channels\), .*\(2,\)"),
            ({"action": np.zeros((158, 0))}, r"action: expected real numbers .*got shape \(158, 0\) of float64"),
            (
                {"action": np.zeros((5, 2))},
                r"as many steps of observation as of action, got \d+ of observation, 5 of a",
            ),
            ({"observation": np.full((3, 2), "a")}, "got shape .* of <U1"),
            ({"observation": "nan"}, r"observation: .* got nan at step 60, which is of episode 1, in channel 2; mend"),
            ({"observation": "huge"}, "got inf at step 60"),
            ({"episode_ends": [10, 10]}, r"got 10 for episode 1; from lengths: np.cumsum\(lengths\)"),
            ({"episode_ends": [0, 10]}, "got 0 for episode 0"),
            ({"episode_ends": [10]}, r"rising to \d+, the number of steps, got 10 for episode 0"),
            ({"episode_ends": np.zeros(9, bool)}, r"of bool; from flags .* np.flatnonzero\(flags\) \+ 1"),
            ({"episode_ends": []}, r"shape \(0,\)"),
            ({"control_hz": 0}, "control_hz: expected the control steps of one second, such as 10, got 0"),
            ({"control_hz": "10"}, "control_hz: .*got '10'"),
            ({"control_hz": float("nan")}, "control_hz: .*got nan"),
            ({"control_hz": None}, "either control_hz or a spec, which has one, got both or neither"),
            ({"spec": DEMOS.spec}, "got both or neither"),
        ],
    )
    def test_what_is_wrong_is_said(self, change: dict[str, Any], sentence: str) -> None:
        arrays = {"observation": DEMOS.observation.astype(float), "action": DEMOS.action}
        arguments: dict[str, Any] = {**arrays, "episode_ends": DEMOS.episode_ends, "control_hz": 10.0} | change
        if isinstance(planted := change.get("observation"), str):
            arguments["observation"] = arrays["observation"].copy()
            arguments["observation"][60, 2] = {"nan": np.nan, "huge": 1e300}[planted]
        with pytest.raises(ValidationError, match=sentence):
            Demonstrations.of(**arguments)

    def test_a_spec_of_other_channels_or_units_is_refused(self) -> None:
        wide = replace(DEMOS.spec, action=DEMOS.spec.action[:1])
        with pytest.raises(ValidationError, match="action: expected the 1 channels of the spec, got 2"):
            Demonstrations.of(DEMOS.observation, DEMOS.action, DEMOS.episode_ends, spec=wide)
        with pytest.raises(ValidationError, match=r"observation 'feature_0': expected -1.5 to 1.5 m, .*check units"):
            Demonstrations.of(DEMOS.observation * 57, DEMOS.action, DEMOS.episode_ends, spec=DEMOS.spec)


class TestFit:
    def test_it_acts_and_is_what_it_saves(self, policy: FittedPolicy, folder: Path) -> None:
        loaded = vqbet.load(folder)
        assert loaded.digest == policy.digest
        policy.start(7)
        loaded.start(7)
        for observation in DEMOS.observation[:8]:
            action = policy.act(observation)
            assert np.array_equal(action, loaded.act(observation))
            assert action.shape == (2,)
        assert policy.spec == DEMOS.spec
        assert policy.health["trained_steps"] == 4
        assert policy.history[-1]["step"] == 20

    def test_its_bundle_guards(self, folder: Path) -> None:
        """By limits of the demonstrations, for whoever serves it."""
        component = bundle.read(folder).components["guard"]
        assert (component["limit.start_low"] <= DEMOS.action[DEMOS.episode_starts]).all()
        assert component["signal.entropy"].shape == (4,)

    def test_act_needs_no_start(self, folder: Path) -> None:
        without, with_it = vqbet.load(folder), vqbet.load(folder)
        with_it.start(0)
        assert np.array_equal(without.act(DEMOS.observation[0]), with_it.act(DEMOS.observation[0]))

    def test_equal_arguments_give_an_equal_policy_and_leave_no_trace(self, policy: FittedPolicy) -> None:
        states = [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
        torch.use_deterministic_algorithms(False)
        assert vqbet.fit(DEMOS, chunk=3, **TINY).digest == policy.digest
        assert not torch.are_deterministic_algorithms_enabled()
        assert states == [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
        assert vqbet.fit(DEMOS, chunk=3, seed=1, **TINY).digest != policy.digest

    def test_progress_is_shown_unless_quiet(self, capsys: pytest.CaptureFixture[str], policy: FittedPolicy) -> None:
        vqbet.fit(DEMOS, chunk=3, **{**TINY, "quiet": False})
        shown = capsys.readouterr().out
        assert "tokenizer: 4/4" in shown
        assert "prior: 20/20" in shown
        vqbet.fit(DEMOS, chunk=3, **TINY)
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"chunks": 3}, "chunks: no option of fit; there are chunk, steps, seed, layers"),
            ({"chunk": 0}, "chunk: expected 1 or more, got 0"),
            ({"chunk": 2.5}, r"chunk: expected a number of type int, got 2\.5"),
            ({"steps": True}, "steps: expected a number of type int, got True"),
            ({"seed": -1}, "seed: expected 0 or more"),
            ({"lr": "fast"}, "lr: expected a number of type float, got 'fast'"),
            ({"lr": float("nan")}, "lr: expected a finite number"),
            ({"dropout": 1.0}, "dropout: expected a number below 1, got 1"),
            ({"width": 30, "heads": 4}, "width: expected a multiple of heads, which is 4, got 30"),
            ({"execute": "last"}, "execute: expected one of first, chunk, average, got 'last'"),
            ({"temperature": 0.0}, "temperature: expected 1e-06 or more"),
        ],
    )
    def test_an_option_without_meaning_is_refused(self, options: dict[str, Any], sentence: str) -> None:
        with pytest.raises(ConfigError, match=sentence):
            vqbet.fit(DEMOS, **{**TINY, **options})

    def test_too_little_data_is_a_sentence(self) -> None:
        few = Demonstrations.of(DEMOS.observation[:12], DEMOS.action[:12], [6, 12], control_hz=10)
        with pytest.raises(TrainingError, match=r"16 codes, but the episodes, the longest of 6 steps, hold 4 distinct"):
            vqbet.fit(few, chunk=5, **TINY)
        with pytest.raises(TrainingError, match="hold 0 distinct chunks of 7 actions; record more"):
            vqbet.fit(few, chunk=7, **TINY)
        with pytest.raises(StoreError, match="demonstrations: data/action: expected shape"):
            vqbet.fit(replace(few, action=few.action[:5]), **TINY)


class TestLoad:
    @pytest.mark.slow
    def test_a_champion(self, folder: Path, project: Path, policy: FittedPolicy) -> None:
        champion(folder, "own")
        for reference in ("own@champion", "own/1"):
            loaded = vqbet.load(reference)
            assert loaded.digest == policy.digest
            assert loaded.act(DEMOS.observation[0]).shape == (2,)
        with pytest.raises(RegistryError, match="no such version"):
            vqbet.load("own/2")
        with pytest.raises(BundleError, match=f"expected the bundle with digest {'0' * 64}, got"):
            vqbet.load("own@champion", digest="0" * 64)

    def test_a_policy_with_a_goal_waits_to_be_told(self, tmp_path: Path) -> None:
        tokenizer = Tokenizer(Normalizer(2), TokenizerShape(chunk=3, layers=1, codes=4, latent=4, hidden=8))
        tokenizer.trained_steps += 1
        shape = PriorShape(
            window=1, depth=1, heads=2, width=8, head_hidden=0, dropout=0.0, sequential=False, goal_steps=1
        )
        prior = Prior(tokenizer, Normalizer(4), shape, goal=Normalizer(1))
        actor = Actor(DEMOS.spec, VQBeT(prior), execute="first", goal=("feature_0",))
        bundle.write(
            tmp_path / "policy",
            kind="vqbet",
            spec=DEMOS.spec,
            arguments=actor.arguments(),
            components=actor.components(),
            provenance={},
        )
        loaded = vqbet.load(tmp_path / "policy")
        with pytest.raises(WorldError, match=r"call start\(seed, goal\) first"):
            loaded.act(DEMOS.observation[0])
        loaded.start(0, np.zeros(1, np.float32))
        assert loaded.act(DEMOS.observation[0]).shape == (2,)

    @pytest.mark.slow
    def test_a_reference_is_never_a_folder(self, folder: Path, project: Path, policy: FittedPolicy) -> None:
        policy.save(project / "own@champion")
        with pytest.raises(RegistryError):
            vqbet.load("own@champion")
        assert vqbet.load(Path("own@champion")).digest == policy.digest

    @pytest.mark.parametrize("wrong", ["nowhere", "some/where/1", "own@", "Own@champion", "a" * 5000])
    def test_anything_else_is_a_sentence(self, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(BundleError, match="or a registered policy such as blockpush@champion") as caught:
            vqbet.load(wrong)
        assert len(str(caught.value)) < 300

    @pytest.mark.parametrize("plant", ["a flipped bit", "another digest"])
    def test_what_was_changed_is_refused(
        self, plant: str, policy: FittedPolicy, tmp_path: Path, change: Callable[[Path], None]
    ) -> None:
        policy.save(tmp_path / "policy")
        if plant == "a flipped bit":
            change(tmp_path / "policy" / "prior.safetensors")
        with pytest.raises(BundleError, match=r"was changed, damaged or swapped|expected the bundle with digest"):
            vqbet.load(tmp_path / "policy", digest=None if plant == "a flipped bit" else "0" * 64)


@pytest.fixture
def change() -> Callable[[Path], None]:
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    return flip
