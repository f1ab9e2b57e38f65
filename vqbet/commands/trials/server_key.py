"""Key of the project's own policy server, which signs what was served in trials."""

from __future__ import annotations

from pathlib import Path

from vqbet.contract import ServingError
from vqbet.signing import keys
from vqbet.signing.keys import Key

NAME = Path(".vqbet") / "server-key.pem"


def own(root: Path) -> Key:
    """Return the key of the project's server; it is made when it is first needed. Raises like `read`."""
    path = root / NAME
    return read(path) if path.exists() else _made(path)


def read(path: Path) -> Key:
    """Return the key in a file. Raises SigningError where it holds none, ServingError where nothing can be signed."""
    try:
        return keys.read(path)
    except ModuleNotFoundError as error:
        raise _unable(error) from error


def _made(path: Path) -> Key:
    try:
        return keys.make(path)
    except ModuleNotFoundError as error:
        raise _unable(error) from error


def _unable(error: ModuleNotFoundError) -> ServingError:
    return ServingError(
        f"a server of trials signs what it serves, which needs {error.name}: pip install 'vqbet[serve,trials]'"
    )
