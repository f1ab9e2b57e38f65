"""Push-T told by a picture what to reach: windows, training, the bundle, and rollouts in a world that asks for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support import seeing_pusht
from tests.support.shrunk import shrunk
from vqbet import policies
from vqbet.contract import GOAL_PICTURES, BundleError, Demonstrations, ServingError, WorldError
from vqbet.demos import goals, store
from vqbet.evaluation import rollout
from vqbet.evaluation.rollout import Label
from vqbet.policies.actor import Actor
from vqbet.serving.session import Session
from vqbet.stages import artifacts, bundle, evaluate, prior, tokenizer, worlds
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.tasks import TASKS

TASK = "pusht_image"
PARAMS = shrunk(
    TASK,
    prior={"goal_steps": 2, "steps": 40, "batch": 16, "lr": 3e-3, "goal_as": "tokens"},
    evaluate={"episodes": 2, "videos": 0},
)


@pytest.fixture(scope="module")
def demos() -> Demonstrations:
    return seeing_pusht.demonstrations()


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, demos: Demonstrations) -> Paths:
    """A policy that was trained on goals of pictures, packed and evaluated."""
    found = Paths(tmp_path_factory.mktemp("goals"), TASK)
    store.write(found.store, demos)
    for stage in (tokenizer, prior, bundle, evaluate):
        stage.run(found, PARAMS, Watch())
    return found


def test_windows_hold_the_pictures_of_their_goals_frames(demos: Demonstrations) -> None:
    made = goals.windows(demos, window=1, chunk=3, goal=(GOAL_PICTURES,), goal_steps=2)
    batch = made.gather(np.array([16 * 4 + 15, 16 * 19 + 15]))
    shown = np.asarray(demos.cameras["image"])
    assert batch["goal"].shape == (2, 2, 0)
    assert np.array_equal(batch["goal/camera/image"], shown[[[18, 19], [18, 19]]]), "the end of the first episode"
    assert np.array_equal(batch["camera/image"][:, 0], shown[[4, 19]])
    both = goals.windows(demos, window=1, chunk=3, goal=("agent_x", GOAL_PICTURES), goal_steps=1).gather(np.array([15]))
    assert (both["goal"].shape, both["goal/camera/image"].shape) == ((1, 1, 1), (1, 1, 96, 96, 3))
    blind = replace(demos, cameras={}, spec=replace(demos.spec, cameras=()))
    with pytest.raises(ValueError, match="expected 1 goal step or more and channels among"):
        goals.windows(blind, window=1, chunk=3, goal=(GOAL_PICTURES,), goal_steps=1)


def test_the_loss_falls_and_its_gradients_reach_the_encoder_through_the_goal(
    paths: Paths, demos: Demonstrations
) -> None:
    rows = (paths.artifacts / "plots" / "prior.csv").read_text(encoding="utf-8").splitlines()
    losses = [float(row.split(",")[rows[0].split(",").index("loss")]) for row in rows[1:]]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:5])
    actor, _ = policies.load(paths.policy)
    model = actor.planner.prior.train()
    model.encoder.requires_grad_(True)
    windows = goals.windows(demos, window=1, chunk=5, goal=(GOAL_PICTURES,), goal_steps=2)
    batch = windows.gather(np.arange(15, 16 * 60, 16))
    batch["camera/image"] = np.zeros_like(batch["camera/image"])
    model.loss(batch)[0].backward()
    assert float(model.encoder.eyes[0].trunk[0].weight.grad.abs().sum()) > 0


def test_an_episode_is_told_a_demonstrated_picture(paths: Paths, demos: Demonstrations) -> None:
    actor, packed = policies.load(paths.policy)
    assert (actor.goal, packed.arguments["goal"]) == ((GOAL_PICTURES,), [GOAL_PICTURES])
    assert packed.arguments["prior"]["pictured"] is True
    assert artifacts.read_json(paths.metrics("evaluate"))["episodes"] == 2
    world = worlds.make(worlds.name(TASK, asked=True), demos)
    world.reset(np.arange(3))
    asked, shown = world.goal_cameras()["image"], np.asarray(demos.cameras["image"])
    assert world.goals().shape == (3, 0)
    assert all(any(np.array_equal(one, frame) for frame in shown) for one in asked), "as demonstrations pass through"
    played = rollout.play(world, actor, [5, 6], Label("w", "candidate", "", rollout.UNPLANNED, "m"))
    assert [record.steps for record in played.records] == [300, 300]


def test_actions_depend_on_the_goals_picture_and_on_nothing_else(paths: Paths, demos: Demonstrations) -> None:
    actor, _ = policies.load(paths.policy)
    actor.planner.argmax = True
    shown, rows = np.asarray(demos.cameras["image"]), np.arange(2)
    seen = {"image": shown[[0, 0]]}

    def acted(wanted: np.ndarray) -> np.ndarray:
        actor.reset(np.zeros(2, np.int64), np.zeros((2, 0), np.float32), {"image": wanted})
        return actor.act(demos.observation[[0, 0]], rows, seen)

    same, other = acted(shown[[19, 19]]), acted(shown[[19, 79]])
    assert np.array_equal(same[0], same[1])
    assert np.array_equal(same[0], other[0])
    assert not np.array_equal(other[0], other[1])


@pytest.mark.parametrize("given", [None, {}, {"image": np.zeros((1, 96, 96, 3), np.float32)}])
def test_a_goal_without_its_picture_is_refused(paths: Paths, given: dict[str, np.ndarray] | None) -> None:
    actor, _ = policies.load(paths.policy)
    with pytest.raises(WorldError, match=r"goal's camera 'image': expected RGB pictures, uint8 \(1, 96, 96, 3\)"):
        actor.reset(np.zeros(1, np.int64), np.zeros((1, 0), np.float32), given)


def test_it_is_neither_served_nor_packed_with_another_goal(paths: Paths) -> None:
    actor, packed = policies.load(paths.policy)
    with pytest.raises(ServingError, match="takes pictures of its goal, and an episode that is served begins without"):
        Session(paths.policy, packed.digest)
    with pytest.raises(BundleError, match="goal: none: the planner was trained with another goal"):
        Actor(actor.spec, actor.planner, execute="chunk")
    world = TASKS[TASK].world()
    with pytest.raises(WorldError, match="must be told pictures, the world 'w' asks for nothing"):
        rollout.play(world, actor, [1], Label("w", "candidate", "", rollout.UNPLANNED, "m"))


def test_the_same_training_has_the_same_weights(paths: Paths) -> None:
    before = policies.load(paths.policy)[1].digest
    torch.manual_seed(7)
    for stage in (prior, bundle):
        stage.run(paths, PARAMS, Watch())
    assert policies.load(paths.policy)[1].digest == before
