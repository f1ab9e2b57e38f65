"""The comparison of two versions: their differences, which of them exceed chance, and the conclusion.

A difference exceeds its threshold if it is larger than the threshold and significant. Where the versions have too few
episodes for significance, size alone decides: a lack of evidence must not hide a drift.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vqbet.contract import Demonstrations, StoreError, ValidationError
from vqbet.drift import chance, coding, episodes, shift
from vqbet.drift.chance import ALPHA
from vqbet.drift.coding import CURVE, CodebookLayer, Coded, Tail
from vqbet.drift.episodes import EpisodeDifference
from vqbet.drift.shift import Shift

SCHEMA_VERSION = 1
NAMED = 4  # channels or layers in one sentence
DIGITS = 6  # significant digits that are written; further digits differ between processors


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Largest accepted drift.

    max_shift limits the `distance` of a channel in standard deviations, max_divergence the `divergence` of a layer in
    bits, max_tail the `ratio` of a channel's p99 reconstruction error.
    """

    max_shift: float
    max_divergence: float
    max_tail: float


@dataclass(frozen=True, slots=True)
class Exceeded:
    """One exceeded threshold.

    what: the channel or layer above it. asks: what must be trained again, the "tokenizer", or for observations, which
    the tokenizer does not use, only the "policy".
    """

    threshold: str
    what: str
    value: float
    limit: float
    asks: str


@dataclass(frozen=True, slots=True)
class DriftReport:
    """Result of a comparison. p: corrected p-values by channel name, "layer <q>", and "tail of <channel>"."""

    task: str
    episodes: tuple[int, int]  # of the old and the new version
    steps: tuple[int, int]
    difference: EpisodeDifference
    shifts: list[Shift]
    layers: list[CodebookLayer]
    tails: list[Tail]
    p: Mapping[str, float]
    tellable: bool  # whether there were enough episodes for a significant p-value
    limits: Thresholds

    @property
    def exceeded(self) -> list[Exceeded]:
        """Exceeded thresholds, those that ask for a tokenizer first, then by the distance of the channel."""
        found = [each for each in self._over() if self.more_than_chance(each.what) or not self.tellable]
        return sorted(found, key=lambda each: each.asks != "tokenizer")

    @property
    def conclusion(self) -> str:
        """The conclusion in one sentence."""
        exceeded = self.exceeded
        asks = {each.asks for each in exceeded}
        if "tokenizer" in asks:
            return f"a new tokenizer is needed: {_sentence(exceeded)}"
        if asks:
            return f"the champion's tokenizer still fits, but its policy sees other things: {_sentence(exceeded)}"
        return "the champion's tokenizer still fits"

    def more_than_chance(self, name: str) -> bool:
        return self.p[name] <= ALPHA

    def ranked(self) -> list[Shift]:
        """Return the channels by descending distance."""
        return sorted(self.shifts, key=lambda each: -each.distance)

    def to_json(self) -> dict[str, Any]:
        """Return JSON-clean content, equal for equal versions in equal order."""
        value = {
            "schema": SCHEMA_VERSION,
            "task": self.task,
            "conclusion": self.conclusion,
            "exceeded": [_plain(each) for each in self.exceeded],
            "limits": _plain(self.limits),
            "chance": {"alpha": ALPHA, "tellable": self.tellable},
            "episodes": {
                "old": self.episodes[0],
                "new": self.episodes[1],
                "kept": len(self.difference.kept),
                "reordered": bool((np.diff(self.difference.kept[:, 1]) < 0).any()),
                "added": _ranges(self.difference.added),
                "removed": _ranges(self.difference.removed),
                "changed": _ranges(self.difference.changed[:, 1]),
                **{f"{name}_count": len(getattr(self.difference, name)) for name in ("added", "removed", "changed")},
            },
            "steps": {"old": self.steps[0], "new": self.steps[1]},
            "shifts": [{**_plain(each), "name": each.name, "p": self.p[each.name]} for each in self.shifts],
            "layers": [{**_plain(each), "p": self.p[_layer(each)]} for each in self.layers],
            "tails": [{**_plain(each), "name": each.name, "p": self.p[_tail(each)]} for each in self.tails],
            "curve_levels": CURVE.tolist(),
        }
        return {key: _rounded(item) for key, item in value.items()}

    def _over(self) -> Iterator[Exceeded]:
        """Yield every difference above its threshold, significant or not."""
        limits = self.limits
        for each in self.ranked():
            if each.distance > limits.max_shift:
                asks = "tokenizer" if each.side == "action" else "policy"
                yield Exceeded("max_shift", each.name, each.distance, limits.max_shift, asks)
        for layer in self.layers:
            if layer.divergence > limits.max_divergence:
                yield Exceeded("max_divergence", _layer(layer), layer.divergence, limits.max_divergence, "tokenizer")
        for tail in self.tails:
            if tail.ratio > limits.max_tail:
                yield Exceeded("max_tail", _tail(tail), tail.ratio, limits.max_tail, "tokenizer")


def compare(
    old: Demonstrations,
    new: Demonstrations,
    coded: tuple[Coded, Coded],
    limits: Thresholds,
    *,
    where: tuple[str, str] = ("the old version", "the new version"),
    progress: chance.Progress | None = None,
) -> DriftReport:
    """Compare `new` with `old`, both `coded` by the tokenizer of the policy that was trained on `old`.

    Deals of episodes use a fixed seed, and the order of episodes in either version changes no number. Raises StoreError
    where the specs differ, ValidationError where a number is not finite; both name what and where.
    """
    refuse_unlike(old, new, where)
    differ = episodes.difference(old, new)
    distinct = episodes.pool(old, new, differ.changed)
    counts = len(old.episode_ends), len(new.episode_ends)
    moved, used, errors = shift.shifts(old, new), coding.layers(*coded), coding.tails(*coded)
    names = [*(each.name for each in moved), *map(_layer, used), *map(_tail, errors)]
    measures = [*shift.measures(old, new, distinct), *coding.measures(*coded, distinct, counts)]
    p = chance.p_values(measures, distinct, progress=progress)
    return DriftReport(
        task=old.spec.task,
        episodes=counts,
        steps=(len(old.action), len(new.action)),
        difference=differ,
        shifts=moved,
        layers=used,
        tails=errors,
        p=dict(zip(names, p.tolist(), strict=True)),
        tellable=chance.tellable(distinct, len(measures)),
        limits=limits,
    )


def refuse_unlike(old: Demonstrations, new: Demonstrations, where: Sequence[str]) -> None:
    """Raise the errors of `compare` before anything is encoded; the message names the channel."""
    if found := list(_named(old, new)):
        raise StoreError(
            f"{where[1]} cannot be compared with {where[0]}, their specs differ: {'; '.join(found)} (here: {where[0]}, "
            f"there: {where[1]}); a policy for it starts from a new tokenizer"
        )
    for demos, place in zip((old, new), where, strict=True):
        _refuse_nonfinite(demos, place)


def _refuse_nonfinite(demos: Demonstrations, where: str) -> None:
    """Raise ValidationError, naming episode, step and channel of the first non-finite number."""
    for side, array, channels in (
        ("observation", demos.observation, demos.spec.observation),
        ("action", demos.action, demos.spec.action),
    ):
        broken = np.argwhere(~np.isfinite(array))
        if len(broken):
            step, index = broken[0]
            episode = int(np.searchsorted(demos.episode_ends, step, side="right"))
            raise ValidationError(
                f"{where}: {side}.{channels[index].name} is {array[step, index]} at episode {episode}, step "
                f"{step - demos.episode_starts[episode]}; run vqbet stage validate {demos.spec.task}"
            )


def _named(old: Demonstrations, new: Demonstrations) -> Iterator[str]:
    """Yield the differences of two specs; where the numbers of channels differ, with the names unique to each."""
    for sentence in old.spec.differences(new.spec):
        side = sentence.split(":")[0]
        if side in ("observation", "action"):
            names = [[channel.name for channel in getattr(demos.spec, side)] for demos in (old, new)]
            only = [", ".join(name for name in one if name not in two) or "none" for one, two in (names, names[::-1])]
            yield f"{sentence}, only here: {only[0]}, only there: {only[1]}"
        else:
            yield sentence


def _sentence(exceeded: Sequence[Exceeded]) -> str:
    """Return a sentence of the exceeded thresholds, their limits and the values above them."""
    found = []
    for threshold in dict.fromkeys(each.threshold for each in exceeded):
        over = [each for each in exceeded if each.threshold == threshold]
        named = ", ".join(f"{each.what} has {each.value:.3g}" for each in over[:NAMED])
        more = f" and {len(over) - NAMED} more" if len(over) > NAMED else ""
        found.append(f"{threshold} is {over[0].limit:g}, but {named}{more}")
    return "; ".join(found)


def _layer(each: CodebookLayer) -> str:
    return f"layer {each.layer}"


def _tail(each: Tail) -> str:
    return f"tail of {each.name}"


def _ranges(numbers: np.ndarray) -> list[str]:
    """Format episode numbers as "3" and "7-12"."""
    ordered = np.sort(numbers)
    runs = np.split(ordered, np.flatnonzero(np.diff(ordered) > 1) + 1) if len(ordered) else []
    return [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]


def _plain(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass, arrays as lists and a channel as its unit."""
    fields = {name: getattr(value, name) for name in value.__dataclass_fields__}
    if "channel" in fields:
        fields["unit"] = fields.pop("channel").unit
    return {name: item.tolist() if isinstance(item, np.ndarray) else item for name, item in fields.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
