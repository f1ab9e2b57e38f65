"""BlockPush that asks for a pairing: only what is where it was asked to be counts, whatever else is as without."""

from __future__ import annotations

import numpy as np
import pytest

from vqbet.tasks.blockpush import world
from vqbet.tasks.blockpush.oracle import moves
from vqbet.tasks.blockpush.spec import GOAL, SPEC
from vqbet.tasks.blockpush.world import MODES, BlockPush, layout, pairing

STRAIGHT, CROSSED = (next(seed for seed in range(99) if pairing(seed) == wanted) for wanted in (0, 1))


def asking(places, seed: int, **options) -> BlockPush:
    """A world whose one episode has blocks at `places`, targets at (-0.1, 0.2) and (0.1, 0.2), and asks as `seed`."""
    state = layout(0)
    state[0:2], state[4:6] = places
    state[22:24], state[25:27] = (-0.1, 0.2), (0.1, 0.2)
    env = BlockPush(asked=True, **options)
    env.restore(state[None], np.array([seed]))
    return env


@pytest.mark.parametrize(
    ("places", "straight", "crossed", "mode"),
    [
        (((0.3, 0.3), (0.3, 0.0)), 0, 0, ""),
        (((-0.1, 0.2), (0.3, 0.0)), 1, 0, "b0-t0"),
        (((0.3, 0.0), (-0.1, 0.2)), 0, 1, "b1-t0"),
        (((-0.1, 0.2), (-0.1, 0.24)), 1, 1, "b0-t0"),
        (((0.1, 0.16), (-0.14, 0.2)), 0, 2, "b0-t1"),
        (((-0.1, 0.16), (0.14, 0.2)), 2, 0, "b0-t0"),
        (((-0.1, 0.251), (0.3, 0.0)), 0, 0, ""),
    ],
)
def test_only_blocks_where_they_were_asked_to_be_count(places, straight: int, crossed: int, mode: str):
    for seed, blocks in ((STRAIGHT, straight), (CROSSED, crossed)):
        metrics = asking(places, seed).metrics()
        assert metrics["blocks"] == blocks
        assert metrics["score"] == blocks / 2
        assert metrics["success"] == (blocks == 2)
        assert metrics["mode"] == mode  # whatever was asked
        assert np.isnan(metrics["first_s"]) == (blocks == 0)
        assert np.isnan(metrics["both_s"]) == (blocks < 2)


def test_goals_are_the_centres_of_the_targets_asked_for():
    away = ((0.3, 0.3), (0.3, 0.0))
    assert asking(away, STRAIGHT).goals().tolist() == [pytest.approx([-0.1, 0.2, 0.1, 0.2])]
    assert asking(away, CROSSED).goals().tolist() == [pytest.approx([0.1, 0.2, -0.1, 0.2])]
    assert asking(away, CROSSED).goals().dtype == np.float32
    assert asking(away, CROSSED).goal == GOAL == tuple(SPEC.observation[index].name for index in (0, 1, 3, 4))
    plain = BlockPush()
    plain.reset(np.arange(3))
    assert (plain.goal, plain.goals().shape) == ((), (3, 0))


def test_what_is_asked_for_depends_on_the_seed_alone_and_changes_no_start():
    env = BlockPush(asked=True)
    seeds = np.arange(200)
    assert (env.reset(seeds) == BlockPush().reset(seeds)).all()
    goals = env.goals()
    crossed = goals[:, 0] > 0
    assert crossed.tolist() == [pairing(seed) == 1 for seed in range(200)]
    assert 75 <= crossed.sum() <= 125
    env.reset(seeds[::-1])
    assert (env.goals()[::-1] == goals).all()
    env.restore(np.array([layout(seed) for seed in range(200)]))  # without seeds: those of 0, 1, 2 ...
    assert (env.goals() == goals).all()


@pytest.mark.parametrize("sides", ["fixed", "drawn"])
def test_an_oracle_that_does_what_was_asked_succeeds_and_another_plays_to_the_end(sides: world.Sides):
    seeds = np.arange(8)
    for obedient in (True, False):
        env = BlockPush(sides=sides, asked=True)
        observation, rows = env.reset(seeds), np.arange(8)
        straight = np.array([pairing(seed) for seed in seeds]) == 0
        mode = np.where(straight == obedient, 0, 1)  # block 0 first, into target 0 or 1
        steps = 0
        while len(rows) and steps < 200:
            observation, ended = env.step(moves(observation, mode[rows]), rows)
            observation, rows, steps = observation[~ended], rows[~ended], steps + 1
        metrics = env.metrics()
        assert (metrics["success"] == obedient).all()
        assert (metrics["score"] == float(obedient)).all()
        assert metrics["mode"].tolist() == [MODES[index] for index in mode]
        assert len(rows) == (0 if obedient else 8)


def test_a_picture_shows_which_block_is_asked_for():
    away = ((0.3, 0.3), (0.3, 0.0))
    column, line = round((-0.1 + 0.36) / 0.72 * 320), round((0.36 - 0.2) / 0.72 * 320)  # the dot of target 0
    reds = [asking(away, seed).render(0)[line, column].astype(int) for seed in (STRAIGHT, CROSSED)]
    assert reds[0][0] > reds[0][2] + 40  # block 0 is orange
    assert reds[1][2] > reds[1][0] + 40  # block 1 is blue
