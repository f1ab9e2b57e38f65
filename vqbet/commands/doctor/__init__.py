"""Read-only checks that this environment is what the project expects. Each result is a sentence."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from vqbet import environment, registry, team
from vqbet.commands.doctor import advisories, licensing, locks, surroundings
from vqbet.commands.doctor.advisories import AdvisoryAudit
from vqbet.contract import VqbetError

PYTHONS = ((3, 11), (3, 13))
ROOM_GB = 5.0  # space for a demo with its caches
SHOWN = 5
COULD_NOT_ASK = 4  # exit code of `doctor --vulnerabilities`


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Result of one check in a sentence. wrong: whether it must be fixed."""

    what: str
    said: str
    wrong: bool = False


def run(root: Path) -> list[Diagnosis]:
    """Check Python, packages, telemetry, folders, tools, GPU, registry, remote, servers and signing of a project."""
    return [
        _python(sys.version_info[:2]),
        _looked("packages", partial(packages, root)),
        _looked("hashes", partial(_hashes, root)),
        _telemetry(),
        private(root / ".vqbet"),
        room(root, shutil.disk_usage(root).free / 1e9),
        _tool("git", shutil.which("git") is not None),
        _tool("dvc", find_spec("dvc") is not None),
        _looked("gpu", lambda: Diagnosis("gpu", *surroundings.gpu())),
        _looked("registry", _registry),
        *_each(surroundings.ledgers(root)),
        _looked("data", lambda: Diagnosis("data", *surroundings.remote(root))),
        _looked("locks", lambda: Diagnosis("locks", *surroundings.locks(root))),
        *_each(surroundings.clocks()),
        _looked("notices", lambda: Diagnosis("notices", *surroundings.notified())),
        signing(root),
        *_team(root),
    ]


def vulnerabilities(root: Path) -> tuple[list[Diagnosis], int]:
    """Look up advisories for every locked distribution in an index; return findings and the exit code.

    0: no known vulnerability. 1: some are known, some distributions were not checked, or an entry of the ignore list
    has expired. 4: the index does not answer. Raises SupplyError where a lock or the ignore list is invalid.
    """
    audit = advisories.audit(root)
    code = COULD_NOT_ASK if audit.unasked else int(not audit.clean)
    return told(audit), code


def told(audit: AdvisoryAudit) -> list[Diagnosis]:
    """Return the findings of an audit as sentences."""
    if audit.unasked:
        return [Diagnosis("vulnerabilities", f"NOT ASKED, nothing is known: {audit.unasked}", wrong=True)]
    found = [Diagnosis("vulnerable", str(one), wrong=True) for one in audit.open]
    found += [Diagnosis("not looked at", f"{name}: the index does not know it", wrong=True) for name in audit.skipped]
    found += [Diagnosis("expired", f"the ignore list's {one}; look at it again", wrong=True) for one in audit.expired]
    found += [Diagnosis("ignored", one) for one in audit.ignored]
    return [*found, Diagnosis("looked at", f"{audit.looked_at} distributions, {len(audit.open)} open advisories")]


def licences(root: Path) -> list[Diagnosis]:
    """Return the licence of each installed locked distribution, and whether it is allowed.

    Raises SupplyError where a lock or the list of exceptions is invalid.
    """
    pins = locks.read(root)
    listed = licensing.listed(root, pins)
    found = []
    for one in listed:
        allowed = f"{one.licence or 'not stated'}{'; allowed: ' + one.exception if one.exception else ''}"
        found.append(Diagnosis(f"{one.name} {one.version}", one.refused or allowed, wrong=bool(one.refused)))
    absent = sorted({pin.name for pin in pins} - {one.name for one in listed})
    if absent:
        found.append(
            Diagnosis("not here", f"{len(absent)} locked for other machines, not looked at: {', '.join(absent)}")
        )
    return found


def packages(root: Path) -> Diagnosis:
    """Compare installed versions with the locks, including CUDA's libraries if this build of torch needs them."""
    pins = locks.read(root, (locks.MAIN, locks.TORCH, locks.INSTALLER))
    if "+cpu" not in locks.installed("torch"):
        pins += locks.read(root, (locks.CUDA,))
    different = locks.differences(pins)
    if different:
        more = f" and {len(different) - SHOWN} more" if len(different) > SHOWN else ""
        return Diagnosis("packages", f"{', '.join(different[:SHOWN])}{more}; run `make setup`", wrong=True)
    return Diagnosis("packages", f"{sum(pin.here for pin in pins)} distributions are as locked")


def private(folder: Path) -> Diagnosis:
    """Check that only this user can read registry, evidence and caches."""
    if not folder.is_dir():
        return Diagnosis(".vqbet", "not there yet; the first command makes it")
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        return Diagnosis(".vqbet", f"mode {mode:04o}, others can look or write; run `chmod 700 .vqbet`", wrong=True)
    return Diagnosis(".vqbet", f"mode {mode:04o}, this user's alone")


def room(root: Path, free_gb: float) -> Diagnosis:
    if free_gb < ROOM_GB:
        return Diagnosis("disk", f"{free_gb:.1f} GB free at {root}, {ROOM_GB:.0f} GB are needed; free some", wrong=True)
    return Diagnosis("disk", f"{free_gb:.0f} GB free")


def signing(root: Path) -> Diagnosis:
    """Report whether keys and a trust file exist. Signatures are verified by the registry, not here."""
    key = "a key is configured" if os.environ.get("VQBET_KEY") else "no key is configured"
    if not (root / "infra" / "trust.yaml").is_file():
        return Diagnosis("signing", f"unsigned: there is no infra/trust.yaml, and {key}")
    return Diagnosis("signing", f"infra/trust.yaml says whom to trust; {key}")


def _python(version: tuple[int, ...]) -> Diagnosis:
    first, last = (".".join(map(str, one)) for one in PYTHONS)
    if PYTHONS[0] <= version <= PYTHONS[1]:
        return Diagnosis("python", platform.python_version())
    return Diagnosis(
        "python", f"{platform.python_version()}, expected {first} to {last}; set PYTHON, `make setup`", True
    )


def _hashes(root: Path) -> Diagnosis:
    pins = locks.read(root, [name for name in locks.ALL if name != locks.CPU or (root / name).is_file()])
    bare = locks.without_hash(pins)
    if bare:
        return Diagnosis("hashes", f"without one: {', '.join(bare[:SHOWN])}; run `make lock`", wrong=True)
    return Diagnosis("hashes", f"each of {len(pins)} locked distributions has one")


def _telemetry() -> Diagnosis:
    loud = sorted(name for name, value in environment.SILENCE.items() if os.environ.get(name) != value)
    if loud:
        return Diagnosis("telemetry", f"not switched off: {', '.join(loud)}", wrong=True)
    return Diagnosis("telemetry", "off")


def _tool(name: str, there: bool) -> Diagnosis:
    return Diagnosis(name, "there" if there else "not found; install it", wrong=not there)


def _registry() -> Diagnosis:
    registry.check()
    return Diagnosis("registry", "can be opened and written")


def _team(root: Path) -> list[Diagnosis]:
    """Check every server and worker of the team on this machine, if `vqbet team up` has made one."""
    place = team.Place.of(root)
    if not place.made():
        return []
    try:
        found = team.status(place)
    except VqbetError as error:
        return [Diagnosis("team", str(error), wrong=True)]
    return [Diagnosis(f"team's {one.name}", one.fault or f"process {one.pid}", wrong=bool(one.fault)) for one in found]


def _each(found: Iterator[tuple[str, str, bool]]) -> Iterator[Diagnosis]:
    """Yield a diagnosis for each finding; what ends the search is a finding, too."""
    try:
        for one in found:
            yield Diagnosis(*one)
    except VqbetError as error:
        yield Diagnosis("project", str(error), wrong=True)


def _looked(what: str, check: Callable[[], Diagnosis]) -> Diagnosis:
    try:
        return check()
    except VqbetError as error:  # becomes a finding, so that it does not hide the next one
        return Diagnosis(what, str(error), wrong=True)
