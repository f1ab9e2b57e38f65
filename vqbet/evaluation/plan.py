"""The plan of a comparison, fixed before the first episode. Every record names the hash of its plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

from vqbet.contract import GateError, Spec
from vqbet.evaluation import records
from vqbet.files import atomic, canonical

GATE_VERSION = 3  # of the rules in gate.py; raised whenever the same records could lead to another verdict
GOLDEN_RATIO = 0.6180339887498949  # of a circle, from each seed to the next: all prefixes are spread evenly
SPENT = 0.75  # the share that an attempt takes of the alpha left by earlier attempts; docs/decisions/0012
MOST_ATTEMPTS = 6  # a seventh attempt's level is below the smallest p-value that 99,999 exchanges can resolve
LATER: Mapping[str, Any] = {"protocol": "", "held_out": {}}  # fields of later versions, left out where empty

Question = Literal["better", "not_worse"]
Metric = Literal["score", "success"]
Stopping = Literal["fixed", "group_sequential", "anytime"]


def spec_sha256(spec: Spec) -> str:
    """Return the sha256 of a spec's canonical JSON."""
    return canonical.digest(spec.to_json())


@dataclass(frozen=True, slots=True)
class Slice:
    """Conditions of a share of the episodes, which is reported separately.

    Noise: standard deviations, as fractions of half of each channel's range (`evaluation.noise`).
    """

    name: str
    share: float
    observation_noise: float = 0.0
    action_noise: float = 0.0

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name):
            raise GateError(f"slices: expected a name, got {self.name!r}")
        for name in ("share", "observation_noise", "action_noise"):
            value = getattr(self, name)
            if type(value) is not float or not 0 <= value <= 1 or (name == "share" and value == 0):
                raise GateError(f"slices: {self.name}: {name}: expected a float in 0..1, got {value!r}")


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a comparison. Raises GateError for an invalid value.

    candidate, champion: digests of the two policies; champion is empty where there is none yet. Episodes have the seeds
    first_seed, first_seed + 1, ..., the same for all arms, and their seeds assign them to `slices`.

    question: "better", by any amount, or "not_worse", by `margin` or more, than the champion. margin: also the smallest
    improvement of interest; "better" fails once a larger one is excluded. alpha: probability of promoting a policy that
    is just not good enough. power: probability of detecting an improvement by the margin.

    looks: episodes per arm at each interim look, ascending; the last is the maximum. stopping: error control over the
    looks: "fixed" allows one look, "group_sequential" spends alpha over the looks, "anytime" bets. attempt: number of
    this attempt on the candidate, from 1; each attempt has a share of alpha, see `level`. floor: the score that the
    candidate must exceed in any case. min_modes: modes that its episodes must visit. retrained: mean scores of earlier
    trainings of the candidate's recipe; they put a difference beside the spread between trainings and do not affect the
    outcome. reserved: seeds of other purposes, name -> (first, end), forbidden here. machine: the machine that plays
    all arms; empty in the gate's own plans, which evidence and seal complete, so that a stage's output does not depend
    on the machine. protocol: sha256 of the plan of robot trials whose pairs these episodes are; empty for simulations.
    """

    task: str
    world: str
    spec: str  # spec_sha256 of the world's spec
    candidate: str
    champion: str
    machine: str
    first_seed: int
    looks: tuple[int, ...]
    reserved: Mapping[str, tuple[int, int]]
    slices: tuple[Slice, ...]
    metric: Metric
    question: Question
    stopping: Stopping
    margin: float
    alpha: float
    power: float
    floor: float
    min_modes: int
    baselines: tuple[str, ...]
    retrained: tuple[float, ...] = ()
    attempt: int = 1
    version: int = GATE_VERSION
    protocol: str = ""
    held_out: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("task", "world", "spec", "candidate"):
            self._expect(name, isinstance(getattr(self, name), str) and getattr(self, name) != "", "a name")
        self._expect("champion", isinstance(self.champion, str), "a digest, or nothing")
        self._expect("machine", isinstance(self.machine, str), "a name, or nothing")
        self._expect("protocol", isinstance(self.protocol, str), "a sha256, or nothing")
        for name, low in (("first_seed", 0), ("min_modes", 0), ("version", 1)):
            value = getattr(self, name)
            self._expect(name, type(value) is int and value >= low, f"a whole number >= {low}")
        for name, above, below in (("margin", 0.0, 1.0), ("alpha", 0.0, 0.5), ("power", 0.5, 1.0)):
            value = getattr(self, name)
            self._expect(name, type(value) is float and above < value < below, f"a float between {above} and {below}")
        counted = type(self.attempt) is int and 1 <= self.attempt <= MOST_ATTEMPTS
        self._expect("attempt", counted, f"a whole number in 1..{MOST_ATTEMPTS}")
        self._expect("retrained", self._shares(self.retrained), "mean scores in 0..1")
        self._expect("floor", type(self.floor) is float and 0 <= self.floor <= 1, "a float in 0..1")
        for name, words in (("metric", Metric), ("question", Question), ("stopping", Stopping)):
            self._expect(name, getattr(self, name) in get_args(words), f"one of {', '.join(get_args(words))}")
        whole = isinstance(self.looks, tuple) and self.looks and all(type(look) is int for look in self.looks)
        ascending = whole and all(earlier < later for earlier, later in pairwise((0, *self.looks)))
        self._expect("looks", bool(ascending), "ascending numbers of episodes")
        self._expect("looks", self.stopping != "fixed" or len(self.looks) == 1, "one look, as stopping is 'fixed'")
        self._distinct("baselines", self.baselines, without={"candidate", "champion"})
        self._distinct("slices", tuple(part.name for part in self.slices))
        total = sum(part.share for part in self.slices)
        self._expect("slices", abs(total - 1) < 1e-9, "shares that add up to 1")
        shown = sum(len(names) for names in self.held_out.values())
        self._expect("held_out", not shown or self.looks == (shown,), f"as many episodes as looks {self.looks}")
        self._reserved()

    @property
    def most(self) -> int:
        return self.looks[-1]

    @property
    def level(self) -> float:
        """The share of alpha that this attempt may spend; the shares of all attempts add up to alpha.

        Repeating attempts on fresh seeds until one says PROMOTE is then wrong with probability alpha at most.
        """
        return self.alpha * SPENT * (1 - SPENT) ** (self.attempt - 1)

    @property
    def repeated(self) -> str:
        """A clause for the verdict's reason: the alpha left by earlier attempts; empty for the first attempt."""
        if self.attempt == 1:
            return ""
        return (
            f"; attempt {self.attempt} on this candidate, so its error rate is {self.level:.2g} of alpha {self.alpha:g}"
        )

    @property
    def seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.most)

    def slice_of(self, seed: int) -> Slice:
        """Return the slice of a seed. Each slice has very nearly its share of any run of consecutive seeds."""
        place, upto = (seed - self.first_seed + 1) * GOLDEN_RATIO % 1.0, 0.0
        for part in self.slices:
            upto += part.share
            if place < upto:
                return part
        return self.slices[-1]

    @property
    def sha256(self) -> str:
        return canonical.digest(self.to_json())

    def to_json(self) -> dict[str, Any]:
        said = asdict(self)
        for name in LATER:  # so that plans of simulations are the bytes that they always were
            if not said[name]:
                del said[name]
        return {
            **said,
            "looks": list(self.looks),
            "baselines": list(self.baselines),
            "retrained": list(self.retrained),
            "slices": [asdict(part) for part in self.slices],
            "reserved": {name: list(seeds) for name, seeds in self.reserved.items()},
            **({"held_out": {name: list(names) for name, names in self.held_out.items()}} if self.held_out else {}),
        }

    @classmethod
    def from_json(cls, value: Any, where: str = "plan") -> Plan:
        """Return the plan of a `to_json`. Raises GateError naming the field that is missing, unknown or wrong."""
        _expect_fields({**LATER, **value} if isinstance(value, dict) else value, cls, where)
        for name in ("baselines", "looks", "retrained", "slices"):
            if not isinstance(value[name], list):
                raise GateError(f"{where}: {name}: expected a list, got {value[name]!r}")
        for part in value["slices"]:
            _expect_fields(part, Slice, f"{where}: slices")
        for name in ("reserved", "held_out"):
            if not isinstance(value.get(name, {}), dict):
                raise GateError(f"{where}: {name}: expected an object, got {value[name]!r}")
        try:
            return cls(
                **{
                    **value,
                    "looks": tuple(value["looks"]),
                    "baselines": tuple(value["baselines"]),
                    "retrained": tuple(value["retrained"]),
                    "slices": tuple(Slice(**part) for part in value["slices"]),
                    "reserved": {name: _pair(seeds) for name, seeds in value["reserved"].items()},
                    "held_out": {name: _names(found) for name, found in value.get("held_out", {}).items()},
                }
            )
        except GateError as error:
            raise GateError(f"{where}: {error}") from error

    def asks(self, other: Plan) -> bool:
        """Return whether `other` plays the same episodes under the same rules and attempt.

        `retrained` is ignored, as it does not affect the outcome.
        """
        return replace(self, retrained=()) == replace(other, retrained=())

    def write(self, path: Path) -> None:
        """Write the plan as canonical JSON. Raises GateError where the file cannot be written."""
        atomic.write(path, canonical.document(self.to_json()), GateError)

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read a plan. Raises GateError naming the file where it is not a plan."""
        return cls.from_json(records.parse(records.load(path), str(path)), str(path))

    def _reserved(self) -> None:
        """Raise GateError where the seeds of two purposes overlap, the gate's own included."""
        ranges = {**self.reserved, "gate": (self.first_seed, self.first_seed + self.most)}
        for name, (first, end) in ranges.items():
            whole = type(first) is int and type(end) is int
            self._expect("reserved", whole and 0 <= first < end, f"{name}: a first seed below its end")
        ordered = sorted(ranges.items(), key=lambda item: item[1])
        for (one, (_, end)), (two, (first, _)) in pairwise(ordered):
            if first < end:
                raise GateError(
                    f"seeds: those of {one!r} end before {end}, those of {two!r} begin with {first}: a seed that "
                    "a policy was chosen by says nothing about it; move one of them"
                )

    @staticmethod
    def _shares(values: Any) -> bool:
        return isinstance(values, tuple) and all(type(value) is float and 0 <= value <= 1 for value in values)

    def _distinct(self, name: str, names: Any, without: frozenset[str] | set[str] = frozenset()) -> None:
        valid = isinstance(names, tuple) and all(isinstance(word, str) and word for word in names)
        self._expect(name, valid and not without & set(names) and len(set(names)) == len(names), "distinct names")

    def _expect(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise GateError(f"{name}: expected {what}, got {getattr(self, name)!r}")


def _expect_fields(value: Any, kind: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise GateError(f"{where}: expected an object, got {type(value).__name__}")
    names = {item.name for item in fields(kind)}
    if set(value) != names:
        raise GateError(f"{where}: unknown {sorted(set(value) - names)}, missing {sorted(names - set(value))}")


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise GateError(f"held_out: expected a list of sha256, got {value!r}")
    return tuple(value)


def _pair(value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise GateError(f"reserved: expected a first seed and an end, got {value!r}")
    return value[0], value[1]
