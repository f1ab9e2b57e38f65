"""Who may call the desk by HTTP, and what an answer carries."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.desks import PAGE_TOKEN, ROBOT_TOKEN, MannedDesk, manned
from tests.support.waiting import until
from vqbet.commands.trials import web
from vqbet.commands.trials.desk_client import DeskClient, DeskRefusal
from vqbet.commands.trials.web import Door
from vqbet.contract import ServingError


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MannedDesk]:
    with manned(tmp_path_factory.mktemp("desk")) as made:
        yield made


def asked(
    desk: MannedDesk, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    made = http.client.HTTPConnection("127.0.0.1", desk.port, timeout=10)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    if body is not None:
        sent.setdefault("Content-Type", "application/json")
    made.putrequest(method, path, skip_host="Host" in sent)
    for name, value in sent.items():
        made.putheader(name, value)
    if content is not None:
        made.putheader("Content-Length", str(len(content)))
    made.endheaders(content)
    answer = made.getresponse()
    said = answer.read()
    made.close()
    kind = answer.headers.get("Content-Type", "")
    return answer.status, json.loads(said) if "json" in kind else said, dict(answer.headers)


def cookie(desk: MannedDesk) -> str:
    return desk.client._cookie


@pytest.mark.parametrize("path", ["/", "/desk.css", "/desk.js", "/desk.svg", "/api/state", "/nothing"])
def test_every_answer_is_guarded(desk: MannedDesk, path: str) -> None:
    _, _, headers = asked(desk, "GET", path)
    headers = {name.lower(): value for name, value in headers.items()}
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers


def test_the_page_needs_its_secret(desk: MannedDesk) -> None:
    for path in ("/api/state", "/api/camera", f"/api/picture/{'a' * 64}", "/api/seen?trial=A"):
        status, said, _ = asked(desk, "GET", path)
        assert (status, said) == (401, {"error": "open the address that the desk has printed"})
    status, _, _ = asked(desk, "POST", "/api/start", {"key": "12345678", "trial": desk.state["trial"]})
    assert status == 401
    with pytest.raises(DeskRefusal):
        DeskClient(desk.port, "a guess")
    assert desk.kinds == ["opened"]


def test_the_cookie_is_kept_from_scripts_and_other_sites(desk: MannedDesk) -> None:
    status, said, headers = asked(desk, "POST", "/api/enter", {"token": PAGE_TOKEN})
    assert (status, said) == (200, {})
    made = headers["set-cookie"]
    assert "HttpOnly" in made
    assert "SameSite=strict" in made
    assert PAGE_TOKEN not in made
    assert made.startswith(f"vqbet-desk-{desk.made.plan.sha256[:12]}=")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:80", "", "[::1"])
def test_a_foreign_host_is_refused(desk: MannedDesk, host: str) -> None:
    """DNS rebinding: a page under a name of its own that resolves to this machine."""
    status, said, _ = asked(desk, "GET", "/api/state", Host=host, Cookie=cookie(desk))
    assert (status, said) == (403, {"error": "expected this desk's own address as Host"})


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8090", "[::1]:8090", "192.168.1.7"])
def test_own_hosts(desk: MannedDesk, host: str) -> None:
    assert asked(desk, "GET", "/api/state", Host=host, Cookie=cookie(desk))[0] == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_a_foreign_origin_is_refused(desk: MannedDesk, origin: str) -> None:
    said = {"key": "12345678", "trial": desk.state["trial"]}
    status, answer, _ = asked(desk, "POST", "/api/start", said, Origin=origin, Cookie=cookie(desk))
    assert (status, answer) == (403, {"error": "only this desk's own page may ask"})
    assert desk.kinds == ["opened"]


def test_the_own_origin(desk: MannedDesk) -> None:
    assert asked(desk, "GET", "/api/state", Origin=desk.url, Cookie=cookie(desk))[0] == 200


def test_the_robot_needs_its_secret(desk: MannedDesk) -> None:
    for headers in ({}, {"Authorization": f"Bearer {PAGE_TOKEN}"}, {"Authorization": ROBOT_TOKEN}):
        status, said, _ = asked(desk, "GET", "/robot/next", **headers)
        assert (status, said["error"][:10]) == (401, "expected t")
    assert asked(desk, "GET", "/api/state", Authorization=f"Bearer {ROBOT_TOKEN}")[0] == 401, "and is no operator"


@pytest.mark.parametrize(
    ("path", "body", "status", "sentence"),
    [
        ("/api/start", {"trial": "A"}, 422, "key: expected text, got None"),
        ("/api/start", {"key": "short", "trial": "A"}, 422, "key: expected 8 to 64 letters and digits"),
        ("/api/start", {"key": "12345678"}, 422, "trial: expected text, got None"),
        ("/api/start", {"key": "12345678", "trial": 7}, 422, "trial: expected text, got 7"),
        ("/api/start", [1], 422, "expected a JSON object"),
        ("/api/start", b"{", 422, "expected a JSON object"),
        ("/api/start", b"[" * 9999, 422, "expected a JSON object"),
        ("/api/start", b"1" * (1 << 17), 413, "expected at most 65536 bytes"),
        (
            "/api/grade",
            {"key": "12345678", "trial": "A", "stage": "x"},
            409,
            "trial 'A': was not started in this session",
        ),
        ("/api/unblind", {"key": "12345678"}, 404, "expected one of start, stop"),
    ],
)
def test_bodies_that_are_none(desk: MannedDesk, path: str, body: Any, status: int, sentence: str) -> None:
    found, said, _ = asked(desk, "POST", path, body, Cookie=cookie(desk))
    assert found == status
    assert sentence in said["error"]


def test_forms_are_refused(desk: MannedDesk) -> None:
    """A page of another site can send a form without asking first."""
    form = {"Content_Type": "text/plain"}
    assert asked(desk, "POST", "/api/pause", {"key": "12345678"}, Cookie=cookie(desk), **form)[0] == 415


@pytest.mark.parametrize("path", ["/api/camera?after=x", "/api/seen", "/robot/running"])
def test_questions_that_are_none(desk: MannedDesk, path: str) -> None:
    headers = {"Cookie": cookie(desk), "Authorization": f"Bearer {ROBOT_TOKEN}"}
    status, said, _ = asked(desk, "GET", path, **headers)
    assert status == 422
    assert isinstance(said["error"], str)


@pytest.mark.parametrize("name", ["..%2fsalt", "salt", "a" * 64, "%2e%2e%2fplan.json", "../salt"])
def test_pictures_and_nothing_else(desk: MannedDesk, name: str) -> None:
    assert asked(desk, "GET", f"/api/picture/{name}", Cookie=cookie(desk))[0] == 404


def test_a_picture_of_the_plan(desk: MannedDesk) -> None:
    picture = desk.state["condition"]["picture"]
    status, said, headers = asked(desk, "GET", f"/api/picture/{picture}", Cookie=cookie(desk))
    assert (status, headers["content-type"], said[:4]) == (200, "image/png", b"\x89PNG")


def test_the_camera(desk: MannedDesk) -> None:
    desk.show(100)
    status, said, headers = asked(desk, "GET", "/api/camera?after=0", Cookie=cookie(desk))
    assert (status, said[:4]) == (200, b"\x89PNG")
    assert headers["x-number"] == "1"
    with pytest.raises(ServingError, match="expected width x height x 3 bytes of RGB, got 3 x 3 and 2304 bytes"):
        desk.robot.asked("POST", "/robot/picture?width=3&height=3", np.zeros((24, 32, 3), np.uint8))


def test_a_state_is_waited_for(desk: MannedDesk) -> None:
    """A long poll answers as soon as something has changed, and after its time else."""
    until(lambda: desk.state["server"] == "")  # once the policy server was looked at, nothing changes by itself
    before = desk.state["version"]
    assert desk.client.state(before, 0.1)["version"] == before
    desk.client.change("pause")
    assert desk.client.state(before, 20)["phase"] == "paused"
    assert desk.client.change("resume")["phase"] == "ready"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::"])
def test_nothing_secret_in_clear(host: str) -> None:
    with pytest.raises(ServingError, match="would travel in clear; add --certificate and --key"):
        Door(host=host).expect_safe()


def test_half_a_certificate(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="expected --certificate and --key, got one of them"):
        Door(certificate=tmp_path / "desk.pem").expect_safe()


def test_a_port_that_is_taken(desk: MannedDesk) -> None:
    made = web.app(desk.desk, None, host="127.0.0.1")  # type: ignore[arg-type]
    with (
        pytest.raises(ServingError, match=r"cannot listen there: .*; choose another --port"),
        web.listening(made, Door(port=desk.port)),
    ):
        pass


def test_a_certificate_that_is_none(desk: MannedDesk, tmp_path: Path) -> None:
    (tmp_path / "desk.pem").write_text("none")
    made = web.app(desk.desk, None, host="127.0.0.1")  # type: ignore[arg-type]
    door = Door(port=0, certificate=tmp_path / "desk.pem", key=tmp_path / "desk.pem")
    with pytest.raises(ServingError, match=r"TLS: .*expected certificate and key in PEM"), web.listening(made, door):
        pass
