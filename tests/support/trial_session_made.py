"""Whole session of robot trials in a folder, as desk, server and robot leave one behind, made in a second or two.

`made(folder)` returns a `SessionMade`: 20 pairs in blocks of 5, looks at 10 and 20 pairs, "decided" at 20, under a
plan with a rubric of four stages, tags and 20 initial conditions with pictures. The folder holds plan.json, salt
(0600), server-key.pem, pictures/<sha256>.png, session.jsonl and recordings/<number>/. Every step goes through the real
`TrialSession`, every recording through the real `Recorder` (with a camera "scene", unless camera=False), and every
statement is signed with the real key whose public half the plan names. The story:

    trial 3    its outcome is entered wrongly, undone and entered again; then a pause
    trial 6    invalid after it ran ("scene disturbed"): it has a recording, and is repeated at the end of its block
    trial 14   invalid because the robot was lost: it has no recording
    trial 21   armed a second time, as after a restart of the server, and ended by its timeout
    trial 30   a person intervened, and the guard held once

The outcome of a trial depends on its pair and its arm only: `stage_of`. The candidate succeeds more often. `chances`
changes how often an arm succeeds, `story` which trials are irregular, by their number in the order of the session, and
`plan` any field of the plan before it is locked. Salt and outcomes are fixed, so two sessions differ in keys, nonces
and times only. `by_hand(...)` returns the plan and the blinding alone, for tests that run a session of their own.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.recording import numbers
from tests.support.synthetic import CONTROL_HZ, synthetic_spec
from vqbet.evaluation import video
from vqbet.evaluation.plan import Plan, Slice, spec_sha256
from vqbet.evaluation.trials import blinding as blindings
from vqbet.evaluation.trials.blinding import Blinding
from vqbet.evaluation.trials.trial_log import TrialEvent, TrialLog
from vqbet.evaluation.trials.trial_plan import CANDIDATE, CHAMPION, Condition, Grade, TrialPlan
from vqbet.evaluation.trials.trial_records import interim
from vqbet.evaluation.trials.trial_session import Trial, TrialSession
from vqbet.serving import recordings
from vqbet.serving.handshake import Handshake
from vqbet.serving.recorder import Recorder
from vqbet.signing import keys
from vqbet.signing.keys import Key
from vqbet.signing.statements import Statement

DIGESTS = {CANDIDATE: "c" * 64, CHAMPION: "d" * 64}
SALT = bytes(range(32))
ROBOT, OPERATOR, LAST = "arm-3", "ada", "placed"
RUBRIC = (Grade("nothing", 0.0), Grade("touched", 0.25), Grade("lifted", 0.5), Grade(LAST, 1.0))
TAGS = ("dropped", "missed the block", "stuck")
INVALID = ("wrong condition", "scene disturbed", "robot fault")
CHANCES = {CANDIDATE: 0.85, CHAMPION: 0.6}
STEPS, HEIGHT, WIDTH = 24, 72, 96  # of a recording
PAPER, TABLE, BLOCK, GOAL, HAND = (236, 238, 241), (214, 204, 188), (63, 131, 201), (63, 160, 106), (60, 66, 76)

GoesOn = Callable[[Sequence[TrialEvent], int], bool]


@dataclass(frozen=True)
class Story:
    """Numbers of the trials, from 1 in the order in which they run, at which something is irregular."""

    undone: int = 3
    disturbed: int = 6
    lost: int = 14
    twice: int = 21
    helped: int = 30


NOTHING = Story(0, 0, 0, 0, 0)


@dataclass(frozen=True)
class SessionMade:
    """A session's folder and the secrets that it was made with."""

    folder: Path
    plan: TrialPlan
    blinding: Blinding
    key: Key
    stages: Mapping[tuple[int, str], str] = field(default_factory=dict)  # (pair, arm) -> stage that was entered

    @property
    def log(self) -> Path:
        return self.folder / "session.jsonl"

    @property
    def recordings(self) -> Path:
        return self.folder / "recordings"


def judged(**changes: Any) -> Plan:
    """Return the gate's plan of a session, in pairs."""
    first = Plan(
        task="synthetic",
        world=f"robot:{ROBOT}",
        spec=spec_sha256(synthetic_spec()),
        candidate=DIGESTS[CANDIDATE],
        champion=DIGESTS[CHAMPION],
        machine=ROBOT,
        first_seed=3000,
        looks=(10, 20),
        reserved={},
        slices=(Slice("all", 1.0),),
        metric="success",
        question="not_worse",
        stopping="group_sequential",
        margin=0.2,
        alpha=0.05,
        power=0.8,
        floor=0.3,
        min_modes=0,
        baselines=(),
    )
    return replace(first, **changes)


def by_hand(server_key: str, **changes: Any) -> tuple[TrialPlan, Blinding]:
    """Return a plan with `changes` of its fields, and its blinding; conditions have no pictures."""
    first = TrialPlan(
        judged=judged(),
        robot=ROBOT,
        conditions=tuple(Condition(f"place {pair + 1}", f"block on mark {pair + 1}") for pair in range(20)),
        block=5,
        rubric=RUBRIC,
        tags=TAGS,
        invalid=INVALID,
        most_invalid=0.2,
        timeout_s=STEPS / CONTROL_HZ,
        salt=blindings.committed(SALT),
        server_key=server_key,
    )
    plan = replace(first, **changes)
    return plan, Blinding(plan, SALT)


def made(
    folder: Path,
    *,
    chances: Mapping[str, float] | None = None,
    story: Story | None = None,
    goes_on: GoesOn | None = None,
    camera: bool = True,
    trials: int = 0,
    **plan: Any,
) -> SessionMade:
    """Make a session in a new folder and run it until it is closed.

    trials: after which the operator ends it; 0: never. plan: fields of the plan that differ.
    """
    folder.mkdir(parents=True)
    key = keys.make(folder / "server-key.pem")
    wanted = plan.get("judged", judged())
    pictures = {"conditions": _conditions(folder / "pictures", wanted.most)} if camera else {}
    locked, blinding = by_hand(key.public, **{**pictures, **plan})
    locked.write(folder / "plan.json")
    (folder / "salt").touch(mode=0o600)
    (folder / "salt").write_text(blinding.salt)
    found = SessionMade(folder, locked, blinding, key, _stages(locked, chances or CHANCES))
    log = TrialLog(found.log)
    try:
        session = TrialSession(locked, blinding, log, goes_on or interim(locked, blinding))
        _run(found, session, story or Story(), camera=camera, most=trials)
    finally:
        log.close()
    return found


def prove(made: SessionMade, trial: Trial) -> dict[str, Any]:
    """Return what a policy server says of the arm of a trial: nonce, statement and signature."""
    nonce, digest = secrets.token_hex(16), made.plan.arms[trial.slot.arm]
    statement = Statement(
        plan=made.plan.sha256,
        trial=trial.code,
        robot=made.plan.robot,
        nonce=nonce,
        commitment=made.blinding.commitment(trial.code, digest),
        when=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    return {"nonce": nonce, "statement": statement.to_json(), "signature": made.key.sign(statement.content())}


def record(made: SessionMade, trial: Trial, *, camera: bool = True) -> dict[str, Any]:
    """Record a trial as the robot does, and return what the robot reports of it."""
    pair, arm = trial.slot.pair, trial.slot.arm
    commitment = made.blinding.commitment(trial.code, made.plan.arms[arm])
    reached = made.stages[(pair, arm)]
    shake = Handshake(
        commitment, f"trials {made.plan.sha256[:12]}", synthetic_spec(), window=2, chunk=3, execute="first"
    )
    recorder = Recorder(made.recordings, shake, robot=made.plan.robot, operator=OPERATOR, session=f"trial {trial.code}")
    seed = made.plan.judged.first_seed + pair
    values = numbers(seed, STEPS, shake.spec)
    recorder.start(seed=seed)
    for step in range(STEPS):
        seen = {"state": values["observation"][step]}
        if camera:
            seen["camera/scene"] = scene(pair, made.plan, reached, step / (STEPS - 1))
        action = values["action"][step]
        recorder.step(observation=seen, asked=action, sent=action, time_s=step / CONTROL_HZ)
    written = recorder.finish(success=None)
    number = int(written.name)
    return {
        "steps": STEPS,
        "duration_s": STEPS / CONTROL_HZ,
        "holds": 0,
        "interventions": 0,
        "recording": {"number": number, "digest": recordings.digest(made.recordings, number)},
    }


def scene(pair: int, plan: TrialPlan, reached: str, share: float) -> np.ndarray:
    """Return a picture of a table from above, with a block, its goal and a hand, at a share of an episode."""
    random = np.random.default_rng(pair)
    start, goal = random.uniform((0.2, 0.12), (0.8, 0.42)), np.array((0.5, 0.8))
    most = [grade.name for grade in plan.rubric].index(reached) / (len(plan.rubric) - 1)
    at_block = min(1.0, share / 0.4) if most else 0.7 * min(1.0, share / 0.4)
    hand = np.array((0.1, 0.5)) + at_block * (start - (0.1, 0.5))
    carried = max(0.0, share - 0.4) / 0.6 * (most if most > 0.4 else 0.0)
    block = start + carried * (goal - start)
    picture = np.full((HEIGHT, WIDTH, 3), PAPER, np.uint8)
    picture[4:-4, 4:-4] = TABLE
    _square(picture, goal, 11, GOAL)
    _square(picture, goal, 8, TABLE)
    _square(picture, block, 7, BLOCK)
    _square(picture, block if carried else hand, 3, HAND)
    return picture


def stage_of(pair: int, arm: str, chance: float, rubric: Sequence[Grade]) -> str:
    """Return the stage that an arm reaches on a pair: equal for equal arguments."""
    random = np.random.default_rng([pair, *arm.encode()])
    if random.random() < chance:
        return rubric[-1].name
    return rubric[int(random.integers(len(rubric) - 1))].name


def _run(made: SessionMade, session: TrialSession, story: Story, *, camera: bool, most: int) -> None:
    session.open("opened", operator=OPERATOR, user="lab")
    number = 0
    while session.settle():
        if most and number == most:
            session.close("closed early", operator=OPERATOR)
            break
        number += 1
        key = f"trial {number}"
        trial = session.arm(f"{key} armed", lambda trial: prove(made, trial))
        if number == story.twice:
            trial = session.arm(f"{key} armed again", lambda trial: prove(made, trial))
        session.start(f"{key} started", trial.code)
        if number == story.lost:
            session.stop(f"{key} stopped", trial.code, by="lost")
            session.invalidate(
                f"{key} invalid", trial.code, operator=OPERATOR, reason=INVALID[2], remark="arm lost its power"
            )
            continue
        report = record(made, trial, camera=camera)
        if number == story.helped:
            report |= {"holds": 1, "interventions": 1}
        session.stop(f"{key} stopped", trial.code, by="timeout" if number == story.twice else "robot", report=report)
        if number == story.disturbed:
            session.invalidate(f"{key} invalid", trial.code, operator=OPERATOR, reason=INVALID[1])
            continue
        if number == story.undone:
            session.grade(f"{key} wrong", trial.code, operator=OPERATOR, stage=RUBRIC[0].name, tag=TAGS[0])
            session.undo(f"{key} undone", trial.code, operator=OPERATOR)
        _grade(made, session, trial, key)
        if number == story.undone:
            session.pause("paused", operator=OPERATOR)
            session.resume("resumed", operator=OPERATOR)


def _grade(made: SessionMade, session: TrialSession, trial: Trial, key: str) -> None:
    """Enter the stage that this trial reaches; two of three failures have a tag."""
    pair, stage = trial.slot.pair, made.stages[(trial.slot.pair, trial.slot.arm)]
    failed = made.plan.grade(stage).credit < 1
    tag = (*made.plan.tags, "")[pair % (len(made.plan.tags) + 1)] if failed else ""
    remark = "stopped above the goal" if failed and pair % 4 == 1 else ""
    session.grade(f"{key} graded", trial.code, operator=OPERATOR, stage=stage, tag=tag, remark=remark)


def _stages(plan: TrialPlan, chances: Mapping[str, float]) -> dict[tuple[int, str], str]:
    return {
        (pair, arm): stage_of(pair, arm, chances[arm], plan.rubric) for pair in range(plan.pairs) for arm in plan.arms
    }


def _conditions(folder: Path, pairs: int) -> tuple[Condition, ...]:
    """Return a condition with a picture for every pair, and write the pictures by their sha256."""
    plan, _ = by_hand(base64.b64encode(bytes(32)).decode())
    found = []
    for pair in range(pairs):
        video.write_png(folder / "next.png", scene(pair, plan, RUBRIC[0].name, 0.0))
        name = hashlib.sha256((folder / "next.png").read_bytes()).hexdigest()
        os.replace(folder / "next.png", folder / f"{name}.png")
        found.append(Condition(f"place {pair + 1}", f"block on mark {pair + 1}", name))
    return tuple(found)


def _square(picture: np.ndarray, center: np.ndarray, half: int, colour: tuple[int, int, int]) -> None:
    x, y = (center * (WIDTH, HEIGHT)).astype(int)
    picture[max(0, y - half) : y + half, max(0, x - half) : x + half] = colour
