"""Episodes behind a server act as they would alone, in one call where they meet."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support import small, untrained
from tests.support.serving import served
from tests.support.small import A, D
from tests.support.untrained import H, T
from vqbet.contract import ServingError, VqbetError, WorldError
from vqbet.policies.actor import Actor
from vqbet.serving.requests import Answer
from vqbet.serving.seats import Ask, Seats, Served

ROW = np.zeros(1, np.int64)


def seats(execute: str = "first", count: int = 3, **settings: int) -> Seats:
    return Seats(served(untrained.build(execute, **settings)), count)


def answer(of: Seats, row: int, state: np.ndarray, rule: str = "server") -> Answer:
    (found,) = of.act([Ask(row, of.seen(row, state), rule, of.step(row))])
    if isinstance(found, Exception):
        raise found
    return found


def alone(execute: str, stream: np.ndarray, seed: int) -> np.ndarray:
    actor = untrained.build(execute)
    actor.reset(np.array([seed]))
    return np.stack([actor.act(state[None], ROW)[0] for state in stream])


@pytest.mark.parametrize("execute", ["first", "chunk", "average"])
def test_the_first_row_is_the_action_of_a_session_bit_for_bit(execute: str) -> None:
    stream, own = small.observations(12, 1)[:, 0], seats(execute)
    row = own.take(5, None)
    found = np.stack([answer(own, row, state).actions[0] for state in stream])
    np.testing.assert_array_equal(found, alone(execute, stream, 5))


@pytest.mark.parametrize("execute", ["first", "chunk", "average"])
def test_robots_that_meet_act_as_alone(execute: str) -> None:
    stream, own = small.observations(10, 3), seats(execute)
    rows = [own.take(seed, None) for seed in (7, 8, 9)]
    for step in range(10):
        here = rows[step % 2 :]  # one of them is absent now and then
        asks = [Ask(row, own.seen(row, stream[own.step(row), place]), "server", 0) for place, row in enumerate(rows)]
        found = own.act([ask for ask in asks if ask.row in here])
        for row, each in zip(here, found, strict=True):
            place = rows.index(row)
            assert isinstance(each, Answer)
            expected = alone(execute, stream[: each.step + 1, place], 7 + place)[-1]
            np.testing.assert_allclose(each.actions[0], expected, atol=1e-5)


def test_the_rest_of_a_chunk_follows_the_first_row() -> None:
    """Under rule "chunk", what a reply shows ahead is what the next replies execute, and then nothing moves."""
    stream, own = small.observations(H, 1)[:, 0], seats("chunk")
    row = own.take(1, None)
    replies = [answer(own, row, state) for state in stream]
    for age, reply in enumerate(replies):
        assert reply.actions.shape == (H, A)
        np.testing.assert_array_equal(reply.actions[: H - age], replies[0].actions[age:])
        np.testing.assert_array_equal(reply.actions[H - age :], np.repeat(replies[0].actions[-1:], age, axis=0))
        assert reply.codes == replies[0].codes
        assert reply.step == age


def test_a_client_that_counts_no_steps_gets_a_new_plan_each_time() -> None:
    stream, own = small.observations(6, 1)[:, 0], seats("chunk")
    row = own.take(1, None)
    for step, state in enumerate(stream):
        history = own.seen(row, state)
        found = answer(own, row, state, "chunk")
        fresh = untrained.build("chunk")
        plan = fresh.plan(history[None], np.zeros((1, 0), np.float32), np.array([1]), np.array([step]))
        np.testing.assert_array_equal(found.actions, np.clip(plan.chunk[0], -0.8, 0.8))


def test_a_plan_for_the_robot_is_not_clamped() -> None:
    actor = Actor(small.limited(-0.1, 0.1), untrained.build().planner, execute="first")
    own = Seats(served(actor), 1)
    state, row = small.observations(1, 1)[0, 0], own.take(1, None)
    planned, executed = answer(own, row, state, "robot"), answer(own, row, state, "chunk")
    assert np.abs(executed.actions).max() == np.float32(0.1)
    assert np.abs(planned.actions).max() > 0.2


def test_a_whole_history_replaces_the_server_s_own() -> None:
    stream, own = small.observations(T + 4, 1)[:, 0], seats("first")
    row = own.take(3, None)
    for state in stream[:2]:
        answer(own, row, state)
    history = stream[4 : 4 + T]
    found = answer(own, row, history)
    plan = untrained.build().plan(history[None], np.zeros((1, 0), np.float32), np.array([3]), np.array([2]))
    np.testing.assert_array_equal(found.actions, np.clip(plan.chunk[0], -0.8, 0.8))
    followed = np.concatenate([history[1:], stream[-1:]])
    np.testing.assert_array_equal(own.seen(row, stream[-1]), followed)


def test_a_refused_observation_leaves_no_trace() -> None:
    stream, own = small.observations(4, 1)[:, 0], seats("average")
    row = own.take(2, None)
    answer(own, row, stream[0])
    with pytest.raises(WorldError, match=r"'o2' is 99 m, its limits are -3 to 3"):
        own.seen(row, np.where(np.arange(D) == 2, 99.0, stream[1]))
    with pytest.raises(WorldError, match=r"expected shape \(3, 5\), got \(2, 5\)"):
        own.seen(row, stream[:2])
    with pytest.raises(WorldError, match="'o0' is nan"):
        own.seen(row, np.full((T, D), np.nan))
    found = np.stack([answer(own, row, state).actions[0] for state in stream[1:]])
    np.testing.assert_array_equal(found, alone("average", stream, 2)[1:])


def test_only_the_row_that_fails_fails() -> None:
    """The planner of one row finds no finite numbers; the other rows of the same call are answered."""
    stream, own = small.observations(3, 3), seats("first")
    rows = [own.take(seed, None) for seed in (7, 8, 9)]
    asks = [Ask(row, own.seen(row, stream[0, place]), "server", 0) for place, row in enumerate(rows)]
    asks[1].observed[:] = 3e38
    found = own.act(asks)
    assert isinstance(found[1], VqbetError)
    for place in (0, 2):
        each = found[place]
        assert isinstance(each, Answer)
        expected = alone("first", stream[:1, place], 7 + place)[0]
        np.testing.assert_allclose(each.actions[0], expected, atol=1e-5)
    assert own.step(rows[1]) == 0


def test_rows_are_given_back() -> None:
    own = seats(count=2)
    first, _ = own.take(1, None), own.take(2, None)
    with pytest.raises(ServingError, match="all 2 episodes of this server are running"):
        own.take(3, None)
    own.release(first)
    assert own.taken == 1
    assert own.take(3, None) == first


def test_a_goal_belongs_to_a_policy_that_takes_one() -> None:
    own = seats(goal=2)
    with pytest.raises(ServingError, match="goal: this policy needs o0, o3, o4"):
        own.take(1, None)
    with pytest.raises(WorldError, match="goal 'o3' is 50 m"):
        own.take(1, np.array([0.0, 50.0, 0.0]))
    with pytest.raises(WorldError, match=r"goal: expected shape \(3,\), got \(2,\)"):
        own.take(1, np.zeros(2))
    with pytest.raises(WorldError, match="goal: expected shape"):
        seats().take(1, np.zeros(2))
    assert own.taken == 0
    assert answer(own, own.take(1, np.zeros(3)), np.zeros(D)).actions.shape == (H, A)


def test_the_guard_s_numbers_are_in_the_handshake() -> None:
    actor: Actor = untrained.build()
    guard = {"limit.rate": np.array([0.5, 0.25], np.float32), "signal.entropy": np.array([1.0]), "other": np.zeros(1)}
    said = Served.of(actor, "d" * 64, "fake@champion", {"guard": guard}).handshake
    assert said.limits == {"rate": [0.5, 0.25]}
    assert said.signals == {"entropy": [1.0]}


def test_what_may_change_from_one_champion_to_the_next() -> None:
    one = served(untrained.build("first"))
    assert one.change(served(untrained.build("first"), "b" * 64)) == ""
    assert one.change(served(untrained.build("chunk"), "b" * 64)) == "execute"
    assert one.change(served(untrained.build("first", goal=2), "b" * 64)) == "goal"


def test_signals_are_of_plans_and_surprise_compares_one_plan_with_the_one_before() -> None:
    actor = untrained.build("chunk", watched=True)
    table = np.arange(untrained.K**2, dtype=np.float64).reshape(untrained.K, untrained.K)
    own = Seats(Served.of(actor, "d" * 64, "fake", {"guard": {"codes.surprise": table}}), 2)
    row = own.take(1, None)
    answers = [answer(own, row, np.zeros(D)) for _ in range(2 * H)]
    assert set(answers[0].signals) == {"entropy", "offset"}, "the first plan follows none"
    assert all(each.signals == answers[0].signals for each in answers[:H]), "a chunk is one plan"
    (before, *_), (after, *_) = answers[0].codes, answers[H].codes
    assert answers[H].signals["surprise"] == table[before, after]
    own.release(row)
    assert "surprise" not in answer(own, own.take(2, None), np.zeros(D)).signals, "an episode starts anew"
