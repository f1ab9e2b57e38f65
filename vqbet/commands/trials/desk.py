"""The desk of a session of trials: orders the policy server, tells the robot what to do, and notes what happened.

One object for all threads: changes go through the session's state machine, one at a time; what is shown is a picture of
the last change, read without a lock. Nothing that it shows names an arm, a slot, a policy or a commitment.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, final

from vqbet.commands.trials import desk_view
from vqbet.commands.trials.desk_orders import Lines, ordered, unfit, veiled
from vqbet.commands.trials.desk_secrets import expect_secret
from vqbet.contract import GateError, ServingError
from vqbet.evaluation.trials.trial_folder import TrialFolder
from vqbet.evaluation.trials.trial_log import TrialLog
from vqbet.evaluation.trials.trial_records import interim, seed_of
from vqbet.evaluation.trials.trial_session import By, Trial, TrialSession
from vqbet.files import atomic, canonical, reading

PRESENT_S = 5.0  # a robot that was silent for longer is gone
LOOK_S = 0.5  # between two looks at who is there
SERVER_S = 2.0  # between two looks at the policy server
AGAIN_S = 1.5  # a robot that asks again for a trial after this time could not begin it
REPORT = ("steps", "duration_s", "holds", "interventions", "recording")
ENDS: Mapping[str, By] = {"robot": "robot", "operator": "operator", "timeout": "timeout", "guard": "guard"}
STARTING, STARTING_S = "The policy server is not there yet.", 30.0
SEEN = "seen.json"  # in the session's folder: the last outcome of a simulated robot


@dataclass(slots=True)
class _Robot:
    """A robot at the desk. heard_s: of the last call; handed: trial that it was given, at handed_s."""

    simulated: bool = False
    heard_s: float = -1e9
    handed: str = ""
    handed_s: float = 0.0
    over: bool = False  # it knows that the session is closed

    @property
    def present(self) -> bool:
        return time.monotonic() - self.heard_s < PRESENT_S


@final
class Desk:
    """A session's desk, from its folder; the log is locked until `close`.

    operator: who runs the session from now on. user: of the operating system. Every change has a `key` of its caller:
    asked twice, it happens once. Changes raise GateError where they do not fit the state, ServingError where the
    policy server is gone or refuses; nothing is written then.
    """

    def __init__(self, folder: TrialFolder, lines: Lines, *, operator: str, user: str) -> None:
        self.folder, self.operator, self._lines = folder, operator, lines
        self._log = TrialLog(folder.log)
        try:
            expect_secret(folder.salt)
            opened = folder.read()
            self.plan, blinding = opened.plan, opened.blinding
            self._session = TrialSession(self.plan, blinding, self._log, interim(self.plan, blinding))
            if not self.closed:
                self._session.open(f"opened {secrets.token_hex(8)}", operator=operator, user=user)
        except BaseException:
            self._log.close()
            raise
        self._lock, self._watching, self._leave = threading.RLock(), threading.Lock(), threading.Event()
        self._robot, self._server, self._stopping = _Robot(), STARTING, ""
        self._boot, self._changes = secrets.token_hex(4), 0
        self._camera: tuple[int, int, int, bytes] = (0, 0, 0, b"")
        self._view: dict[str, Any] = {}
        self._refresh()
        self._thread = threading.Thread(target=self._keep, name="vqbet desk", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Leave the session; it goes on where it is when a desk opens it again."""
        self._leave.set()
        self._thread.join()
        with self._lock:
            self._log.close()
            self._lines.close()

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what is shown -----------------------------------------------------------------------------------------------

    @property
    def closed(self) -> str:
        """Why the session is closed; "" while it is open."""
        return self._session.progress.closed

    @property
    def version(self) -> str:
        """Name of the present state: another one after each change, and after a restart."""
        return str(self._view["version"])

    @property
    def robot_knows(self) -> bool:
        """Return whether the robot knows that the session is closed, or is gone."""
        return self._robot.over or not self._robot.present

    def state(self) -> dict[str, Any]:
        """Return what the operator may see."""
        view = self._view
        began = self._began()
        return {**view, "elapsed_s": round(time.time() - began, 1) if view["phase"] == "running" and began else 0.0}

    def camera(self) -> tuple[int, int, int, bytes]:
        """Return the number, width, height and RGB bytes of the newest picture of the robot's camera; 0: none yet."""
        return self._camera

    def seen(self, code: str) -> dict[str, Any]:
        """Return score and success of a trial, where the robot is simulated and said so; empty else."""
        path = self.folder.path / SEEN
        said = reading.parse(reading.load(path, GateError, most=1 << 12), str(path), GateError) if path.exists() else {}
        return {name: said[name] for name in ("score", "success")} if said.get("trial") == code else {}

    # --- the operator ------------------------------------------------------------------------------------------------

    def start(self, key: str, code: str) -> None:
        """Arm the trial of this code, which is the next one; or close the session where none is left."""
        with self._changing():
            if self._log.known(key) is not None:
                return
            self._expect_shown(code)
            if self._session.phase == "armed":
                return
            if self._session.phase == "ready" and not self._session.settle():
                return
            self._session.arm(key, self._prove)

    def stop(self, code: str) -> None:
        """Tell the robot to end the trial of this code; the robot's report follows."""
        with self._changing():
            if self._is(code, "running"):
                self._stopping = code

    def lost(self, key: str, code: str) -> None:
        """Note that the robot is gone in the trial of this code, which then can only be declared invalid."""
        with self._changing():
            if self._robot.present and self._robot.handed == code:
                raise GateError(f"trial {code}: the robot is there; stop the trial")
            self._session.stop(key, code, by="lost", operator=self.operator)

    def grade(self, key: str, code: str, *, stage: str, tag: str = "", remark: str = "") -> None:
        """Enter the outcome of a trial."""
        with self._changing():
            self._session.grade(key, code, operator=self.operator, stage=stage, tag=tag, remark=remark)

    def invalidate(self, key: str, code: str, *, reason: str, remark: str = "") -> None:
        """Declare a trial invalid that has no outcome yet; a robot that is in it is stopped."""
        with self._changing():
            self._session.invalidate(key, code, operator=self.operator, reason=reason, remark=remark)

    def undo(self, key: str, code: str) -> None:
        """Take the last outcome back. A trial that ran and was given up before it had ended stays invalid."""
        with self._changing():
            if self._log.known(key) is None and desk_view.given_up(self._session):
                raise GateError(f"trial {code}: stays invalid: the robot has moved in it, and has no recording of it")
            self._session.undo(key, code, operator=self.operator)

    def pause(self, key: str) -> None:
        with self._changing():
            self._session.pause(key, operator=self.operator)

    def resume(self, key: str) -> None:
        with self._changing():
            self._session.resume(key, operator=self.operator)

    def end(self, key: str) -> None:
        """End the session early."""
        with self._changing():
            self._session.close(key, operator=self.operator)

    # --- the robot ---------------------------------------------------------------------------------------------------

    def hello(self, robot: str, simulated: bool) -> dict[str, Any]:
        """Admit the plan's robot. Raises GateError for another one."""
        if robot != self.plan.robot:
            raise GateError(
                f"robot {reading.short(robot)}: this session is for robot {self.plan.robot}; start the robot by that "
                "name, or plan trials for this one"
            )
        self._robot.simulated = simulated
        self._hear()
        return {"plan": self.plan.sha256, "server": self._lines.url, "robot": self.plan.robot}

    def next(self, *, asks: bool = True) -> dict[str, Any]:
        """Return what the robot is to do now: run a trial, wait, or go. asks: just now, and not since a while."""
        self._hear()
        if self.closed:
            self._robot.over = True
            return {"do": "over"}
        trial = self._session.now
        if trial is not None and trial.state == "running" and asks:
            self._left(trial.code)
        if trial is None or trial.state != "armed":
            return {"do": "wait"}
        self._hand(trial)
        return {
            "do": "run",
            "trial": trial.code,
            "seed": seed_of(self.plan, trial.slot.pair),
            "timeout_s": self.plan.timeout_s,
            "operator": self.operator,
            "server": self._lines.url,
        }

    def began(self, code: str) -> None:
        """Note that the robot begins a trial. Raises GateError where it may not."""
        self._hear()
        with self._changing():
            self._session.start(f"started {code} {self._armings(code)}", code)
            self._robot.handed = code

    def running(self, code: str) -> bool:
        """Return whether the robot is to go on in a trial."""
        self._hear()
        if not self._is(code, "running") or self._stopping == code:
            return False
        return time.time() - self._began() < self.plan.timeout_s

    def ended(self, code: str, said: Mapping[str, Any]) -> None:
        """Note the robot's report of a trial's end; one about a trial that is over already is not noted again.

        A guard that stopped the robot while the policy server is gone has lost the connection: no failure of a policy.
        """
        self._hear()
        cut = said.get("by") == "guard" and self._is(code, "running") and bool(self._watched())
        with self._changing():
            trial = self._session.progress.trials.get(code)
            if trial is None:
                raise GateError(f"trial {reading.short(code)}: was not started in this session")
            if trial.state != "running":
                return
            by = ENDS.get(str(said.get("by")))
            if by is None:
                raise GateError(f"by: expected one of {', '.join(ENDS)}, got {reading.short(said.get('by'))}")
            stopped = by == "operator" and self._stopping == code
            if by == "operator" and not stopped:  # the desk ended it, as its time was up
                by = "timeout"
            by = "lost" if cut else by
            self._keep_seen(code, said.get("seen"))
            report = {name: said[name] for name in REPORT if name in said}
            operator = self.operator if stopped else ""
            self._session.stop(f"stopped {code} {self._armings(code)}", code, by=by, operator=operator, report=report)

    def look(self, width: int, height: int, pixels: bytes) -> None:
        """Take a picture of the robot's camera. Raises GateError where it is none."""
        self._hear()
        if not (0 < width <= 4096 and 0 < height <= 4096) or len(pixels) != 3 * width * height:
            raise GateError(
                f"picture: expected width x height x 3 bytes of RGB, got {width} x {height} and {len(pixels)} bytes"
            )
        self._camera = (self._camera[0] + 1, width, height, pixels)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _prove(self, trial: Trial) -> dict[str, Any]:
        """Order the server, and return its statement, verified."""
        said = ordered(self.plan, self._session.blinding, trial, self._lines.orders)
        self._server = ""
        return said

    def _hand(self, trial: Trial) -> None:
        """Note that the robot gets a trial. One that asks again could not begin: the server is ordered again."""
        now_s, robot = time.monotonic(), self._robot
        if robot.handed == trial.code and now_s - robot.handed_s < AGAIN_S:
            return
        again, robot.handed, robot.handed_s = robot.handed == trial.code, trial.code, now_s
        if again:
            with self._changing():
                if self._is(trial.code, "armed"):
                    try:
                        self._session.arm(f"again {secrets.token_hex(8)}", self._prove)
                    except (ServingError, GateError) as error:
                        self._server = str(error)

    def _left(self, code: str) -> None:
        """Note that a robot asks for work in the middle of a trial: it was started again, and the trial is lost."""
        with self._changing():
            if self._is(code, "running"):
                self._session.stop(f"left {code} {self._armings(code)}", code, by="lost")

    def _keep_seen(self, code: str, seen: Any) -> None:
        if self._robot.simulated and isinstance(seen, Mapping):
            with reading.sentences("seen", GateError):
                said = {"trial": code, "score": float(seen["score"]), "success": bool(seen["success"])}
            atomic.write(self.folder.path / SEEN, canonical.document(said), GateError)

    def _hear(self) -> None:
        self._robot.heard_s = time.monotonic()

    def _is(self, code: str, state: str) -> bool:
        trial = self._session.progress.trials.get(code)
        return trial is not None and trial.state == state

    def _armings(self, code: str) -> int:
        """Return how often a trial was armed: it can begin and end once for each."""
        return sum(event.kind == "armed" and event["trial"] == code for event in self._log.events)

    def _began(self) -> float:
        """Return the Unix time at which the present trial began; 0 where none runs."""
        for event in reversed(self._log.events):
            if event.kind == "started":
                return datetime.fromisoformat(event.when).astimezone(UTC).timestamp()
        return 0.0

    def _expect_shown(self, code: str) -> None:
        trial = self._session.now
        if code != ("" if trial is None else trial.code):
            raise GateError("the page is behind: another trial is next; look again, and start that one")

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            finally:
                self._refresh()

    def _refresh(self) -> None:
        with self._lock:
            view = desk_view.of(
                self._session,
                operator=self.operator,
                stopping=self._stopping,
                robot={"name": self.plan.robot, "present": self._robot.present, "simulated": self._robot.simulated},
                server=self._server,
            )
            before = {name: value for name, value in self._view.items() if name != "version"}
            if view != before:
                self._changes += 1
                self._view = {**view, "version": f"{self._boot}.{self._changes}"}

    def _keep(self) -> None:
        """See who is there, until the desk is closed."""
        looked_s, began_s = -1e9, time.monotonic()
        while not self._leave.wait(LOOK_S):
            if time.monotonic() - looked_s > SERVER_S and not self.closed:
                said, looked_s = self._watched(), time.monotonic()
                early = self._server == STARTING and looked_s - began_s < STARTING_S
                self._server = STARTING if said and early else said
            self._refresh()

    def _watched(self) -> str:
        """Return why the policy server cannot serve this session; "" where it can."""
        try:
            with self._watching, veiled(self.plan):
                return unfit(self.plan, self._lines.watch.arms())
        except ServingError as error:
            return str(error)
