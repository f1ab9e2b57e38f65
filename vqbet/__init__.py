"""From robot demonstrations to a policy that is allowed on a robot, with the evidence kept.

Public API, described in docs/library.md. Names are imported on first use, so that `import vqbet` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqbet.commands.fit import fit
    from vqbet.commands.load import load
    from vqbet.contract import Channel, Demonstrations, Spec, VqbetError
    from vqbet.serving.session import Session

__all__ = ["Channel", "Demonstrations", "Session", "Spec", "VqbetError", "fit", "load"]

_HOMES = {
    "Channel": "vqbet.contract",
    "Demonstrations": "vqbet.contract",
    "Session": "vqbet.serving.session",
    "Spec": "vqbet.contract",
    "VqbetError": "vqbet.contract",
    "fit": "vqbet.commands.fit",
    "load": "vqbet.commands.load",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vqbet' has no attribute {name!r}; there are {', '.join(__all__)}")
    try:
        value = getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"vqbet.{name} needs {error.name}, which is not installed: pip install 'vqbet[pipeline]'"
        ) from error
    globals()[name] = value  # the next access does not call this function
    return value


def __dir__() -> list[str]:
    return __all__
