"""`vqbet canary`: a new champion on one robot first, then its release or a rollback; and `vqbet serve` until then."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from websockets.sync.client import connect

from tests.commands.test_serve import serving
from tests.support import people, recording, untrained
from tests.support.recording import record
from tests.support.synthetic import synthetic
from vqbet import registry
from vqbet.__main__ import app
from vqbet.commands import audit, canary, canary_due, release, serve
from vqbet.contract import RegistryError, ServingError
from vqbet.registry import FAILED, PASSED, WAIVED, Canaries, journal
from vqbet.serving import recorder as recorders
from vqbet.serving import wire
from vqbet.serving.handshake import KEY
from vqbet.serving.recorder import Recorder
from vqbet.serving.server import ServerOptions
from vqbet.stages.progress import Watch

ROOT = Path(__file__).resolve().parents[2]
TASK, ROBOT = "blockpush", "arm-3"
DEMOS = synthetic(4)
STOP = {"verdict": "stop", "reason": "rate", "sent": None}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with three policies, made once."""
    folder = tmp_path_factory.mktemp("registered")
    home = folder / ".vqbet"
    home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
        patch.chdir(folder)
        for hidden in (16, 24, 32):
            path = folder / str(hidden)
            _, digest = untrained.written(path, DEMOS, execute="first", head_hidden=hidden)
            registry.register(TASK, path, tags={"digest": digest}, spec=DEMOS.spec)
    return home / "mlflow.db"


@pytest.fixture
def bare(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with three registered policies and no champion."""
    folder = people.repository(tmp_path / "project")
    shutil.copytree(template.parent, folder / ".vqbet", ignore=shutil.ignore_patterns("*.db*"))
    with sqlite3.connect(template) as source, sqlite3.connect(folder / ".vqbet" / "mlflow.db") as target:
        source.backup(target)
    for name, value in {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / '.vqbet' / 'mlflow.db'}",
        "VQBET_PROJECT": str(folder),
        "PYTHONPATH": str(ROOT),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def root(bare: Path) -> Path:
    """The first policy has been champion since before there were canaries."""
    forced(bare, 1)
    ask(bare, episodes=4)
    return bare


def ask(root: Path, **values: Any) -> None:
    """Commit values of section `canary`."""
    path = root / "params.yaml"
    head, _, tail = path.read_text(encoding="utf-8").partition("\n  canary: {<<: *canary")
    said = "".join(f", {name}: {value}" for name, value in values.items())
    path.write_text(f"{head}\n  canary: {{<<: *canary{said}}}{tail.partition('}')[2]}", encoding="utf-8")
    people.commit(root)


def forced(root: Path, version: int) -> str:
    release.force(root, TASK, candidate=version, why="a test")
    return registry.resolve(f"{TASK}/{version}").digest


def play(root: Path, digest: str, count: int = 1, *, robot: str = ROBOT, **steps: Any) -> None:
    """Record episodes of the policy `digest`. steps: as `record` takes them."""
    made = Recorder(root / "recordings", replace(recording.handshake(), digest=digest), robot=robot)
    for seed in range(count):
        record(made, seed=seed, **{"signals": {"latency_ms": 20.0}, **steps})


def dies(*_: object, **__: object) -> Any:
    """Stand in for a call at which the process is killed."""
    raise KeyboardInterrupt


def judged(root: Path, *, follow: bool = False, say: Callable[[str], None] = lambda line: None) -> canary.CanaryReport:
    return canary.run(root, TASK, robot=ROBOT, folder=root / "recordings", follow=follow, say=say, every_s=0.0)


def champion() -> int:
    found = registry.champion(TASK)
    assert found is not None
    return found.version


def served(followed: str = f"{TASK}@champion", *, with_canary: bool = False) -> dict[str, str]:
    """What the child of `vqbet serve` says at its first look."""
    said: list[str] = []
    serve.follow(
        serve.Followed(followed, 0.0, canary=with_canary), Path("scratch"), say=said.append, ended=lambda seconds: True
    )
    return {key: value for line in said for key, value in json.loads(line).items()}


def found(root: Path) -> audit.AuditFinding:
    return next(one for one in audit.run(root, TASK, Watch(), repair=False) if one.what == "canary")


def test_good_episodes_release_a_champion(root: Path) -> None:
    digest = forced(root, 2)
    assert found(root).note.startswith("entry 2: waits since ")
    play(root, digest, 5)
    said: list[str] = []
    report = judged(root, say=said.append)
    assert report.outcome == PASSED
    assert said[0] == "episode 1 of 4, recording 1: 0 of 5 steps refused, answers in 20 ms"
    assert len(said) == 4, "not one more than the rules say"
    assert "passed on arm-3" in report.rows["canary"]
    assert "4 episodes: 0 of the control steps refused (at most 0.05)" in report.rows["canary"]
    (one,) = [Canaries(TASK).of(entry) for entry in registry.history(TASK)[1:]]
    assert one is not None
    assert [len(each) for each in one.recordings] == [64] * 4
    assert "canary" not in release.history(TASK)[0]
    assert "passed on arm-3" in release.history(TASK)[1]["canary"]
    assert "passed on arm-3" in release.show(f"{TASK}/2")["canary of entry 2"]
    assert not [one for one in audit.run(root, TASK, Watch(), repair=False) if one.what == "canary"]
    assert served()["version"] == 2
    assert judged(root).rows == report.rows, "a second call changes nothing"


def test_a_bad_champion_is_rolled_back_at_once(root: Path) -> None:
    """Planted: the guard stops the robot in the second episode, and 1 of 4 is more than a tenth."""
    digest = forced(root, 2)
    play(root, digest)
    play(root, digest, at={3: STOP, 4: STOP})
    play(root, digest, 5)
    said: list[str] = []
    report = judged(root, say=said.append)
    assert report.outcome == FAILED
    assert len(said) == 2, "the third episode was not waited for"
    assert champion() == 1
    why = registry.history(TASK)[-1].why
    assert why.startswith("canary on arm-3: ")
    assert "the guard has stopped the robot in 1; at most 0.1 of 4 are allowed (max_stop_share)" in why
    assert "the guard has refused 0.2 of the control steps" in why
    assert release.history(TASK)[-1]["why"] == why == report.rows["why"]
    assert served()["version"] == 1
    with pytest.raises(RegistryError, match="entry 1 made its champion without a canary"):
        judged(root)


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        ({"at": {0: {"verdict": "hold", "reason": "deadline"}}}, "max_hold_share"),
        ({"intervened": True}, "max_intervention_share"),
        ({"signals": {"latency_ms": 180.0}}, "latency_ms"),
    ],
)
def test_each_limit_rolls_back(root: Path, steps: dict[str, Any], name: str) -> None:
    play(root, forced(root, 2), 4, **steps)
    assert judged(root).outcome == FAILED
    assert f"({name})" in registry.history(TASK)[-1].why


def test_only_episodes_of_this_champion_on_this_robot_since_then_count(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = registry.resolve(f"{TASK}/1").digest
    new = registry.resolve(f"{TASK}/2").digest
    with monkeypatch.context() as patch:
        patch.setattr(recorders, "_now", lambda: "2026-01-01T00:00:00+00:00")
        play(root, new, 2, at={0: STOP})
    forced(root, 2)
    play(root, old, 2, at={0: STOP})
    play(root, "c" * 64, 1)  # the commitment of a blind trial
    play(root, new, 2, robot="arm-4", at={0: STOP})
    play(root, new, steps=0)
    said: list[str] = []
    report = judged(root, say=said.append)
    assert report.outcome == canary.OPEN
    assert report.rows["canary"] == "0 of 4 episodes on arm-3"
    folder = root / "recordings"
    when = registry.history(TASK)[-1].when
    assert said == [
        f"{folder}: 2 recordings do not count: begun before the promotion of {when}",
        f"{folder}: 3 recordings do not count: of another policy than {new[:12]}, or of a trial",
        f"{folder}: 2 recordings do not count: of robot arm-4, the canary is on arm-3",
        f"{folder}: 1 recording does not count: without a control step",
    ]


def test_a_canary_goes_on_where_it_was_left(root: Path) -> None:
    digest = forced(root, 2)
    play(root, digest, 2)
    report = judged(root)
    assert (report.outcome, report.rows["canary"]) == (canary.OPEN, "2 of 4 episodes on arm-3")
    assert report.rows["so far"].startswith("2 episodes: 0 of the control steps refused")
    play(root, digest, 2)
    assert judged(root).outcome == PASSED


def test_recordings_are_followed_as_they_come(root: Path) -> None:
    digest = forced(root, 2)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        play(root, digest, at={} if len(said) < 3 else {0: STOP})

    report = judged(root, follow=True, say=say)
    assert said[0].endswith("no folder of recordings: No such file or directory; waiting")
    assert [line.partition(",")[0] for line in said[1:]] == [f"episode {n} of 4" for n in (1, 2, 3)]
    assert report.outcome == FAILED
    assert champion() == 1


def test_a_running_episode_is_waited_for(root: Path) -> None:
    """What is counted does not depend on the moment of the look."""
    digest = forced(root, 2)
    running = Recorder(root / "recordings", replace(recording.handshake(), digest=digest), robot=ROBOT)
    running.start(seed=9)
    play(root, digest, 4)
    assert judged(root).rows["canary"] == "0 of 4 episodes on arm-3"
    running.finish(success=None)
    assert judged(root).outcome == PASSED


def test_a_damaged_recording_is_not_passed_over(root: Path) -> None:
    digest = forced(root, 2)
    play(root, digest, 5)
    path = root / "recordings" / "00002" / "verdict.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"x")
    with pytest.raises(ServingError, match=r"00002/verdict.npy: damaged"):
        judged(root)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line.endswith("; waiting"):
            path.write_bytes(whole)  # copied from the robot again

    assert judged(root, follow=True, say=say).outcome == PASSED
    assert ["waiting" in line for line in said] == [False, True, False, False, False]


def test_the_limits_are_those_of_the_promotion(root: Path) -> None:
    digest = forced(root, 2)
    play(root, digest, at={0: STOP})
    ask(root, episodes=2, max_stop_share=1.0, max_hold_share=1.0)
    assert judged(root).outcome == FAILED
    play(root, forced(root, 3), 2, at={0: STOP})
    assert judged(root).outcome == PASSED, "committed before this promotion"


def test_a_crash_between_outcome_and_rollback_is_finished(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(root, forced(root, 2), at={0: STOP})

    with monkeypatch.context() as patch:
        patch.setattr(release, "rollback", dies)
        with pytest.raises(KeyboardInterrupt):
            judged(root)
    assert champion() == 2
    assert served()["version"] == 1, "held back all the same"
    assert "is still champion: vqbet canary blockpush rolls it back" in found(root).wrong
    assert judged(root).outcome == FAILED
    assert champion() == 1
    assert "max_stop_share" in registry.history(TASK)[-1].why


def test_a_crash_before_the_ledger_lets_nothing_go(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary is due before the entry: a promotion that dies leaves the champion, and its next try has a canary."""
    with monkeypatch.context() as patch:
        patch.setattr(registry, "force", dies)
        with pytest.raises(KeyboardInterrupt):
            forced(root, 2)
    assert (champion(), served()["version"]) == (1, 1)
    forced(root, 2)
    assert len(journal.opened().lines(f"{TASK}.canary")) == 1
    assert served()["version"] == 1
    confirmed = registry.history(TASK)[-1]
    canary_due.confirm(root, confirmed, 1)  # as if another process had written an entry in between
    assert len(journal.opened().lines(f"{TASK}.canary")) == 1, "it is due already"


def test_a_second_canary_begins_anew(root: Path) -> None:
    """The same policy again: what failed does not count twice, and what was good before is no credit."""
    play(root, forced(root, 2), at={0: STOP})
    assert judged(root).outcome == FAILED
    time.sleep(1.1)  # times in ledger and recordings are whole seconds
    digest = forced(root, 2)
    assert judged(root).rows["canary"] == "0 of 4 episodes on arm-3"
    play(root, digest, 4)
    assert judged(root).outcome == PASSED
    assert [row.get("canary", "").partition(" ")[0] for row in release.history(TASK)] == ["", "failed", "", "passed"]


def test_another_robot_is_on_record(root: Path) -> None:
    forced(root, 2)
    (root / "recordings").mkdir()
    judged(root)
    said: list[str] = []
    canary.run(root, TASK, robot="arm-5", folder=root / "recordings", follow=False, say=said.append)
    assert said == [f"{TASK}: the canary of entry 2 was begun on arm-3, and begins again on arm-5"]
    assert release.history(TASK)[1]["canary"].endswith("begun before on arm-3")


def test_a_canary_that_is_switched_off_is_waived_on_record(root: Path) -> None:
    forced(root, 2)
    ask(root, episodes=0)
    report = judged(root)
    assert report.outcome == WAIVED
    assert "canary.episodes is 0 in the committed params.yaml" in release.history(TASK)[1]["canary"]
    assert served()["version"] == 2
    forced(root, 3)
    assert served()["version"] == 3, "and the next promotion has none"


def test_a_champion_that_another_one_replaced_is_not_judged(root: Path) -> None:
    digest = forced(root, 2)
    play(root, digest)

    def say(line: str) -> None:
        forced(root, 3)

    with pytest.raises(RegistryError, match="entry 2 is not in force any more, entry 3 made version 3 the champion"):
        judged(root, follow=True, say=say)
    assert champion() == 3
    assert served()["version"] == 1, "neither 2 nor 3 has passed"
    with pytest.raises(RegistryError, match="not in force any more, so it was not rolled back"):
        release.rollback(root, TASK, why="too late", of=registry.history(TASK)[1].hash)


def test_a_rollback_to_a_champion_that_never_passed_holds_that_one_back(root: Path) -> None:
    digest = forced(root, 2)
    play(root, forced(root, 3), at={0: STOP})
    assert judged(root).outcome == FAILED
    assert (champion(), served()["version"]) == (2, 1)
    play(root, digest, 4)
    assert judged(root).outcome == PASSED
    assert served()["version"] == 2


def test_without_a_champion_before_nothing_is_served(bare: Path) -> None:
    root = bare
    ask(root, episodes=4)
    with pytest.raises(RegistryError, match="there is no champion yet, so there is no canary"):
        judged(root)
    digest = forced(root, 2)
    said = served()
    assert said["error"] == (
        f"{TASK}: champion 2 of entry 1 is held back until its canary has passed, and no champion was before it; serve "
        f"it to one robot: vqbet serve {TASK}@champion --canary"
    )
    assert served(with_canary=True)["version"] == 2
    play(root, digest, at={0: STOP})
    report = judged(root)
    assert report.outcome == FAILED
    assert "no champion was before it to go back to" in report.rows["champion"]
    assert "error" in served()


def test_what_is_held_back_is_said(root: Path) -> None:
    digest = forced(root, 2)
    said = served()
    assert said["version"] == 1
    assert said["note"] == (
        f"{TASK}: champion 2 of entry 2 is held back until its canary has passed, version 1 is served; serve it to one "
        f"robot: vqbet serve {TASK}@champion --canary"
    )
    assert served(f"{TASK}/2")["digest"] == digest, "a version is what it is"
    assert "vqbet canary blockpush" in serve.fetch(f"{TASK}@champion", root / "fetched")["canary"]
    assert "canary" not in serve.fetch(f"{TASK}/2", root / "another")
    with pytest.raises(RegistryError, match="--canary is for a task's champion"):
        serve.run(f"{TASK}/2", None, ServerOptions(), print, canary=True)


def test_a_changed_chain_serves_nothing_new(root: Path) -> None:
    forced(root, 2)
    with sqlite3.connect(root / ".vqbet" / "ledger.db") as database:
        database.execute("UPDATE vqbet_ledger SET line = replace(line, '\"episodes\":4', '\"episodes\":1')")
    assert "blockpush.canary, entry 1: the chain is broken" in served()["error"]
    assert any(one.what == "canaries, link 1" and one.wrong for one in audit.run(root, TASK, Watch(), repair=False))
    with sqlite3.connect(root / ".vqbet" / "ledger.db") as database:
        database.execute("DELETE FROM vqbet_ledger WHERE chain = ?", (f"{TASK}.canary",))
    assert "links are missing" in served()["error"], "removed, it would have let the champion go"


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda one, known: known.end(one, "good", "w"), "field 'outcome': expected one of passed, failed, waived"),
        (lambda one, known: known.begin(replace(one, entry=9), ROBOT), "a canary of entry 9 was never due"),
        (lambda one, known: known.end(one, PASSED, "w", ["x"]), "field 'recordings': expected a list of sha256"),
        (lambda one, known: [known.end(one, PASSED, "w") for _ in range(2)], "the canary of entry 2 has ended already"),
    ],
)
def test_links_that_make_no_sense_are_not_written(root: Path, act: Callable[..., Any], sentence: str) -> None:
    forced(root, 2)
    known = Canaries(TASK)
    one = known.of(registry.history(TASK)[-1])
    with pytest.raises(RegistryError, match=sentence):
        act(one, known)
    assert Canaries(TASK).of(registry.history(TASK)[-1]) is not None


def test_who_may_promote_may_judge_a_canary(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ann, bob = people.person(bare, "ann", "promote"), people.person(bare, "bob", "judge")
    ask(bare, episodes=4)
    monkeypatch.setenv("VQBET_KEY", str(ann))
    forced(bare, 1)
    play(bare, forced(bare, 2), 4)
    monkeypatch.setenv("VQBET_KEY", str(bob))
    with pytest.raises(RegistryError, match="signed by bob, who may judge"):
        judged(bare)
    monkeypatch.setenv("VQBET_KEY", str(ann))
    assert judged(bare).outcome == PASSED
    assert " by ann: " in release.history(TASK)[1]["canary"]


def test_the_verb_says_how_it_ended_by_its_code(root: Path) -> None:
    digest = forced(root, 2)
    play(root, digest, 2)
    arguments = ["canary", TASK, "--robot", ROBOT, "--recordings", "recordings"]
    assert CliRunner().invoke(app, arguments).exit_code == 4
    play(root, digest, 2)
    assert CliRunner().invoke(app, arguments).exit_code == 0
    play(root, forced(root, 3), at={0: STOP})
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 3
    assert "ROLLED BACK" in done.output
    assert "max_stop_share" in " ".join(done.output.split())


@pytest.mark.slow
def test_a_killed_canary_goes_on(root: Path) -> None:
    digest = forced(root, 2)
    play(root, digest, 3)
    command = [
        sys.executable,
        "-m",
        "vqbet",
        "canary",
        TASK,
        "--robot",
        ROBOT,
        "--recordings",
        "recordings",
        "--follow",
    ]
    variables = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=variables) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("episode 3 of 4"):
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    play(root, digest)
    assert judged(root).outcome == PASSED


@pytest.mark.slow
def test_robots_keep_their_champion_until_the_canary_has_passed(root: Path) -> None:
    """Two real servers: one for all robots, one for the canary's."""
    old, new = registry.resolve(f"{TASK}/1").digest, forced(root, 2)
    with serving(f"{TASK}@champion") as everybody, serving(f"{TASK}@champion", "--canary") as first:
        assert (_digest(everybody.url), _digest(first.url)) == (old, new)
        play(root, new, 4)
        assert judged(root).outcome == PASSED
        assert everybody.until(r"from the next episode on: .* digest ([0-9a-f]{64})") == new
        assert _digest(everybody.url) == new
        third = forced(root, 3)
        assert everybody.until(r"(champion 3 of entry 3 is held back .* version 2 is served)")
        assert first.until(r"from the next episode on: .* digest ([0-9a-f]{64})") == third
        assert _digest(everybody.url) == new
        play(root, third, at={0: STOP})
        assert judged(root).outcome == FAILED
        assert first.until(r"from the next episode on: .* digest ([0-9a-f]{64})") == new, "rolled back there too"


def _digest(url: str) -> str:
    with connect(url, compression=None) as robot:
        return str(wire.decode(robot.recv(), most=1 << 20)[KEY]["digest"])
