"""Validation of demonstrations that fit together: what is refused, what is advised, what is written."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import up_to
from tests.support.synthetic import synthetic
from vqbet import tasks
from vqbet.contract import Channel, Demonstrations, ValidationError
from vqbet.demos.validation import checks, page, tables, validate
from vqbet.demos.validation.knowledge import Knowledge
from vqbet.demos.validation.measured import Bounds, Measured
from vqbet.tasks.pusht import importer

BOUNDS: dict[str, Any] = {
    "min_steps": 20,
    "max_steps": 100,
    "max_saturated": 0.05,
    "max_duplicates": 0.01,
    "min_success": 0.9,
}


def run(demos: Demonstrations, **changes: Any) -> validate.Report:
    return validate.validate(demos, tasks.of(demos.spec).validation(), **{**BOUNDS, **changes})


@pytest.fixture
def exact_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Great Expectations: what the exact checks find by themselves."""
    monkeypatch.setattr(validate, "_expect", lambda measured: [])


@pytest.mark.slow
@pytest.mark.parametrize(("episodes", "seed", "D", "A"), [(20, 0, 4, 2), (7, 3, 1, 1), (60, 5, 16, 7), (1, 1, 3, 2)])
def test_good_demonstrations_are_fit(episodes: int, seed: int, D: int, A: int) -> None:
    report = run(synthetic(episodes, seed, D, A))
    assert report.errors == ()
    assert report.advice == ()
    assert all(entry["passed"] for entry in report.gx)


@pytest.mark.slow
def test_real_pusht_is_fit(real_demos: Callable[[str], Path]) -> None:
    report = run(importer.load(real_demos("pusht")), max_steps=400, min_success=0.0)
    assert report.errors == ()
    assert report.tables["summary"]["steps"] == 25650


@pytest.mark.usefixtures("exact_only")
def test_a_fault_is_located_by_episode_and_step() -> None:
    demos = synthetic()
    observation = demos.observation.copy()
    observation[demos.episode_starts[3] + 17, 2] = np.nan
    observation[demos.episode_starts[5] + 1, 2] = np.inf
    (finding,) = run(replace(demos, observation=observation)).errors
    assert (finding.check, finding.field, finding.episode, finding.step) == ("finite", "observation.feature_2", 3, 17)
    assert finding.message == "observation.feature_2 is nan at episode 3, step 17; 2 steps in 2 episodes (3, 5)"


@up_to(15)
@given(data=st.data())
def test_any_place_of_a_fault_is_found(data: st.DataObject) -> None:
    demos = synthetic(5, seed=data.draw(st.integers(0, 3)))
    step = data.draw(st.integers(0, len(demos.action) - 1))
    column = data.draw(st.integers(0, 1))
    value = data.draw(st.sampled_from([np.nan, np.inf, -np.inf, 9.0, -9.0]))
    action = demos.action.copy()
    action[step, column] = value
    broken = replace(demos, action=action)
    finding = checks.contents(Measured.of(broken, Bounds(**BOUNDS), Knowledge()))[0]
    episode = int(np.searchsorted(demos.episode_ends, step, side="right"))
    assert finding.severity == "error"
    assert finding.field == f"action.target_{column}"
    assert (finding.episode, finding.step) == (episode, step - demos.episode_starts[episode])


def _with_observation(demos: Demonstrations, index: Any, value: Any) -> Demonstrations:
    observation = demos.observation.copy()
    observation[index] = value
    return replace(demos, observation=observation)


def _stuck(demos: Demonstrations) -> Demonstrations:
    return _with_observation(demos, (slice(*demos.episode_ends[3:5]), 1), 0.25)


def _still(demos: Demonstrations) -> Demonstrations:
    start = demos.episode_starts[2] + 3
    action = demos.action.copy()
    action[start : start + 22] = action[start]
    return _with_observation(replace(demos, action=action), slice(start, start + 22), demos.observation[start])


def _column(name: str, value: Any) -> Callable[[Demonstrations], Demonstrations]:
    def change(demos: Demonstrations) -> Demonstrations:
        column = demos.columns[name].copy()
        column[4] = value
        return replace(demos, columns={**demos.columns, name: column})

    return change


ADVICE: dict[str, tuple[Callable[[Demonstrations], Demonstrations], str, int]] = {
    "fixed target": (lambda d: _with_observation(d, (slice(None), 3), 0.5), "dead", 0),
    "sensor stuck for an episode": (_stuck, "dead", 4),
    "pause": (_still, "still", 2),
    "teleport": (lambda d: _with_observation(d, (d.episode_starts[6] + 9, 0), -1.4), "jumps", 6),
    "a failure": (_column("success", False), "success", 4),
    "nobody's": (_column("operator", ""), "columns", 4),
}


@pytest.mark.usefixtures("exact_only")
@pytest.mark.parametrize("name", ADVICE)
def test_advice_does_not_block(name: str) -> None:
    change, check, episode = ADVICE[name]
    report = run(change(synthetic(40)))
    assert report.errors == ()
    assert check in {finding.check for finding in report.advice}
    assert {finding.episode for finding in report.advice} == {episode}
    validate.raise_for_errors(report, "here")


@pytest.mark.usefixtures("exact_only")
def test_few_copies_are_advice_and_many_are_not() -> None:
    demos = synthetic(4)
    twice = replace(
        demos,
        observation=np.concatenate([demos.observation] * 2),
        action=np.concatenate([demos.action] * 2),
        time_s=np.concatenate([demos.time_s] * 2),
        state=None,
        episode_ends=np.concatenate([demos.episode_ends, demos.episode_ends + len(demos.action)]),
        columns={name: np.concatenate([column, column]) for name, column in demos.columns.items()}
        | {"seed": np.full(8, -1, np.int64)},
    )
    (advice,) = run(twice, max_duplicates=0.5).advice
    (error,) = run(twice, max_duplicates=0.4).errors
    assert advice.check == error.check == "duplicates"
    assert "repeat episode 0 bit for bit at episode 4; 4 episodes (4, 5, 6, 7)" in error.message


@pytest.mark.usefixtures("exact_only")
def test_a_full_turn_is_no_jump() -> None:
    demos = synthetic(3)
    angle = (np.arange(len(demos.action)) * 0.05 + np.pi) % (2 * np.pi) - np.pi
    channels = (replace(demos.spec.observation[0], unit="rad", low=-4.0, high=4.0), *demos.spec.observation[1:])
    turning = _with_observation(replace(demos, spec=replace(demos.spec, observation=channels)), (slice(None), 0), angle)
    assert run(turning).advice == ()


def test_single_step_episodes_and_limitless_channels_pass() -> None:
    demos = synthetic(30)
    spec = replace(demos.spec, action=tuple(Channel(c.name, "m", -np.inf, np.inf) for c in demos.spec.action))
    single = replace(
        demos,
        spec=spec,
        observation=demos.observation[:30],
        action=demos.action[:30],
        time_s=np.zeros(30),
        state=None,
        episode_ends=np.arange(1, 31),
    )
    report = run(single, min_steps=1)
    assert report.errors == ()
    json.dumps(report.to_json(), allow_nan=False)


EVIL_TABLES: dict[str, tuple[str, str, Any, str]] = {  # table, column, planted value, expectation that must notice
    "all NaN": ("episodes", "shortest_interval_s", np.nan, "not_be_null"),
    "infinite": ("episodes", "mean_interval_s", np.inf, "be_between"),
    "negative time": ("episodes", "shortest_interval_s", -0.1, "be_between"),
    "lengths": ("episodes", "length", 500, "be_between"),
    "copies": ("episodes", "copy_of", 3, "mean_to_be"),
    "failures": ("episodes", "success", False, "mean_to_be"),
    "seeds": ("episodes", "seed", 3, "be_unique"),
    "task": ("episodes", "task", "other", "in_set"),
    "nothing finite": ("channels", "minimum", np.nan, "not_be_null"),
    "above": ("channels", "maximum", 7.0, "greater_than"),
    "dead": ("channels", "deviation", 0.0, "be_between"),
    "saturated": ("channels", "saturated", 0.9, "be_between"),
    "one name": ("channels", "name", "same", "compound_columns"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EVIL_TABLES)
def test_expectations_see_what_an_exact_check_would_miss(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table, column, value, expectation = EVIL_TABLES[name]
    honest = getattr(tables, table)

    def planted(demos: Demonstrations) -> tables.Table:
        found = honest(demos)
        return {**found, column: np.full(len(found[column]), value)}

    monkeypatch.setattr(tables, table, planted)
    monkeypatch.setattr(validate, "contents", lambda measured: [])
    errors = run(synthetic()).errors
    assert {error.check for error in errors} == {"expectation"}
    assert any(expectation in error.message for error in errors)


def test_an_unanswered_expectation_is_not_a_pass() -> None:
    with pytest.raises(ValidationError, match="2 expectations were asked, 0 were answered"):
        validate._entries("episodes", [], expected=2)


@pytest.mark.usefixtures("exact_only")
def test_the_message_names_the_first_errors_and_what_to_do() -> None:
    demos = synthetic()
    report = run(_with_observation(demos, (slice(None), slice(None)), np.nan), min_steps=90)
    with pytest.raises(ValidationError) as caught:
        validate.raise_for_errors(report, Path("data/x.zarr"))
    text = str(caught.value)
    assert text.startswith(
        "data/x.zarr: not fit for training, 5 errors:\n  - observation.feature_0 is nan at episode 0, step 0"
    )
    assert "length is" in text
    assert "-> drop the episode" in text
    assert "more in report.json" not in text


@pytest.mark.usefixtures("exact_only")
def test_many_errors_are_cut_short() -> None:
    demos = synthetic(D=12)
    report = run(_with_observation(demos, (slice(None), slice(None)), np.nan))
    with pytest.raises(ValidationError, match=r"12 errors:(.|\n)*and 7 more in report\.json"):
        validate.raise_for_errors(report, "x")


@pytest.mark.slow
def test_report_and_page_are_deterministic_and_load_nothing(tmp_path: Path) -> None:
    demos = _with_observation(synthetic(), (100, 2), np.nan)
    hostile = replace(demos, spec=replace(demos.spec, frame="<script>alert(1)</script>"))
    for name in ("one", "two"):
        validate.write(run(hostile), tmp_path / name)
    for name in ("report.json", "index.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    value = json.loads((tmp_path / "one" / "report.json").read_text())
    assert value["fit"] is False
    assert value["errors"][0]["field"] == "observation.feature_2"
    assert not re.search(r"batch_id|run_id|validation_id|traceback", json.dumps(value))
    page = (tmp_path / "one" / "index.html").read_text()
    assert "NOT FIT" in page
    assert "observation.feature_2 is nan at episode" in page
    assert page.count("<svg") == 1 + 2 * 6
    assert not re.search(r"https?://|<script|<link|<iframe|url\(|@import| src=", page)


def test_a_broken_structure_still_gets_its_page(tmp_path: Path) -> None:
    demos = synthetic()
    report = run(replace(demos, action=demos.action.astype(np.float64)))
    assert report.gx == ()
    validate.write(report, tmp_path)
    assert "action has dtype float64; expected float32" in (tmp_path / "index.html").read_text()


def test_histograms_count_every_finite_value_once() -> None:
    demos = _with_observation(synthetic(), (0, 0), np.nan)
    found = tables.histograms(demos)
    assert sum(found["length"]["counts"]) == len(demos.episode_ends)
    assert sum(found["observation.feature_0"]["counts"]) == len(demos.observation) - 1
    assert len(found["length"]["counts"]) <= tables.BINS
    plot = page.histogram(found["length"], width=100, height=50, bounds=(25, 9000), ticks=True)
    assert len(plot["bounds"]) == 1  # 9000 is out of view
    assert [float(tick["label"]) for tick in plot["ticks"]] == sorted(float(tick["label"]) for tick in plot["ticks"])


@pytest.mark.slow
def test_a_hundred_thousand_steps_take_seconds() -> None:
    demos = synthetic(2550, D=16)  # about 115,000 steps
    run(synthetic())  # the import of Great Expectations is not counted
    started = time.process_time()  # the core may have other work
    assert run(demos).errors == ()
    assert time.process_time() - started < 10  # 0.8 s on an idle core
