"""Episodes that are left out of learning without touching the data: by name, number or rule, each with its reason."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from vqbet.contract import Demonstrations, ValidationError

RULE = re.compile(r"(?P<name>[a-z_]+) *(?P<sign><=|>=|==|!=|<|>) *(?P<value>\S.*)")
SIGNS: Mapping[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
NUMBERS = ("steps", "success", "seed", "interventions")
TEXTS = ("session", "operator", "source")


def kept(demos: Demonstrations, exclude: Sequence[Mapping[str, Any]]) -> Int[np.ndarray, " E1"]:
    """Return the numbers of the episodes that no entry of `demos.exclude` leaves out.

    An entry has a `reason`, and either `episodes` (numbers in the store, or values of the column `source`) or `where`
    (a rule such as `steps < 30` or `session == tuesday`). Raises ValidationError for an episode that is not there, a
    rule that is none, and where nothing is left.
    """
    out = np.zeros(len(demos.episode_ends), bool)
    for number, entry in enumerate(exclude):
        where = f"{demos.spec.task}.demos.exclude[{number}]"
        if entry.get("episodes"):
            out |= _named(demos, entry["episodes"], where)
        if entry.get("where"):
            out |= _ruled(demos, entry["where"], where)
    if out.all():
        raise ValidationError(f"{demos.spec.task}.demos.exclude: leaves out all {len(out)} episodes")
    return np.flatnonzero(~out)


def _named(demos: Demonstrations, names: Sequence[int | str], where: str) -> Bool[np.ndarray, " E"]:
    found = np.zeros(len(demos.episode_ends), bool)
    sources = demos.columns["source"]
    for name in names:
        here = np.arange(len(found)) == name if isinstance(name, int) else sources == name
        if not here.any():
            raise ValidationError(
                f"{where}.episodes: {name!r}: no such episode; there are 0 to {len(found) - 1}, and sources such as "
                f"{str(sources[0])!r}"
            )
        found |= here
    return found


def _ruled(demos: Demonstrations, rule: str, where: str) -> Bool[np.ndarray, " E"]:
    parts = RULE.fullmatch(rule.strip())
    if parts is None or parts["name"] not in (*NUMBERS, *TEXTS):
        raise ValidationError(
            f"{where}.where: {rule!r}: expected <name> <sign> <value>, such as steps < 30; names: "
            f"{', '.join((*NUMBERS, *TEXTS))}; signs: {' '.join(SIGNS)}"
        )
    name, sign, text = parts["name"], SIGNS[parts["sign"]], parts["value"].strip()
    if name in TEXTS:
        if parts["sign"] not in ("==", "!="):
            raise ValidationError(f"{where}.where: {rule!r}: {name} is a text; expected == or !=")
        return np.asarray(sign(demos.columns[name], text), bool)
    value = {"true": 1.0, "false": 0.0}.get(text.lower())
    try:
        value = float(text) if value is None else value
    except ValueError as error:
        raise ValidationError(f"{where}.where: {rule!r}: {name} is a number; got {text!r}") from error
    return np.asarray(sign(_numbers(demos, name), value), bool)


def _numbers(demos: Demonstrations, name: str) -> np.ndarray:
    if name == "steps":
        return demos.lengths
    if name == "interventions":
        marked = demos.intervention
        if marked is None:
            return np.zeros(len(demos.episode_ends))
        return np.add.reduceat(marked.astype(np.int64), demos.episode_starts)
    return demos.columns[name].astype(np.float64)
