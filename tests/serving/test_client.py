"""A policy that lives elsewhere: what the robot's end takes from a server, and what it refuses."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.sync.client import connect as open_websocket

from tests.support.fake_server import DIGEST, HANDSHAKE, SPEC, Fake
from tests.support.homing import POLICY
from tests.support.serving import running
from vqbet.contract import ServingError
from vqbet.serving import wire
from vqbet.serving.client import OneRow, connect
from vqbet.serving.handshake import KEY
from vqbet.serving.server import ServerOptions

STATE = np.zeros(2, np.float32)
WINDOW = np.zeros((2, 2), np.float32)


def answering(change: Callable[[dict[str, Any]], Any]) -> Fake:
    """A server whose answers to plans are changed."""

    def answers(request: dict[str, Any], fake: Fake) -> Any:
        answer = fake.answer(request)
        return answer if "endpoint" in request else change(answer)

    return Fake(answers=answers)


class TestConnect:
    def test_the_handshake_is_the_servers(self) -> None:
        with Fake().serving() as url, connect(url, digest=DIGEST, spec=SPEC) as policy:
            assert policy.handshake == HANDSHAKE
            assert (policy.spec, policy.goal) == (SPEC, ())

    def test_another_digest_is_refused_by_the_server(self) -> None:
        with Fake().serving() as url, pytest.raises(ServingError, match="HTTP 404: cdcdcdcdcdcd is not served here"):
            connect(url, digest="cd" * 32)

    def test_and_by_the_robot_where_the_server_does_not_look(self) -> None:
        fake = Fake(metadata=replace(HANDSHAKE, digest="cd" * 32).metadata())
        with fake.serving() as url, pytest.raises(ServingError, match="expected the bundle with digest abababababab"):
            connect(url, digest=DIGEST)

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ({"control_hz": 30.0}, "not made for this robot .*control_hz: 30.0 here, 50.0 there"),
            ({"action_kind": "relative"}, "action_kind: 'relative' here, 'absolute' there"),
            ({"action": SPEC.action[:2]}, "action: 2 channels here, 3 there"),
        ],
    )
    def test_another_spec_or_rate_is_refused(self, change: dict[str, Any], sentence: str) -> None:
        with Fake().serving() as url, pytest.raises(ServingError, match=sentence):
            connect(url, spec=replace(SPEC, **change))

    @pytest.mark.parametrize(
        ("metadata", "sentence"),
        [
            ({"server": "another"}, "none of vqbet"),
            ({KEY: HANDSHAKE.metadata()[KEY] | {"protocol": 99}}, "speaks protocol 99, this robot 1; install the same"),
            ({KEY: HANDSHAKE.metadata()[KEY] | {"window": 0}}, "handshake is not of protocol 1"),
            ("out of order", "the server refused: out of order"),
        ],
    )
    def test_a_server_of_another_kind_is_refused(self, metadata: Any, sentence: str) -> None:
        with Fake(metadata=metadata).serving() as url, pytest.raises(ServingError, match=sentence):
            connect(url)

    def test_two_robots_of_one_name(self) -> None:
        with Fake(robots={"arm-3"}).serving() as url:
            with pytest.raises(ServingError, match="HTTP 409: robot 'arm-3' is connected already"):
                connect(url, robot="arm-3")
            connect(url, robot="arm-4").close()

    def test_a_token(self) -> None:
        with Fake(token="secret").serving() as url:
            with pytest.raises(ServingError, match="HTTP 401: a token is required"):
                connect(url, token="guessed")
            connect(url, token="secret").close()

    def test_nobody_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as held:
            port = held.getsockname()[1]
        with pytest.raises(ServingError, match="refused; see whether the server runs there: vqbet serve"):
            connect(f"ws://127.0.0.1:{port}")

    def test_a_server_that_says_nothing(self) -> None:
        refused = pytest.raises(ServingError, match=r"no answer within 0\.3 s; see whether the server runs")
        with socket.create_server(("127.0.0.1", 0)) as mute, refused:
            connect(f"ws://127.0.0.1:{mute.getsockname()[1]}", timeout_s=0.3)

    def test_something_that_is_no_websocket(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            threading.Thread(target=mail, args=(other,), daemon=True).start()
            with pytest.raises(ServingError, match="no websocket server of ours answers"):
                connect(f"ws://127.0.0.1:{other.getsockname()[1]}")

    @pytest.mark.parametrize("url", ["http://a:1", "ws://", "127.0.0.1:80", "ws://a:99999", "", "ws://user@a:1", None])
    def test_what_is_no_address(self, url: Any) -> None:
        with pytest.raises(ServingError, match=r"expected a server such as ws://127\.0\.0\.1:8765, got"):
            connect(url)

    def test_tls_is_for_wss(self, tmp_path: Any) -> None:
        with pytest.raises(ServingError, match="not encrypted; use wss"):
            connect("ws://127.0.0.1:1", tls=tmp_path / "ca.pem")
        (tmp_path / "ca.pem").write_text("no certificate")
        for name in ("ca.pem", "none.pem"):
            with pytest.raises(ServingError, match=r"expected the certificate authority's file \(PEM\)"):
                connect("wss://127.0.0.1:1", tls=tmp_path / name)


class TestEpisodes:
    def test_plan_and_act(self) -> None:
        fake = Fake()
        with fake.serving() as url, connect(url) as policy:
            policy.start(7)
            reply = policy.plan(WINDOW, 5)
            assert (reply.step, reply.codes, dict(reply.signals), reply.infer_s) == (5, (1, 2), {"entropy": 0.5}, 0.001)
            assert reply.chunk[:, 1] == pytest.approx([0.005, 0.006, 0.007, 0.008])
            assert reply.chunk.flags.writeable
            assert policy.act(STATE) == pytest.approx([0.007, 0.001, 0.001])
        start, planned, acted = fake.asked
        assert (start["endpoint"], start["seed"]) == ("reset", 7)
        assert (planned["execute"], planned["state"].shape, planned["step"]) == ("robot", (2, 2), 5)
        assert ("execute" not in acted, acted["state"].shape) == (True, (2,))

    def test_an_episode_comes_first(self) -> None:
        refused = pytest.raises(ServingError, match=r"call start\(seed\) or start\(seed, goal\) first")
        with Fake().serving() as url, connect(url) as policy, refused:
            policy.act(STATE)

    def test_a_goal_goes_to_the_server(self) -> None:
        fake = Fake(handshake=replace(HANDSHAKE, goal=("x",)))
        with fake.serving() as url, connect(url) as policy:
            policy.start(1, np.ones(1))
            assert fake.asked[0]["goal"].tolist() == [1.0]
            for wrong in (None, np.ones(2), np.array([np.nan]), np.array(["a"])):
                with pytest.raises(ServingError, match=r"goal: expected a finite number for each of \(x\), got"):
                    policy.start(1, wrong)

    @pytest.mark.parametrize("seed", [-1, 2**63, 1.5, True, None])
    def test_what_is_no_seed(self, seed: Any) -> None:
        with Fake().serving() as url, connect(url) as policy, pytest.raises(ServingError, match="seed: expected"):
            policy.start(seed)

    @pytest.mark.parametrize("wrong", [np.zeros(3), np.zeros((1, 2)), np.array(["a", "b"]), [[0], [1]]])
    def test_a_misshapen_observation(self, wrong: Any) -> None:
        with Fake().serving() as url, connect(url) as policy:
            policy.start(0)
            with pytest.raises(ServingError, match=r"observation: expected real numbers of shape \(2,\), got"):
                policy.act(wrong)
            assert policy.act(STATE).shape == (3,), "the connection is whole"

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            (lambda answer: answer | {"actions": answer["actions"][:3]}, r"float32 of shape \(4, 3\), got float32 \(3"),
            (lambda answer: answer | {"actions": answer["actions"].astype(float)}, "got float64"),
            (lambda answer: answer | {"actions": [1.0]}, "expected actions and 'vqbet' in the answer"),
            (lambda answer: {"actions": answer["actions"]}, "expected actions and 'vqbet'"),
            (lambda answer: answer | {KEY: answer[KEY] | {"step": 4}}, "the answer is to step 4, not to 5"),
            (lambda answer: answer | {KEY: answer[KEY] | {"digest": "cd" * 32}}, "the answer is of another policy"),
            (lambda answer: answer | {KEY: answer[KEY] | {"codes": ["a"]}}, "expected codes, signals and times"),
            (lambda answer: answer | {KEY: answer[KEY] | {"signals": 3}}, "expected codes, signals and times"),
            (lambda answer: {"type": "error", "message": "too hot"}, "plan: ws://.*: the server refused: too hot"),
            (lambda answer: "too cold", "the server refused: too cold"),
            (lambda answer: None, r"no answer within 0\.5 s"),
        ],
    )
    def test_a_wrong_answer_ends_the_episode_and_the_next_one_runs(self, change: Any, sentence: str) -> None:
        fake = answering(change)
        with fake.serving() as url, connect(url, timeout_s=0.5) as policy:
            policy.start(0)
            with pytest.raises(ServingError, match=sentence):
                policy.plan(WINDOW, 5)
            with pytest.raises(ServingError, match="no episode runs"):
                policy.plan(WINDOW, 6)
            fake.answers = None
            policy.start(1)
            assert policy.plan(WINDOW, 0).chunk[0, 0] == np.float32(0.001)
            assert fake.connections == 2

    def test_the_next_episode_keeps_a_connection_that_is_whole(self) -> None:
        fake = Fake()
        with fake.serving() as url, connect(url) as policy:
            for seed in range(3):
                policy.start(seed)
                policy.plan(WINDOW, 0)
        assert fake.connections == 1

    def test_a_start_that_is_not_confirmed(self) -> None:
        refused = pytest.raises(ServingError, match="expected that the server begins an episode")
        with Fake(answers=lambda *_: {"status": "busy"}).serving() as url, connect(url) as policy, refused:
            policy.start(0)

    def test_a_new_champion_is_met_between_episodes(self) -> None:
        fake = Fake()
        with fake.serving() as url, connect(url) as policy, connect(url, digest=DIGEST) as faithful:
            policy.start(0)
            fake.handshake = replace(HANDSHAKE, digest="cd" * 32, execute="chunk")
            policy.start(1)
            assert policy.handshake == fake.handshake
            policy.plan(WINDOW, 0)
            with pytest.raises(ServingError, match="HTTP 404"):
                faithful.start(1)

    def test_a_name_that_the_server_gives_back_late(self) -> None:
        """After a fault of the connection, the server still holds the robot's name for a moment."""
        fake = answering(lambda _: "out of order")
        with fake.serving() as url, connect(url, robot="arm-3") as policy:
            policy.start(0)
            fake.robots.add("arm-3")
            with pytest.raises(ServingError, match="out of order"):
                policy.plan(WINDOW, 0)
            threading.Timer(0.2, fake.robots.clear).start()
            policy.start(1)

    def test_a_server_that_is_gone(self) -> None:
        fake = Fake()
        with fake.serving() as url:
            policy = connect(url)
            policy.start(0)
        with pytest.raises(ServingError, match=r"plan: ws://127\.0\.0\.1:\d+/: the server closed the connection"):
            policy.plan(WINDOW, 0)
        with pytest.raises(ServingError, match="see whether the server runs there"):
            policy.start(1)

    def test_a_good_bye_waits_for_nobody(self) -> None:
        """A server that answers no closing handshake keeps a robot for CLOSE_S at most."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"ws://127.0.0.1:{listener.getsockname()[1]}"
            thread = threading.Thread(target=half_a_server, args=(listener,), daemon=True)
            thread.start()
            policy = connect(url)
            began = time.monotonic()
            policy.close()
            assert time.monotonic() - began < 5.0
            thread.join(10.0)


def mail(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"220 mail\r\n\r\n")


def half_a_server(listener: socket.socket) -> None:
    """Shake hands, send the metadata, and answer nothing any more."""
    from websockets.frames import Frame, Opcode
    from websockets.server import ServerProtocol

    connection, _ = listener.accept()
    protocol = ServerProtocol()
    while not (events := protocol.events_received()):
        protocol.receive_data(connection.recv(65536))
    protocol.send_response(protocol.accept(events[0]))
    frame = Frame(Opcode.BINARY, wire.encode(HANDSHAKE.metadata())).serialize(mask=False)
    connection.sendall(b"".join(protocol.data_to_send()) + frame)
    with connection:
        while connection.recv(65536):
            pass


def test_one_row_is_a_policy_of_a_rollout() -> None:
    fake = Fake()
    with fake.serving() as url, connect(url) as remote:
        policy = OneRow(remote)
        policy.reset(np.array([9]))
        assert policy.act(STATE[None], np.zeros(1, np.int64)).shape == (1, 3)
        assert (policy.spec, policy.goal) == (SPEC, ())
        with pytest.raises(ServingError, match="one episode at a time, got 2 seeds"):
            policy.reset(np.array([1, 2]))


def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
    with Fake().serving() as url:
        with pytest.raises(OSError, match="refused"):  # the fault that is planted: websockets alone asks the proxy
            open_websocket(url, open_timeout=2)
        connect(url).close()


def test_tls_with_the_authority_of_the_robots_owner(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    named = ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, *named], check=True, capture_output=True)
    with running(POLICY, ServerOptions(certificate=certificate, key=key, grace_s=0.2)) as server:
        url = f"wss://localhost:{server.port}"
        with connect(url, tls=certificate, robot="arm-3") as policy:
            policy.start(1)
            assert policy.act(np.zeros(2)).shape == (2,)
        with pytest.raises(ServingError, match=r"TLS: .*; check certificate, name and authority"):
            connect(url)
        with pytest.raises(ServingError, match=r"connect: ws://"):
            connect(f"ws://localhost:{server.port}")
