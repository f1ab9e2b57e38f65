"""The VQ-BeT policy: determinism, histories, execution rules, sampling, and the way to a bundle and back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from tests.support import small
from tests.support.small import GOALS, SEEDS, WANTED, A, D, Fault, observations, play
from tests.support.untrained import SPEC, H, K, Q, T, build
from vqbet import policies
from vqbet.contract import BundleError, TrainingError, WorldError
from vqbet.policies.actor import Actor
from vqbet.policies.draws import uniforms

GOLDEN = Path(__file__).parent.parent / "golden" / "policy.json"
RULES = pytest.mark.parametrize("execute", ["first", "chunk", "average"])


@RULES
@pytest.mark.parametrize("sequential", [False, True])
def test_same_observations_and_seeds_give_bitwise_the_same_actions(execute: str, sequential: bool) -> None:
    policy = build(execute, sequential=sequential)
    first = play(policy, observations(), SEEDS)
    play(policy, observations(seed=9), SEEDS + 50)  # what was played in between leaves no trace
    torch.manual_seed(123)
    np.random.seed(123)
    assert np.array_equal(first, play(policy, observations(), SEEDS))
    assert first.dtype == np.float32
    assert first.shape == (10, 6, A)


@RULES
def test_episodes_never_see_one_another(execute: str) -> None:
    """Each episode alone, and in any order and company, acts the same (up to the matrix library's rounding)."""
    policy = build(execute)
    together = play(policy, observations(), SEEDS)
    for row in range(6):
        alone = play(policy, observations()[:, row : row + 1], SEEDS[row : row + 1])
        np.testing.assert_allclose(alone[:, 0], together[:, row], atol=1e-5)
    policy.reset(SEEDS)
    for step, stream in enumerate(observations()):
        rows = np.array([4, 0, 3]) if step % 2 else np.array([0, 3, 4])
        np.testing.assert_allclose(policy.act(stream[rows], rows), together[step, rows], atol=1e-5)


def played_for(goals: np.ndarray | None, **settings: object) -> np.ndarray:
    policy = build(argmax=True, goal=2, **settings)
    return play(policy, observations(3), SEEDS, goals)


@pytest.mark.parametrize("goal_as", ["tokens", "features"])
def test_a_goal_changes_what_its_episode_does_and_no_other(goal_as: str) -> None:
    other = GOALS.copy()
    other[3] += 2.0
    one, two = played_for(GOALS, goal_as=goal_as), played_for(other, goal_as=goal_as)
    rest = [0, 1, 2, 4, 5]
    np.testing.assert_allclose(one[:, rest], two[:, rest], atol=1e-6)
    assert not np.allclose(one[:, 3], two[:, 3], atol=1e-4)


@pytest.mark.parametrize("goal_as", ["tokens", "features"])
def test_a_goal_survives_the_way_to_a_bundle_and_back(goal_as: str) -> None:
    policy = build(goal=2, goal_as=goal_as)
    again = small.rebuilt("vqbet", policy)
    assert np.array_equal(play(policy, observations(), goals=GOALS), play(again, observations(), goals=GOALS))
    assert again.goal == WANTED
    assert again.planner.goal_steps == 2
    assert set(policy.components()["normalizer"]) >= {"goal.low", "goal.high"}


@pytest.mark.parametrize(
    ("goals", "got"),
    [
        (None, r"expected finite numbers of shape \(6, 3\) \(o0, o3, o4\), got shape \(6, 0\)"),
        (np.zeros((6, 2)), r"\(6, 3\) \(o0, o3, o4\), got shape \(6, 2\)"),
        (np.zeros((5, 3)), r"\(6, 3\) \(o0, o3, o4\), got shape \(5, 3\)"),
        (np.full((6, 3), np.nan), "finite"),
    ],
)
def test_goals_of_the_wrong_shape_are_refused(goals: np.ndarray | None, got: str) -> None:
    with pytest.raises(WorldError, match=got):
        played_for(goals)


def test_a_policy_without_goals_refuses_one() -> None:
    with pytest.raises(WorldError, match="it takes no goal"):
        build().reset(SEEDS, GOALS)


def test_a_goal_channel_that_is_not_observed_is_refused() -> None:
    policy = build(goal=1)
    with pytest.raises(BundleError, match="goal: o9: not among the observed channels of 'fake'"):
        Actor(SPEC, policy.planner, execute="first", goal=("o0", "o3", "o9"))


def test_other_seeds_act_otherwise() -> None:
    policy = build()
    assert not np.allclose(play(policy, observations(), SEEDS), play(policy, observations(), SEEDS + 1))


def test_the_first_observation_fills_the_history() -> None:
    """As the padding of training windows does."""
    policy, stream = build(argmax=True), observations()
    play(policy, stream[:1], SEEDS)
    assert np.array_equal(policy._history, np.repeat(stream[0][:, None], T, axis=1))
    play(policy, stream[:T], SEEDS)
    assert np.array_equal(policy._history, stream[:T].transpose(1, 0, 2))


def test_chunks_are_played_whole_and_predicted_again_after_their_last_action() -> None:
    policy, stream = build("chunk", argmax=True), observations(2 * H + 1)
    actions = play(policy, stream, SEEDS)
    changed = stream.copy()
    changed[1:H] += 5.0  # seen only after the first chunk
    other = play(policy, changed, SEEDS)
    assert np.array_equal(actions[:H], other[:H])
    assert not np.array_equal(actions[H : 2 * H], other[H : 2 * H])
    firsts = play(build("first", argmax=True), stream, SEEDS)
    assert np.array_equal(actions[0], firsts[0])
    assert np.array_equal(actions[H], firsts[H])


def test_episodes_of_different_age_share_a_call() -> None:
    policy, stream = build("chunk", argmax=True), observations()
    expected = play(policy, stream, SEEDS)
    policy.reset(SEEDS)
    for step in range(4):
        rows = np.array([0]) if step < 2 else np.array([0, 1])
        age = np.array([step]) if step < 2 else np.array([step, step - 2])
        np.testing.assert_allclose(policy.act(stream[age, rows], rows), expected[age, rows], atol=1e-5)


def scripted(policy: Actor, codes: list[int]) -> np.ndarray:
    """Play one episode in which prediction i has code codes[i] and its chunk says 10 i + (0, 1, 2, 3), unclamped."""
    policy._low, policy._high = np.full(A, -np.inf, np.float32), np.full(A, np.inf, np.float32)
    index = iter(range(len(codes)))
    now: list[int] = []

    def draw(features: torch.Tensor, choose: object) -> torch.Tensor:
        now.append(next(index))
        return torch.full((1, Q), codes[now[-1]])

    prior = policy.planner.prior
    prior.draw = draw
    prior.parts = lambda features, _: ((10.0 * now[-1] + torch.arange(H)).reshape(1, H, 1).expand(1, H, A), None)
    policy.reset(np.array([0]))
    row = np.array([0])
    return np.array([policy.act(np.zeros((1, D), np.float32), row)[0, 0] for _ in codes])


def test_average_is_the_mean_of_the_overlapping_chunks() -> None:
    """Step i: the chunk of j steps ago says 10 (i - j) + j, for j < 4."""
    expected = [np.mean([10 * (step - age) + age for age in range(min(step, H - 1) + 1)]) for step in range(7)]
    np.testing.assert_allclose(scripted(build("average"), [1] * 7), expected)


def test_average_never_mixes_different_codes() -> None:
    actions = scripted(build("average"), [1, 1, 2, 1, 2])
    expected = [0, np.mean([10, 1]), 20, np.mean([30, 12, 3]), np.mean([40, 22])]
    np.testing.assert_allclose(actions, expected)


def test_average_forgets_the_episode_before() -> None:
    policy = build("average", argmax=True)
    fresh = play(policy, observations(2), SEEDS)
    play(policy, observations(8, seed=4), SEEDS)
    assert np.array_equal(play(policy, observations(2), SEEDS), fresh)


def test_actions_stay_within_the_limits_of_the_spec() -> None:
    policy = build()
    bounded = policies.build("vqbet", small.limited(-0.01, 0.02), policy.arguments(), policy.components())
    free = play(policy, observations(), SEEDS)
    assert np.array_equal(play(bounded, observations(), SEEDS), np.clip(free, np.float32(-0.01), np.float32(0.02)))
    assert free.min() < -0.01
    assert free.max() > 0.02


def test_dropout_is_off_while_acting() -> None:
    policy = build(argmax=True)
    assert not any(module.training for module in policy.planner.prior.modules())


def test_temperature_and_argmax_decide_the_codes() -> None:
    def spread(**settings: object) -> float:
        policy = build("first", **settings)
        same = np.zeros((1, 300, D), np.float32)
        play(policy, same, np.arange(300))
        return len(np.unique(policy._tags[:, 0], axis=0))

    assert spread(argmax=True) == 1
    assert spread(temperature=1e-6) == 1
    assert spread(temperature=1.0) > 10


def test_codes_are_drawn_from_the_priors_distribution() -> None:
    policy = build("first")
    play(policy, np.zeros((1, 20_000, D), np.float32), np.arange(20_000))
    with torch.inference_mode():
        feature = policy.planner.prior.features(torch.zeros(1, T, D))[:, -1]
        shares = policy.planner.prior.code_head(feature, torch.zeros(1, Q, dtype=torch.int64)).softmax(2)[0].numpy()
    for layer, expected in enumerate(shares.astype(np.float64)):
        counts = np.bincount(policy._tags[:, 0, layer], minlength=K)
        assert stats.chisquare(counts, expected / expected.sum() * 20_000).pvalue > 1e-4


def test_uniforms_are_uniform_and_independent_of_neighbouring_seeds_steps_and_layers() -> None:
    drawn = uniforms(np.arange(20_000), np.zeros(20_000, np.int64), 2)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    later = uniforms(np.arange(20_000), np.ones(20_000, np.int64), 2)
    assert stats.kstest(drawn[:, 0], "uniform").pvalue > 1e-3
    pairs = [(drawn[:, 0], drawn[:, 1]), (drawn[:, 0], later[:, 0]), (drawn[:-1, 0], drawn[1:, 0])]
    assert all(abs(np.corrcoef(one, two)[0, 1]) < 0.03 for one, two in pairs)


@pytest.mark.parametrize(
    ("observation", "sentence"),
    [
        (np.zeros((2, D + 1), np.float32), r"expected shape \(2, 5\), got \(2, 6\)"),
        (np.zeros((3, D), np.float32), r"expected shape \(2, 5\), got \(3, 5\)"),
        (np.array([[0.0] * D, [0, 0, np.nan, 0, 0]], np.float32), "observation 'o2' of episode 4 is nan"),
        (np.array([[0.0] * D, [0, np.inf, 0, 0, 0]], np.float32), "observation 'o1' of episode 4 is inf"),
    ],
)
def test_observations_that_make_no_sense_are_refused(observation: np.ndarray, sentence: str) -> None:
    policy = build()
    policy.reset(SEEDS)
    with pytest.raises(WorldError, match=sentence):
        policy.act(observation, np.array([2, 4]))


@pytest.mark.parametrize("settings", [{}, {"argmax": True}, {"temperature": 1e-6}])
def test_logits_that_are_no_numbers_are_refused_by_episode(settings: dict[str, object]) -> None:
    """Observations that are finite, and overflow on their way through the network: of episode 4 alone."""
    policy = build(**settings)
    policy.reset(SEEDS)
    observation = np.zeros((2, D), np.float32)
    observation[1] = 3e38
    with pytest.raises(WorldError, match="its logits for episode 4 are not finite"):
        policy.act(observation, np.array([2, 4]))


@pytest.mark.parametrize("temperature", [1e-300, 0.0, -1.0, float("nan"), float("inf"), True, "0.7", [1.0]])
def test_a_temperature_that_no_logits_survive_is_refused(temperature: object) -> None:
    with pytest.raises(BundleError, match="expected a finite temperature of 1e-06 or more"):
        build(temperature=temperature)


# --- to a bundle and back --------------------------------------------------------------------------------------------


@RULES
def test_arguments_and_components_rebuild_it_bitwise(execute: str) -> None:
    policy = build(execute, temperature=0.7)
    again = small.rebuilt("vqbet", policy)
    assert np.array_equal(play(policy, observations(), SEEDS), play(again, observations(), SEEDS))
    assert set(again.components()) == {"tokenizer", "prior", "normalizer"}
    assert set(again.components()["normalizer"]) == {
        *("action.low", "action.high", "observation.low", "observation.high")
    }


def test_what_components_gave_does_not_change_with_the_policy() -> None:
    policy = build()
    before = policy.components()["prior"]["decoder.position"].copy()
    with torch.no_grad():
        policy.planner.prior.decoder.position.add_(1.0)
    assert not np.array_equal(policy.components()["prior"]["decoder.position"], before)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (lambda a, c: c.pop("prior"), "components missing: prior"),
        (
            lambda a, c: c["tokenizer"].pop("quantizer.codebooks"),
            r"tokenizer: tensor 'quantizer\.codebooks' is missing",
        ),
        (
            lambda a, c: c["normalizer"].update({"gripper.low": np.zeros(1)}),
            r"normalizer: unknown tensor 'gripper\.low'",
        ),
        (lambda a, c: c["normalizer"].pop("action.low"), r"normalizer \(action\): tensor 'low' is missing"),
        (lambda a, c: a["tokenizer"].update(codes=7), r"tokenizer: tensor 'quantizer\.codebooks': expected"),
        (lambda a, c: a["prior"].update(depth=3), r"prior: tensor 'decoder\.blocks\.2.* is missing"),
        (lambda a, c: a["prior"].update(wings=2), "arguments are not those of this version: .*wings"),
        (lambda a, c: a.pop("sampling"), "arguments are not those of this version: 'sampling'"),
        (lambda a, c: a.pop("execute"), "arguments are not those of this version: 'execute'"),
        (lambda a, c: a.update(execute="twice"), "execute: expected one of first, chunk, average, got 'twice'"),
        (lambda a, c: a.update(goal=["o1"]), "normalizer: goal: expected 1 channels for 'fake', got 0"),
        (lambda a, c: a["prior"].update(channels=4), "prior: tensor 'decoder.embed.weight': expected"),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused(fault: Fault, sentence: str) -> None:
    with pytest.raises(BundleError, match=sentence):
        small.build_with(fault, "vqbet", build())


def test_a_spec_with_other_channels_is_refused() -> None:
    policy = build()
    other = replace(SPEC, action=SPEC.action[:1])
    with pytest.raises(BundleError, match="normalizer: action: expected 1 channels for 'fake', got 2"):
        policies.build("vqbet", other, policy.arguments(), policy.components())


def test_an_untrained_tokenizer_is_refused() -> None:
    policy = build()
    components = policy.components()
    components["tokenizer"]["trained_steps"] = np.zeros((), np.int64)
    with pytest.raises(TrainingError, match="expected a trained tokenizer"):
        policies.build("vqbet", SPEC, policy.arguments(), components)


def test_golden_numbers() -> None:
    """Codes and actions on fixed observations, seeds and weights, written down once."""
    golden = json.loads(GOLDEN.read_text())
    policy = build("chunk")
    np.testing.assert_allclose(play(policy, observations(5, 3), SEEDS[:3]), golden["actions"], atol=1e-4)
    assert policy._tags[:, 0, :Q].tolist() == golden["codes"]
