"""MLflow's pages without its assistant, whose tools run commands on this machine for whoever reaches the port.

The entry point `vqbet` of group `mlflow.app` in pyproject.toml names `app`; MLflow has no switch for it (3.17).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, final

from mlflow.server.fastapi_app import app as pages

Message = MutableMapping[str, Any]
REFUSED = "/mlflow/assistant"  # in the paths of its requests, before which a version and a prefix may stand


@final
class WithoutAssistant:
    """Application (ASGI 3) that answers as MLflow does, and 404 to requests of the assistant."""

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
    ) -> None:
        """Answer one request."""
        if REFUSED not in scope.get("path", ""):
            await pages(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


app = WithoutAssistant()  # a function would be taken for one that makes an application
