"""Pages for people: one HTML file that loads nothing, from a template of this package; see page.css."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent


def render(template: str, **content: Any) -> str:
    """The page of `template`, by its path in the package, with `content` under its names; functions are content too.

    What comes from elsewhere is escaped. Filters: `number`, `thousands`. Equal content gives equal text. Raises
    ValueError where the content lacks a part that the template looks into.
    """
    from jinja2 import Environment, FileSystemLoader, UndefinedError

    environment = Environment(
        loader=FileSystemLoader(PACKAGE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(number=number, thousands=lambda value: f"{value:,}")
    try:
        return environment.get_template(template).render(**content)
    except UndefinedError as error:
        raise ValueError(f"the page needs what is not there: {error}") from error


def number(value: float | None) -> str:
    """Four significant digits; a dash for what is not finite."""
    return "–" if value is None else f"{value:.4g}"
