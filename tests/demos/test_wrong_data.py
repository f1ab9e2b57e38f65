"""Wrong data that is well formed: kinds of it, made from good demonstrations, and good ones that look unusual."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import unusual_data, wrong_kinds
from tests.support.recorded import recorded
from tests.support.synthetic import synthetic
from vqbet import tasks
from vqbet.config.task import ValidateParams
from vqbet.contract import ConfigError, Demonstrations
from vqbet.demos.validation import ends, likeness, motion, plausible, validate
from vqbet.demos.validation.knowledge import Knowledge
from vqbet.demos.validation.measured import Bounds, Measured
from vqbet.stages import worlds
from vqbet.tasks.blockpush.oracle import demonstrations
from vqbet.tasks.blockpush.spec import SUCCESS_M
from vqbet.tasks.blockpush.validation import IN_TARGET_M
from vqbet.tasks.kitchen import importer as kitchen
from vqbet.tasks.pusht import importer as pusht

BOUNDS: dict[str, Any] = {
    "min_steps": 20,
    "max_steps": 400,
    "max_saturated": 0.05,
    "max_duplicates": 0.01,
    "min_success": 0.9,
}

EXPECT = validate._expect
CAUGHT = {
    "actions / 1000": "motion",
    "actions / 3": "motion",
    "two action channels swapped": "motion",
    "one action's sign": "motion",
    "all actions' signs": "motion",
    "actions 1 step late": "motion",
    "actions 1 step early": "motion",
    "actions 5 steps late": "motion",
    "actions shuffled in the episode": "motion",
    "actions of another episode": "motion",
    "actions are noise": "motion",
    "actions constant in each episode": "motion",
    "one action channel 1e-6 noise": "faint",
    "observed x and y swapped": "motion",
    "observations / 1000": "motion",
    "time reversed": "done_at_start",
    "copies of one with 1e-5 noise": "near_copies",
    "half of it duplicated with 1e-3 noise": "near_copies",
    "half of it duplicated 1.25 times slower": "near_copies",
    "second halves cut off": "success_seen",
    "first halves cut off": "done_at_start",
    "every second step dropped": "motion",
    "every step repeated": "motion",
    "two episodes glued into one": "seams",
    "nothing moves, but success": "success_seen",
    "one episode in ten: actions 3 late": "motion",
    "one episode in ten: constant actions": "motion",
}


@pytest.fixture(scope="module")
def good() -> Demonstrations:
    return demonstrations(24, 0)


@pytest.fixture(autouse=True)
def exact_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exact checks must see every kind by themselves."""
    monkeypatch.setattr(validate, "_expect", lambda measured: [])


def knowledge(demos: Demonstrations) -> Knowledge:
    return tasks.of(demos.spec).validation()


def run(demos: Demonstrations, **changes: Any) -> validate.Report:
    return validate.validate(demos, knowledge(demos), **{**BOUNDS, **changes})


def made(kind: str, demos: Demonstrations) -> Demonstrations:
    return wrong_kinds.KINDS[kind](demos, np.random.default_rng(0))


@pytest.mark.parametrize("kind", CAUGHT)
def test_a_wrong_kind_is_refused_by_episode_and_field(kind: str, good: Demonstrations) -> None:
    found = [each for each in run(made(kind, good)).errors if each.check == CAUGHT[kind]]
    assert found
    for each in found:
        assert each.episode is not None
        assert each.field.split(".")[0] in ("action", "observation", "columns")
        assert f"episode {each.episode}" in each.message


def test_there_are_many_kinds() -> None:
    assert len(wrong_kinds.KINDS) >= 41


@pytest.mark.parametrize(("name", "change"), unusual_data.CHANGES)
@pytest.mark.parametrize("episodes", [5, 24])
def test_unusual_data_is_accepted(name: str, change: wrong_kinds.Kind, episodes: int, good: Demonstrations) -> None:
    few = wrong_kinds.taken(good, wrong_kinds.steps(good)[:episodes], range(episodes))
    assert run(change(few, np.random.default_rng(1))).errors == ()


def test_real_pusht_and_kitchen_agree_with_their_tables(real_demos: Callable[[str], Path]) -> None:
    assert run(pusht.load(real_demos("pusht")), min_success=0.0).errors == ()
    demos = kitchen.load(real_demos("kitchen"))
    assert run(demos, max_saturated=0.1).errors == ()
    for kind in ("actions 1 step late", "one action's sign", "actions / 3", "every second step dropped"):
        assert "motion" in {each.check for each in run(made(kind, demos), max_saturated=0.1).errors}, kind


@pytest.mark.parametrize("task", ["blockpush", "pusht", "kitchen"])
def test_the_table_says_what_the_world_does(task: str) -> None:
    """Moved by smooth noise, the middle one of three episodes has the lag, and about the slope, of the table."""
    demos = _waved(task)
    for judged in motion.agreement(demos, knowledge(demos).references).judged:
        assert judged.link.source == "table"
        known, low, high = judged.link.known, *motion.OF_TABLE.slope
        assert known is not None
        assert np.median(judged.lag) == known.lag, known
        assert low < np.median(judged.numbers.slope) / known.slope < high, known


def _waved(task: str) -> Demonstrations:
    env = worlds.make(task)
    first = env.reset(np.arange(3))
    low, high = np.array([[channel.low, channel.high] for channel in env.spec.action]).T
    wave = _wave((60, len(first), len(low)))
    clock = iter(range(60))
    rest = first[:, -2:] if task == "pusht" else (low + high) / 2
    size = 0.1 * (high - low)
    made = recorded(env, first, lambda seen: np.clip(rest + size * wave[next(clock)], low, high), 60)
    return replace(made, columns={"success": np.zeros(len(first), bool)})


def _wave(shape: tuple[int, ...]) -> np.ndarray:
    """Smooth noise of about unit size along the first axis, which begins at 0."""
    noise = np.random.default_rng(0).normal(size=shape)
    for _ in range(2):
        for step in range(1, shape[0]):
            noise[step] = 0.8 * noise[step - 1] + 0.4 * noise[step]
    return noise - noise[:1]


def test_stirring_has_no_lag_of_a_whole_turn() -> None:
    """Commands that repeat themselves explain motion one turn later as well."""
    demos = demonstrations(12, 0)
    first = demos.episode_starts[np.repeat(np.arange(12), demos.lengths)]
    angle = 2 * np.pi / 8 * (np.arange(len(demos.action)) - first)
    action = np.stack([0.01 * np.cos(angle), 0.01 * np.sin(angle)], axis=1)
    observation = demos.observation.copy()
    for column in (8, 9):
        moved = np.cumsum(action[:, column - 8])
        observation[:, column] = moved - action[:, column - 8] - (moved - action[:, column - 8])[first]
    stirred = replace(demos, action=action.astype(np.float32), observation=observation)
    assert not motion.agreement(stirred, knowledge(demos).references).faults().any()


def test_a_reference_is_found_by_table_by_name_or_learned(good: Demonstrations) -> None:
    random = np.random.default_rng(0)
    for demos, source in (
        (good, "table"),
        (unusual_data.renamed(good, random), "name"),
        (unusual_data.anonymous(good, random), "learned"),
    ):
        assert {judged.link.source for judged in motion.agreement(demos, knowledge(demos).references).judged} == {
            source
        }


@pytest.mark.parametrize("how", [unusual_data.renamed, unusual_data.anonymous])
@pytest.mark.parametrize(
    "kind", ["actions 1 step late", "one episode in ten: actions' signs", "one episode in ten: another's actions"]
)
def test_an_unknown_task_is_held_against_itself(how: wrong_kinds.Kind, kind: str, good: Demonstrations) -> None:
    wrong = how(made(kind, good), np.random.default_rng(0))
    assert {each.check for each in run(wrong).errors} == {"motion"}


@pytest.mark.parametrize("kind", ["all actions' signs", "actions / 1000", "two action channels swapped"])
def test_names_tell_what_consistency_cannot(kind: str, good: Demonstrations) -> None:
    wrong = unusual_data.renamed(made(kind, good), np.random.default_rng(0))
    assert "motion" in {each.check for each in run(wrong).errors}


def test_actions_that_explain_nothing_at_all_are_refused(good: Demonstrations) -> None:
    wrong = unusual_data.anonymous(made("actions are noise", demonstrations(60, 0)), np.random.default_rng(0))
    errors = [each for each in run(wrong).errors if each.check == "motion"]
    assert {each.field for each in errors} == {"action.command0", "action.command1"}
    assert "explains neither changes nor values" in errors[0].message


def test_scripts_that_are_alike_are_no_copies() -> None:
    for episodes, seed in ((8, 6), (30, 6), (200, 1)):
        assert run(synthetic(episodes, seed, 1, 1)).errors == ()


def test_few_near_copies_are_advice(good: Demonstrations) -> None:
    every = wrong_kinds.steps(good)
    twice = wrong_kinds.taken(good, [*every, every[3]], [*range(24), 3])
    noisy = twice.observation.copy()
    noisy[-len(every[3]) :, 0] += 1e-6
    doubled = replace(twice, observation=noisy)
    assert likeness.likeness(doubled).copy_of.tolist() == [-1] * 24 + [3]
    (error,) = run(doubled).errors
    (advice,) = run(doubled, max_duplicates=0.1).advice
    assert error.check == advice.check == "near_copies"
    assert "observation nearly repeats episode 3 at episode 24" in advice.message


def test_what_always_moves_moves_in_a_success(good: Demonstrations) -> None:
    """In a task of which nothing is known: one block of a success stood still (advice), both did (error)."""
    own = unusual_data.renamed(good, np.random.default_rng(0))
    steps = slice(own.episode_starts[5], own.episode_ends[5])
    for columns, severity in ((slice(1, 2), "advice"), (slice(0, 10), "error")):
        observation = own.observation.copy()
        observation[steps, columns] = observation[steps.start, columns]
        found = list(plausible.motionless(measured(replace(own, observation=observation))))
        assert {each.episode for each in found} == {5}
        assert {each.severity for each in found} == {severity}
    assert list(plausible.motionless(measured(own))) == []


def measured(demos: Demonstrations) -> Measured:
    return Measured.of(demos, Bounds(**BOUNDS), knowledge(demos))


def test_a_goal_is_read_off_as_the_world_judges_it(good: Demonstrations) -> None:
    assert IN_TARGET_M > SUCCESS_M
    goal = knowledge(good).goal
    assert ends.success_seen(good, goal).all()
    assert not ends.done_at_start(good, goal).any()
    other = unusual_data.renamed(good, np.random.default_rng(0))
    for known, demos in ((None, good), (goal, other)):  # it cannot be read off
        assert ends.success_seen(demos, known).all()
        assert not ends.done_at_start(demos, known).any()


def test_nan_hides_nothing_else_and_breaks_nothing(good: Demonstrations) -> None:
    observation = made("one action's sign", good).observation.copy()
    observation[:50] = np.nan
    wrong = replace(made("one action's sign", good), observation=observation)
    assert {"finite", "motion"} <= {each.check for each in run(wrong).errors}
    run(replace(good, observation=np.full_like(good.observation, np.nan)))


def test_a_waiver_turns_an_error_into_advice_with_its_reason(tmp_path: Path, good: Demonstrations) -> None:
    wrong = made("actions / 3", good)
    assert run(wrong).errors
    report = run(wrong, waive={"motion": "the log is in thirds"})
    assert report.errors == ()
    assert {each.waiver for each in report.advice if each.check == "motion"} == {"the log is in thirds"}
    assert all("(waived: the log is in thirds)" in each.message for each in report.advice if each.check == "motion")
    assert report.to_json()["tables"]["summary"]["bounds"]["waive"] == {"motion": "the log is in thirds"}
    validate.write(report, tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert "Waivers" in page
    assert "the log is in thirds" in page
    assert run(wrong, waive={"jumps": "not this one"}).errors


def test_an_expectation_of_a_waived_check_is_no_error(good: Demonstrations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "_expect", EXPECT)
    report = run(made("actions / 3", good), waive={"motion": "the log is in thirds"})
    assert report.errors == ()
    assert [entry["passed"] for entry in report.gx if entry["column"] == "motion_faults"] == [True, False]


@pytest.mark.parametrize("waive", [{"motions": "typo"}, {"finite": "NaN is fine"}, {"structure": "no"}])
def test_a_waiver_of_no_check_is_refused(waive: dict[str, str], good: Demonstrations) -> None:
    with pytest.raises(ConfigError, match="is no check that may be waived; there are length, limits"):
        run(good, waive=waive)


def test_a_waiver_without_a_reason_is_refused(good: Demonstrations) -> None:
    with pytest.raises(ConfigError, match="motion: expected a reason"):
        run(good, waive={"motion": "  "})
    with pytest.raises(ValueError, match="waive"):
        ValidateParams.model_validate({**BOUNDS, "waive": {"motion": "  "}})
    assert ValidateParams.model_validate(BOUNDS).waive == {}
