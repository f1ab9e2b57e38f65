"""The table of tasks: what every row promises, what is imported when, and what an installed package may bring."""

from __future__ import annotations

import importlib.util
import pkgutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.installed import installed
from vqbet import tasks
from vqbet.contract import GOAL_PICTURES, ConfigError, WorldError
from vqbet.stages import code_version, worlds
from vqbet.tasks import TASKS, Code, Task
from vqbet.tasks.pusht import TASK

TOY = Path(__file__).with_name("toy.py").read_text(encoding="utf-8")
BUILT_IN = ["blockpush", "blockpush_drawn", "kitchen", "kitchen_image", "pusht", "pusht_image"]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path of modules."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_row_says_what_its_task_is(name: str) -> None:
    task = TASKS[name]
    assert (task.name, TASKS.module(name)) == (
        name,
        f"vqbet.tasks.{name.removesuffix('_drawn').removesuffix('_image')}",
    )
    assert (task.importer is None) != (task.oracle is None)
    observed, done = ({channel.name for channel in side} for side in (task.spec.observation, task.spec.action))
    drawn = {name for track in task.tracks.values() for name in track}
    assert task.goal == (GOAL_PICTURES,) if task.spec.cameras else {*task.goal} <= observed
    assert drawn <= observed
    assert {name for name, _ in task.action_reference} <= observed
    assert len(task.goal_frame) in (0, len(task.goal))
    known = task.validation()
    assert (known.goal is None) == bool(task.spec.cameras), "what is in the picture alone cannot be read off numbers"
    assert set(known.goal.channels if known.goal else ()) <= observed
    assert {each.observed for each in known.references} <= observed
    assert {each.action for each in known.references} <= done


@pytest.mark.parametrize("name", BUILT_IN)
def test_all_code_that_a_task_names_is_there(name: str) -> None:
    task = TASKS[name]
    for field, module in task.modules.items():
        assert importlib.util.find_spec(module), field
    named = [task.oracle, task.importer and task.importer.read, task.world, task.goal_world, task.replay]
    for code in [*named, task.validation]:
        assert code is None or callable(pkgutil.resolve_name(code.name))
    assert task.modules["world"] == f"{TASKS.module(name)}.world"


def test_the_worlds_of_tasks_are_of_their_spec() -> None:
    for name in BUILT_IN:
        assert worlds.make(name).spec is TASKS[name].spec


def test_knowing_a_task_imports_neither_its_world_nor_another_task() -> None:
    code = (
        "import sys, vqbet.tasks as tasks; named = set(tasks.TASKS)\n"
        "assert not [name for name in sys.modules if name.startswith('vqbet.tasks.') and name != 'vqbet.tasks.task']\n"
        "tasks.TASKS['kitchen']\n"
        "print(*sorted(name for name in sys.modules if name.startswith(('vqbet.tasks.', 'torch', 'mujoco'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["vqbet.tasks.kitchen", "vqbet.tasks.kitchen.spec", "vqbet.tasks.task"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["validate", "tokenizer", "prior", "bundle", "evaluate", "gate", "report"])
def test_no_stage_imports_a_task(stage: str) -> None:
    files = code_version.Sources().closure(f"vqbet.stages.{stage}", ())
    rooms = {name for name in files if name.startswith("vqbet/tasks/")}
    assert rooms <= {"vqbet/tasks/__init__.py", "vqbet/tasks/task.py"}


@pytest.mark.parametrize("name", BUILT_IN)
def test_what_every_stage_may_know_of_a_task_holds_no_world(name: str) -> None:
    """A task's knowledge is all that its training depends on: neither its world nor another task."""
    module = TASKS.module(name)
    files, folder = closure(module), module.replace(".", "/")
    rooms = {file for file in files if file.startswith("vqbet/tasks/") and file.count("/") > 2}
    assert rooms <= {f"{folder}/{file}.py" for file in ("__init__", "spec", "mirror", "geometry")}
    assert not any(file.startswith(("vqbet/demos/", "vqbet/stages/", "vqbet/comparison/")) for file in files)


def closure(module: str) -> set[str]:
    return set(code_version.Sources().closure(module, (module,)))


def test_a_task_of_which_only_the_spec_is_known_has_nothing_else() -> None:
    task = tasks.of(replace(TASK.spec, task="own"))
    assert (task.name, task.world, task.goal, task.mirror, task.score.name) == ("own", None, (), None, "score")
    assert task.validation().goal is None
    assert tasks.of(TASK.spec) is TASK


def test_an_installed_task_is_a_task_like_any_other(site: Path) -> None:
    installed(site, "toys", "toy_of_a_package", TOY, toy="toy_of_a_package:TASK")
    assert "toy" in TASKS
    assert list(TASKS)[: len(BUILT_IN)] == BUILT_IN
    assert "toy" in set(TASKS)
    assert "toy_of_a_package" not in sys.modules, "it is imported when it is looked up"
    task = TASKS["toy"]
    assert isinstance(task, Task)
    assert TASKS.module("toy") == "toy_of_a_package"
    assert set(task.modules.values()) == {"toy_of_a_package", "vqbet.demos.validation.knowledge"}
    assert worlds.make("toy").spec is task.spec
    with pytest.raises(WorldError, match="no world that asks for goals 'toy'; there are: blockpush, block"):
        worlds.make("toy+goals")


def test_a_package_cannot_take_the_place_of_a_built_in_task(site: Path) -> None:
    installed(site, "impostor", "impostor", "TASK = None", pusht="impostor:TASK")
    assert TASKS["pusht"] is TASK


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        (None, "cannot be loaded: ModuleNotFoundError: No module named 'broken_toy'"),
        ("import nothing_like_this", "cannot be loaded: ModuleNotFoundError: No module named 'nothing_like_this'"),
        ("1 / 0", "cannot be loaded: ZeroDivisionError"),
        ("OTHER = 1", "cannot be loaded: AttributeError"),
        ("TASK = 7", "expected 'broken_toy:TASK' to be the Task whose spec says 'broken', got a int"),
        (TOY, "expected 'broken_toy:TASK' to be the Task whose spec says 'broken', got the task 'toy'"),
    ],
)
def test_a_broken_package_is_named(site: Path, source: str | None, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "broken_toy", raising=False)
    installed(site, "broken-toys", "broken_toy", source or "", broken="broken_toy:TASK")
    if source is None:
        (site / "broken_toy.py").unlink()
    assert "broken" in TASKS
    with pytest.raises(ConfigError, match=r"task 'broken' of the package 'broken-toys': .*" + fault):
        TASKS["broken"]


def test_two_packages_with_one_task_are_both_named(site: Path) -> None:
    installed(site, "one", "one_toy", TOY, toy="one_toy:TASK")
    installed(site, "two", "two_toy", TOY, toy="two_toy:TASK")
    with pytest.raises(ConfigError, match=r"task 'toy': several packages bring one in: .*; remove all but one"):
        TASKS["toy"]


def test_a_task_that_is_not_there_is_none() -> None:
    assert "nowhere" not in TASKS
    assert TASKS.get("nowhere") is None
    with pytest.raises(KeyError):
        TASKS.module("nowhere")
    with pytest.raises(WorldError, match="no world 'nowhere'; there are: blockpush, blockpush_drawn, kitchen, kit"):
        worlds.make("nowhere")


def test_code_is_called_with_its_own_arguments() -> None:
    code = Code("builtins:sorted", {"reverse": True})
    assert (code([1, 3, 2]), code.module) == ([3, 2, 1], "builtins")
    assert code([1, 3, 2], key=lambda value: -value) == [1, 2, 3]
