"""Irregularities of a session, as sentences for its verdict. Some leave no verdict at all, others stand beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from vqbet import statistics
from vqbet.evaluation.trials.trial_folder import OpenedFolder
from vqbet.evaluation.trials.trial_progress import Trial
from vqbet.evaluation.trials.trial_proofs import TrialRecording

UNEQUAL = 0.05  # Fisher's p-value below which the arms differ in how often a trial was invalid
MOST_REPEATS = 16  # of a slot, that are looked for among recordings of trials that the log does not have


def voiding(opened: OpenedFolder, recordings: Mapping[int, TrialRecording]) -> list[str]:
    """Return why no verdict can rest on this session; empty where one can. A trial run twice counts as invalid."""
    plan, again = opened.plan, len(_unnamed(opened, recordings, "graded"))
    bad = again + sum(bad for bad, _ in invalid(opened).values())
    total = again + len(opened.progress.trials)
    found = []
    if bad > plan.most_invalid * total:
        found.append(f"{bad} of {total} trials were invalid, more than the share of {plan.most_invalid:g} of the plan")
    removed = _removed(opened, recordings)
    if removed:
        found.append(
            f"the log lacks {_counted(len(removed))} that the robot recorded under this plan ({_listed(removed)}): it "
            "was replaced or cut short"
        )
    return found


def beside(opened: OpenedFolder, recordings: Mapping[int, TrialRecording]) -> list[str]:
    """Return what was irregular and leaves the verdict as it is."""
    operators, named = opened.progress.operators, _named(opened)
    kinds = Counter(event.kind for event in opened.events)
    armed = Counter(event["trial"] for event in opened.events if event.kind == "armed")
    again = sum(count > 1 for count in armed.values())
    lost = sum(event.kind == "stopped" and event["by"] == "lost" for event in opened.events)
    absent = len(named.keys() - recordings.keys())
    other = [
        number
        for number in named.keys() & recordings.keys()
        if recordings[number].steps != _reported_steps(named[number])
    ]
    twice, more = (_unnamed(opened, recordings, state) for state in ("graded", "invalid"))
    sentences = [
        (len(operators) > 1, f"{len(operators)} operators: {', '.join(operators)}"),
        (again, f"{_counted(again)} armed more than once"),
        (lost, f"the connection was lost in {_counted(lost)}"),
        (kinds["undone"], f"{_counted(kinds['undone'], 'outcome')} taken back and entered again"),
        (twice, f"{_counted(len(twice))} run more than once and not declared invalid ({_listed(twice)})"),
        (more, f"recordings of invalid trials that the log does not name: {', '.join(map(str, more))}"),
        (absent, f"the recordings of {_counted(absent, 'invalid trial')} are missing"),
        (other, f"in {_counted(len(other))} the robot reported other steps than it recorded"),
        (unequal(opened) < UNEQUAL, _unequal(opened)),
        (opened.progress.closed not in ("decided", "complete"), _early(opened)),
    ]
    return [sentence for holds, sentence in sentences if holds]


def invalid(opened: OpenedFolder) -> dict[str, tuple[int, int]]:
    """Return by arm the numbers of invalid and of valid trials."""
    states = Counter((trial.slot.arm, trial.state) for trial in opened.progress.trials.values())
    return {arm: (states[arm, "invalid"], states[arm, "graded"]) for arm in opened.plan.arms}


def unequal(opened: OpenedFolder) -> float:
    """Return Fisher's p-value of "a trial is invalid equally often in both arms"; 1 for one arm."""
    counts = list(invalid(opened).values())
    return statistics.fisher(*counts) if len(counts) == 2 else 1.0


def _unequal(opened: OpenedFolder) -> str:
    said = ", ".join(f"{bad} of {bad + good} of the {arm}" for arm, (bad, good) in invalid(opened).items())
    return f"the arms differ in invalid trials ({said}; Fisher's p {unequal(opened):.2g})"


def _early(opened: OpenedFolder) -> str:
    valid = sum(trial.state == "graded" for trial in opened.progress.trials.values())
    left = valid - opened.progress.looked * len(opened.plan.arms)
    return f"ended early by the operator, {_counted(left)} after the last look not counted"


def codes(opened: OpenedFolder) -> set[str]:
    """Return the codes that trials of this plan can have."""
    return {
        opened.blinding.code(slot.number, repeat) for slot in opened.blinding.slots for repeat in range(MOST_REPEATS)
    }


def recorded(trial: Trial) -> int | None:
    """Return the number of a trial's recording; None where it has none."""
    said = None if trial.stopped is None else trial.stopped["recording"]
    return None if said is None else int(said["number"])


def _removed(opened: OpenedFolder, recordings: Mapping[int, TrialRecording]) -> list[int]:
    """Return the numbers of recordings of this plan's trials that the log does not have."""
    ours = codes(opened)
    return [one.number for one in recordings.values() if one.code in ours - set(opened.progress.trials)]


def _unnamed(opened: OpenedFolder, recordings: Mapping[int, TrialRecording], state: str) -> list[int]:
    """Return the numbers of recordings of trials in this state that the log does not name."""
    codes_of = {trial.code for trial in opened.progress.trials.values() if trial.state == state}
    return sorted(
        one.number for one in recordings.values() if one.code in codes_of and one.number not in _named(opened)
    )


def _named(opened: OpenedFolder) -> dict[int, Trial]:
    numbered = {recorded(trial): trial for trial in opened.progress.trials.values()}
    return {number: trial for number, trial in numbered.items() if number is not None}


def _reported_steps(trial: Trial) -> int:
    return 0 if trial.stopped is None else int(trial.stopped["steps"])


def _counted(count: int, noun: str = "trial") -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _listed(numbers: Sequence[int]) -> str:
    return f"recordings {', '.join(map(str, numbers))}"
