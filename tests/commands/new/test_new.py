"""`vqbet new`: the section that is written, what it rests on, and what is refused or asked."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.made_source import HZ, MadeSource, made
from vqbet import config
from vqbet.commands import located
from vqbet.commands.new import run
from vqbet.commands.new.findings import Asked, Findings
from vqbet.contract import ConfigError
from vqbet.demos.sources.source import Field
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

PARAMS = Path(__file__).resolve().parents[3] / "params.yaml"
FRONT = "camera/Front View"
New = Callable[..., Findings]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copy(PARAMS, tmp_path / "params.yaml")
    return tmp_path


@pytest.fixture
def new(root: Path, monkeypatch: pytest.MonkeyPatch) -> New:
    """Run `vqbet new arm` over a source in memory."""

    def ran(source: MadeSource, task: str = "arm", **asked: Any) -> Findings:
        @contextmanager
        def opened(*_: object) -> Iterator[MadeSource]:
            yield source

        monkeypatch.setattr(located, "opened", opened)
        return run.run(root, task, Asked(path="/data/arm", **asked), Watch())

    return ran


def test_the_section_is_valid_and_says_what_the_data_says(root: Path, new: New) -> None:
    found = new(made())
    params = config.task(root / "params.yaml", "arm")
    source = params.source
    assert source is not None
    assert (source.path, source.format, source.control_hz, source.actions) == ("/data/arm", "npz", HZ, "absolute")
    assert [(one.name, one.unit) for one in source.observation["state"]] == [("shoulder", "rad"), ("elbow", "rad")]
    assert list(source.observation) == ["state"]
    assert any(check.startswith("not observed: effort;") for check in found.checks)
    assert params.tokenizer.chunk == 8
    assert params.gate.evidence == ["robot"]
    assert params.validate_.min_steps <= 15
    assert source.spec("arm").action_kind == "absolute"
    text = (root / "params.yaml").read_text()
    assert "actions: absolute  # absolute actions explain 1.00 of the change to the next state, relative ones" in text
    assert text.startswith(PARAMS.read_text()[:200])


def test_the_graph_builds_the_task_and_those_whose_data_is_here(root: Path, new: New) -> None:
    new(made())
    assert config.tasks(root / "params.yaml") == ["arm"]
    Paths(root, "arm").store.mkdir(parents=True)
    new(made(), task="leg")
    assert config.tasks(root / "params.yaml") == ["arm", "leg"]


def test_a_list_of_tasks_in_lines_is_understood(root: Path, new: New) -> None:
    path = root / "params.yaml"
    path.write_text(path.read_text().replace("tasks: [blockpush]", "tasks:  # such as\n- blockpush\n"))
    new(made())
    assert config.tasks(path) == ["arm"]


def test_cameras_are_named_and_scaled(root: Path, new: New) -> None:
    new(made(pictures=True))
    ((name, camera),) = config.task(root / "params.yaml", "arm").source.cameras.items()  # type: ignore[union-attr]
    assert (name, camera.field, camera.height, camera.width, camera.lossy) == ("front_view", FRONT, 96, 128, "av1")


def test_a_small_picture_keeps_its_size(root: Path, new: New) -> None:
    source = made(pictures=True)
    source.fields[FRONT] = Field(FRONT, "pictures", (84, 84, 3), "uint8")
    new(source)
    (camera,) = config.task(root / "params.yaml", "arm").source.cameras.values()  # type: ignore[union-attr]
    assert (camera.height, camera.width, camera.lossy) == (84, 84, "")


def test_a_camera_whose_files_are_missing(root: Path, new: New) -> None:
    source = made(pictures=True)
    told = [replace(one, missing=(FRONT,) if number else ()) for number, one in enumerate(source.episodes)]
    source = replace(source, episodes=tuple(told))
    found = new(source)
    assert any("the files of 5 of 6 episodes are missing; --leave-out uses it" in check for check in found.checks)
    assert not config.task(root / "params.yaml", "arm").source.cameras  # type: ignore[union-attr]
    found = new(source, task="leg", leave_out=True)
    assert len(found.lengths) == 1
    leg = config.task(root / "params.yaml", "leg").source
    assert leg is not None
    assert (list(leg.cameras), leg.incomplete) == (["front_view"], "leave_out")


def test_no_camera_is_used_where_none_is_wanted(root: Path, new: New) -> None:
    found = new(made(pictures=True), cameras=())
    assert not found.roles.cameras
    assert any("camera camera/Front View is not used" in check for check in found.checks)


def unnamed() -> MadeSource:
    """Joints whose fields have names that say nothing."""
    source = made()
    renamed = {"state": "a", "action": "b", "effort": "c"}
    source.values = [{renamed[name]: part for name, part in one.items()} for one in source.values]
    source.fields = {renamed[name]: replace(one, name=renamed[name]) for name, one in source.fields.items()}
    return source


def test_names_that_do_not_tell(new: New) -> None:
    with pytest.raises(ConfigError, match=r"which field holds the actions.*say --action a or --action b or --action c"):
        new(unnamed())
    with pytest.raises(ConfigError, match=r"which field is observed.*--observation a or --observation c"):
        new(unnamed(), action=("b",))
    assert new(unnamed(), action=("b",), observation=("a",)).actions == "absolute"


def test_a_person_is_asked(new: New) -> None:
    asked: list[str] = []

    def ask(question: str, answers: Sequence[str]) -> str:
        asked.append(question)
        return "b" if "actions" in question else answers[0]

    assert list(new(unnamed(), ask=ask).action) == ["b"]
    assert len(asked) == 2


def noisy() -> MadeSource:
    source, random = made(), np.random.default_rng(1)
    for one in source.values:
        one["action"] = random.normal(0, 1, one["action"].shape).astype(np.float32)
    return source


def test_actions_that_the_data_does_not_tell_apart(root: Path, new: New) -> None:
    before = (root / "params.yaml").read_bytes()
    with pytest.raises(
        ConfigError, match=r"explain 0\.\d\d .*say --actions absolute \(targets\) or --actions relative"
    ):
        new(noisy())
    assert (root / "params.yaml").read_bytes() == before
    assert new(noisy(), actions="relative").actions == "relative"


def test_a_person_who_says_otherwise_than_the_data_is_told(new: New) -> None:
    found = new(made(), actions="relative")
    assert any("relative as was said, but absolute actions explain 1.00" in check for check in found.checks)


@pytest.mark.parametrize(
    ("source", "asked", "sentence"),
    [
        (made(timed=False, rate_hz=None), {}, "says neither times nor a rate; .*--hz 10"),
        (made(), {"control_hz": 10.0}, "--hz 10: the recorded times of made are of 20 Hz"),
        (made(), {"observation": ("speed",)}, "--observation speed: made has no such field of its kind; there are"),
        (made(), {"cameras": ("state",)}, "--camera state: made has no such field of its kind; there are: none"),
    ],
)
def test_refused(new: New, source: MadeSource, asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        new(source, **asked)


def test_a_claimed_rate_that_is_not_the_measured_one(root: Path, new: New) -> None:
    found = new(made(rate_hz=30.0))
    assert found.control_hz == HZ
    assert any("20 by the recorded times, the source claims 30" in check for check in found.checks)
    found = new(made(timed=False), task="leg")
    assert any("20 as the source claims; it records no times" in check for check in found.checks)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("blockpush", "has a section 'blockpush' already"), ("Arm!", "a task's name is at most 40"), ("tasks", "no task")],
)
def test_names(new: New, name: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        new(made(), task=name)


def test_names_of_a_source_cannot_break_the_file(root: Path, new: New) -> None:
    source = made(notes=("a note\ngate: {floor: 0}",))
    odd = 'x", "", 0, 1]\n# '
    source.fields["state"] = replace(source.fields["state"], names=(odd, "elbow"))
    new(source)
    params = config.task(root / "params.yaml", "arm")
    assert params.source is not None
    assert params.source.observation["state"][0].name == odd


def test_a_file_without_the_defaults(root: Path, new: New) -> None:
    path = root / "params.yaml"
    path.write_text(path.read_text().replace("&canary", "&other"))
    with pytest.raises(ConfigError, match="params"):
        new(made())


def test_rows(new: New) -> None:
    rows = run.rows(new(made(pictures=True)))
    assert rows["episodes"] == "6 of 30 to 45 steps"
    assert rows["cameras"] == "front_view 128 x 96"
