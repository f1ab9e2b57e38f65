"""`vqbet --help`: verbs in the order of the data's way, an example for each, and nothing heavy imported to show it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from vqbet.__main__ import app
from vqbet.commands import manual

HEAVY = ("numpy", "prefect", "flows", "torch", "mlflow", "dvc", "rich")


def verbs(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every verb that is not hidden, of groups too, with the words that call it."""
    for name, command in group.commands.items():
        if getattr(command, "commands", None):
            yield from verbs(command, (*words, name))
        elif not command.hidden:
            yield (*words, name), command


def all_verbs() -> dict[str, Any]:
    from flows.commands import app as flows

    found = {" ".join(words): command for words, command in verbs(typer.main.get_command(app)) if words != ("flow",)}
    flow = {" ".join(words): command for words, command in verbs(typer.main.get_command(flows), ("flow",))}
    return {**found, **flow}


def shown(*words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--help"], prog_name="vqbet")
    assert done.exit_code == 0, done.output
    return done.output


def test_every_verb_has_its_place_and_its_example() -> None:
    first = [name for names in manual.SECTIONS.values() for name in names]
    shown = {name for name, verb in typer.main.get_command(app).commands.items() if not verb.hidden}
    assert sorted(first) == sorted(shown)
    assert manual.EXAMPLES.keys() == all_verbs().keys()


def test_sections_come_in_the_order_of_the_way() -> None:
    text = shown()
    places = [text.index(f"\n{title}:\n") for title in manual.SECTIONS]
    assert places == sorted(places)
    assert f"\n{manual.OTHER}:" not in text
    assert text.index("  ingest ") < text.index("  stage ") < text.index("  plan ") < text.index("  promote ")


@pytest.mark.parametrize("words", manual.EXAMPLES)
def test_help_ends_with_the_examples(words: str) -> None:
    text = shown(*words.split())
    for line in manual.EXAMPLES[words]:
        assert f"\n    {line}\n" in text


@pytest.mark.parametrize(
    ("words", "line"), [(words, line) for words, lines in manual.EXAMPLES.items() for line in lines]
)
def test_an_example_is_what_the_verb_takes(words: str, line: str) -> None:
    """Parsed, not run: each option is known and each value is of its type."""
    called = [word for word in shlex.split(line) if not word.startswith("VQBET_")]
    assert called[: 1 + len(words.split())] == ["vqbet", *words.split()]
    command = all_verbs()[words]
    command.make_context(command.name, called[1 + len(words.split()) :])


def test_a_verb_without_a_section_is_shown_all_the_same() -> None:
    small = typer.Typer(cls=manual.Manual, rich_markup_mode=None)
    for name in ("drift", "novelty"):
        small.command(name)(lambda: None)
    text = CliRunner().invoke(small, ["--help"]).output
    assert text.index("Demonstrations:") < text.index("  drift") < text.index("Other:") < text.index("  novelty")


@pytest.mark.parametrize(("words", "allowed"), [((), ()), (("keys",), ()), (("flow",), ("flows",))])
def test_help_imports_nothing_heavy(words: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom vqbet.__main__ import app\n"
        f"app({[*words, '--help']!r}, standalone_mode=False)\n"
        f"sys.stderr.write(' '.join(name for name in {HEAVY!r} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr.split() == list(allowed)
