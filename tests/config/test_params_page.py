"""docs/params.md is what the descriptions of the parameters say; every parameter has one, in one sentence or two."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from pydantic import BaseModel

from vqbet.config import BundleParams, EncoderParams, PriorParams, TaskParams, TokenizerParams
from vqbet.models.encoders import EncoderShape
from vqbet.models.prior import Objective, PriorShape
from vqbet.models.tokenizer import TokenizerShape
from vqbet.policies.actor import Actor
from vqbet.policies.vqbet import VQBeT
from vqbet.training.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "infra" / "setup" / "params_page.py"


def described(kind: type[BaseModel]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, field in kind.model_fields.items():
        inner = [each for each in (field.annotation, *get_args(field.annotation)) if isinstance(each, type)]
        sections: list[Any] = [each for each in inner if issubclass(each, BaseModel)]
        found += [part for section in sections for part in described(section)]
        if not sections:
            found.append((f"{kind.__name__}.{name}", field.description or ""))
    return found


def test_every_parameter_is_described() -> None:
    found = described(TaskParams)
    assert len(found) > 70
    assert [name for name, text in found if not (text[:1].isupper() and text.endswith("."))] == []


@pytest.mark.parametrize(
    ("section", "constructor"),
    [
        (TokenizerParams, TokenizerShape),
        (PriorParams, PriorShape),
        (PriorParams, Objective),
        (PriorParams, Recipe),
        (EncoderParams, EncoderShape),
        (BundleParams, None),
    ],
)
def test_a_section_has_the_values_of_its_constructor_by_name_and_type(section: Any, constructor: Any) -> None:
    """What a knob means to a model and what params.yaml accepts for it cannot drift apart."""
    if constructor is None:  # a constructor of keywords, not of a dataclass
        given = set(inspect.signature(VQBeT).parameters) | set(inspect.signature(Actor).parameters)
        assert set(section.model_fields) <= given
        return
    asked = get_type_hints(constructor)
    assert set(asked) <= set(section.model_fields)
    for name, kind in asked.items():
        accepted = section.model_fields[name].annotation
        assert accepted == kind or (kind is str and get_origin(accepted) is Literal), name


def test_the_page_is_what_the_descriptions_say() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
