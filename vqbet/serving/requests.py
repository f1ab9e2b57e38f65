"""Requests of robots and answers to them, in the dialects that call themselves openpi. Pure functions over maps.

openpi: a map of observations; `actions` and `server_timing` come back; an error is a text frame, then the server hangs
up. RoboArena: the same, with `endpoint` in every request and names of its own for the state of an arm; a reset is
answered in text. vLLM-Omni: `endpoint` and `session_id`, answers always binary, errors too, and the connection stays.
Keys of our own are added to requests, and one map `vqbet` to replies; foreign clients ignore it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from vqbet.contract import ServingError
from vqbet.files import reading
from vqbet.serving import cameras, wire
from vqbet.serving.cameras import Shown
from vqbet.serving.channels import check_seed
from vqbet.serving.handshake import KEY, Handshake

STATES = ("state", "observation/state", "observation.state")
ARM = ("observation/joint_position", "observation/gripper_position")  # of RoboArena; together the state
IGNORED = ("prompt", "observation/cartesian_position")  # of a language model; said again by the joints of ARM
OWN = ("seed", "step", "execute", "digest")  # keys that no foreign client sends
KNOWN = {*STATES, *ARM, *IGNORED, *OWN, "endpoint", "session_id", "goal", "trial", "pictures"}
VLLM_PATH = "/v1/realtime/robot/openpi"
MOST_TEXT = 200  # characters of an id of a session or trial
RESET = "reset successful"

Execute = Literal["server", "robot"]


class Dialect(Enum):
    """Dialect of a client: the form in which it reads resets and errors."""

    OPENPI = "openpi"
    ROBOARENA = "roboarena"
    VLLM = "vllm"


@dataclass(frozen=True, slots=True)
class Request:
    """One request. state: (D,) or (T, D), real numbers of any kind, unchecked; None for a reset. own: a client of
    vqbet, which counts its steps. execute: who applies the bundle's rule. trial: the code of a blind trial.

    cameras: checked pictures by camera, one of each (height, width, 3) beside a state (D,), M of each beside (T, D).
    places: beside a state (T, D), which picture belongs to each of the T steps: p >= 0 is the p-th of the M, and p < 0
    is that of step T + p of the request before, whose pictures were sent with it or before it.
    """

    dialect: Dialect
    reset: bool
    state: np.ndarray | None = None
    cameras: Shown = field(default_factory=dict)
    places: tuple[int, ...] = ()
    session: str = ""
    goal: np.ndarray | None = None
    seed: int | None = None
    step: int | None = None
    execute: Execute = "server"
    own: bool = False
    trial: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """Actions for one request, what they came from, and which episode and policy they belong to."""

    actions: Float[np.ndarray, "H A"]  # float32
    step: int
    seed: int
    codes: tuple[int, ...]
    signals: Mapping[str, float]
    digest: str


def spoken(message: Mapping[str, Any], *, path: str = "/", before: Dialect | None = None) -> Dialect:
    """Return the dialect of a request. path: of the URL. before: the dialect of the connection's last request."""
    if path.rstrip("/").endswith(VLLM_PATH):
        return Dialect.VLLM
    if any(name in message for name in ARM):
        return Dialect.ROBOARENA
    if "endpoint" in message and before is not None:
        return before
    if "endpoint" in message and not any(name in message for name in OWN):
        return Dialect.VLLM
    return Dialect.OPENPI


def understood(message: Mapping[str, Any], dialect: Dialect, handshake: Handshake) -> Request:
    """Return the request in a map. Raises ServingError, naming the key, for anything else."""
    reset = _endpoint(message) == "reset"
    if unknown := next((name for name in message if name not in KNOWN and not name.startswith(cameras.KEY)), None):
        raise ServingError(
            f"request: key {reading.short(unknown)} is unknown; expected `state`, or "
            f"{' and '.join(f'`{name}`' for name in ARM)}, and the keys of docs/robot.md"
        )
    _digest(message.get("digest"), handshake)
    found = Request(
        dialect=dialect,
        reset=reset,
        state=None if reset else _state(message),
        session=_text("session_id", message.get("session_id")),
        goal=_goal(message.get("goal")),
        seed=_seed(message.get("seed")),
        step=_step(message.get("step")),
        execute=_execute(message.get("execute")),
        own=any(name in message for name in OWN),
        trial=_text("trial", message.get("trial")),
    )
    if found.state is None:  # a reset shows nothing yet
        return found
    pictures, places = _pictures(message, found.state, handshake)
    return replace(found, cameras=pictures, places=places)


def reply(answer: Answer, timing: Mapping[str, float], *, singular: bool = False) -> bytes:
    """Return the frame that answers a request. timing: milliseconds. singular: the first action alone, as `action`."""
    actions = {"action": answer.actions[0]} if singular else {"actions": answer.actions}
    said = {
        "step": answer.step,
        "seed": answer.seed,
        "codes": list(answer.codes),
        "signals": dict(answer.signals),
        "digest": answer.digest,
    }
    return wire.encode({**actions, "server_timing": dict(timing), KEY: said})


def restarted(dialect: Dialect, seed: int, digest: str) -> bytes | str:
    """Return the frame that answers a reset."""
    if dialect is Dialect.ROBOARENA:
        return RESET
    return wire.encode({"status": RESET, KEY: {"step": 0, "seed": seed, "digest": digest}})


def refused(dialect: Dialect, sentence: str) -> bytes | str:
    """Return the frame that says an error. In all dialects but vLLM-Omni's the server closes the connection then."""
    sentence = reading.cut(sentence, 1000)
    return wire.encode({"type": "error", "message": sentence}) if dialect is Dialect.VLLM else sentence


def _endpoint(message: Mapping[str, Any]) -> str:
    endpoint = message.get("endpoint", "infer")
    if type(endpoint) is not str or endpoint not in ("infer", "reset"):
        raise ServingError(f"endpoint: expected infer or reset, got {reading.short(endpoint)}")
    return endpoint


def _state(message: Mapping[str, Any]) -> np.ndarray:
    names = [name for name in (*STATES, *ARM) if name in message]
    if len(names) == 1 and names[0] in STATES:
        return _numbers(names[0], message[names[0]], 2)
    if names == list(ARM):
        return np.concatenate([_numbers(name, message[name], 1) for name in ARM])
    raise ServingError(
        f"request: expected the observation as `state`, or as {' and '.join(f'`{name}`' for name in ARM)}, got "
        f"{', '.join(names) or 'none of them'}"
    )


def _numbers(name: str, value: Any, most: int) -> np.ndarray:
    if type(value) is not np.ndarray or value.dtype.kind not in "fiu" or not 1 <= value.ndim <= most:
        got = f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        shapes = "(D,) or (T, D)" if most == 2 else "(D,)"
        raise ServingError(f"{name}: expected an array of real numbers of shape {shapes}, got {got}")
    return value


def _pictures(message: Mapping[str, Any], state: np.ndarray, handshake: Handshake) -> tuple[Shown, tuple[int, ...]]:
    """Return the pictures of a request, and the place of each step's picture among them; see `Request`."""
    given, seen, places = cameras.given(message), handshake.spec.cameras, message.get("pictures")
    if state.ndim == 1 or not seen:
        if places is not None:
            raise ServingError("pictures: belongs to the last T steps and pictures of cameras, of which there are none")
        return cameras.checked(seen, given), ()
    steps = handshake.window
    if places is None:
        return cameras.checked(seen, given, lead=(steps,)), tuple(range(steps))
    count = max((len(value) for value in given.values() if isinstance(value, np.ndarray) and value.ndim), default=0)
    count = min(count, steps)
    wanted = type(places) is list and len(places) == steps
    if not wanted or any(type(place) is not int or not -steps <= place < count for place in places):
        raise ServingError(
            f"pictures: expected {steps} whole numbers from {-steps} to {count - 1}, one for each step of the state, "
            f"got {reading.short(places)}"
        )
    return (cameras.checked(seen, given, lead=(count,)) if given else {}), tuple(places)


def _text(name: str, value: Any) -> str:
    if value is not None and (type(value) is not str or len(value) > MOST_TEXT):
        raise ServingError(f"{name}: expected text of at most {MOST_TEXT} characters, got {reading.short(value)}")
    return value or ""


def _goal(value: Any) -> np.ndarray | None:
    return None if value is None else _numbers("goal", value, 1)


def _seed(value: Any) -> int | None:
    if value is None:
        return None
    check_seed(value)
    return int(value)


def _step(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < 2**63:
        raise ServingError(f"step: expected a whole number from 0, got {reading.short(value)}")
    return int(value)


def _execute(value: Any) -> Execute:
    if value is None:
        return "server"
    if type(value) is str and value in ("server", "robot"):
        return "robot" if value == "robot" else "server"
    raise ServingError(f"execute: expected server or robot, got {reading.short(value)}")


def _digest(value: Any, handshake: Handshake) -> None:
    if value is not None and (type(value) is not str or value != handshake.digest):
        raise ServingError(
            f"digest: {reading.short(value)} was asked for, {handshake.digest} is served here; connect to a server of "
            "that policy, or ask for this one"
        )
