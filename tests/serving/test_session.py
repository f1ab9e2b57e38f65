"""What a session takes from a robot, and what it refuses before anything is computed."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support import untrained
from tests.support.synthetic import synthetic
from vqbet.contract import SLACK, WorldError
from vqbet.serving.session import Session

DEMOS = synthetic(4, D=5, A=2)
LOW, HIGH = (np.array([getattr(channel, end) for channel in DEMOS.spec.observation]) for end in ("low", "high"))
SEEN = DEMOS.observation[0]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A small policy that is told where its first channel shall be in the end."""
    folder = tmp_path_factory.mktemp("session") / "policy"
    _, digest = untrained.written(folder, DEMOS, goal=(DEMOS.spec.observation[0].name,), execute="first")
    return Session(folder, digest)


@pytest.fixture
def started(session: Session) -> Session:
    session.start(3, np.zeros(1, np.float32))
    return session


def test_an_episode_comes_first(session: Session) -> None:
    fresh = object.__new__(Session)
    fresh.__dict__ |= session.__dict__ | {"_started": False}
    with pytest.raises(WorldError, match=r"no episode was started; call start\(seed, goal\) first"):
        fresh.act(SEEN)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_real_numbers_within_the_limits_act(started: Session, kind: type) -> None:
    assert started.act(SEEN.astype(kind)).shape == (2,)


def test_noise_beyond_the_limits_acts(started: Session) -> None:
    """As much as a sensor may err: 25 standard deviations of the gate's noise are a tenth of what is allowed."""
    for end, sign in ((LOW, -1), (HIGH, 1)):
        beyond = end + sign * (SLACK - 1e-3) * (HIGH - LOW)
        assert np.isfinite(started.act(beyond.astype(np.float32))).all()


@pytest.mark.parametrize(
    ("observation", "sentence"),
    [
        (SEEN.tolist(), "expected a numpy array of 5 real numbers, got list"),
        ("0 0 0 0 0", "real numbers, got str"),
        (None, "real numbers, got NoneType"),
        (SEEN.astype(object), "got an array of object"),
        (SEEN.astype(complex), "got an array of complex128"),
        (np.array(["a"] * 5), "got an array of <U1"),
        (SEEN[:4], r"expected shape \(5,\), got \(4,\)"),
        (SEEN[None], r"expected shape \(5,\), got \(1, 5\)"),
        (np.full(5, np.nan, np.float32), "'feature_0' is nan m"),
        (np.full(5, np.inf, np.float32), "'feature_0' is inf m"),
        (np.full(5, 1e30, np.float32), r"'feature_0' is 1e\+30 m, its limits are -1.5 to 1.5"),
        (np.full(5, 3e38, np.float32), r"'feature_0' is 3e\+38 m"),
        (np.full(5, 1e300), r"'feature_0' is 1e\+300 m"),
        (
            np.where(np.arange(5) == 3, 150.0, SEEN),
            "'feature_3' is 150 m, .* check units, order of channels",
        ),
    ],
)
def test_what_is_no_observation_is_refused(started: Session, observation: object, sentence: str) -> None:
    before = started.act(SEEN)
    started.start(3, np.zeros(1, np.float32))
    with pytest.raises(WorldError, match=sentence):
        started.act(observation)  # type: ignore[arg-type]
    assert np.array_equal(started.act(SEEN), before), "the refused one left a trace"


@pytest.mark.parametrize(
    ("seed", "goal", "sentence"),
    [
        (-1, np.zeros(1), "seed: expected a whole number"),
        (2**63, np.zeros(1), "seed: expected a whole number"),
        (1.5, np.zeros(1), "seed: expected a whole number"),
        (1, np.full(1, 1e30), r"goal 'feature_0' is 1e\+30 m"),
        (1, [0.0], "goal: expected a numpy array of 1 real numbers, got list"),
        (1, np.zeros(2), r"goal: expected shape \(1,\), got \(2,\)"),
        (1, None, "goals: expected finite numbers"),
    ],
)
def test_what_starts_no_episode_is_refused(session: Session, seed: object, goal: object, sentence: str) -> None:
    with pytest.raises(WorldError, match=sentence):
        session.start(seed, goal)  # type: ignore[arg-type]
