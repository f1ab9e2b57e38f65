"""A desk of robot trials that follows a script, by HTTP on loopback; keeps everything that the robot said."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "robot-secret"


@dataclass
class FakeDesk:
    """jobs: trials to be ordered, one after the other, as maps of "run"; a trial is done when its end was said.

    stop_after_s: after which a trial's robot hears that it is stopped; None: never. refuse: sentences by path, answered
    with 409. broken: paths that answer 500, this many times. slow_s: of the answer whether a trial runs. said: every
    call so far, by path.
    """

    server: str
    robot: str = "arm-3"
    plan: str = "e" * 64
    jobs: list[dict[str, Any]] = field(default_factory=list)
    stop_after_s: float | None = None
    refuse: dict[str, str] = field(default_factory=dict)
    broken: dict[str, int] = field(default_factory=dict)
    said: list[tuple[str, Any]] = field(default_factory=list)
    pictures: list[tuple[int, int, bytes]] = field(default_factory=list)
    slow_s: float = 0.0
    wait_s: float = 0.05  # of a long poll
    began_s: dict[str, float] = field(default_factory=dict)

    def all_said(self, path: str) -> list[Any]:
        return [what for name, what in self.said if name == path]

    def answer(self, path: str, query: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        said = json.loads(body) if body and path != "/robot/picture" else query
        self.said.append((path, said))
        if self.broken.get(path, 0):
            self.broken[path] -= 1
            return 500, {"error": "out of order"}
        if path in self.refuse:
            return 409, {"error": self.refuse[path]}
        return 200, getattr(self, path.removeprefix("/robot/"))(said, body)

    def hello(self, said: dict[str, Any], _: bytes) -> dict[str, Any]:
        return {"plan": self.plan, "server": self.server, "robot": self.robot}

    def next(self, said: dict[str, Any], _: bytes) -> dict[str, Any]:
        ended = {one["trial"] for one in self.all_said("/robot/ended")}
        left = [job for job in self.jobs if job["trial"] not in ended]
        if not left:
            return {"do": "over"}
        if left[0].get("later"):
            left[0]["later"] -= 1
            time.sleep(self.wait_s)
            return {"do": "wait"}
        return {"do": "run", "server": self.server, **left[0]}

    def began(self, said: dict[str, Any], _: bytes) -> dict[str, Any]:
        self.began_s[said["trial"]] = time.monotonic()
        return {}

    def running(self, said: dict[str, Any], _: bytes) -> dict[str, Any]:
        time.sleep(self.slow_s)
        since = time.monotonic() - self.began_s.get(said["trial"], 0.0)
        return {"running": self.stop_after_s is None or since < self.stop_after_s}

    def ended(self, said: dict[str, Any], _: bytes) -> dict[str, Any]:
        return {}

    def picture(self, said: dict[str, Any], body: bytes) -> dict[str, Any]:
        self.pictures.append((int(said["width"]), int(said["height"]), body))
        return {}

    @contextmanager
    def serving(self, port: int = 0) -> Iterator[str]:
        """Serve on loopback for the time of a `with`; yield the URL. port: of a desk that was ended before."""
        desk = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                query = {name: values[-1] for name, values in parse_qs(url.query).items()}
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                    status, answer = 401, {"error": "expected the robot's token"}
                else:
                    status, answer = desk.answer(url.path, query, body)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                return

        with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_address[1]}"
            finally:
                server.shutdown()
                thread.join()


def job(code: str, seed: int, **more: Any) -> dict[str, Any]:
    return {"trial": code, "seed": seed, "timeout_s": 60.0, "operator": "ada", **more}
