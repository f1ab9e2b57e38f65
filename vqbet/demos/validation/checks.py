"""Exact checks of the content of demonstrations; each finding names the episode, step and field.

Every function of CHECKS makes one check and expects demonstrations of sound structure. Errors block training, advice
does not. An error of a waived check becomes advice with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from vqbet.contract import Channel, Demonstrations
from vqbet.demos.validation import picture_checks, plausible, tables
from vqbet.demos.validation.findings import Finding, Severity, in_episodes, in_steps
from vqbet.demos.validation.measured import Bounds, Measured
from vqbet.demos.validation.sessions import sessions

RATE_TOLERANCE = 0.05  # of the control interval: largest deviation of an episode's mean
GAP = 0.5  # of the control interval: a single step this far off was dropped or doubled
STILL_S = 2.0  # a longer pause is reported
JUMP = 10.0  # times the 99th percentile of a channel's moves ...
JUMP_SHARE = 0.25  # ... and this share of the channel's whole travel
MOST_VARY = 0.95  # a channel that varies in this share of episodes should vary in all


def contents(measured: Measured) -> list[Finding]:
    """Return the findings of all checks, errors first, in the order of CHECKS."""
    found = [replace(finding, check=check.__name__) for check in CHECKS for finding in check(measured)]
    return sorted((waived(finding, measured.bounds) for finding in found), key=lambda each: each.severity != "error")


def waived(finding: Finding, bounds: Bounds) -> Finding:
    """Return the finding, as advice where its check is waived."""
    reason = bounds.waive.get(finding.check)
    return finding if reason is None or finding.severity == "advice" else finding.excused(reason)


def finite(measured: Measured) -> Iterator[Finding]:
    """Check that no value is NaN or infinite."""
    demos = measured.demos
    arrays = {"observation": demos.observation, "action": demos.action, "time_s": demos.time_s, "state": demos.state}
    names = {kind: [f"{kind}.{channel.name}" for channel in channels] for kind, _, channels in measured.fields()}
    for field, mask in tables.nonfinite(demos).items():
        array = np.asarray(arrays[field]).reshape(mask.shape)
        for column in np.flatnonzero(mask.any(axis=0)):
            label = names[field][column] if field in names else field
            yield from _not_finite(demos, label, array[:, column])


def _not_finite(demos: Demonstrations, field: str, values: np.ndarray) -> Iterator[Finding]:
    yield from in_steps(demos.episode_ends, field, ~np.isfinite(values), lambda i: f"is {values[i]}")


def length(measured: Measured) -> Iterator[Finding]:
    """Check that episodes are between min_steps and max_steps long."""
    lengths, bounds = measured.episodes["length"], measured.bounds
    short, long = lengths < bounds.min_steps, lengths > bounds.max_steps
    yield from in_episodes("length", short, lambda e: f"is {lengths[e]} steps, below min_steps {bounds.min_steps},")
    yield from in_episodes("length", long, lambda e: f"is {lengths[e]} steps, above max_steps {bounds.max_steps},")


def limits(measured: Measured) -> Iterator[Finding]:
    """Check that every value is within its channel's limits."""
    for kind, array, channels in measured.fields():
        mask = tables.outside(array, channels)
        for index in np.flatnonzero(mask.any(axis=0)):
            yield from _outside(measured.demos, kind, channels[index], array[:, index], mask[:, index])


def _outside(
    demos: Demonstrations, kind: str, channel: Channel, values: np.ndarray, mask: np.ndarray
) -> Iterator[Finding]:
    span = f"outside [{channel.low:g}, {channel.high:g}] {channel.unit}".rstrip()
    yield from in_steps(demos.episode_ends, f"{kind}.{channel.name}", mask, lambda i: f"is {values[i]:g}, {span},")


def dead(measured: Measured) -> Iterator[Finding]:
    """Check for constant channels. A constant action is an error; a constant observation may be a fixed target."""
    starts = measured.demos.episode_starts
    for kind, array, channels in measured.fields():
        same = np.fmax.reduceat(array, starts, axis=0) == np.fmin.reduceat(array, starts, axis=0)
        for index, channel in enumerate(channels):
            field, flat = f"{kind}.{channel.name}", same[:, index]
            if (array[:, index] == array[0, index]).all():
                severity: Severity = "error" if kind == "action" else "advice"
                text = f"{field} is {array[0, index]:g} at every step from episode 0, step 0 to the end"
                yield Finding(field, text, 0, 0, severity)
            elif 0 < flat.mean() <= 1 - MOST_VARY:
                yield from in_episodes(field, flat, lambda e: "never changes, as it does elsewhere,", "advice")


def duplicates(measured: Measured) -> Iterator[Finding]:
    """Check that each episode was recorded once, or that at most max_duplicates of them are copies."""
    original, bound = measured.episodes["copy_of"], measured.bounds.max_duplicates
    copy = original >= 0
    severity: Severity = "error" if copy.mean() > bound else "advice"
    note = f"{copy.mean():.2%} of episodes are copies, max_duplicates is {bound:.2%}"
    field = "observation and action"
    yield from in_episodes(field, copy, lambda e: f"repeat episode {original[e]} bit for bit", severity, note)


def still(measured: Measured) -> Iterator[Finding]:
    """Check for long stretches without any change: a frozen camera, or a pause of the operator."""
    same = tables.frozen(measured.demos)
    least = max(2, round(STILL_S * measured.demos.spec.control_hz))
    total = np.concatenate([[0], np.cumsum(same)])
    long = np.zeros(len(same), bool)
    long[least - 1 :] = total[least:] - total[:-least] == least
    long[1:] &= ~long[:-1].copy()  # only the step at which each stretch becomes long
    text = f"have not changed for {STILL_S:g} s"
    yield from in_steps(measured.demos.episode_ends, "observation and action", long, lambda i: text, "advice")


def time(measured: Measured) -> Iterator[Finding]:
    """Check that time starts at 0, grows, and keeps to the control rate: on average, and from step to step."""
    demos, period = measured.demos, 1 / measured.demos.spec.control_hz
    ends, stamp, interval, first = (
        demos.episode_ends,
        demos.time_s,
        tables.intervals(demos),
        tables.is_first_step(demos),
    )
    expected = f"control_hz {demos.spec.control_hz:g} means {period:g} s,"
    late = first & (np.abs(stamp) > 1e-6)
    yield from in_steps(ends, "time_s", late, lambda i: f"starts at {stamp[i]:g} s instead of 0")
    back = ~first & (interval <= 0)
    yield from in_steps(ends, "time_s", back, lambda i: f"goes from {stamp[i - 1]:g} s to {stamp[i]:g} s")
    mean = measured.episodes["mean_interval_s"]
    slow = np.abs(mean - period) > RATE_TOLERANCE * period
    yield from in_episodes("time_s", slow, lambda e: f"has steps of {mean[e]:g} s on average, {expected}")
    gap = ~first & ~back & (np.abs(interval - period) > GAP * period)
    yield from in_steps(ends, "time_s", gap, lambda i: f"has a step of {interval[i]:g} s, {expected}")


def saturation(measured: Measured) -> Iterator[Finding]:
    """Check that actions are seldom at their limits: a clipped demonstration is not what the operator did."""
    demos, bound = measured.demos, measured.bounds.max_saturated
    mask = tables.saturated(demos.action, demos.spec.action)
    for index in np.flatnonzero(mask.mean(axis=0) > bound):
        field = f"action.{demos.spec.action[index].name}"
        share = np.add.reduceat(mask[:, index].astype(np.int64), demos.episode_starts) / demos.lengths
        worst = int(share.argmax())
        text = (
            f"{field} lies at its limits in {mask[:, index].mean():.2%} of steps, max_saturated is {bound:.2%}; "
            f"most at episode {worst}: {share[worst]:.2%}"
        )
        yield Finding(field, text, worst)


def success(measured: Measured) -> Iterator[Finding]:
    """Check that at least min_success of the episodes are labelled as successes."""
    label, bound = measured.episodes["success"], measured.bounds.min_success
    share = float(label.mean())
    severity: Severity = "error" if share < bound else "advice"
    note = f"{share:.2%} of episodes succeeded, min_success is {bound:.2%}"
    yield from in_episodes("columns.success", ~label, lambda e: "is false", severity, note)


def columns(measured: Measured) -> Iterator[Finding]:
    """Check per-episode columns: the task is this one, each seed occurs once, the origin can be traced."""
    task, seed, name = measured.episodes["task"], measured.episodes["seed"], measured.demos.spec.task
    yield from in_episodes("columns.task", task != name, lambda e: f"is {str(task[e])!r}, the spec says {name!r},")
    below = seed < -1
    yield from in_episodes("columns.seed", below, lambda e: f"is {seed[e]}, expected -1 (none) or more,")
    again = np.ones(len(seed), bool)
    again[np.unique(seed, return_index=True)[1]] = False
    yield from in_episodes("columns.seed", again & (seed >= 0), lambda e: f"is {seed[e]}, used before,")
    for column in ("session", "operator", "source"):
        empty = np.asarray(measured.demos.columns[column]).astype(str) == ""
        yield from in_episodes(f"columns.{column}", empty, lambda e: "is empty", "advice")


def jumps(measured: Measured) -> Iterator[Finding]:
    """Check for observations that jump far beyond their channel's usual move and over much of its whole travel."""
    moved = tables.moves(measured.demos)
    observed = measured.channels["kind"] == "observation"
    travel = (measured.channels["maximum"] - measured.channels["minimum"])[observed]
    least = np.maximum(JUMP * np.percentile(moved, 99, axis=0), JUMP_SHARE * np.nan_to_num(travel))
    for index in np.flatnonzero((moved > least).any(axis=0)):
        yield from _jumps(measured.demos, measured.demos.spec.observation[index], moved[:, index], least[index])


def _jumps(demos: Demonstrations, channel: Channel, moved: np.ndarray, least: float) -> Iterator[Finding]:
    field = f"observation.{channel.name}"
    text = f"{channel.unit} in one step".lstrip()
    yield from in_steps(demos.episode_ends, field, moved > least, lambda i: f"jumps by {moved[i]:g} {text}", "advice")


CHECKS: tuple[Callable[[Measured], Iterator[Finding]], ...] = (
    finite,
    length,
    limits,
    dead,
    duplicates,
    still,
    time,
    saturation,
    success,
    columns,
    jumps,
    plausible.motion,
    plausible.near_copies,
    plausible.success_seen,
    plausible.done_at_start,
    plausible.motionless,
    plausible.seams,
    plausible.faint,
    sessions,
    picture_checks.blank_pictures,
    picture_checks.burnt_pictures,
    picture_checks.frozen_pictures,
    picture_checks.repeated_pictures,
    picture_checks.copied_pictures,
    picture_checks.swapped_cameras,
    picture_checks.swapped_colours,
    picture_checks.late_pictures,
)

RULES = tuple(check.__name__ for check in CHECKS if check is not finite)  # checks that can be waived
