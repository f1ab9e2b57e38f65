"""What a comparison says: thresholds, sentences, refusals, and a page of the same bytes for the same content."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from tests.support.drifting import LIMITS, chosen, coded, compared, joined, moved, process
from vqbet.contract import Channel, StoreError, ValidationError
from vqbet.drift import Thresholds, compare, page

OLD, NEW = process(2, 30), process(3, 30)


def test_another_seed_fits() -> None:
    report = compared(OLD, NEW)
    assert report.exceeded == []
    assert report.conclusion == "the champion's tokenizer still fits"


def test_what_the_tokenizer_never_sees_asks_for_a_policy_only() -> None:
    report = compared(OLD, moved(NEW, 0, by=2.0))
    assert {each.asks for each in report.exceeded} == {"policy"}
    fits, sees = report.conclusion.split(", but its policy sees other things: ")
    assert fits == "the champion's tokenizer still fits"
    assert sees.startswith("max_shift is 0.2, but observation.o0 has ")


def test_an_action_that_moved_asks_for_a_tokenizer_first() -> None:
    report = compared(OLD, moved(moved(NEW, 0, by=3.0), 4, by=2.0))
    assert report.exceeded[0].what == "action.a1"
    assert report.exceeded[-1].what == "observation.o0"
    assert report.conclusion.startswith("a new tokenizer is needed: max_shift is 0.2, but action.a1 has ")


def test_more_than_its_threshold_and_no_more_than_chance_is_let_pass() -> None:
    """By the value alone, two versions of few episodes of one process would be a drift."""
    report = compared(process(4, 8), process(5, 8), Thresholds(0.05, 0.001, 1.0))
    assert max(each.distance for each in report.shifts) > 0.2
    assert report.tellable
    assert report.exceeded == []


def test_where_chance_cannot_be_told_size_decides() -> None:
    report = compared(chosen(OLD, [0, 1]), moved(chosen(NEW, [0, 1]), 3, by=4.0))
    assert not report.tellable
    assert "action.a0" in {each.what for each in report.exceeded}


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (
            replace(OLD.spec, action=(OLD.spec.action[0], Channel("a1", "mm", -9.0, 9.0))),
            r"action\[1\]: .*name='a1', unit='m'.* here, .*unit='mm'.* there",
        ),
        (replace(OLD.spec, observation=OLD.spec.observation[:2]), "only here: o2, only there: none"),
        (replace(OLD.spec, control_hz=20.0), "control_hz: 10.0 here, 20.0 there"),
    ],
)
def test_specs_that_differ_are_refused_by_name(spec, named: str) -> None:
    new = replace(NEW, spec=spec, observation=NEW.observation[:, : len(spec.observation)])
    with pytest.raises(StoreError, match=named):
        compared(OLD, new)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_none_is_refused_by_episode_step_and_channel(value: float) -> None:
    action = NEW.action.copy()
    action[NEW.episode_starts[4] + 7, 1] = value
    with pytest.raises(ValidationError, match=rf"the new version: action\.a1 is {value} at episode 4, step 7"):
        compare(OLD, replace(NEW, action=action), (coded(OLD), coded(NEW)), LIMITS)


class TestJson:
    def test_equal_versions_give_equal_bytes(self) -> None:
        one, two = (json.dumps(compared(OLD, NEW).to_json(), sort_keys=True, allow_nan=False) for _ in range(2))
        assert one == two

    def test_what_it_says(self) -> None:
        new = joined(chosen(moved(OLD, 0, by=0.0), [2, 1, 0, *range(5, 30)]), process(7, 3))
        value = compared(OLD, new).to_json()
        assert value["episodes"] == {
            "old": 30,
            "new": 31,
            "kept": 28,
            "reordered": True,
            "added": ["28-30"],
            "added_count": 3,
            "removed": ["3-4"],
            "removed_count": 2,
            "changed": [],
            "changed_count": 0,
        }
        assert value["limits"] == {"max_shift": 0.2, "max_divergence": 0.02, "max_tail": 1.25}
        assert [each["name"] for each in value["shifts"]] == [
            "observation.o0", "observation.o1", "observation.o2", "action.a0", "action.a1",
        ]  # fmt: skip
        assert not compared(OLD, OLD).to_json()["episodes"]["reordered"]


class TestPage:
    def value(self, **changes: float):
        return compared(OLD, moved(NEW, 3, **changes)).to_json()

    def test_equal_content_gives_an_equal_page_that_loads_nothing(self) -> None:
        text = page.render(self.value(by=2.0))
        assert text == page.render(json.loads(json.dumps(self.value(by=2.0))))
        assert "NEW TOKENIZER NEEDED" in text
        assert not re.search(r"(src|href)=|https?://|nan", text)
        assert text.count('class="new"') == 5 + 2 + 2  # channels, layers, errors

    @pytest.mark.parametrize(("by", "words"), [(0.0, "TOKENIZER STILL FITS"), (2.0, "NEW TOKENIZER NEEDED")])
    def test_the_badge(self, by: float, words: str) -> None:
        assert page.badge(self.value(by=by))[1] == words

    def test_thresholds_name_the_largest(self) -> None:
        shift, codes, errors = page.checks(self.value(by=2.0))
        assert (shift["what"], shift["exceeded"], shift["limit"]) == ("action.a0", True, LIMITS.max_shift)
        assert codes["what"] == "layer 0"
        assert errors["threshold"] == "max_tail"

    def test_thresholds_name_what_exceeds_them_before_what_chance_moved_farther(self) -> None:
        value = self.value(by=2.0)
        value["shifts"][0] |= {"distance": 99.0, "p": 1.0}
        assert page.checks(value)[0]["what"] == "action.a0"
        drawn = page.dots(value["shifts"], value)["rows"]
        assert [(row["over"], row["chance"]) for row in drawn if row["name"] in ("observation.o0", "action.a0")] == [
            (False, True),
            (True, False),
        ]

    def test_a_hostile_name_is_escaped(self) -> None:
        value = self.value(by=2.0)
        value["shifts"][0]["name"] = "<script>alert(1)</script>"
        assert "<script>" not in page.render(value)

    def test_nothing_that_differs_is_drawn_too(self) -> None:
        value = compared(OLD, OLD).to_json()
        assert "30</b><span>episodes kept" in page.render(value)
