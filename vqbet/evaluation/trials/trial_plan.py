"""The locked plan of a session of robot trials: what is compared, on which initial conditions, and by which rules.

The plan holds no order of arms: `blinding` derives the order from a secret salt, of which the plan holds the sha256.
A pair is one initial condition that every arm meets once; a block is `block` pairs in random order.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from vqbet.contract import GateError
from vqbet.evaluation import records
from vqbet.evaluation.plan import Plan
from vqbet.files import atomic, canonical, reading
from vqbet.files.manifest import SHA256

TRIALS_VERSION = 1  # of the rules of a session; raised whenever the same log could lead to another verdict
MOST_TEXT = 200  # characters of any text in a plan
MOST_CONDITIONS = 2000
WORLD = "robot:"  # before the robot's name, the world of its records
CANDIDATE, CHAMPION = "candidate", "champion"


@dataclass(frozen=True, slots=True)
class Condition:
    """An initial condition. text: how to set it up. picture: sha256 of a picture beside the plan; "" for none."""

    name: str
    text: str = ""
    picture: str = ""


@dataclass(frozen=True, slots=True)
class Grade:
    """A stage of the rubric and its credit, 0..1: the score of a trial that reached it and no later one."""

    name: str
    credit: float


@dataclass(frozen=True, slots=True)
class TrialPlan:
    """The locked plan of a session. Raises GateError for an invalid value.

    judged: the gate's plan for the records, in pairs: its looks count pairs, pair p has the seed first_seed + p.
    robot: the name of the robot that all trials run on. conditions: pair p has conditions[p % len(conditions)]. block:
    pairs in a block. rubric: stages in ascending order of credit, from 0 to 1; a trial succeeds if it reaches the last.
    tags: reasons of a failure. invalid: reasons for which a trial may be declared invalid, which repeats it at the end
    of its block. most_invalid: largest share of invalid trials that a verdict may rest on. timeout_s: after which a
    trial is stopped. salt: sha256 of the secret salt. server_key: base64 of the public key that must sign what was
    served. after: evidence of the simulated verdict that these trials complete; "" for none.
    """

    judged: Plan
    robot: str
    conditions: tuple[Condition, ...]
    block: int
    rubric: tuple[Grade, ...]
    tags: tuple[str, ...]
    invalid: tuple[str, ...]
    most_invalid: float
    timeout_s: float
    salt: str
    server_key: str
    after: str = ""
    version: int = TRIALS_VERSION

    def __post_init__(self) -> None:
        self._expect("robot", _named(self.robot), "a name")
        found = isinstance(self.conditions, tuple) and 1 <= len(self.conditions) <= MOST_CONDITIONS
        self._expect("conditions", found, f"1 to {MOST_CONDITIONS} initial conditions")
        for one in self.conditions:
            whole = _named(one.name) and _text(one.text) and (not one.picture or SHA256.fullmatch(one.picture))
            self._expect("conditions", bool(whole), "name, text and the sha256 of a picture")
        names = [one.name for one in self.conditions]
        self._expect("conditions", len(set(names)) == len(names), "distinct names")
        self._expect("block", type(self.block) is int and self.block >= 1, "a number of pairs from 1")
        whole = all(look % self.block == 0 for look in self.judged.looks)
        self._expect("block", whole, f"a divisor of every look ({', '.join(map(str, self.judged.looks))} pairs)")
        credits = [grade.credit for grade in self.rubric]
        rising = len(credits) >= 2 and credits == sorted(set(credits)) and (credits[0], credits[-1]) == (0.0, 1.0)
        self._expect(
            "rubric", rising and all(_named(grade.name) for grade in self.rubric), "credits rising from 0 to 1"
        )
        self._expect("rubric", len({grade.name for grade in self.rubric}) == len(self.rubric), "distinct names")
        for name in ("tags", "invalid"):
            words = getattr(self, name)
            self._expect(name, all(map(_named, words)) and len(set(words)) == len(words), "distinct names")
        self._expect("invalid", bool(self.invalid), "one reason at least")
        for name, most in (("most_invalid", 1.0), ("timeout_s", 86400.0)):
            value = getattr(self, name)
            self._expect(name, type(value) is float and 0 < value <= most, f"a number above 0, up to {most:g}")
        self._expect("salt", bool(SHA256.fullmatch(self.salt)), "a sha256")
        self._expect("server_key", _public(self.server_key), "base64 of a public key of 32 bytes")
        self._expect("after", not self.after or bool(SHA256.fullmatch(self.after)), "the id of a verdict's evidence")
        self._expect("version", type(self.version) is int and self.version >= 1, "a whole number from 1")
        self._expect("judged", not self.judged.protocol, "a plan without a protocol, which is this one")
        at_robot = (self.judged.world, self.judged.machine) == (f"{WORLD}{self.robot}", self.robot)
        self._expect("judged", at_robot, f"world {WORLD}{self.robot} and machine {self.robot}")
        plain = len(self.judged.slices) == 1 and not self.judged.baselines and not self.judged.min_modes
        self._expect("judged", plain, "one slice, no baselines and no modes, which trials do not have")
        differ = self.judged.candidate != self.judged.champion
        self._expect("judged", differ, "two policies: trials of a policy against itself decide nothing")

    @property
    def task(self) -> str:
        return self.judged.task

    @property
    def arms(self) -> dict[str, str]:
        """The digests of the policies compared, by arm."""
        named = {CANDIDATE: self.judged.candidate, CHAMPION: self.judged.champion}
        return {name: digest for name, digest in named.items() if digest}

    @property
    def pairs(self) -> int:
        """The largest number of pairs."""
        return self.judged.most

    @property
    def trials(self) -> int:
        """The largest number of valid trials."""
        return self.pairs * len(self.arms)

    @property
    def plan(self) -> Plan:
        """The gate's plan, bound to this one; the records of the trials name its sha256."""
        return replace(self.judged, protocol=self.sha256)

    @property
    def sha256(self) -> str:
        return canonical.digest(self.to_json())

    def condition(self, pair: int) -> Condition:
        return self.conditions[pair % len(self.conditions)]

    def grade(self, name: str) -> Grade:
        """Return the stage of the rubric with this name. Raises GateError listing the stages."""
        for grade in self.rubric:
            if grade.name == name:
                return grade
        said = ", ".join(grade.name for grade in self.rubric)
        raise GateError(f"stage: expected one of {said}, got {reading.short(name)}")

    def to_json(self) -> dict[str, Any]:
        return {
            **{item.name: getattr(self, item.name) for item in fields(self)},
            "judged": self.judged.to_json(),
            "conditions": [asdict(one) for one in self.conditions],
            "rubric": [asdict(grade) for grade in self.rubric],
            "tags": list(self.tags),
            "invalid": list(self.invalid),
        }

    @classmethod
    def from_json(cls, value: Any, where: str = "plan of trials") -> TrialPlan:
        """Return the plan of a `to_json`. Raises GateError naming the field that is missing, unknown or wrong."""
        if not isinstance(value, Mapping) or set(value) != {item.name for item in fields(cls)}:
            raise GateError(f"{where}: is no plan of trials of version {TRIALS_VERSION}")
        if value["version"] != TRIALS_VERSION:
            raise GateError(f"{where}: is of version {value['version']!r}, this is {TRIALS_VERSION}; make a new plan")
        judged = Plan.from_json(value["judged"], f"{where}: judged")
        with reading.sentences(where, GateError):
            rest = {
                "judged": judged,
                "conditions": tuple(Condition(**one) for one in value["conditions"]),
                "rubric": tuple(Grade(**grade) for grade in value["rubric"]),
                "tags": tuple(value["tags"]),
                "invalid": tuple(value["invalid"]),
            }
            try:
                return cls(**{**value, **rest})
            except GateError as error:
                raise GateError(f"{where}: {error}") from error

    def write(self, path: Path) -> None:
        """Write the plan as canonical JSON. Raises GateError where the file cannot be written."""
        atomic.write(path, canonical.document(self.to_json()), GateError)

    @classmethod
    def read(cls, path: Path) -> TrialPlan:
        """Read a plan. Raises GateError naming the file where it is none."""
        return cls.from_json(records.parse(records.load(path), str(path)), str(path))

    def _expect(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise GateError(f"{name}: expected {what}, got {reading.short(getattr(self, name))}")


def _named(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MOST_TEXT and value.isprintable()


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MOST_TEXT


def _public(value: Any) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == 32
    except (binascii.Error, ValueError, TypeError):
        return False
