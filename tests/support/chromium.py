"""Headless browser, controlled over its debugging protocol. It resolves no name outside this machine."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.support.waiting import LONG_S, until

NAMES = ("chromium", "chromium-browser", "google-chrome")
FOREIGN = "pages.example"  # a foreign host name that resolves to this machine, as after DNS rebinding
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-port=0"),
    f"--host-resolver-rules=MAP {FOREIGN} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


class Page:
    """One page of the browser."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.sent = 0
        self.complaints: list[str] = []  # errors on the console, once it is listened to

    def go(self, address: str) -> None:
        """Open an address and wait until the page is loaded."""
        self._do("Page.navigate", url=address)
        until(lambda: self.run("location.href != 'about:blank' && document.readyState == 'complete'"))

    def run(self, script: str) -> Any:
        """Return the value of an expression, evaluated as a script of the page; promises are awaited."""
        done = self._do("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def size(self, width: int, height: int) -> None:
        """Show the page as on a phone of this size."""
        self._do("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2, mobile=True)
        self._do("Emulation.setTouchEmulationEnabled", enabled=True)

    def listen(self) -> None:
        """Keep errors of scripts, of loading and of the console, from now on."""
        for domain in ("Runtime", "Log"):
            self._do(f"{domain}.enable")

    def press(self, key: str) -> None:
        """Press a key and let it go, as a keyboard or a pedal does."""
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        self._do("Input.dispatchKeyEvent", type="keyDown", key=key, text=text)
        self._do("Input.dispatchKeyEvent", type="keyUp", key=key)

    def tap(self, selector: str) -> None:
        """Tap the middle of an element with a finger. Fails where the element is covered, or not on the screen."""
        place = self.run(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)}), box = one.getBoundingClientRect(), "
            "x = box.x + box.width / 2, y = box.y + box.height / 2, over = document.elementFromPoint(x, y); "
            "return box.width && over && (one === over || one.contains(over)) ? [x, y] : null; })()"
        )
        assert place, f"{selector}: nobody can tap it"
        x, y = place
        self._do("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self._do("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def picture(self, path: Path) -> None:
        """Write what is shown as a PNG."""
        path.write_bytes(base64.b64decode(self._do("Page.captureScreenshot", format="png")["data"]))

    def _do(self, method: str, **params: Any) -> dict[str, Any]:
        self.sent += 1
        self.connection.send(json.dumps({"id": self.sent, "method": method, "params": params}))
        while (answer := json.loads(self.connection.recv(60))).get("id") != self.sent:
            self.complaints += _complaint(answer)
        assert "error" not in answer, answer
        return answer["result"]


class Chromium:
    """Running browser with its debugging protocol at `port`."""

    def __init__(self, port: int) -> None:
        self.port = port

    @contextmanager
    def page(self, address: str) -> Iterator[Page]:
        """Yield a new page that shows an address."""
        new = Request(f"http://127.0.0.1:{self.port}/json/new?about:blank", method="PUT")
        with urlopen(new, timeout=LONG_S) as answer:
            target = json.load(answer)["webSocketDebuggerUrl"]
        with connect(target, proxy=None) as connection:
            page = Page(connection)
            page.go(address)
            yield page


def command() -> str:
    """Return the path of a browser. Without one, the test is skipped, or fails where CI=true."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        without = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        without(f"no browser: install one of {', '.join(NAMES)} (on Debian: apt-get install chromium)")
    return found


@contextmanager
def started(home: Path) -> Iterator[Chromium]:
    """Start a browser with an empty profile in `home`, and end it after the block."""
    argv = [command(), *FLAGS, f"--user-data-dir={home / 'profile'}", "about:blank"]
    with (home / "said").open("w+", encoding="utf-8") as said:
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=said)
        try:
            until(lambda: _port(home / "said"))
            yield Chromium(_port(home / "said"))
        finally:
            process.terminate()
            process.wait(30)


def _complaint(event: dict[str, Any]) -> list[str]:
    """Return what an event says of an error; empty for any other event."""
    said = event.get("params", {})
    match event.get("method"):
        case "Runtime.exceptionThrown":
            return [json.dumps(said["exceptionDetails"])]
        case "Runtime.consoleAPICalled" if said["type"] in ("error", "assert"):
            return [json.dumps(said["args"])]
        case "Log.entryAdded" if said["entry"]["level"] == "error":
            return [f"{said['entry']['text']} {said['entry'].get('url', '')}"]
    return []


def _port(said: Path) -> int:
    """Return the port of the debugging protocol; 0 before it is open.

    Read from the browser's output, since a packaged browser may keep its profile elsewhere.
    """
    found = re.search(r"DevTools listening on ws://127\.0\.0\.1:(\d+)/", said.read_text(errors="replace"))
    return int(found[1]) if found else 0
