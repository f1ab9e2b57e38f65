"""BlockPush: honest limits, memoryless rows, four modes, and demonstrations that replay bit for bit."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import up_to
from vqbet.contract import COLUMNS, Demonstrations, WorldError
from vqbet.tasks.blockpush import DRAWN, FIXED, world
from vqbet.tasks.blockpush.oracle import demonstrations, moves, world_seed
from vqbet.tasks.blockpush.spec import MAX_MOVE_M, SPEC
from vqbet.tasks.blockpush.world import BLOCKS, MODES, TARGETS, BlockPush, layout


@pytest.fixture(scope="module")
def demos() -> Demonstrations:
    return demonstrations(60, seed=3)


@pytest.fixture(scope="module")
def drawn() -> Demonstrations:
    return demonstrations(100, seed=3, sides="drawn")


def play(env: BlockPush, seeds: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Observations (steps + 1, E, D) of playing actions (steps, E, 2) in all rows; nothing may end."""
    seen = [env.reset(seeds)]
    rows = np.arange(len(seeds))
    for action in actions:
        observation, ended = env.step(action, rows)
        assert not ended.any()
        seen.append(observation)
    return np.stack(seen)


def inside(channels, values: np.ndarray) -> bool:
    low, high = (np.array([getattr(channel, end) for channel in channels]) for end in ("low", "high"))
    return bool(((values >= low) & (values <= high)).all())


def test_spec_is_the_published_layout():
    names = [channel.name for channel in SPEC.observation]
    assert names[:6] == ["block0_x", "block0_y", "block0_yaw", "block1_x", "block1_y", "block1_yaw"]
    assert names[6:10] == ["effector_x", "effector_y", "effector_target_x", "effector_target_y"]
    assert names[10:] == ["target0_x", "target0_y", "target0_yaw", "target1_x", "target1_y", "target1_yaw"]
    assert (SPEC.control_hz, SPEC.action_kind, SPEC.frame) == (10.0, "relative", "table")
    assert isinstance(FIXED.world(), BlockPush)


def test_layout_depends_on_its_seed_alone():
    env = BlockPush()
    together = env.reset(np.array([5, 6, 7]))
    assert together.dtype == np.float32
    assert together.shape == (3, 16)
    assert (env.reset(np.array([7])) == together[2]).all()
    assert len(np.unique(together[:, 0])) == 3


def test_the_fixed_layout_is_the_one_it_always_was():
    expected = [-0.1117823, -0.0938128, 0.0, 0.49208374, 0.09245841, -0.10900834, 0.0, 0.64835494]
    np.testing.assert_allclose(layout(0)[BLOCKS], expected, rtol=0, atol=1e-8)
    assert (BlockPush().reset(np.arange(9)) == BlockPush(sides="fixed").reset(np.arange(9))).all()
    for seed in range(50):
        assert layout(seed)[0] < 0 < layout(seed)[4]
        assert layout(seed)[22] < 0 < layout(seed)[25]


def test_the_drawn_layout_is_the_fixed_one_with_sides_changed():
    found = Counter()
    for seed in range(400):
        fixed, drawn = layout(seed), layout(seed, "drawn")
        changed = tuple(bool(drawn[place] > 0) for place in (0, 22))
        for where, away in zip((BLOCKS, TARGETS), changed, strict=True):
            expected = fixed[where].reshape(2, -1)[:: -1 if away else 1].ravel()
            assert (drawn[where] == expected).all()
        rest = slice(8, 22)
        assert (drawn[rest] == fixed[rest]).all()
        found[changed] += 1
    assert len(found) == 4
    assert all(70 <= count <= 130 for count in found.values())


def test_the_drawn_world_says_so_in_its_spec():
    env = DRAWN.world()
    assert SPEC.differences(env.spec) == ["task: 'blockpush' here, 'blockpush_drawn' there"]
    first = env.reset(np.arange(20))
    assert (first[:, [0, 1]] == np.array([layout(seed, "drawn")[:2] for seed in range(20)], np.float32)).all()


@pytest.mark.slow
@up_to(8)
@given(seed=st.integers(0, 2**31), hold=st.integers(1, 40))
def test_nothing_leaves_the_limits_under_wild_actions(seed: int, hold: int):
    rng = np.random.default_rng(seed)
    actions = np.repeat(rng.uniform(-0.1, 0.1, size=(120 // hold + 1, 4, 2)), hold, axis=0)
    env = BlockPush()
    observation, rows = env.reset(rng.integers(0, 2**31, size=4)), np.arange(4)
    for action in actions:
        assert inside(SPEC.observation, observation[: len(rows)])
        observation, ended = env.step(action[rows], rows)
        rows = rows[~ended]
        observation = observation[~ended]


def test_a_long_move_is_shortened_and_keeps_its_direction():
    env = BlockPush()
    first = env.reset(np.array([0]))[0]
    seen, _ = env.step(np.array([[0.3, 0.4]]), np.array([0]))
    assert seen[0, 8:10] - first[8:10] == pytest.approx(MAX_MOVE_M * np.array([0.6, 0.8]), abs=1e-6)


def test_zero_action_leaves_everything_still():
    env = BlockPush()
    seen = play(env, np.arange(3), np.zeros((30, 3, 2)))
    assert np.abs(seen - seen[0]).max() < 1e-6
    assert (env.metrics()["mode"] == "").all()


def test_the_effector_follows_its_target_with_a_lag():
    seen = play(BlockPush(), np.array([1]), np.concatenate([np.full((5, 1, 2), [0.0, -0.01]), np.zeros((10, 1, 2))]))
    gap = np.abs(seen[:, 0, 7] - seen[:, 0, 9])
    assert 0.003 < gap[5] < 0.03
    assert gap[-1] < 1e-4


def test_a_pushed_block_stops_by_friction():
    env = BlockPush()
    state = world.layout(0)
    state[:2], state[world.EFFECTOR] = (0.0, 0.0), (0.0, -0.08)
    state[world.SERVO] = state[world.EFFECTOR]
    env.restore(state[None])
    for action in [[0.0, 0.02]] * 8 + [[0.0, -0.03]] * 6:
        seen, _ = env.step(np.array([action]), np.array([0]))
    assert seen[0, 1] > 0.05
    rest, _ = env.step(np.zeros((1, 2)), np.array([0]))
    assert rest[0, :6] == pytest.approx(seen[0, :6], abs=1e-5)


def test_rows_do_not_see_one_another():
    actions = np.random.default_rng(0).uniform([-0.03, -0.02], [0.03, 0.04], size=(40, 6, 2))
    seeds = np.arange(6)
    together = play(BlockPush(), seeds, actions)
    assert (together == play(BlockPush(), seeds, actions)).all()
    for row in (0, 3, 5):
        assert (play(BlockPush(), seeds[[row]], actions[:, [row]])[:, 0] == together[:, row]).all()
    assert (play(BlockPush(), seeds[::-1], actions[:, ::-1])[:, ::-1] == together).all()


def test_bad_requests_are_refused():
    env = BlockPush()
    with pytest.raises(WorldError, match="seed of 0 or more, got -1"):
        env.reset(np.array([-1]))
    with pytest.raises(WorldError, match=r"shape \(E, 28\)"):
        env.restore(np.zeros((1, 24)))
    with pytest.raises(WorldError, match="one seed for each of 1 states, got 2"):
        env.restore(layout(0)[None], np.arange(2))
    with pytest.raises(WorldError, match="no episode 0"):
        env.render(0)
    with pytest.raises(WorldError, match="1 episode or more, got 0"):
        demonstrations(0, seed=0)


@pytest.mark.parametrize(
    ("places", "blocks", "mode"),
    [
        (((0.3, 0.3), (0.3, 0.0)), 0, ""),
        (((-0.1, 0.2), (0.3, 0.0)), 1, "b0-t0"),
        (((0.3, 0.0), (-0.1, 0.2)), 1, "b1-t0"),
        (((-0.1, 0.2), (-0.1, 0.24)), 1, "b0-t0"),  # two blocks in one target count once
        (((0.1, 0.16), (-0.14, 0.2)), 2, "b0-t1"),
        (((-0.1, 0.251), (0.3, 0.0)), 0, ""),  # 0.051 m away
    ],
)
def test_blocks_count_in_distinct_targets(places, blocks: int, mode: str):
    state = world.layout(0)
    state[0:2], state[4:6] = places
    state[22:24], state[25:27] = (-0.1, 0.2), (0.1, 0.2)
    env = BlockPush()
    env.restore(state[None])
    metrics = env.metrics()
    assert metrics["blocks"] == blocks
    assert metrics["score"] == blocks / 2
    assert metrics["success"] == (blocks == 2)
    assert metrics["mode"] == mode
    assert np.isnan(metrics["first_s"]) == (blocks == 0)


@pytest.mark.slow
@pytest.mark.parametrize("sides", ["fixed", "drawn"])
def test_the_oracle_succeeds_in_four_balanced_modes(request: pytest.FixtureRequest, sides: world.Sides):
    demos: Demonstrations = request.getfixturevalue("demos" if sides == "fixed" else "drawn")
    assert demos.columns["success"].mean() >= 0.98
    assert 80 <= demos.lengths.mean() <= 130
    env = BlockPush(sides=sides)
    starts = demos.episode_starts
    env.restore(demos.state[starts])
    replay(env, demos)
    modes = env.metrics()["mode"].tolist()
    assert Counter(modes) == dict.fromkeys(MODES, len(modes) // 4)
    first = demos.state[starts]
    places = Counter(zip((first[:, 0] > 0).tolist(), (first[:, 22] > 0).tolist(), modes, strict=True))
    assert len(places) == (4 if sides == "fixed" else 16)  # every mode from every arrangement


def replay(env: BlockPush, demos: Demonstrations) -> np.ndarray:
    """Play the recorded actions of every episode from where `env` stands; gives the states before each (N, S)."""
    starts, lengths = demos.episode_starts, demos.lengths
    states = np.empty_like(demos.state)
    for step in range(lengths.max()):
        rows = np.flatnonzero(lengths > step)
        states[starts[rows] + step] = env.state()[rows]
        _, ended = env.step(demos.action[starts[rows] + step], rows)
        assert (ended == (lengths[rows] == step + 1)).all()
    return states


@pytest.mark.slow
def test_recorded_actions_replay_bit_for_bit(demos: Demonstrations):
    env = BlockPush()
    first = env.reset(demos.columns["seed"])
    assert (first == demos.observation[demos.episode_starts]).all()
    assert (replay(env, demos) == demos.state).all()
    assert (env.metrics()["success"] == demos.columns["success"]).all()


def test_a_recorded_state_can_be_put_back_mid_episode(demos: Demonstrations):
    middle = demos.episode_starts + 30
    env = BlockPush()
    assert (env.restore(demos.state[middle]) == demos.observation[middle]).all()
    seen, _ = env.step(demos.action[middle], np.arange(len(middle)))
    assert (seen == demos.observation[middle + 1]).all()
    tampered = demos.state[middle].copy()
    tampered[:, 0] += 1e-3
    assert (env.restore(tampered) != demos.observation[middle]).any()


def test_demonstrations_fit_the_contract(demos: Demonstrations):
    assert demos.observation.dtype == demos.action.dtype == np.float32
    assert demos.state.dtype == demos.time_s.dtype == np.float64
    assert demos.episode_ends.dtype == np.int64
    assert demos.episode_ends[-1] == len(demos.observation) == len(demos.action) == len(demos.time_s)
    assert (demos.time_s[demos.episode_starts] == 0).all()
    assert demos.time_s[1] == pytest.approx(0.1)
    assert set(demos.columns) == set(COLUMNS)
    assert demos.columns["seed"].dtype == np.int64
    assert demos.columns["success"].dtype == np.bool_
    assert demos.columns["seed"].min() >= 2**32  # evaluation seeds are below 2**31
    assert (demos.columns["source"] == "vqbet.sims.blockpush").all()
    assert (demos.columns["task"] == "blockpush").all()
    assert inside(SPEC.observation, demos.observation)
    assert inside(SPEC.action, demos.action)


def test_a_demonstration_depends_on_seed_and_index_alone(demos: Demonstrations):
    told: list[tuple[int, int]] = []
    few = FIXED.oracle(7, 3, lambda done, total: told.append((done, total)))
    assert (few.action == demos.action[: len(few.action)]).all()
    assert few.columns["seed"].tolist() == [world_seed(3, index) for index in range(7)]
    assert told[-1] == (7, 7)
    assert not np.array_equal(demonstrations(1, seed=4).observation[0], few.observation[0])


@pytest.mark.slow
def test_demonstrations_of_drawn_sides_are_the_other_world_s(drawn: Demonstrations):
    env = DRAWN.world()
    assert drawn.spec == env.spec
    assert (drawn.columns["task"] == "blockpush_drawn").all()
    assert (drawn.columns["source"] == "vqbet.sims.blockpush_drawn").all()
    assert (env.reset(drawn.columns["seed"]) == drawn.observation[drawn.episode_starts]).all()
    assert (replay(env, drawn) == drawn.state).all()
    few = DRAWN.oracle(5, 3, None)
    assert (few.action == drawn.action[: len(few.action)]).all()


def test_an_oracle_that_turns_away_fails_and_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vqbet.tasks.blockpush.oracle.moves", lambda seen, mode: -moves(seen, mode))
    failed = demonstrations(2, seed=0)
    assert not failed.columns["success"].any()
    assert failed.lengths.tolist() == [BlockPush.max_steps] * 2


def test_an_ended_episode_is_not_stepped(demos: Demonstrations):
    env = BlockPush()
    last = demos.episode_ends[:1] - 1
    env.restore(demos.state[last])
    _, ended = env.step(demos.action[last], np.array([0]))
    assert ended.all()
    with pytest.raises(WorldError, match="episode 0 ended after 1 steps"):
        env.step(demos.action[last], np.array([0]))


def test_picture_shows_blocks_targets_and_effector(demos: Demonstrations):
    env = BlockPush()
    env.restore(demos.state[demos.episode_starts[:1]])
    picture = env.render(0)
    assert picture.shape == (320, 320, 3)
    assert picture.dtype == np.uint8
    x, y = demos.state[0, :2]
    column, line = round((x + 0.36) / 0.72 * 320), round((0.36 - y) / 0.72 * 320)
    red, _, blue = picture[line, column].astype(int)
    assert red > blue + 80  # block0 is orange
    assert (env.render(0) == picture).all()
    env.step(np.array([[0.02, 0.0]]), np.array([0]))
    assert (env.render(0) != picture).any()
