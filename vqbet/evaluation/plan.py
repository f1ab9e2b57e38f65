"""What a verdict will be read from, fixed before the first episode and named, by its hash, in every record."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from vqbet.contract import GateError, Spec
from vqbet.evaluation import records

GATE_VERSION = 1  # of the rules in gate.py; raised whenever the same records could give another verdict


def spec_sha256(spec: Spec) -> str:
    """The sha256 of a spec's canonical JSON."""
    return hashlib.sha256(records.canonical(spec.to_json()).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Plan:
    """A comparison, before it is made. Raises GateError where a value makes no sense.

    Episodes have the seeds first_seed .. first_seed + episodes - 1, the same for candidate, champion and baselines.
    margin: the smallest improvement worth having; alpha: the error rate of the intervals (two-sided 1 - alpha);
    floor: what the candidate must score above in any case; min_modes: how many modes its episodes must visit;
    max_episodes: where asking for more ends.
    """

    task: str
    world: str
    spec: str  # spec_sha256 of the world's spec
    first_seed: int
    episodes: int
    metric: Literal["score", "success"]
    margin: float
    alpha: float
    floor: float
    min_modes: int
    max_episodes: int
    baselines: tuple[str, ...]
    version: int = GATE_VERSION

    def __post_init__(self) -> None:
        for name in ("task", "world", "spec"):
            self._expect(name, isinstance(getattr(self, name), str) and getattr(self, name) != "", "a name")
        for name, low in (("first_seed", 0), ("episodes", 1), ("min_modes", 0), ("max_episodes", 1), ("version", 1)):
            value = getattr(self, name)
            self._expect(name, type(value) is int and value >= low, f"a whole number >= {low}")
        for name, high in (("margin", 1.0), ("alpha", 0.5)):
            value = getattr(self, name)
            self._expect(name, type(value) is float and 0 < value < high, f"a float between 0 and {high}")
        self._expect("floor", type(self.floor) is float and 0 <= self.floor <= 1, "a float in 0..1")
        self._expect("metric", self.metric in ("score", "success"), "'score' or 'success'")
        self._expect("max_episodes", self.max_episodes >= self.episodes, f"at least episodes = {self.episodes}")
        names = self.baselines
        valid = isinstance(names, tuple) and all(isinstance(name, str) and name for name in names)
        reserved = {"candidate", "champion"} & set(names) if valid else set()
        self._expect("baselines", valid and not reserved and len(set(names)) == len(names), "distinct names")

    @property
    def seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.episodes)

    @property
    def confidence(self) -> float:
        return 1 - self.alpha

    @property
    def sha256(self) -> str:
        return hashlib.sha256(records.canonical(self.to_json()).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "baselines": list(self.baselines)}

    @classmethod
    def from_json(cls, value: Any, where: str = "plan") -> Plan:
        """The inverse of `to_json`. Raises GateError naming the field that is missing, unknown or wrong."""
        if not isinstance(value, dict):
            raise GateError(f"{where}: expected an object, got {type(value).__name__}")
        names = {item.name for item in fields(cls)}
        if set(value) != names:
            raise GateError(f"{where}: unknown {sorted(set(value) - names)}, missing {sorted(names - set(value))}")
        if not isinstance(value["baselines"], list):
            raise GateError(f"{where}: baselines: expected a list of names, got {value['baselines']!r}")
        try:
            return cls(**{**value, "baselines": tuple(value["baselines"])})
        except GateError as error:
            raise GateError(f"{where}: {error}") from error

    def write(self, path: Path) -> None:
        """Raises GateError where the file cannot be written."""
        records.save(path, records.document(self.to_json()))

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Raises GateError naming the file where it is not a plan."""
        return cls.from_json(records.parse(records.load(path), str(path)), str(path))

    def _expect(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise GateError(f"{name}: expected {what}, got {getattr(self, name)!r}")
