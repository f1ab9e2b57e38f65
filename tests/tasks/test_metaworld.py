"""A task of MetaWorld as a world, beside its own MuJoCo: from the command line to records, without a line about it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support import foreign
from vqbet import environment

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ["metaworld==3.1.1", "mujoco==3.3.0"]  # this MetaWorld runs with no other MuJoCo, and the project with none
INSTALLING_S, RUNNING_S = 240.0, 240.0
ID, SEEDS = "metaworld:Meta-World/MT1", [70, 71, 72]
KWARGS = {"env_name": "reach-v3", "seed": "{seed}", "num_goals": 1}
OTHERS = [{"env_name": "reach-v3"}, {"env_name": "reach-v3", "seed": 42}]
# MetaWorld's own policy, disturbed as data is for learning: without it the gripper would rest
RECORD = """
import sys
import gymnasium, metaworld, numpy as np
from metaworld.policies import SawyerReachV3Policy

for seed in range(8):
    env = gymnasium.make("Meta-World/MT1", env_name="reach-v3", seed=seed, num_goals=1)
    (seen, _), policy, random = env.reset(seed=seed), SawyerReachV3Policy(), np.random.default_rng(seed)
    noise, states, actions = np.zeros(4), [], []
    for step in range(60):
        noise = 0.8 * noise + random.normal(0, 0.15, 4)
        noise[3] = random.uniform(-0.9, 0.9) if step % 12 == 0 else grip
        grip = noise[3]
        states.append(seen)
        actions.append(np.clip(policy.get_action(seen) + noise, -1, 1).astype(np.float32))
        seen, *_ = env.step(actions[-1])
    np.savez(f"{sys.argv[1]}/{seed}.npz", state=np.float32(states), action=np.stack(actions))
"""
PLAY = """
import json, sys
from pathlib import Path
import gymnasium, metaworld, mujoco, numpy as np
from metaworld.policies import SawyerReachV3Policy
from ruamel.yaml import YAML
from vqbet import config
from vqbet.commands import check, ingest
from vqbet.demos import store
from vqbet.evaluation.rollout import Label, play
from vqbet.stages import worlds
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

root, kwargs, others, seeds = Path(sys.argv[1]), *map(json.loads, sys.argv[2:])

class Scripted:
    goal = ()
    def __init__(self, spec):
        self.spec = spec
    def reset(self, seeds, goals=None):
        pass
    def act(self, observation, rows, cameras=None):
        own = SawyerReachV3Policy()
        return np.stack([own.get_action(one) for one in observation.astype(np.float64)]).astype(np.float32)

def checked(kwargs):
    yaml, path = YAML(), root / "params.yaml"
    content = yaml.load(path.read_text())
    content["reach"]["evaluate"]["videos"] = 0
    content["reach"]["evaluate"]["world"].update(kwargs=kwargs, max_steps=80)
    with path.open("w") as file:
        yaml.dump(content, file)
    return check.run(root, "reach")

def played(policy, numbers):
    found = play(world, policy, numbers, Label(name, "policy", "0" * 64, "0" * 64, "machine"))
    return [one.to_json() for one in found.records], [path.tolist() for path in found.paths]

def alone(seed):
    env = gymnasium.make("Meta-World/MT1", **{**kwargs, "seed": seed})
    seen, _ = env.reset(seed=seed)
    path = [np.float32(seen).tolist()]
    for _ in range(80):
        seen, _, _, _, info = env.step(np.zeros(4, np.float32))
        path.append(np.float32(seen).tolist())
    return path

ingest.collect(root, "reach", config.task(root / "params.yaml", "reach"), "", Watch())
answer = {"mujoco": mujoco.__version__, "refused": [checked(other) for other in others], "wrong": checked(kwargs)}
demos = store.read(Paths(root, "reach").store)
name = worlds.name("reach", asked=False, params=config.task(root / "params.yaml", "reach"))
world = worlds.make(name, demos)
idle = worlds.baseline("noop", demos)
answer["first"], answer["paths"] = played(idle, seeds)
answer["again"], _ = played(idle, seeds)
answer["apart"], _ = played(idle, seeds[:0:-1])
answer["scripted"], _ = played(Scripted(demos.spec), seeds)
answer["alone"] = [alone(seed) for seed in seeds]
print(json.dumps(answer))
"""


def run(folder: Path, *words: str) -> str:
    python = foreign.kept("metaworld", ["--no-deps", *PACKAGES], timeout_s=INSTALLING_S, layered=True)
    done = subprocess.run(
        [str(python), *words],
        cwd=folder,
        env={**os.environ, **environment.embedded(folder), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=RUNNING_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the task `reach`, declared by `vqbet new` from demonstrations and the world's id."""
    root = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "params.yaml", root)
    (root / "raw").mkdir()
    run(root, "-c", RECORD, "raw")
    asked = ["--from", "raw", "--hz", "80", "--actions", "relative", "--world", ID]
    run(root, "-m", "vqbet", "new", "reach", *asked, "--world-kwargs", json.dumps(KWARGS))
    return root


@pytest.fixture(scope="module")
def answer(section: Path) -> dict[str, Any]:
    """What check and rollouts say of it."""
    asked = [json.dumps(one) for one in (KWARGS, OTHERS, SEEDS)]
    found: dict[str, Any] = json.loads(run(section, "-c", PLAY, str(section), *asked).splitlines()[-1])
    return found


def test_it_is_declared_from_the_command_line(section: Path) -> None:
    text = (section / "params.yaml").read_text()
    assert f'      gymnasium: "{ID}"\n      kwargs: {json.dumps(KWARGS)}\n' in text
    assert '      observation: {"state": ""}\n      success: "info.success"\n      max_steps: 500\n' in text


def test_it_passes_its_check(answer: dict[str, Any]) -> None:
    assert answer["mujoco"] == "3.3.0"
    assert answer["wrong"] == []


def test_a_reset_that_does_not_obey_its_seed_is_refused(answer: dict[str, Any]) -> None:
    """MetaWorld's goals come from the seed it is made with, or from none, and go on with each reset."""
    for sentences in answer["refused"]:
        (sentence,) = sentences
        assert sentence.startswith(f"{ID}: is not determined by its seed: two episodes of seed ")
        assert "differ after its reset (played again)" in sentence
        assert 'declare kwargs: {<argument>: "{seed}"}' in sentence


def test_an_episode_is_the_environments_own(answer: dict[str, Any]) -> None:
    assert answer["paths"] == answer["alone"]
    starts = [path[0] for path in answer["paths"]]
    assert len({tuple(start[-3:]) for start in starts}) == len(SEEDS), "each seed has a goal of its own"


def test_records_are_equal_when_played_again_and_apart(answer: dict[str, Any]) -> None:
    first = answer["first"]
    assert [(one["seed"], one["steps"], one["success"]) for one in first] == [(seed, 80, False) for seed in SEEDS]
    assert answer["again"] == first
    assert answer["apart"] == first[:0:-1]


def test_its_own_policy_succeeds(answer: dict[str, Any]) -> None:
    assert [(one["seed"], one["success"], one["score"]) for one in answer["scripted"]] == [
        (seed, True, 1.0) for seed in SEEDS
    ]
    assert all(one["metrics"]["return"] > 0 for one in answer["scripted"])
