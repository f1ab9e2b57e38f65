"""The desk's websocket at a server of blind trials: orders come in, signed statements go out."""

from __future__ import annotations

import http
import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

from websockets.asyncio.server import ServerConnection

from vqbet.contract import ServingError
from vqbet.files import reading
from vqbet.serving import admission, wire

if TYPE_CHECKING:
    from vqbet.serving.blind_arms import BlindArms

PATH = "/desk"
MOST_DESKS = 4  # connections: a desk, and those that broke and are not known to be gone
MOST_BYTES = 1 << 16  # of a frame
MOST_TEXT = 200  # characters
HEX_KEY = re.compile(r"(?:[0-9a-f]{2}){16,64}", re.ASCII)
ORDER = ("plan", "trial", "robot", "nonce", "digest", "key")
LOG = logging.getLogger(__name__)


@final
class DeskLine:
    """The desk's door to the arms. token: the desk's secret. robots: the robots' secret, which is another one.

    Raises ServingError where the two are the same, or the desk has none.
    """

    def __init__(self, arms: BlindArms, token: str, *, robots: str) -> None:
        if not token:
            raise ServingError(
                "anybody could order trials: expected the desk's secret in VQBET_DESK_TOKEN (for example of `openssl "
                "rand -hex 24`), the same one as at the desk"
            )
        if token == robots:
            raise ServingError(
                "VQBET_DESK_TOKEN and VQBET_TOKEN are the same, so that every robot could order trials; expected two"
            )
        self.arms, self._token = arms, token
        self._open = 0

    def refusal(self, said: list[str]) -> tuple[http.HTTPStatus, str]:
        """Return why a connection is refused; an empty sentence to let it in. said: its Authorization headers."""
        if not admission.has_token(said, self._token):
            return http.HTTPStatus.UNAUTHORIZED, "expected the header Authorization: Bearer with the desk's secret"
        if self._open >= MOST_DESKS:
            return http.HTTPStatus.SERVICE_UNAVAILABLE, f"{self._open} desks are connected, no more are taken"
        return http.HTTPStatus.OK, ""

    async def talk(self, socket: ServerConnection) -> None:
        """Answer until the desk goes."""
        self._open += 1
        try:
            async for frame in socket:
                await socket.send(wire.encode(self._answer(frame)))
        finally:
            self._open -= 1

    def _answer(self, frame: bytes | str) -> dict[str, Any]:
        try:
            return self._answered(wire.decode(frame, most=MOST_BYTES))
        except ServingError as error:
            return {"status": "error", "message": str(error)}
        except Exception:
            LOG.exception("order of the desk")
            return {"status": "error", "message": "the server failed at this order; its log says why"}

    def _answered(self, message: Mapping[str, Any]) -> dict[str, Any]:
        endpoint = message.get("endpoint")
        if endpoint == "arms" and set(message) == {"endpoint"}:
            spec = self.arms.shown.handshake.spec.to_json()
            said = {"digests": self.arms.digests, "public_key": self.arms.public_key, "spec": spec}
            return {**said, "plan": self.arms.plan}
        if endpoint == "arm":
            statement, signature = self.arms.arm(**_order(message))
            return {"status": "armed", "statement": statement.to_json(), "signature": signature}
        raise ServingError(f"expected the order arms or arm, got {reading.short(dict(message))}")


def _order(message: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields of an order. Raises ServingError, naming the field that is wrong."""
    if set(message) != {"endpoint", *ORDER}:
        raise ServingError(f"arm: expected {', '.join(ORDER)}, got {reading.short(sorted(message))}")
    for name in ORDER:
        value = message[name]
        if type(value) is not str or not 0 < len(value) <= MOST_TEXT or not value.isprintable():
            raise ServingError(f"arm: {name}: expected text of at most {MOST_TEXT} characters")
    if not HEX_KEY.fullmatch(message["key"]):
        raise ServingError("arm: key: expected 16 to 64 bytes as hexadecimal digits")
    return {name: message[name] for name in ORDER}
