"""Strict reading of files: every fault becomes an error with the file's name and a shortened copy of the value.

Every function takes the error class to raise, so that params.yaml, artefacts and evidence share one reader.
"""

from __future__ import annotations

import json
import os
import reprlib
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ECHO = 80  # most characters of a value in a message
ODD = (ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError)  # malformed data
_echo = reprlib.Repr()
_echo.maxstring = _echo.maxother = _echo.maxlong = ECHO
_echo.maxlevel = 3


def short(value: Any) -> str:
    """Return the repr of a value in at most ECHO characters, for messages."""
    try:
        text = _echo.repr(value)
    except (ValueError, RecursionError):  # an integer with more digits than Python prints
        text = f"a {type(value).__name__} that is too long to be shown"
    return cut(text)


def cut(text: str, most: int = ECHO) -> str:
    """Return the text on one line, with its middle omitted if it has more than `most` characters."""
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 20]}...{text[-17:]}"


@contextmanager
def sentences(where: str, refuse: type[Exception], mend: str = "") -> Iterator[None]:
    """Convert exceptions caused by a wrong shape, value or encoding in the block to `refuse`, prefixed with `where`.

    mend: advice at the end of the message. Errors of type `refuse`, OSError and interrupts pass unchanged.
    """
    try:
        yield
    except refuse:
        raise
    except ODD as error:
        raise refuse(f"{where}: {_reason(error)}{mend and '; ' + mend}") from error


def content(path: Path, refuse: type[Exception], *, most: int, mend: str, links: bool = False) -> bytes:
    """Return the bytes of a plain file of at most `most` bytes; never blocks on a pipe. mend: advice in the message.

    Raises `refuse` if there is no such file, and for a symbolic link unless `links` is set.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if links else os.O_NOFOLLOW))
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_size <= most:
                return file.read(status.st_size)
    except FileNotFoundError as error:
        raise refuse(f"{path}: is missing; {mend}") from error
    except OSError as error:
        link = "is a symbolic link, expected a plain file (dvc config cache.type reflink,hardlink,copy)"
        raise refuse(f"{path}: {link if path.is_symlink() else f'cannot be read: {error.strerror}'}; {mend}") from error
    raise refuse(f"{path}: expected a plain file of at most {most} bytes; {mend}")


def load(path: Path, refuse: type[Exception], *, most: int) -> str:
    """Return the text of a UTF-8 file of at most `most` bytes. Raises `refuse` if that fails."""
    try:
        size = path.stat().st_size
        if size > most:
            raise refuse(f"{path}: expected at most {most} bytes, got {size}")
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise refuse(f"{path}: is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise refuse(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # the path contains NUL
        raise refuse(f"{short(str(path))}: cannot be read: {error}") from error


def parse(text: str, where: str, refuse: type[Exception]) -> Any:
    """Parse JSON without duplicate keys, NaN or infinity. Raises `refuse` naming `where`."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError as error:
        raise refuse(f"{where}: nested too deeply to be read") from error
    except ValueError as error:
        raise refuse(f"{where}: is not strict JSON: {cut(str(error), 2 * ECHO)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{short(error.args[0] if error.args else '')} is missing"
    if isinstance(error, RecursionError):
        return "is nested too deeply to be read"
    return f"is not what it should be: {cut(str(error), 2 * ECHO) or type(error).__name__}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise ValueError(f"a key appears twice among {sorted(keys)}")
    return dict(pairs)


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is not a number")
