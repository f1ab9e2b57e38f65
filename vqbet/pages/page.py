"""Rendering of self-contained HTML pages from the templates of this package; see page.css."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent


def render(template: str, **content: Any) -> str:
    """Render `template`, a path in the package, with `content` as its variables; functions are allowed.

    Content is escaped. Filters: `number`, `thousands`. Equal content returns equal text. Raises ValueError where the
    content lacks a part that the template reads.
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
    """Format a number with four significant digits, None (not finite) as a dash."""
    return "–" if value is None else f"{value:.4g}"
