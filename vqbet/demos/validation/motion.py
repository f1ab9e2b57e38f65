"""Agreement of actions and the motion that follows them, per episode and action channel, and over the set.

Each link of an action channel with the observed channel that it moves (`references`) is compared with the task's table,
or with the median of the set if there is no table. A set without a table is also checked as a whole against two general
rules: nothing moves before its command, and a channel moves what it is named after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Bool, Float, Int

from vqbet.contract import Demonstrations
from vqbet.demos.validation.knowledge import Known
from vqbet.demos.validation.references import Link, links
from vqbet.demos.validation.signals import TINY, Signals, searched

LEAST_STEPS = 15  # least steps with a command and a motion for an episode to be checked
LEAST_EPISODES = 8  # least episodes for a median to be the rule of a set
STRONG = 0.5  # least median correlation that is a rule for single episodes
NEAR_EXACT = 0.9  # ... and that makes channel, scale and unexplained share rules too
LIVELY = 0.5  # of the median size of commands: episodes with smaller commands are not checked
IDLE_COMMANDS, IDLE_MOTION = 0.02, 0.3  # of the medians: motion without commands
SAME_LAG = 0.4  # share of a set's episodes that must agree on a lag for it to be a rule
PLAIN = 0.03  # unexplained share of motion up to which the lag is right: in circles a lag one turn later fits too
FEW = 0.2  # of a set's episodes
NOTHING, NO_VALUE = 0.1, 0.2  # smaller correlations of changes and of values explain nothing
WRONG_SIGN = -0.3  # a median correlation below this means commands in the opposite direction
INSTEAD = 0.7  # of another link's strength: an action that explains that link's channel so well belongs there ...
NOT_ITS_OWN = 0.5  # ... if it explains less than this share of its own
EARLIER = 0.7  # of what no later lag explains: a motion before its command leaves less than this share unexplained
SURE = 0.9  # a correlation above this determines a scale
NAMED_SLOPE = (0.2, 5.0)  # of motion over a relative command that is named and measured like a change
VALUE_SLOPE = (0.4, 2.5)  # of an observed value over the absolute command of the same name


class Fault(IntEnum):
    """Disagreement of an episode's action channel with the motion of its observed channel."""

    NONE = 0
    IDLE = 1  # motion almost without commands
    REVERSED = 2  # time runs backwards
    AGAINST = 3  # opposite direction
    CHANNEL = 4  # another channel's command
    EARLY = 5  # motion before its command
    LAG = 6  # a different lag
    UNEXPLAINED = 7  # too little of the motion is explained
    SCALE = 8  # too much or too little motion for the command


@dataclass(frozen=True, slots=True)
class MotionLimits:
    """Limits on the deviation of an episode from its link's reference.

    weakest: least share of the expected correlation. sharper: another lag is a fault if it leaves less unexplained than
    this share of what the expected lag leaves. slope: smallest and largest share of the expected slope.
    """

    weakest: float
    sharper: float
    slope: tuple[float, float]


OF_TABLE = MotionLimits(weakest=0.65, sharper=0.6, slope=(0.6, 1.65))
OF_SET = MotionLimits(weakest=0.35, sharper=0.4, slope=(0.4, 2.5))


@dataclass(frozen=True, slots=True)
class ExpectedMotion:
    """Expectation of a link: lag in steps, slope, sign and size of its correlation, and the limits on deviations."""

    lag: int
    slope: float
    sign: float
    strength: float
    limits: MotionLimits
    backwards: tuple[int, float]  # lag and sign of the correlation if time runs backwards


@dataclass(frozen=True, slots=True)
class Numbers:
    """Measurements of one link in E episodes. Curves are correlations over lags; 0 where nothing is known.

    own: correlation at the expected lag. others: size of the action's correlation with the channels of all P links at
    this lag, 0 for its own.
    """

    curve: Float[np.ndarray, "E L"]
    own: Float[np.ndarray, " E"]
    others: Float[np.ndarray, "E P"]
    slope: Float[np.ndarray, " E"]
    command: Float[np.ndarray, " E"]  # root mean square
    motion: Float[np.ndarray, " E"]
    steps: Int[np.ndarray, " E"]

    @property
    def lively(self) -> Bool[np.ndarray, " E"]:
        """Return which episodes can be checked: long enough, with commands of at least half the usual size."""
        return (self.steps >= LEAST_STEPS) & (self.command >= LIVELY * np.median(self.command)) & (self.command > 0)


@dataclass(frozen=True, slots=True)
class Judged:
    """Result of one link in E episodes. fault: one Fault each. lag: that of the best correlation of expected sign."""

    link: Link
    expected: ExpectedMotion
    fault: Int[np.ndarray, " E"]
    lag: Int[np.ndarray, " E"]
    numbers: Numbers


@dataclass(frozen=True, slots=True)
class Agreement:
    """Results of every link in E episodes, and the action channels that explain no observed motion in the whole set."""

    judged: tuple[Judged, ...]
    unexplaining: tuple[int, ...]
    episodes: int

    def faults(self) -> Int[np.ndarray, " E"]:
        """Return the number of faulty links in each episode."""
        return sum((judged.fault > 0 for judged in self.judged), np.zeros(self.episodes, np.int64))


def agreement(demos: Demonstrations, table: Sequence[Known]) -> Agreement:
    """Check every link of demonstrations whose structure was checked; `table` is the one of `references.links`."""
    signals, lags = Signals.of(demos), searched(demos.spec.control_hz)
    chosen = links(demos.spec, signals, lags, table)
    pairs = np.array([(link.action, link.observed) for link in chosen])
    curves, values = signals.curves(pairs, lags), _values(demos, signals)
    judged = []
    for place, link in enumerate(chosen):
        expected = _expected(link, curves[:, place], signals, lags)
        numbers = _numbers(signals, pairs, place, expected.lag, curves[:, place])
        whole = _whole_set(demos, link, expected, numbers, lags, values)
        judged.append(_judge(link, expected, numbers, lags, whole))
    return Agreement(tuple(judged), _explain_nothing(judged, values), len(demos.episode_ends))


def _values(demos: Demonstrations, signals: Signals) -> tuple[Float[np.ndarray, "A D"], Float[np.ndarray, "A D"]]:
    """Return the correlation of each action with each observed channel at the same step, within episodes, and the slope
    of the observed value over the action."""
    action, _ = signals.centred(demos.action.astype(np.float64))
    seen, _ = signals.centred(demos.observation.astype(np.float64))
    both, size = action.T @ seen, np.maximum((action**2).sum(axis=0), TINY)[:, None]
    return both / np.sqrt(size * np.maximum((seen**2).sum(axis=0), TINY)), both / size


def _expected(
    link: Link, curve: Float[np.ndarray, "E L"], signals: Signals, lags: Int[np.ndarray, " L"]
) -> ExpectedMotion:
    """Return the expectation of a link from the table, or from the median of the set."""

    def backwards(lag: int, sign: float) -> tuple[int, float]:
        return (-1 - lag, -sign) if signals.relative else (-2 - lag, sign)

    if link.known is not None:
        lag, slope = link.known.lag, link.known.slope
        return ExpectedMotion(lag, slope, 1.0, link.known.strength, OF_TABLE, backwards(lag, 1.0))
    usual = np.median(curve, axis=0)
    best = int(np.abs(usual).argmax())
    lag, sign = int(lags[best]), float(np.sign(usual[best]))
    sums = signals.sums(np.array([[link.action, link.observed]]), lag)
    some = sums.command[:, 0] > 0
    slope = float(np.median(sums.product[some, 0] / sums.command[some, 0])) if some.any() else 0.0
    return ExpectedMotion(lag, slope, sign, float(abs(usual[best])), OF_SET, backwards(lag, sign))


def _numbers(
    signals: Signals, pairs: Int[np.ndarray, "P 2"], place: int, lag: int, curve: Float[np.ndarray, "E L"]
) -> Numbers:
    sums = signals.sums(pairs[place : place + 1], lag)
    steps, command, motion = sums.steps[:, 0], sums.command[:, 0], sums.motion[:, 0]
    others = np.abs(signals.across(int(pairs[place, 0]), pairs[:, 1], lag))
    others[:, place] = 0
    return Numbers(
        curve=curve,
        own=sums.product[:, 0] / np.sqrt(np.maximum(command * motion, TINY)),
        others=others,
        slope=sums.product[:, 0] / np.maximum(command, TINY),
        command=np.sqrt(command / np.maximum(steps, 1)),
        motion=np.sqrt(motion / np.maximum(steps, 1)),
        steps=steps,
    )


def _judge(link: Link, expected: ExpectedMotion, numbers: Numbers, lags: Int[np.ndarray, " L"], whole: Fault) -> Judged:
    """Return the first fault of each episode, in the order of Fault, or the fault of the whole set if there is one."""
    signed = expected.sign * numbers.curve
    best = signed.argmax(axis=1)
    fault = np.zeros(len(best), np.int64)
    ruled = link.known is not None or (expected.strength >= STRONG and len(best) >= LEAST_EPISODES)
    if ruled:
        seen = numbers.lively & (
            (numbers.motion > 0) | (link.known is not None)
        )  # a stuck channel without a table is reported by `dead`
        for kind, mark in sorted(_marks(expected, numbers, lags, best).items(), reverse=True):
            fault[mark & seen] = kind
        idle = _idle(link, numbers) & (fault != Fault.SCALE)
        fault[idle] = Fault.IDLE
    if whole:
        fault[numbers.lively] = whole
    return Judged(link, expected, fault, lags[best], numbers)


def _marks(
    expected: ExpectedMotion, numbers: Numbers, lags: Int[np.ndarray, " L"], best: Int[np.ndarray, " E"]
) -> dict[Fault, Bool[np.ndarray, " E"]]:
    """Return which episodes show each fault, regardless of the others. The best lag of an episode is lags[best]."""
    limits, strength, own = expected.limits, expected.strength, expected.sign * numbers.own
    vague = 1 - own**2 > PLAIN  # motion that is explained cannot be explained better by another lag
    left = limits.sharper * (1 - own**2)  # a better explanation leaves less than this
    peak = expected.sign * numbers.curve[np.arange(len(best)), best]
    mirrored = np.flatnonzero(lags == expected.backwards[0])
    back = expected.backwards[1] * numbers.curve[:, mirrored].max(axis=1, initial=-1.0) if mirrored.size else 0 * own
    other, share = numbers.others.max(axis=1), numbers.slope / (expected.slope or 1.0)
    agreed = (lags[best] == expected.lag)[numbers.lively].mean() if numbers.lively.any() else 0.0
    sharp = expected.limits is OF_TABLE or agreed >= SAME_LAG  # slow motion has no sharp lag
    marks = {
        Fault.REVERSED: vague & (1 - back**2 < left) & (back > INSTEAD * strength) & (back > own),
        Fault.AGAINST: own < -STRONG * strength,
        Fault.CHANNEL: (other > INSTEAD * strength) & (own < NOT_ITS_OWN * other),
        Fault.LAG: sharp
        & vague
        & _other_lag(lags[best] - expected.lag, own, peak, numbers.lively, limits)
        & (peak > STRONG * strength),
        Fault.UNEXPLAINED: own < limits.weakest * strength,
        Fault.SCALE: ((share < limits.slope[0]) | (share > limits.slope[1])) & (own > limits.weakest * strength),
    }
    if limits is OF_SET and strength < NEAR_EXACT:  # noise on small commands looks like these faults
        del marks[Fault.CHANNEL], marks[Fault.UNEXPLAINED], marks[Fault.SCALE]
    return marks


def _other_lag(
    off: Int[np.ndarray, " E"],
    own: Float[np.ndarray, " E"],
    peak: Float[np.ndarray, " E"],
    lively: Bool[np.ndarray, " E"],
    limits: MotionLimits,
) -> Bool[np.ndarray, " E"]:
    """Return where another lag explains much more; a lag one step off, in few episodes, must do so more clearly."""
    other = (off != 0) & (1 - peak**2 < limits.sharper * (1 - own**2))
    if other[lively].sum() >= FEW * lively.sum():
        return other
    return other & ((np.abs(off) > 1) | (1 - peak**2 < OF_SET.sharper * (1 - own**2)))


def _idle(link: Link, numbers: Numbers) -> Bool[np.ndarray, " E"]:
    """Return the episodes that move while commands hardly change, by the table's slope or by the medians of the set."""
    long = numbers.steps >= LEAST_STEPS
    if link.known is not None:
        return long & (link.known.slope * numbers.command < IDLE_COMMANDS * numbers.motion)
    moved = numbers.motion >= IDLE_MOTION * np.median(numbers.motion)
    return long & moved & (numbers.command < IDLE_COMMANDS * np.median(numbers.command))


def _whole_set(
    demos: Demonstrations,
    link: Link,
    expected: ExpectedMotion,
    numbers: Numbers,
    lags: Int[np.ndarray, " L"],
    values: tuple[Float[np.ndarray, "A D"], Float[np.ndarray, "A D"]],
) -> Fault:
    """Return the fault of a set whose link has no table; consistency across episodes does not excuse such a fault."""
    if link.known is not None or len(numbers.own) < LEAST_EPISODES:
        return Fault.NONE
    usual = expected.sign * np.median(numbers.curve, axis=0)
    later = float(usual[lags >= 0].max())
    early = expected.lag < 0 and 1 - later**2 > PLAIN
    if early and expected.strength >= STRONG and 1 - expected.strength**2 < EARLIER * (1 - later**2):
        return Fault.EARLY
    if link.source == "learned":
        return Fault.NONE
    if expected.sign * expected.strength < WRONG_SIGN:
        return Fault.AGAINST
    if np.median(numbers.others, axis=0).max() > max(STRONG, 3 * expected.strength):
        return Fault.CHANNEL
    return Fault.SCALE if _misscaled(demos, link, expected, values) else Fault.NONE


def _misscaled(
    demos: Demonstrations,
    link: Link,
    expected: ExpectedMotion,
    values: tuple[Float[np.ndarray, "A D"], Float[np.ndarray, "A D"]],
) -> bool:
    """Return whether a channel is in another unit than its name suggests: observed over commanded is far from 1."""
    if demos.spec.action[link.action].unit != demos.spec.observation[link.observed].unit:
        return False
    correlation, slope = (array[link.action, link.observed] for array in values)
    if demos.spec.action_kind == "absolute":
        return bool(correlation > SURE and not VALUE_SLOPE[0] <= slope <= VALUE_SLOPE[1])
    return expected.strength > SURE and not NAMED_SLOPE[0] <= abs(expected.slope) <= NAMED_SLOPE[1]


def _explain_nothing(
    judged: list[Judged], values: tuple[Float[np.ndarray, "A D"], Float[np.ndarray, "A D"]]
) -> tuple[int, ...]:
    """Return action channels without a table whose changes and values explain no observed motion and no value."""
    return tuple(
        each.link.action
        for each in judged
        if each.link.known is None
        and len(each.fault) >= LEAST_EPISODES
        and each.numbers.lively.sum() >= LEAST_EPISODES
        and each.expected.strength < NOTHING
        and np.abs(values[0][each.link.action]).max() < NO_VALUE
    )
