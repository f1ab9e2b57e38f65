"""From robot demonstrations to a policy that is allowed on a robot, with the evidence kept.

The library's surface, docs/library.md; a name is imported when it is first used, so that `import vqbet` costs nothing.
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
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # found at once from now on
    return value


def __dir__() -> list[str]:
    return __all__
