"""The component `guard` of a bundle: envelope of demonstrations, quantiles of signals, watched plans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support import untrained
from tests.support.guarded import handshake
from tests.support.small import observations
from tests.support.synthetic import synthetic
from vqbet.contract import Channel, Demonstrations, TrainingError
from vqbet.coordinates.mirror import doubled
from vqbet.demos.windows import Windows
from vqbet.models.spaces import Spaces
from vqbet.policies import envelope
from vqbet.policies.actor import Actor
from vqbet.serving.guard import Guard, Limits, SignalWatch
from vqbet.serving.limits import LIMIT, SIGNAL, listed

DEMOS = synthetic(8)
LIMITED = ("rate", "acceleration", "start_low", "start_high", "observation_low", "observation_high")


def little(action: list[list[float]], ends: list[int], *, high: float = 10.0) -> Demonstrations:
    """Return demonstrations with these actions, limited to +-high, whose single observation is the step's number."""
    channels = tuple(Channel(f"a{place}", "m", -high, high) for place in range(len(action[0])))
    seen = (Channel("step", "", 0.0, 100.0),)
    demos = Demonstrations.of(np.arange(len(action))[:, None], action, ends, control_hz=10)
    return replace(demos, spec=replace(demos.spec, action=channels, observation=seen))


def refused(demos: Demonstrations, component: dict[str, np.ndarray]) -> int:
    guard, count = Guard(Limits.of(handshake(demos.spec, listed(component, LIMIT)))), 0
    for first, end in zip(demos.episode_starts, demos.episode_ends, strict=True):
        guard.start()
        for step in range(first, end):
            count += guard.check(demos.action[step], demos.observation[step], age_s=0.0).verdict != "pass"
    return count


class TestLimits:
    def test_changes_are_counted_within_episodes(self) -> None:
        demos = little([[0, 0], [1, 0], [1, 0], [9, -9], [9, -9], [9, -8.5]], [3, 6])
        found = envelope.limits([demos], moved=False)
        assert found["rate"].tolist() == [envelope.MARGIN * 1, envelope.MARGIN * 0.5]
        assert found["acceleration"].tolist() == [envelope.MARGIN * 1, envelope.MARGIN * 0.5]
        assert found["start_low"].tolist() == [0 - 2, -9 - 1]
        assert found["start_high"].tolist() == [10, 0 + 1], "9 + 2 lies beyond the spec"
        assert (found["observation_low"].tolist(), found["observation_high"].tolist()) == ([-25], [5 + 25])

    def test_nothing_lies_beyond_the_spec(self) -> None:
        demos = little([[-10], [10], [-10], [10]], [4])
        found = envelope.limits([demos], moved=False)
        assert (found["rate"].tolist(), found["acceleration"].tolist()) == ([20], [40])
        assert (found["start_low"].tolist(), found["start_high"].tolist()) == ([-10], [10])

    def test_what_stood_still_may_move_a_little(self) -> None:
        for still in (little([[3]] * 4, [4]), little([[3], [3]], [1, 2])):
            found = envelope.limits([still], moved=False)
            assert found["rate"].tolist() == [envelope.LEAST * 20] == found["acceleration"].tolist()
            assert found["start_high"].tolist() == [3 + envelope.LEAST * 20]

    def test_all_that_is_shown_counts(self) -> None:
        one, two = little([[0], [1], [2]], [3]), little([[-4], [-1], [-4]], [3])
        both = envelope.limits([one, two], moved=False)
        assert both["rate"].tolist() == [envelope.MARGIN * 3]
        assert (both["start_low"].tolist(), both["start_high"].tolist()) == ([-10], [6])

    def test_where_goals_turn_the_plane_pairs_share_their_changes(self) -> None:
        demos = little([[0, 0, 0, 0], [3, 4, 0, 1], [3, 4, 0, 1]], [3])
        found = envelope.limits([demos], moved=True)
        assert set(found) == {"rate", "acceleration"}, "a goal may be anywhere"
        assert found["rate"].tolist() == [10, 10, 2, 2]

    def test_limits_of_float32_are_not_passed(self) -> None:
        """0.1 rounds up: the guard allows what a policy clamps to, and no more."""
        demos = little([[0.1], [-0.1], [0.1]], [3], high=0.1)
        component = {f"limit.{name}": value for name, value in envelope.limits([demos], moved=False).items()}
        assert Limits.of(handshake(demos.spec, listed(component, LIMIT))).high[0] == np.float32(0.1)
        assert refused(demos, component) == 0


@pytest.fixture(scope="module")
def actor() -> Actor:
    return Actor(DEMOS.spec, untrained.planner(Spaces.fit(DEMOS)), execute="chunk")


def component(actor: Actor, demos: Demonstrations = DEMOS) -> dict[str, np.ndarray]:
    windows = Windows(demos, window=actor.planner.window, chunk=actor.planner.chunk)
    return envelope.component(actor, [demos], demos, windows)


class TestComponent:
    def test_every_demonstration_passes(self, actor: Actor) -> None:
        assert refused(DEMOS, component(actor)) == 0
        planted = replace(DEMOS, action=DEMOS.action.copy())
        planted.action[5, 0] += 1.0
        assert refused(planted, component(actor)) > 0

    def test_mirror_images_pass_where_they_were_shown(self, actor: Actor) -> None:
        both = doubled(DEMOS, lambda demos: (-demos.observation, -demos.action))
        mirrored = envelope.limits([DEMOS, both], moved=False)
        assert refused(both, {f"limit.{name}": value for name, value in mirrored.items()}) == 0
        assert refused(both, component(actor)) > 0

    def test_it_is_the_same_to_the_bit_whatever_the_threads(self, actor: Actor) -> None:
        once, threads = component(actor), torch.get_num_threads()
        torch.set_num_threads(2)
        try:
            again = component(actor)
        finally:
            torch.set_num_threads(threads)
        assert list(once) == list(again)
        assert all(once[name].tobytes() == again[name].tobytes() for name in once)
        assert {value.dtype for value in once.values()} == {np.dtype(np.float64)}

    def test_it_holds_limits_and_quantiles_by_name(self, actor: Actor) -> None:
        found = component(actor)
        assert set(listed(found, LIMIT)) == set(LIMITED)
        signals = listed(found, SIGNAL)
        assert set(signals) == {"entropy", "offset", "surprise"}
        assert all(len(values) == len(envelope.LEVELS) and values == sorted(values) for values in signals.values())
        assert 0 < signals["entropy"][-1] <= untrained.Q * np.log(untrained.K) + 1e-6
        assert np.exp(-found["codes.surprise"]).sum(1) == pytest.approx(np.ones(untrained.K))

    def test_few_windows_are_planned_for(self, actor: Actor, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(envelope, "WINDOWS", 10)
        asked: list[np.ndarray] = []
        windows = Windows(DEMOS, window=actor.planner.window, chunk=actor.planner.chunk)
        gather = windows.gather
        monkeypatch.setattr(Windows, "gather", lambda self, index: asked.append(index) or gather(index))
        envelope.sampled(actor.planner, windows)
        (index,) = asked
        assert len(index) == 10
        assert (index[0], index[-1]) == (0, 9 * len(windows) // 10)

    def test_transitions_are_those_between_plans(self, actor: Actor) -> None:
        """One chunk apart where chunks are played whole, one step apart else."""
        chunk = actor.planner.chunk
        tokenizer = actor.planner.prior.tokenizer
        windows = Windows(DEMOS, window=1, chunk=chunk)
        batch = windows.gather(np.arange(len(windows)))
        codes = tokenizer.encode(tokenizer.normalizer.normalize(torch.from_numpy(batch["action"])))[:, 0].numpy()
        for stride in (1, chunk):
            counts = np.full((untrained.K, untrained.K), envelope.UNSEEN)
            for first, end in zip(DEMOS.episode_starts, DEMOS.episode_ends, strict=True):
                for step in range(first, end - chunk - stride + 1):
                    counts[codes[step], codes[step + stride]] += 1
            table, values = envelope.transitions(actor.planner, DEMOS, stride)
            np.testing.assert_allclose(table, -np.log(counts / counts.sum(1, keepdims=True)), rtol=1e-12)
            assert len(values) == int(counts.sum() - envelope.UNSEEN * counts.size)

    def test_episodes_too_short_for_two_plans_have_no_transitions(self, actor: Actor) -> None:
        chunk = actor.planner.chunk
        short = replace(
            DEMOS,
            observation=DEMOS.observation[: 2 * chunk],
            action=DEMOS.action[: 2 * chunk],
            episode_ends=np.array([chunk, 2 * chunk]),
        )
        found = component(actor, short)
        assert "codes.surprise" not in found
        assert set(listed(found, SIGNAL)) == {"entropy", "offset"}

    def test_a_broken_prior_is_a_sentence(self) -> None:
        planner = untrained.planner(Spaces.fit(DEMOS))
        with torch.no_grad():
            next(planner.prior.code_head.parameters()).fill_(torch.nan)
        with pytest.raises(TrainingError, match=r"its logits for the demonstrations .* train it again"):
            component(Actor(DEMOS.spec, planner, execute="first"))


class TestWatched:
    @pytest.mark.parametrize("sequential", [False, True])
    def test_signals_change_no_action(self, sequential: bool) -> None:
        plain, watched = (untrained.build(sequential=sequential, watched=on).planner for on in (False, True))
        seen, uniform = observations(untrained.T).transpose(1, 0, 2), np.full((6, untrained.Q), 0.3)
        one, two = plain.plan(seen, None, uniform), watched.plan(seen, None, uniform)
        assert np.array_equal(one.chunk, two.chunk)
        assert np.array_equal(one.tags, two.tags)
        assert (one.signals.shape, two.signals.shape) == ((6, 0), (6, 2))
        assert "watched" not in str(watched.arguments()), "a bundle is the same, watched or not"

    @pytest.mark.parametrize("sequential", [False, True])
    def test_entropy_and_offset_are_those_of_the_drawn_codes(self, sequential: bool) -> None:
        planner = untrained.build(sequential=sequential, watched=True, temperature=0.5).planner
        seen = observations(untrained.T).transpose(1, 0, 2)
        plan = planner.plan(seen, None, np.full((6, untrained.Q), 0.3))
        prior, codes = planner.prior, torch.from_numpy(plan.tags)
        with torch.no_grad():
            features = prior.last(torch.from_numpy(seen))
            p = (prior.code_head(features, codes) / 0.5).double().softmax(2)
            offset = prior.chunk(features, codes) - prior.tokenizer.decode(codes)
        np.testing.assert_allclose(plan.signals[:, 0], -(p * p.log()).sum((1, 2)), rtol=1e-5)
        np.testing.assert_allclose(plan.signals[:, 1], offset.abs().mean((1, 2)), rtol=1e-4)

    def test_a_policy_far_from_its_demonstrations_is_warned_of(self, actor: Actor) -> None:
        """Offsets grow with features that no demonstration had; nothing is refused for it."""
        watch = SignalWatch.of(component(actor))
        planner = untrained.planner(Spaces.fit(DEMOS))
        planner.watched = True
        with torch.no_grad():
            for parameter in planner.prior.offset_head.parameters():
                parameter.mul_(50.0)
        plan = planner.plan(DEMOS.observation[None, :2], None, np.full((1, untrained.Q), 0.5))
        signals = watch.see(dict(zip(("entropy", "offset"), plan.signals[0].tolist(), strict=True)), plan.tags[0])
        assert watch.warnings(signals) == ["offset"]
