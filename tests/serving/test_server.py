"""A server on loopback: real sockets, real policies, and everything that a robot or a stranger may do wrong."""

from __future__ import annotations

import http.client
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as open_socket

from tests.support import small, untrained, waiting
from tests.support.serving import DIGEST, Running, running, served
from tests.support.small import A, D
from tests.support.untrained import H
from vqbet.contract import Camera, ServingError
from vqbet.policies.actor import Actor
from vqbet.serving import wire
from vqbet.serving.admission import frame_limit
from vqbet.serving.handshake import KEY, Handshake
from vqbet.serving.seats import Seats, Served
from vqbet.serving.server import Server, ServerOptions

STREAM = small.observations(40, 1)[:, 0]
MOST = 1 << 22
OTHER = "b" * 64


class Robot:
    """A client that speaks frames, and nothing else."""

    def __init__(self, url: str, query: str = "", **options: Any) -> None:
        self.socket: ClientConnection = open_socket(url + query, compression=None, **options)
        self.metadata = wire.decode(self.socket.recv(), most=MOST)

    def ask(self, **message: Any) -> dict[str, Any]:
        """Return the map that answers; the sentence of an error as {"refused": ...}."""
        self.socket.send(wire.encode({name.replace("__", "/"): value for name, value in message.items()}))
        frame = self.socket.recv()
        return {"refused": frame} if isinstance(frame, str) else wire.decode(frame, most=MOST)

    def closed(self) -> int:
        """Return the code with which the server closes the connection."""
        with pytest.raises(ConnectionClosed) as caught:
            self.socket.recv(timeout=30)
        assert caught.value.rcvd is not None
        return caught.value.rcvd.code


@contextmanager
def robot(of: Running, query: str = "", **options: Any) -> Iterator[Robot]:
    made = Robot(of.url, query, **options)
    try:
        yield made
    finally:
        made.socket.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(served(untrained.build("chunk")), ServerOptions(robots=4, grace_s=0.2)) as found:
        yield found


def get(of: Running, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", of.port, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def refused(of: Running, query: str, **headers: str) -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as caught:
        open_socket(of.url + query, additional_headers=headers)
    return caught.value.response.status_code, (caught.value.response.body or b"").decode()


def alone(execute: str, seed: int, steps: int) -> np.ndarray:
    actor = untrained.build(execute)
    actor.reset(np.array([seed]))
    return np.stack([actor.act(state[None], np.zeros(1, np.int64))[0] for state in STREAM[:steps]])


# --- acting ----------------------------------------------------------------------------------------------------------


def test_the_handshake_names_policy_and_spec(server: Running) -> None:
    with robot(server) as one:
        said = Handshake.of(one.metadata)
        assert (said.digest, said.reference, said.execute) == (DIGEST, "fake@champion", "chunk")
        assert said.spec == untrained.SPEC
        assert one.metadata["action_horizon"] == H


@pytest.mark.parametrize("execute", ["first", "chunk", "average"])
def test_a_robot_acts_as_a_session_bit_for_bit(execute: str) -> None:
    with running(served(untrained.build(execute))) as own, robot(own) as one:
        for seed in (3, 4):
            assert one.ask(endpoint="reset", seed=seed)[KEY] == {"step": 0, "seed": seed, "digest": DIGEST}
            replies = [one.ask(state=state, step=step) for step, state in enumerate(STREAM)]
            np.testing.assert_array_equal([reply["actions"][0] for reply in replies], alone(execute, seed, len(STREAM)))
            assert [reply[KEY]["step"] for reply in replies] == list(range(len(STREAM)))
            assert all(reply["actions"].shape == (H, A) for reply in replies)
            assert {reply[KEY]["digest"] for reply in replies} == {DIGEST}


def test_an_openpi_client_gets_plans_that_are_no_part_of_old_ones(server: Running) -> None:
    with robot(server) as one:
        replies = [one.ask(state=STREAM[0], prompt="push") for _ in range(3)]
        seed = replies[0][KEY]["seed"]
        for step, reply in enumerate(replies):
            plan = untrained.build("chunk").plan(
                np.repeat(STREAM[:1], untrained.T, axis=0)[None],
                np.zeros((1, 0), np.float32),
                np.array([seed]),
                np.array([step]),
            )
            np.testing.assert_array_equal(reply["actions"], np.clip(plan.chunk[0], -0.8, 0.8))
        assert "prev_total_ms" not in replies[0]["server_timing"]
        assert replies[1]["server_timing"]["prev_total_ms"] > replies[0]["server_timing"]["infer_ms"] > 0


def test_a_plan_for_the_robot_depends_on_nothing_before(server: Running) -> None:
    history = STREAM[: untrained.T]
    with robot(server) as one, robot(server) as two:
        one.ask(endpoint="reset", seed=9)
        first = one.ask(state=history, step=12, execute="robot")
        two.ask(endpoint="reset", seed=9)
        for step in range(3):
            two.ask(state=STREAM[20 + step], execute="robot", step=step)
        again = two.ask(state=history, step=12, execute="robot")
    np.testing.assert_array_equal(first["actions"], again["actions"])
    assert first[KEY] == again[KEY]
    assert first[KEY]["step"] == 12


def test_robots_that_meet_share_a_call_and_no_history() -> None:
    """Frames of four robots lie in the socket while the loop is held; one call answers them, each as it would alone."""
    with running(served(untrained.build("first")), ServerOptions(robots=4, grace_s=0.2)) as own:
        made = [Robot(own.url) for _ in range(4)]
        for seed, one in enumerate(made):
            one.ask(endpoint="reset", seed=seed)
        calls = int(count(own, "calls"))
        for step in range(3):
            held, go = threading.Event(), threading.Event()
            own.loop.call_soon_threadsafe(lambda held=held, go=go: (held.set(), go.wait(30)))
            assert held.wait(30)
            for one in made:
                one.socket.send(wire.encode({"state": STREAM[step], "step": step}))
            go.set()
            for seed, one in enumerate(made):
                reply = wire.decode(one.socket.recv(), most=MOST)  # type: ignore[arg-type]
                np.testing.assert_allclose(reply["actions"][0], alone("first", seed, step + 1)[-1], atol=1e-5)
        assert count(own, "calls") - calls < 3 * 4
        for one in made:
            one.socket.close()


def count(of: Running, name: str) -> float:
    _, page = get(of, "/metrics")
    return float(page.partition(f"\nvqbet_{name}_total ")[2].partition("\n")[0])


# --- episodes --------------------------------------------------------------------------------------------------------


def test_another_session_is_another_episode(server: Running) -> None:
    with robot(server, "/v1/realtime/robot/openpi") as one:
        seeds = [one.ask(state=STREAM[0], session_id=name)[KEY] for name in ("a", "a", "b")]
        assert [said["step"] for said in seeds] == [0, 1, 0]
        assert seeds[0]["seed"] == seeds[1]["seed"] != seeds[2]["seed"]
        status = one.ask(endpoint="reset", session_id="c")
        assert status["status"] == "reset successful"
        assert one.ask(state=STREAM[0], session_id="c")[KEY]["step"] == 0


def test_roboarena_is_answered_in_text() -> None:
    with running(served(arm())) as own, robot(own) as one:
        asked = {"observation__joint_position": np.zeros(7), "observation__gripper_position": np.zeros(1)}
        assert one.ask(endpoint="infer", session_id="u", **asked)["actions"].shape == (3, 2)
        assert one.ask(endpoint="reset") == {"refused": "reset successful"}
        assert one.ask(endpoint="infer", session_id="u", **asked)[KEY]["step"] == 0


def arm() -> Actor:
    from tests.support.synthetic import synthetic
    from vqbet.models.spaces import Spaces

    demos = synthetic(4, D=8, A=2)
    return Actor(demos.spec, untrained.planner(Spaces.fit(demos)), execute="first")


def test_behavior_gets_one_action_by_the_bundle_s_rule() -> None:
    with running(served(untrained.build("average")), ServerOptions(singular=True)) as own, robot(own) as one:
        replies = [one.ask(state=state) for state in STREAM]
        expected = alone("average", replies[0][KEY]["seed"], len(STREAM))
        np.testing.assert_array_equal([reply["action"] for reply in replies], expected)


def test_rows_are_for_running_episodes_only() -> None:
    with running(served(untrained.build()), ServerOptions(robots=1)) as own:
        with robot(own) as one, robot(own) as two:
            one.ask(state=STREAM[0])
            assert "all 1 episodes of this server are running" in two.ask(state=STREAM[0])["refused"]
        waiting.until(lambda: "vqbet_episodes_running 0" in get(own, "/metrics")[1])
        with robot(own) as three:
            assert "actions" in three.ask(state=STREAM[0])


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ({"state": np.full(D, 99.0)}, "observation 'o0' is 99 m, its limits are -3 to 3"),
        ({"state": np.full(D, np.nan)}, "observation 'o0' is nan m"),
        ({"state": np.zeros(D + 1)}, r"observation: expected shape (5,), got (6,)"),
        ({"state": np.zeros((2, D))}, r"observation: expected shape (3, 5), got (2, 5)"),
        ({"state": STREAM[0], "velocity": 1}, "key 'velocity' is unknown"),
        ({"state": STREAM[0], "goal": np.zeros(3)}, "goal: expected shape (0,), got (3,)"),
        ({"state": STREAM[0], "step": 4}, "step: expected 0, the number of requests answered in this episode, got 4"),
        ({"state": STREAM[0], "digest": OTHER}, "bbbb"),
        ({"endpoint": "stop", "seed": 1}, "endpoint: expected infer or reset"),
    ],
)
def test_an_error_is_one_sentence_then_the_end(server: Running, message: dict[str, Any], sentence: str) -> None:
    with robot(server) as one:
        said = one.ask(**message)["refused"]
        assert sentence in said
        assert "Traceback" not in said
        assert one.closed() == 1011


@pytest.mark.parametrize("frame", [b"", b"\xc1", "text", msgpack.packb([1]), b"\x81\xa1x" + b"\x91" * 5000])
def test_what_is_no_frame_ends_the_connection_with_a_sentence(server: Running, frame: bytes | str) -> None:
    with robot(server) as one:
        one.socket.send(frame)
        said = one.socket.recv()
        assert isinstance(said, str)
        assert said.startswith("frame: ")
        assert one.closed() == 1011


def test_an_error_of_vllm_is_binary_and_the_episode_goes_on(server: Running) -> None:
    with robot(server) as one:
        asked = {"session_id": "a", "endpoint": "infer"}
        assert one.ask(state=STREAM[0], **asked)[KEY]["step"] == 0
        assert one.ask(state=np.full(D, 99.0), **asked)["type"] == "error"
        assert one.ask(state=STREAM[1], **asked)[KEY]["step"] == 1


def test_seed_and_goal_come_first(server: Running) -> None:
    with robot(server) as one:
        one.ask(state=STREAM[0])
        assert "belong to the first request" in one.ask(state=STREAM[1], seed=3)["refused"]


def test_a_frame_beyond_the_cap_is_not_read(server: Running) -> None:
    with robot(server) as one:
        with suppress(ConnectionClosed):  # the server hangs up in the middle of it
            one.socket.send(bytes(65 << 20))
        assert one.closed() == 1009
        assert "exceeds limit of 1048576 bytes" in str(one.socket.close_reason)


def test_a_fault_of_the_server_is_in_its_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    actor = untrained.build()
    with running(served(actor)) as own, robot(own) as one:
        actor._history = None  # type: ignore[assignment]
        said = one.ask(state=STREAM[0], step=0)["refused"]
        assert said == "the server failed at this request; its log says why"
        assert one.closed() == 1011
        assert count(own, "failures") == 1
    assert any(record.exc_info for record in caplog.records)


# --- who may connect -------------------------------------------------------------------------------------------------


def test_health(server: Running) -> None:
    assert get(server, "/healthz") == (200, "OK\n")
    assert get(server, "/readyz") == (200, "OK\n")


def test_the_page_of_metrics_counts() -> None:
    with running(served(untrained.build())) as own, robot(own, "?robot=ur5") as one:
        for state in STREAM[:5]:
            one.ask(state=state)
        status, page = get(own, "/metrics")
        assert status == 200
        for line in (
            "vqbet_requests_total 5",
            "vqbet_episodes_total 1",
            "vqbet_robots 1",
            "vqbet_episodes_running 1",
            'vqbet_served_seconds_bucket{le="+Inf"} 5',
            "vqbet_served_seconds_count 5",
            f'vqbet_policy_info{{digest="{DIGEST}",reference="fake@champion"}} 1',
        ):
            assert f"\n{line}\n" in page
        names = [line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")]
        assert len(names) == len(set(names))
        assert page.endswith("\n")


@pytest.mark.parametrize(
    ("query", "status", "sentence"),
    [
        (f"?digest={OTHER}", 404, f"digest {OTHER} was asked for; this server serves fake@champion, digest {DIGEST}"),
        ("?digest=abc", 400, "digest: expected 64 characters"),
        ("?digset=" + DIGEST, 400, "query: expected digest=... and robot=..."),
        ("?robot=a&robot=b", 400, "each once"),
        ("?robot=a%20b", 400, "robot: expected at most 64 letters"),
        ("?%", 400, "query: expected"),
    ],
)
def test_what_is_refused_before_the_connection_opens(server: Running, query: str, status: int, sentence: str) -> None:
    code, said = refused(server, query)
    assert code == status
    assert sentence in said


def test_a_robot_gets_the_digest_that_it_asks_for(server: Running) -> None:
    with robot(server, f"?digest={DIGEST}&robot=ur5") as one:
        assert one.metadata[KEY]["digest"] == DIGEST


def test_two_robots_need_two_names(server: Running) -> None:
    with robot(server, "?robot=ur5"), robot(server, "?robot=ur6"):
        code, said = refused(server, "?robot=ur5")
        assert code == 409
        assert "robot ur5 is connected already" in said
    waiting.until(lambda: "vqbet_robots 0\n" in get(server, "/metrics")[1])
    with robot(server, "?robot=ur5"):
        pass


def test_no_more_than_four_connections_per_row() -> None:
    with running(served(untrained.build()), ServerOptions(robots=1, grace_s=0.2)) as own:
        made = [Robot(own.url) for _ in range(4)]
        assert refused(own, "/")[0] == 503
        for one in made:
            one.socket.close()


def test_a_web_page_may_not_drive_a_robot(server: Running) -> None:
    assert refused(server, "/", Origin="http://evil.example")[0] == 403


def test_a_token_is_asked_for_where_one_is_set() -> None:
    with running(served(untrained.build()), ServerOptions(token="s3cret", grace_s=0.2)) as own:
        for headers in (
            {},
            {"Authorization": "Bearer other"},
            {"Authorization": "s3cret"},
            {"Authorization": "Bearer"},
        ):
            code, said = refused(own, "/", **headers)
            assert code == 401
            assert "s3cret" not in said
        assert get(own, "/metrics")[0] == 401
        assert get(own, "/healthz")[0] == 200
        assert get(own, "/metrics", Authorization="Bearer s3cret")[0] == 200
        for kind in ("Bearer", "Api-Key"):
            with robot(own, additional_headers={"Authorization": f"{kind} s3cret"}) as one:
                assert "actions" in one.ask(state=STREAM[0])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.org", ""])
def test_beyond_this_machine_a_token_is_needed(host: str) -> None:
    with pytest.raises(ServingError, match="VQBET_TOKEN"):
        Server(served(untrained.build()), ServerOptions(host=host))
    Server(served(untrained.build()), ServerOptions(host=host, token="s3cret"))


def test_tls_needs_both_files_and_they_must_be_what_they_are_called(tmp_path: Path) -> None:
    policy, wrong = served(untrained.build()), tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    with pytest.raises(ServingError, match="TLS needs two files"):
        Server(policy, ServerOptions(certificate=wrong))
    with (
        pytest.raises(ServingError, match="not a certificate and its key in PEM"),
        running(policy, ServerOptions(certificate=wrong, key=wrong)),
    ):
        pass


def test_with_tls_the_connection_is_encrypted(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    trusting = ssl.create_default_context(cafile=certificate)
    with running(served(untrained.build()), ServerOptions(certificate=certificate, key=key, grace_s=0.2)) as own:
        one = Robot(f"wss://localhost:{own.port}", ssl=trusting)
        assert "actions" in one.ask(state=STREAM[0])
        one.socket.close()


def test_a_port_that_is_taken_is_said(server: Running) -> None:
    import asyncio

    async def second() -> None:
        async with Server(served(untrained.build()), ServerOptions(port=server.port)).listening():
            pass

    with pytest.raises(ServingError, match=f"127.0.0.1:{server.port}: cannot be listened on"):
        asyncio.run(second())


# --- time ------------------------------------------------------------------------------------------------------------


def test_a_silent_robot_is_let_go() -> None:
    with running(served(untrained.build()), ServerOptions(idle_s=0.3, grace_s=0.2)) as own, robot(own) as one:
        one.ask(state=STREAM[0])
        assert one.closed() == 1001
        waiting.until(lambda: "vqbet_episodes_running 0" in get(own, "/metrics")[1])
        assert count(own, "idle") == 1


@pytest.mark.slow
def test_a_robot_that_takes_no_answers_is_let_go() -> None:
    """Asks without reading until both buffers are full; the server lets it go, and others are served."""
    patient = ServerOptions(writing_s=0.3, alive_s=1000, grace_s=0.2)
    with running(served(untrained.build()), patient) as own:
        plain = upgraded(own.port)
        plain.setblocking(False)
        frames, sent = masked(wire.encode({"state": STREAM[0], "prompt": "x" * 100})) * 1000, 0

        def gone() -> bool:
            nonlocal sent
            with suppress(OSError):  # its own buffer is full, or the server has hung up
                while True:
                    sent = (sent + plain.send(frames[sent:])) % len(frames)
            return count(own, "idle") == 1

        waiting.until(gone)
        with robot(own) as one:
            assert "actions" in one.ask(state=STREAM[0])
        plain.close()


def upgraded(port: int) -> socket.socket:
    """Return a socket after the handshake of a websocket, with a small receive buffer that nobody reads."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.connect(("127.0.0.1", port))
    plain.sendall(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    return plain


def masked(content: bytes) -> bytes:
    """Return a binary frame of a client, masked with zeros."""
    assert 126 <= len(content) < 1 << 16
    return b"\x82\xfe" + struct.pack("!H", len(content)) + bytes(4) + content


def test_a_connection_that_never_asks_for_anything_is_dropped() -> None:
    with running(served(untrained.build()), ServerOptions(opening_s=0.3, grace_s=0.2)) as own:
        plain = socket.create_connection(("127.0.0.1", own.port))
        plain.settimeout(30)
        assert plain.recv(100) == b""


@pytest.mark.parametrize(
    "content", [b"\x00" * 100, b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 1000, b"SSH-2.0-x\r\n", b"\r\n"]
)
def test_strangers_are_turned_away(content: bytes) -> None:
    with running(served(untrained.build()), ServerOptions(opening_s=0.5, grace_s=0.2)) as own:
        plain = socket.create_connection(("127.0.0.1", own.port))
        plain.settimeout(30)
        plain.sendall(content)
        answer = plain.recv(1000)
        assert b"Traceback" not in answer
        assert get(own, "/healthz") == (200, "OK\n")


# --- stopping and switching ------------------------------------------------------------------------------------------


def test_running_episodes_end_before_the_server_stops() -> None:
    with running(served(untrained.build()), ServerOptions(grace_s=30)) as own:
        one, two = Robot(own.url), Robot(own.url)
        one.ask(state=STREAM[0])
        own.end()
        waiting.until(lambda: get(own, "/readyz") == (503, "stopping\n"))
        assert refused(own, "/")[0] == 503
        assert "starts no more episodes" in two.ask(state=STREAM[0])["refused"]
        for state in STREAM[:5]:
            assert "actions" in one.ask(state=state)
        began = time.monotonic()
        one.socket.close()
    assert time.monotonic() - began < 25, "the server waited although no episode was running"


def test_episodes_that_do_not_end_are_cut_off_after_the_grace() -> None:
    with running(served(untrained.build()), ServerOptions(grace_s=0.2)) as own:
        one = Robot(own.url)
        one.ask(state=STREAM[0])
        own.end()
        assert one.closed() == 1001


def test_a_new_champion_acts_from_the_next_episode_on() -> None:
    first, second = untrained.build(), untrained.build(argmax=True)
    with running(served(first)) as own, robot(own) as one, robot(own, f"?digest={DIGEST}") as asked:
        said = one.ask(state=STREAM[0], seed=1)[KEY]
        asked.ask(state=STREAM[0])
        own.switch(served(second, OTHER))
        again = one.ask(state=STREAM[0], step=1)
        assert again[KEY]["digest"] == said["digest"] == DIGEST
        np.testing.assert_array_equal(again["actions"][0], _two(untrained.build()))
        assert one.ask(endpoint="reset", seed=1)[KEY]["digest"] == OTHER
        one.ask(state=STREAM[0], step=0)
        found = one.ask(state=STREAM[0], step=1)
        assert found[KEY]["digest"] == OTHER
        np.testing.assert_array_equal(found["actions"][0], _two(untrained.build(argmax=True)))
        assert "actions" in asked.ask(state=STREAM[1])
        assert f"digest {DIGEST} was asked for" in asked.ask(endpoint="reset", seed=1)["refused"]
        with robot(own) as new:
            assert new.metadata[KEY]["digest"] == OTHER


def _two(actor: Actor) -> np.ndarray:
    """Return the second action of an episode with seed 1 that sees the same twice."""
    actor.reset(np.array([1]))
    return [actor.act(STREAM[:1], np.zeros(1, np.int64))[0] for _ in range(2)][1]


def test_a_robot_cannot_go_on_with_a_policy_of_another_shape() -> None:
    with running(served(untrained.build("first"))) as own, robot(own) as one:
        one.ask(state=STREAM[0])
        own.switch(served(untrained.build("chunk"), OTHER))
        assert "actions" in one.ask(state=STREAM[1])
        assert (
            "another policy is served now, whose execute is not the same"
            in one.ask(endpoint="reset", seed=1)["refused"]
        )


def test_the_cap_of_a_frame_comes_from_the_handshake() -> None:
    from dataclasses import replace

    policy: Served = served(untrained.build())
    assert frame_limit(policy.handshake) == 1 << 20
    spec, cameras = policy.handshake.spec, (Camera("wrist", 480, 640), Camera("top", 1080, 1920))
    looking = replace(policy.handshake, spec=replace(spec, cameras=cameras))
    assert frame_limit(looking) == 3 * (8 * D + 480 * 640 * 3 + 1080 * 1920 * 3) + (1 << 16)
    assert looking.metadata()[KEY]["frame_bytes"] == frame_limit(looking)
    assert "frame_bytes" not in policy.handshake.metadata()[KEY]
    huge = replace(policy.handshake, spec=replace(spec, cameras=(Camera("top", 10_000, 10_000),)))
    with pytest.raises(ServingError, match=r"cameras top 10000 x 10000: .* has 9000\d+ bytes, at most 67108864"):
        frame_limit(huge)
    with pytest.raises(ServingError, match="larger frames than this server reads"):
        Server(policy, ServerOptions()).switch(Served(policy.actor, looking))


def test_a_server_holds_as_many_rows_as_it_was_asked_for() -> None:
    assert Seats(served(untrained.build()), 3).count == 3
