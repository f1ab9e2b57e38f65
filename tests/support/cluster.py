"""A small fake of the Kubernetes API on loopback: jobs and their pods are created, listed, watched and deleted."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class FakeCluster:
    """What was asked of the API, and the objects that it holds."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pods: dict[str, dict[str, Any]] = {}
        self.failures: list[int] = []  # statuses that the next creations get
        self.address = ""

    def create(self, job: dict[str, Any]) -> dict[str, Any]:
        """Hold a job, named as the API names it, and a running pod."""
        name = f"{job['metadata']['generateName']}{len(self.jobs):05d}"
        job["metadata"] |= {"name": name, "uid": f"uid-{name}"}
        self.jobs[name] = job
        template = job["spec"]["template"]
        pod = {"metadata": {**template["metadata"], "name": f"{name}-pod"}, "spec": template["spec"]}
        self.pods[f"{name}-pod"] = pod | {"status": {"phase": "Running"}}
        return job

    def delete(self, name: str) -> bool:
        """Forget a job and its pod, and return whether there was one."""
        self.pods.pop(f"{name}-pod", None)
        return self.jobs.pop(name, None) is not None


class _Handler(BaseHTTPRequestHandler):
    cluster: FakeCluster

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.cluster.asked.append(("POST", self.path))
        if self.cluster.failures:
            status = self.cluster.failures.pop(0)
            self._answer(status, {"kind": "Status", "message": "planted", "code": status})
            return
        self._answer(201, self.cluster.create(body))

    def do_GET(self) -> None:
        self.cluster.asked.append(("GET", self.path))
        url = urlsplit(self.path)
        kind, api = ("Pod", "v1") if url.path.endswith("/pods") else ("Job", "batch/v1")
        held = list((self.cluster.pods if kind == "Pod" else self.cluster.jobs).values())
        if "watch" in parse_qs(url.query):
            self._lines([{"type": "ADDED", "object": {"apiVersion": api, "kind": kind, **each}} for each in held])
        else:
            self._answer(200, {"apiVersion": api, "kind": f"{kind}List", "metadata": {}, "items": held})

    def do_DELETE(self) -> None:
        self.cluster.asked.append(("DELETE", self.path))
        there = self.cluster.delete(urlsplit(self.path).path.rpartition("/")[2])
        self._answer(200 if there else 404, {"kind": "Status", "message": "" if there else "not found"})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _lines(self, events: list[dict[str, Any]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        for event in events:
            self.wfile.write(json.dumps(event).encode() + b"\n")


@contextmanager
def serving() -> Iterator[FakeCluster]:
    """Serve a new fake until the block ends."""
    cluster = FakeCluster()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"cluster": cluster}))
    cluster.address = "http://{}:{}".format(*server.server_address[:2])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()
