"""Licences of everything that is installed, and the guard that refuses one that is not permissive."""

from __future__ import annotations

from email.message import Message
from pathlib import Path

import pytest

from vqbet.commands.doctor import licensing, locks
from vqbet.contract import SupplyError

ROOT = Path(__file__).parents[3]


def test_everything_installed_here_may_be_used() -> None:
    listed = licensing.listed(ROOT, locks.read(ROOT))
    assert len(listed) > 250
    assert [one.refused for one in listed if one.refused] == []


def test_no_exception_is_left_over() -> None:
    """What is locked for other builds of torch and other Pythons is not installed here."""
    pins = locks.read(ROOT)
    listed = licensing.listed(ROOT, pins)
    here, elsewhere = {one.name for one in listed}, {pin.name for pin in locks.read(ROOT, (locks.CUDA,))}
    elsewhere |= {pin.name for pin in pins if not pin.here}
    expected = {rule.package for rule in licensing.exceptions(ROOT)} - (elsewhere - here)
    assert {one.name for one in listed if one.exception} == expected


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("apache-2.0", True),
        ("MIT AND PSF-2.0", True),
        ("Apache-2.0 OR GPL-2.0-or-later", True),
        ("Apache-2.0 AND (BSD-3-Clause OR GPL-3.0-only)", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-3.0-only", False),
        ("MIT AND GPL-3.0-only", False),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", False),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("Copyright by somebody, all rights reserved", False),
        ("MIT AND", False),
        ("", False),
    ],
)
def test_permissive(licence: str, allowed: bool) -> None:
    assert licensing.permissive(licence) is allowed


def test_an_exception_is_for_one_licence() -> None:
    rule = licensing.Allowed(package="some", licence="MPL-2.0", reason="unchanged")
    assert licensing.judged("some", "1", "MPL-2.0", rule).refused == ""
    assert licensing.judged("some", "1", "MIT", None).refused == ""
    assert "expected 'MPL-2.0'" in licensing.judged("some", "2", "AGPL-3.0-only", rule).refused
    assert "no exception" in licensing.judged("other", "1", "MPL-2.0", None).refused


def test_metadata_old_and_new() -> None:
    def stated(**headers: str | list[str]) -> str:
        message = Message()
        for name, values in headers.items():
            for value in [values] if isinstance(values, str) else values:
                message[name.replace("_", "-")] = value
        return licensing.stated(message)  # type: ignore[arg-type]

    mit, gpl = (
        "License :: OSI Approved :: MIT License",
        "License :: OSI Approved :: GNU Affero General Public License v3",
    )
    assert stated(License_Expression="MIT", License="GPL") == "MIT"
    assert stated(Classifier=[mit, "Topic :: Other"], License="see file") == "MIT"
    assert stated(Classifier=[mit, gpl]) == "GNU Affero General Public License v3 AND MIT"
    assert stated(Classifier="License :: OSI Approved", License="Apache License 2.0\nmore") == "Apache-2.0"
    assert stated() == ""


@pytest.mark.parametrize("text", ["- {package: x, licence: MPL-2.0}", "- 3", "- [", "3", "x: y"])
def test_a_broken_list_is_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "infra").mkdir()
    (tmp_path / licensing.EXCEPTIONS).write_text(text)
    with pytest.raises(SupplyError, match=r"infra/licences\.yaml: "):
        licensing.exceptions(tmp_path)
