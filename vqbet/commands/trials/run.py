"""`vqbet trials run`: a session of trials from its desk, with the operator's page, a terminal, or a script.

A session that was broken off goes on where its log ends. Policy server and simulated robot are started beside the desk
where no others are named.
"""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from vqbet import registry
from vqbet.commands.trials import script, serving, sessions, terminal, web
from vqbet.commands.trials.children import Child
from vqbet.commands.trials.desk import Desk, Lines
from vqbet.commands.trials.desk_client import DeskClient
from vqbet.commands.trials.desk_doors import DeskKeys
from vqbet.commands.trials.desk_secrets import DeskSecrets
from vqbet.commands.trials.terminal import Keyboard
from vqbet.commands.trials.web import Door
from vqbet.contract import GateError
from vqbet.evaluation.trials.trial_folder import TrialFolder
from vqbet.evaluation.trials.trial_plan import TrialPlan
from vqbet.serving.trial_line import TrialLine
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

ORDER_S, WATCH_S = 5.0, 2.0  # most time of an order, and of a look whether the server is there
FAREWELL_S = 3.0  # for page and robot to hear that the session is closed
LOOK_S = 0.2
PORT_S = 5.0  # for the server of a desk before to end
WAIT_S = "600"  # for which a simulated robot waits for a server that is started again
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRun:
    """Settings of a desk. plan: the first letters of its sha256; "": the newest. operator: "": the user of the
    operating system. server: of `vqbet trials serve`; "": one is started beside the desk. authority: of a
    wss:// server. simulated: start a simulated robot. scripted: the operator is a script. terminal: or by keyboard."""

    plan: str = ""
    operator: str = ""
    server: str = ""
    authority: Path | None = None
    simulated: bool = False
    scripted: bool = False
    terminal: bool = False
    door: Door = field(default_factory=Door)


def run(root: Path, task: str, asked: TrialRun, watch: Watch) -> dict[str, str]:
    """Run a session until it is closed, and return what is next. Raises VqbetError where it cannot be run."""
    plan = serving.planned(root, task, asked.plan)
    folder = TrialFolder(Paths(root, task).trials(plan.sha256))
    _refuse(asked)
    asked.door.expect_safe()
    sessions.expect_sealed(registry.Attempts(task), folder, plan)
    if said := sessions.replaced(plan):
        if not folder.log.exists():
            raise GateError(f"plan {plan.sha256[:12]}: {said}; plan again: vqbet trials plan {task}")
        watch.say(f"{said}; the session goes on, but its verdict cannot promote")
    secrets = DeskSecrets.read(folder.path, os.environ)
    port = 0 if asked.server else _port(secrets.port)
    url = asked.server or f"ws://127.0.0.1:{port}"
    lines = Lines(url, *(_line(url, secrets, asked, most) for most in (ORDER_S, WATCH_S)))
    operator = asked.operator or getpass.getuser()
    with ExitStack() as stack:
        desk = stack.enter_context(Desk(folder, lines, operator=operator, user=getpass.getuser()))
        if not desk.closed:
            if port:
                replace(DeskSecrets.read(folder.path, {}), port=port).write(folder.path)
                words = ("trials", "serve", task, "--plan", plan.sha256, "--port", str(port))
                _beside(stack, words, secrets, watch)
            _session(stack, plan, asked, secrets, desk, watch)
        return _rows(desk, task)


def _session(
    stack: ExitStack, plan: TrialPlan, asked: TrialRun, secrets: DeskSecrets, desk: Desk, watch: Watch
) -> None:
    """Open the page's and the robot's doors, and operate until the session is closed."""
    keys = DeskKeys(secrets.page, secrets.robot, plan.sha256)
    at = stack.enter_context(web.listening(web.app(desk, keys, host=asked.door.host), asked.door))
    _announce(plan, asked, secrets, desk, at, watch)
    if asked.simulated:
        words = ["simrobot", plan.task, "--desk", f"http://127.0.0.1:{at}", "--name", plan.robot, "--wait", WAIT_S]
        words += ["--record", str(desk.folder.recordings)]
        words += [] if asked.scripted else ["--realtime", "--camera"]  # somebody looks on
        _beside(stack, words, secrets, watch)
    _operate(plan, asked, secrets, desk, at, watch)
    _farewell(desk)


def _beside(stack: ExitStack, words: Sequence[str], secrets: DeskSecrets, watch: Watch) -> None:
    """Start a process beside the desk, which ends with it."""
    child = Child(words, secrets.variables(), watch.say)
    child.start()
    stack.callback(child.end)


def _refuse(asked: TrialRun) -> None:
    if asked.scripted and asked.terminal:
        raise GateError("expected --scripted or --terminal, got both")
    if asked.terminal:
        Keyboard()
    if asked.scripted and not asked.simulated:
        raise GateError("a script cannot see what a robot does; expected --simulated with --scripted")
    if asked.simulated and asked.door.certificate:
        raise GateError("the simulated robot is beside the desk and knows no certificate; leave --certificate out")
    if not asked.server and asked.door.host not in LOOPBACK:
        raise GateError(
            "a desk for other machines needs a policy server that they reach: start vqbet trials serve, and name it "
            "with --server"
        )


def _line(url: str, secrets: DeskSecrets, asked: TrialRun, timeout_s: float) -> TrialLine:
    return TrialLine(url, secrets.desk, tls=asked.authority, timeout_s=timeout_s)


def _port(before: int) -> int:
    """Return a port for the policy server: the one of before, where robots look for it, or any free one."""
    deadline = time.monotonic() + PORT_S
    while before and not _free(before) and time.monotonic() < deadline:
        time.sleep(LOOK_S)  # the server of a desk that was killed ends a moment later
    return before if before and _free(before) else _any_port()


def _announce(plan: TrialPlan, asked: TrialRun, secrets: DeskSecrets, desk: Desk, port: int, watch: Watch) -> None:
    scheme = "https" if asked.door.certificate else "http"
    host = socket.gethostname() if asked.door.host in ("0.0.0.0", "::") else asked.door.host
    state = desk.state()
    watch.say(f"trials of plan {plan.sha256[:12]} on robot {plan.robot}, {state['done']} of at most {plan.trials} done")
    watch.say(f"  operator  {desk.operator}")
    watch.say(f"  page      {scheme}://{host}:{port}/#{secrets.page}")
    if not asked.simulated:
        watch.say(f"  robot     {scheme}://{host}:{port}, VQBET_ROBOT_TOKEN={secrets.robot}")
        if not asked.server:
            watch.say(f"            at the policy server with VQBET_TOKEN={secrets.server}")


def _operate(plan: TrialPlan, asked: TrialRun, secrets: DeskSecrets, desk: Desk, port: int, watch: Watch) -> None:
    """Wait until the session is closed, by whichever operator."""
    if asked.scripted or asked.terminal:
        client = DeskClient(port, secrets.page, secure=asked.door.certificate is not None)
    if asked.scripted:
        with watch.bar("trials") as advance:
            script.run(plan, client, lambda done, most: advance(done, most, {}))
    elif asked.terminal:
        with Keyboard() as keys:
            terminal.run(client, keys, watch.say)
    while not desk.closed:
        time.sleep(LOOK_S)


def _farewell(desk: Desk) -> None:
    deadline = time.monotonic() + FAREWELL_S
    time.sleep(LOOK_S)  # for the pages
    while not desk.robot_knows and time.monotonic() < deadline:
        time.sleep(LOOK_S)


def _rows(desk: Desk, task: str) -> dict[str, str]:
    return {
        "session": f"closed: {desk.closed}",
        "trials": str(desk.state()["done"]),
        "folder": str(desk.folder.path),
        "unblind and judge": f"vqbet trials judge {task}",
    }


def _free(port: int) -> bool:
    with socket.socket() as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _any_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])
