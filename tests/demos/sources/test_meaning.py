"""Rate, limits and the kind of actions, told from numbers alone."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.made_source import HZ, MadeSource, made
from vqbet.demos.sources import meaning
from vqbet.demos.sources.meaning import ActionMeaning

NAMES = (["shoulder", "elbow"], ["shoulder", "elbow"])


def told(source: MadeSource, names: tuple[list[str], list[str]] = NAMES, columns: slice = slice(None)) -> ActionMeaning:
    parts = source.values
    return meaning.of_actions(
        np.concatenate([one["state"] for one in parts]),
        np.concatenate([one["action"] for one in parts])[:, columns],
        np.cumsum([len(one["state"]) for one in parts]),
        names,
    )


@pytest.mark.parametrize("gain", [0.05, 0.5, 1.0])
def test_targets_are_absolute(gain: float) -> None:
    found = told(made(gain=gain))
    assert (found.kind, found.absolute > 0.99) == ("absolute", True)


def test_changes_are_relative() -> None:
    found = told(made(relative=True))
    assert (found.kind, found.relative > 0.99) == ("relative", True)


def test_an_action_is_compared_with_the_channel_of_its_name_or_else_the_one_it_explains() -> None:
    source = made()
    for one in source.values:
        one["action"] = one["action"][:, ::-1].copy()
    assert told(source, (["shoulder", "elbow"], ["elbow", "shoulder"])).kind == "absolute"
    found = told(source, (["shoulder", "elbow"], ["x"]), slice(1, 2))
    assert (found.kind, found.pairs) == ("absolute", (("x", "shoulder"),))


def test_noise_tells_nothing() -> None:
    source, random = made(), np.random.default_rng(1)
    for one in source.values:
        one["action"] = random.normal(0, 1, one["action"].shape).astype(np.float32)
    assert told(source).kind == ""


def test_a_state_that_never_changes_tells_nothing() -> None:
    source = made()
    for one in source.values:
        one["state"] = np.ones_like(one["state"])
    assert told(source) == ActionMeaning(0.0, 0.0, ())


def test_ends_of_episodes_are_no_change() -> None:
    """A jump between two episodes would outweigh all motion within them."""
    source = made()
    for number, one in enumerate(source.values):
        one["state"] = one["state"] + 100.0 * number
        one["action"] = one["action"] + 100.0 * number
    assert told(source).absolute > 0.99


def test_limits_hold_what_was_recorded_and_a_tenth_more() -> None:
    values = np.array([[0.123456, -3.0, 7.0], [1.123456, 3.0, 7.0]])
    (first, second, still) = meaning.limits(values)
    assert first == (0.023, 1.224)
    assert second == (-3.6, 3.6)
    assert still == (6.0, 8.0)
    for (low, high), column in zip(meaning.limits(values * 1e6), values.T * 1e6, strict=True):
        assert low < column.min()
        assert high > column.max()


def test_the_rate_is_measured() -> None:
    steady = np.arange(50) / HZ
    late = steady.copy()
    late[20:] += 3.0  # one long pause does not change the rate
    assert meaning.rate_hz([steady, late]) == HZ
    assert meaning.rate_hz([]) is None
    assert meaning.rate_hz([np.zeros(5)]) is None
