"""Canonical JSON, in which equal values are equal bytes: sorted keys, finite numbers only."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def line(value: Any, *, ascii: bool = True) -> str:
    """Return the compact text, used for digests. Raises ValueError for values that JSON cannot represent."""
    return _text(value, ascii, separators=(",", ":"))


def document(value: Any, *, indent: int = 2, ascii: bool = True) -> str:
    """Return the indented text, for files that people read. Raises ValueError like `line`."""
    return _text(value, ascii, indent=indent) + "\n"


def digest(value: Any, *, ascii: bool = True) -> str:
    """Return the sha256 of `line`. Raises ValueError like `line`."""
    return hashlib.sha256(line(value, ascii=ascii).encode()).hexdigest()


def _text(value: Any, ascii: bool, **form: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=ascii, **form)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot be written as JSON: {error}") from error
