"""A robot in a session of trials: the robot's computer asks the desk what to do, and says what became of it.

    station = Station("http://desk:8090", robot="arm-3", token=...)
    for trial in station.trials():
        player.start(robot.observe(), seed=trial.seed, trial=trial.code)
        trial.began()
        while trial.running and not robot.finished():
            ...
        trial.ended(steps=..., recording=player.finish())

Only the robot calls, so the desk needs no way to it. The standard library's http.client and numpy only. A desk that is
gone for a while, as for a restart, is waited for; a thread asks whether a trial goes on, so no control loop waits.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, final
from urllib.parse import quote

import numpy as np
from jaxtyping import UInt8

from vqbet.contract import ServingError
from vqbet.files import reading
from vqbet.serving import recordings
from vqbet.serving.desk_calls import AwayError, DeskCalls

LONG_S = 20  # the desk answers "wait" after this time at the latest
ASK_S = 0.1  # between two questions whether a trial goes on
PICTURE_S = 0.2  # between two pictures
BACK_OFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)  # between tries to reach a desk that is gone; the last one from then on
MOST_TEXT = 200
LOG = logging.getLogger(__name__)

Picture = UInt8[np.ndarray, "height width 3"]
EndedBy = Literal["robot", "operator", "timeout", "guard"]


@final
class Station:
    """A robot at a desk: `trials` yields what is to be run, one after the other, until the session is over.

    desk_url: http://host:port or https://host:port. token: the robots' secret at the desk. simulated: whether the robot
    knows its own outcome, which it then reports for an operator that is a script. patience_s: how long to wait for a
    desk that is gone. plan, server: sha256 of the plan, and address of the policy server, as the desk says.

    Raises ServingError, in a sentence, where the desk refuses this robot, or is gone for too long.
    """

    def __init__(
        self,
        desk_url: str,
        *,
        robot: str,
        token: str,
        simulated: bool = False,
        tls: ssl.SSLContext | Path | str | None = None,
        timeout_s: float = 5.0,
        patience_s: float = 600.0,
    ) -> None:
        self._desk = DeskCalls(desk_url, token, tls, timeout_s)
        self._robot, self._simulated, self._patience_s = robot, simulated, patience_s
        self._errands = _Errands(self._desk)
        self.plan = self.server = ""
        self.hello()

    def look_through(self, camera: Callable[[], Picture]) -> None:
        """Show the operator pictures of this camera between trials, while `trials` waits for the desk.

        During a trial the robot shows pictures itself: `StationTrial.show`.
        """
        self._errands.camera = camera

    def hello(self) -> None:
        """Say who is here. Done when a station is made, and again whenever the desk was gone."""
        said = self._patient("POST", "/robot/hello", {"robot": self._robot, "simulated": self._simulated})
        with _understood("hello", said):
            self.plan, self.server = _text(said, "plan"), _text(said, "server")

    def trials(self) -> Iterator[StationTrial]:
        """Yield trials as the desk orders them; returns when the session is over.

        A trial that was begun and has not ended when the next one is asked for has failed, and the desk is told so.
        """
        last = ""
        self._errands.start()
        try:
            while (job := self._next()) is not None:
                if job.code == last:
                    time.sleep(BACK_OFF_S[-1])  # it could not be begun, so that the desk still wants it
                last = job.code
                yield job
                if job.phase == "running":
                    job.ended(by="robot")
        finally:
            self._errands.stop()

    def _next(self) -> StationTrial | None:
        """Return the next trial, None after the last one."""
        while True:
            with self._errands.waiting():
                said = self._patient("GET", f"/robot/next?wait={LONG_S}", more_s=LONG_S)
            with _understood("next", said):
                if said["do"] == "over":
                    return None
                if said["do"] == "run":
                    return StationTrial(self._patient, self._errands, said)
                if said["do"] != "wait":
                    raise ValueError("expected wait, run or over")

    def _patient(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, more_s: float = 0.0
    ) -> dict[str, Any]:
        """Return the desk's answer; where the desk is gone, try again for at most `patience_s`."""
        deadline, tries = time.monotonic() + self._patience_s, 0
        while True:
            try:
                if tries and path != "/robot/hello" and self.plan:
                    self._desk.asked("POST", "/robot/hello", {"robot": self._robot, "simulated": self._simulated})
                return self._desk.asked(method, path, body, more_s=more_s)
            except AwayError:
                pause_s = BACK_OFF_S[min(tries, len(BACK_OFF_S) - 1)]
                if time.monotonic() + pause_s > deadline:
                    raise
                time.sleep(pause_s)
                tries += 1


@final
class StationTrial:
    """One trial as the desk ordered it: `began` when the robot starts to move, `ended` when it stands still.

    code: to be passed to the policy server with the reset, as `player.start(..., trial=code)`. seed: of policy and
    world. timeout_s: from `began` on. operator: for the recording, as `session` is.
    """

    def __init__(self, patient: Callable[..., dict[str, Any]], errands: _Errands, said: Mapping[str, Any]) -> None:
        self._patient, self._errands = patient, errands
        self.code, self.operator, self.server = (_text(said, name) for name in ("trial", "operator", "server"))
        self.seed, self.timeout_s = int(said["seed"]), float(said["timeout_s"])
        self.session = f"trial {self.code}"
        self.phase: Literal["ordered", "running", "over"] = "ordered"
        self._began_s = 0.0

    def began(self) -> None:
        """Say that the robot begins; it may move once this returns. Raises ServingError where the desk refuses."""
        self._patient("POST", "/robot/began", {"trial": self.code})
        self.phase, self._began_s = "running", time.monotonic()
        self._errands.follow(self.code)

    @property
    def running(self) -> bool:
        """Return at once whether the trial goes on: nobody has stopped it, and its time is not up."""
        return self.phase == "running" and not self._errands.stopped and self._elapsed_s < self.timeout_s

    def show(self, picture: Picture) -> None:
        """Show the operator a picture of the scene; returns at once, and pictures that come too fast are left out."""
        self._errands.show(picture)

    def ended(
        self,
        *,
        by: EndedBy | None = None,
        steps: int = 0,
        duration_s: float | None = None,
        holds: int = 0,
        interventions: int = 0,
        recording: Path | str | None = None,
        seen: tuple[float, bool] | None = None,
    ) -> None:
        """Say that the robot stands still, and how the trial went; waits until the desk has noted it.

        by: None: the operator or the timeout where one of them ended it, else the robot. duration_s: None: since
        `began`. recording: its folder, as `Recorder.finish` returns it; without one the trial cannot count. seen: score
        and success, of a simulated robot.
        """
        self._errands.follow("")
        report: dict[str, Any] = {
            "trial": self.code,
            "by": by or self._ended_by,
            "steps": int(steps),
            "duration_s": float(self._elapsed_s if duration_s is None else duration_s),
            "holds": int(holds),
            "interventions": int(interventions),
            "recording": None if recording is None else _recorded(Path(recording)),
        }
        if seen is not None:
            report["seen"] = {"score": float(seen[0]), "success": bool(seen[1])}
        self._patient("POST", "/robot/ended", report)
        self.phase = "over"

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    @property
    def _ended_by(self) -> EndedBy:
        if self._errands.stopped:
            return "operator"
        return "timeout" if self._elapsed_s >= self.timeout_s else "robot"


@final
class _Errands:
    """Thread that asks whether the present trial goes on, and brings pictures to the desk.

    stopped: the desk has said that the present trial is to end. A desk that cannot be reached stops nothing: the robot
    has its guard and the trial its timeout.
    """

    def __init__(self, desk: DeskCalls) -> None:
        self._desk = desk
        self.camera: Callable[[], Picture] | None = None
        self.stopped = self._waiting = False
        self._code = ""  # of the trial that runs
        self._picture: Picture | None = None
        self._shown_s = 0.0
        self._lock, self._looking = threading.Lock(), threading.Lock()
        self._leave = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._leave.clear()
        self._thread = threading.Thread(target=self._run, name="vqbet station", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._leave.set()
        if self._thread is not None:
            self._thread.join()

    def follow(self, code: str) -> None:
        """Ask about another trial from now on; "" for none."""
        with self._lock:
            self._code = code
            self.stopped = self.stopped and not code

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let the camera be called inside the block, and not any more after it."""
        self._waiting = True
        try:
            yield
        finally:
            with self._looking:
                self._waiting = False

    def show(self, picture: Picture) -> None:
        if time.monotonic() - self._shown_s >= PICTURE_S:
            self._picture, self._shown_s = np.array(picture), time.monotonic()

    def _run(self) -> None:
        while not self._leave.wait(ASK_S):
            try:
                self._ask()
                self._bring()
            except ServingError as error:  # the control loop's own calls raise it, and wait
                LOG.info("%s", error)
                self._leave.wait(BACK_OFF_S[2])

    def _looked(self, camera: Callable[[], Picture]) -> Picture:
        try:
            return camera()
        except Exception as error:  # of a driver; the trials go on without it
            self.camera = None
            raise ServingError(f"the camera failed and is not used any more: {error}") from error

    def _ask(self) -> None:
        if code := self._code:
            said = self._desk.asked("GET", f"/robot/running?trial={quote(code, safe='')}")
            with self._lock:
                if code == self._code and said.get("running") is False:
                    self.stopped = True

    def _bring(self) -> None:
        with self._looking:
            if self.camera is not None and self._waiting:
                self.show(self._looked(self.camera))
        picture, self._picture = self._picture, None
        if picture is not None:
            height, width = picture.shape[:2]
            self._desk.asked("POST", f"/robot/picture?width={width}&height={height}", np.asarray(picture, np.uint8))


def _recorded(folder: Path) -> dict[str, Any]:
    """Return number and digest of a finished recording. Raises ServingError where there is none."""
    if not recordings.NUMBER.fullmatch(folder.name):
        raise ServingError(f"{folder}: is no folder of a finished recording, whose name is a number such as 00001")
    number = int(folder.name)
    digest = recordings.digest(folder.parent, number)
    if not digest:
        raise ServingError(f"{folder}: no finished recording is there; pass the folder that `Recorder.finish` returned")
    return {"number": number, "digest": digest}


def _understood(call: str, said: Mapping[str, Any]) -> Any:
    return reading.sentences(
        f"desk: answer to {call}: {reading.short(dict(said))}",
        ServingError,
        "install the same version of vqbet on both",
    )


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said[name]
    if type(value) is not str or len(value) > MOST_TEXT:
        raise ValueError(f"{name}: expected text of at most {MOST_TEXT} characters, got {reading.short(value)}")
    return value
