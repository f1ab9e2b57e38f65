"""Known vulnerabilities: nothing but an answer about every distribution counts as clean."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from vqbet.commands import doctor
from vqbet.commands.doctor import advisories, locks
from vqbet.contract import SupplyError

ROOT = Path(__file__).parents[3]
TODAY = date(2026, 11, 28)
GOOD = {"name": "numpy", "version": "2.4.0", "vulns": []}
BAD = {
    "name": "diskcache",
    "version": "5.6.3",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-2025-69872"], "fix_versions": [], "description": "pickles"}],
}
SKIPPED = {"name": "local", "skip_reason": "not found"}
RULE = advisories.Ignored(id="CVE-2025-69872", package="diskcache", reason="private", expires=date(2027, 2, 28))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in advisories.ASKED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"numpy==2.4.0 --hash=sha256:{'a' * 64}\n")
    return tmp_path


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """Stand in for pip-audit: what it writes, and how it ends."""

    def stand_in(written: str | None, *, code: int = 0, error: str = "") -> list[list[str]]:
        calls: list[list[str]] = []

        def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
            calls.append(command)
            if written is not None:
                Path(command[command.index("--output") + 1]).write_text(written)
            return subprocess.CompletedProcess(command, code, "", error)

        monkeypatch.setattr(subprocess, "run", run)
        return calls

    return stand_in


def dependencies(*entries: dict[str, Any]) -> str:
    return json.dumps({"dependencies": entries, "fixes": []})


def test_clean_is_an_answer_about_everything(project: Path, answered: Callable[..., list[list[str]]]) -> None:
    calls = answered(dependencies(GOOD))
    found, code = doctor.vulnerabilities(project)
    assert code == 0
    assert [str(one.said) for one in found] == ["1 distributions, 0 open advisories"]
    assert [str(project / name) for name in advisories.ASKED] == [
        calls[0][at + 1] for at, word in enumerate(calls[0]) if word == "--requirement"
    ]
    assert "--require-hashes" in calls[0]


def test_a_known_vulnerability_fails(project: Path, answered: Callable[..., list[list[str]]]) -> None:
    answered(dependencies(GOOD, BAD), code=1)
    found, code = doctor.vulnerabilities(project)
    assert code == 1
    assert found[0].said == "diskcache 5.6.3: PYSEC-1, CVE-2025-69872, no fixed version"


def test_one_that_was_skipped_fails(project: Path, answered: Callable[..., list[list[str]]]) -> None:
    answered(dependencies(GOOD, SKIPPED))
    found, code = doctor.vulnerabilities(project)
    assert code == 1
    assert found[0].said == "local: the index does not know it"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (None, "ended with 1: no route"),
        ("", "ended with 1"),
        ("[]", "ended with 1"),
        ('{"dependencies": 3}', "ended with 1"),
        (dependencies(), "knows none of 0"),
        (dependencies(SKIPPED, SKIPPED), "knows none of 2"),
    ],
)
def test_no_answer_is_not_clean(
    project: Path, answered: Callable[..., list[list[str]]], written: str | None, said: str
) -> None:
    answered(written, code=1, error="Traceback\nno route\n")
    found, code = doctor.vulnerabilities(project)
    assert code == doctor.COULD_NOT_ASK == 4
    assert "NOT ASKED" in found[0].said
    assert said in found[0].said


def test_a_rule_holds_for_one_package_until_its_day() -> None:
    assert advisories.judged([GOOD, BAD], [RULE], TODAY).clean
    assert advisories.judged([GOOD, BAD], [RULE], RULE.expires).clean
    late = advisories.judged([GOOD, BAD], [RULE], date(2027, 3, 1))
    assert (len(late.open), late.expired, late.clean) == (1, ("CVE-2025-69872 of diskcache, since 2027-02-28",), False)
    for changed in ({"package": "numpy"}, {"id": "CVE-2025-1"}):
        assert not advisories.judged([GOOD, BAD], [RULE.model_copy(update=changed)], TODAY).clean
    assert not advisories.judged([GOOD], [RULE], date(2027, 3, 1)).clean  # even where nothing is found any more


def test_the_projects_own_list_is_whole_and_about_locked_distributions() -> None:
    rules = advisories.ignored(ROOT)
    assert [rule.id for rule in rules] == ["CVE-2025-69872"]
    assert {rule.package for rule in rules} <= {pin.name for pin in locks.read(ROOT)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "- {id: CVE-1, package: numpy, reason: none}",
        "- {id: CVE-1, package: numpy, reason: '', expires: 2027-01-01}",
        "- {id: CVE-1, package: numpy, reason: r, expires: 2027-01-01, more: 1}",
        "- {id: CVE-1, package: numpy, reason: r, expires: soon}",
        "all: of them",
        "- [",
        "- 3",
        "[" * 1500,
    ],
)
def test_a_broken_list_is_a_sentence(project: Path, text: str) -> None:
    (project / advisories.IGNORED).write_text(text)
    with pytest.raises(SupplyError, match=r"infra/advisories\.yaml: "):
        doctor.vulnerabilities(project)


@pytest.mark.slow
def test_the_command_says_so_with_its_exit_code(project: Path) -> None:
    """pip-audit itself, with an address that nobody can reach."""
    (project / "params.yaml").write_text("")
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "vqbet", "doctor", "--vulnerabilities"]
    path = {"PYTHONPATH": str(ROOT), "HOME": str(project)}
    ended = subprocess.run(command, cwd=project, env=nowhere | path, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 4, ended.stdout + ended.stderr
    assert "NOT ASKED" in ended.stdout
    assert "Traceback" not in ended.stderr
