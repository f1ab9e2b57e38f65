"""Which edits make a stage run again: those of code that it may run, for its task; and no others."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vqbet.contract import PipelineError
from vqbet.stages import code_version, runner
from vqbet.stages.code_version import STAGES, Sources, own_modules

ROOT = Path(__file__).resolve().parents[2]
Write = Callable[..., Path]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "vqbet"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    return folder


@pytest.fixture
def write(package: Path) -> Write:
    def make(**files: str) -> Path:
        """Files by their path, `__` for a slash; a folder on the way is a package."""
        for name, content in files.items():
            path = package.joinpath(*name.split("__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            for folder in path.relative_to(package).parents:
                init = package / folder / "__init__.py"
                if not init.exists():
                    init.write_text("")
            path.write_text(content)
        return package

    return make


def closure(package: Path, module: str, own: tuple[str, ...] | None = None) -> set[str]:
    return {name.removeprefix("vqbet/") for name in Sources(package).closure(module, own)}


class TestClosure:
    def test_it_follows_functions_and_packages_but_not_types(self, write: Write) -> None:
        package = write(
            a="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from vqbet import c\n"
            "def f():\n    from vqbet.deep import b\n",
            c="",
            deep__b="import vqbet.a",
        )
        assert closure(package, "vqbet.a") == {"__init__.py", "a.py", "deep/__init__.py", "deep/b.py"}
        before = Sources(package).digest("vqbet.a")
        write(c="changed = 1", deep__b="import vqbet.a  # said otherwise")
        assert Sources(package).digest("vqbet.a") == before
        write(deep__b="import vqbet.a\nchanged = 1")
        assert Sources(package).digest("vqbet.a") != before

    def test_a_package_on_the_way_runs_what_it_runs_when_imported(self, write: Write) -> None:
        package = write(a="from vqbet.deep import b", deep__b="", never="", now="")
        init = package / "deep" / "__init__.py"
        init.write_text("from vqbet import now\ndef __getattr__(name):\n    from vqbet import never")
        assert closure(package, "vqbet.a") == {"__init__.py", "a.py", "deep/__init__.py", "deep/b.py", "now.py"}
        before = Sources(package).digest("vqbet.a")
        init.write_text("from vqbet import now\ndef __getattr__(name):\n    return 1")
        assert Sources(package).digest("vqbet.a") == before
        init.write_text("from vqbet import now\ndef f():\n    from vqbet import never\nx = f()")
        assert "never.py" in closure(package, "vqbet.a"), "it calls the function"

    @pytest.mark.parametrize("how", ["from vqbet.deep import f", "from vqbet import deep", "import vqbet.deep.b"])
    def test_all_of_a_package_that_is_named(self, write: Write, how: str) -> None:
        package = write(a=how, deep__b="", later="")
        (package / "deep" / "__init__.py").write_text("def f():\n    from vqbet import later")
        assert "later.py" in closure(package, "vqbet.a")

    def test_a_module_that_is_run_by_name(self, write: Write) -> None:
        package = write(a='run(["-m", "vqbet.deep.child"])\nTASK = "vqbet.other:Thing"', deep__child="", other="")
        assert {"deep/child.py", "other.py"} <= closure(package, "vqbet.a")

    def test_templates_and_what_they_include(self, write: Write) -> None:
        package = write(pages__page='render("pages/page.html.j2")', pages__other="", a="from vqbet.pages import page")
        (package / "pages" / "page.html.j2").write_text("{% include 'pages/page.css' %} <a href='https://x.css'>")
        (package / "pages" / "page.css").write_text("a {}")
        (package / "pages" / "unused.css").write_text("b {}")
        found = closure(package, "vqbet.a")
        assert {name for name in found if not name.endswith(".py")} == {"pages/page.html.j2", "pages/page.css"}
        before = Sources(package).digest("vqbet.a")
        (package / "pages" / "page.css").write_text("a { }")
        assert Sources(package).digest("vqbet.a") != before

    def test_what_is_not_there_is_said(self, write: Write) -> None:
        package = write(a="")
        with pytest.raises(PipelineError, match=r"vqbet\.b: no module of this project"):
            Sources(package).digest("vqbet.b")
        with pytest.raises(PipelineError, match=r"nowhere\.task: no module"):
            Sources(package).digest("vqbet.a", ("nowhere.task",))


TABLE = """
from vqbet.contract import Task

def found(name):
    return ROWS[name]

ROWS = {"push": "vqbet.tasks.push:TASK", "cook": "vqbet.tasks.cook:TASK"}
COMMON = 1
"""
PUSH, COOK = ("vqbet.tasks.push",), ("vqbet.tasks.cook",)


class TestTasks:
    @pytest.fixture
    def house(self, write: Write, package: Path) -> Path:
        write(
            contract="",
            stage="from vqbet import tasks",
            plain="from vqbet.tasks import checks",
            tasks__checks="",
            tasks__push__world="from vqbet.tasks.push import picture",
            tasks__push__picture="SIZE = 1",
            tasks__cook__world="from vqbet.tasks.cook import picture",
            tasks__cook__picture="SIZE = 1",
        )
        for name in ("push", "cook"):
            (package / "tasks" / name / "__init__.py").write_text(f"from vqbet.tasks.{name} import world\nTASK = 1")
        (package / "tasks" / "__init__.py").write_text(TABLE)
        return package

    def test_only_the_room_of_the_task(self, house: Path) -> None:
        assert closure(house, "vqbet.stage", PUSH) == {
            *("__init__.py", "contract.py", "stage.py", "tasks/__init__.py"),
            *(f"tasks/push/{name}.py" for name in ("__init__", "picture", "world")),
        }
        assert "tasks/cook/world.py" in closure(house, "vqbet.stage", COOK)
        assert {"tasks/cook/world.py", "tasks/push/world.py"} <= closure(house, "vqbet.stage"), "for any task"

    def test_another_tasks_picture_and_row_change_nothing(self, house: Path) -> None:
        before = Sources(house).digest("vqbet.stage", PUSH), Sources(house).digest("vqbet.stage", COOK)
        (house / "tasks" / "cook" / "picture.py").write_text("SIZE = 2")
        after = Sources(house).digest("vqbet.stage", PUSH), Sources(house).digest("vqbet.stage", COOK)
        assert after[0] == before[0]
        assert after[1] != before[1]
        table = TABLE.replace('"cook":', '"door": "vqbet.tasks.door:TASK", "cook":')
        (house / "tasks" / "door").mkdir()
        (house / "tasks" / "door" / "__init__.py").write_text("")
        (house / "tasks" / "__init__.py").write_text(table)
        assert Sources(house).digest("vqbet.stage", PUSH) == before[0], "a task was added"

    @pytest.mark.parametrize(
        ("old", "new"), [("COMMON = 1", "COMMON = 2"), ("[name]", "[name, 1]"), ("push:TASK", "push:OTHER")]
    )
    def test_the_tasks_own_row_counts(self, house: Path, old: str, new: str) -> None:
        before = Sources(house).digest("vqbet.stage", PUSH)
        (house / "tasks" / "__init__.py").write_text(TABLE.replace(old, new))
        assert Sources(house).digest("vqbet.stage", PUSH) != before

    def test_a_stage_that_reads_no_table_has_no_task(self, house: Path) -> None:
        (house / "tasks" / "__init__.py").write_text("def find():\n    from vqbet.tasks.push import world")
        assert closure(house, "vqbet.plain", PUSH) == {
            "__init__.py",
            "plain.py",
            "tasks/__init__.py",
            "tasks/checks.py",
        }

    def test_a_task_from_another_package(self, house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        there = tmp_path / "elsewhere"
        (there / "acme").mkdir(parents=True)
        (there / "acme" / "__init__.py").write_text("")
        (there / "acme" / "door.py").write_text("from .world import Door\nfrom vqbet.contract import Task")
        (there / "acme" / "world.py").write_text("SIZE = 1")
        monkeypatch.syspath_prepend(str(there))
        own = ("acme.door",)
        found = closure(house, "vqbet.stage", own)
        assert {name for name in found if "acme" in name} == {
            f"acme/{name}.py" for name in ("__init__", "door", "world")
        }
        assert not {name for name in found if "push" in name or "cook" in name}
        before = Sources(house).digest("vqbet.stage", own)
        (there / "acme" / "world.py").write_text("SIZE = 2")
        assert Sources(house).digest("vqbet.stage", own) != before
        assert "acme" not in sys.modules, "nothing was imported"


ROWS = """
from vqbet.tasks.task import Task
TASKS = Tasks({"push": "vqbet.tasks.push:TASK", "cook": "vqbet.tasks.cook:TASK", "door": "acme.door:TASK"})
"""
NAMED = """
from vqbet.tasks.push import spec
from vqbet.tasks.task import Code, Task
TASK = Task(spec=spec.SPEC, world=Code("vqbet.tasks.push.world:World"), oracle=Code("vqbet.tasks.push.oracle:show"))
"""


class TestFields:
    """A task that names its world and reads none: what depends on it is who may call it."""

    @pytest.fixture
    def house(self, write: Write, package: Path) -> Path:
        write(
            train="from vqbet.tasks import TASKS\ngoal = TASKS['push'].goal",
            play="from vqbet.tasks import TASKS\nenv = TASKS['push'].world()",
            asking="from vqbet.tasks import TASKS\nenv = getattr(TASKS['push'], 'world')()",
            relay="from vqbet import train\nfrom vqbet import play",
            tasks__task="class Task:\n    world = None\n    def modules(self):\n        return self.world, self.oracle",
            tasks__push__spec="SPEC = 1",
            tasks__push__world="SIZE = 1",
            tasks__push__oracle="",
            tasks__cook__world="",
        )
        (package / "tasks" / "__init__.py").write_text(ROWS)
        (package / "tasks" / "push" / "__init__.py").write_text(NAMED)
        return package

    def test_its_rows_name_its_module(self, house: Path) -> None:
        assert own_modules("push", house) == PUSH
        assert own_modules("door", house) == ("acme.door",)
        assert own_modules("nobody", house) == ()

    @pytest.mark.parametrize(
        ("module", "called"),
        [("train", set()), ("play", {"world"}), ("asking", {"world"}), ("relay", {"world"})],
    )
    def test_the_code_of_a_field_counts_where_it_is_read(self, house: Path, module: str, called: set[str]) -> None:
        found = closure(house, f"vqbet.{module}", PUSH)
        assert {"tasks/__init__.py", "tasks/task.py", "tasks/push/__init__.py", "tasks/push/spec.py"} <= found
        assert {name for name in ("world", "oracle") if f"tasks/push/{name}.py" in found} == called
        assert not any("cook" in name for name in found)

    def test_a_row_of_another_task_is_not_counted(self, house: Path) -> None:
        before = Sources(house).digest("vqbet.play", PUSH)
        table = house / "tasks" / "__init__.py"
        table.write_text(ROWS.replace("vqbet.tasks.cook:TASK", "vqbet.tasks.cook:OTHER"))
        assert Sources(house).digest("vqbet.play", PUSH) == before
        table.write_text(ROWS.replace("vqbet.tasks.push:TASK", "vqbet.tasks.push:OTHER"))
        assert Sources(house).digest("vqbet.play", PUSH) != before


class TestKept:
    """Facts about files are kept between processes, by what the files hold."""

    def test_the_second_time_nothing_is_parsed(
        self, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        package, kept = write(a="from vqbet import b", b="x = 1"), tmp_path / "facts.json"
        before = self.digest(package, kept)
        monkeypatch.setattr("vqbet.stages.code_facts.ast.parse", lambda _: pytest.fail("parsed"))
        assert self.digest(package, kept) == before
        monkeypatch.undo()
        write(b="x = 2")
        assert self.digest(package, kept) == Sources(package).digest("vqbet.a") != before

    @pytest.mark.parametrize("content", ["", "[]", "{", '{"version": 1, "facts": {}}', '{"facts": {"a": 1}}', "null"])
    def test_a_damaged_file_is_none(self, write: Write, tmp_path: Path, content: str) -> None:
        package, kept = write(a=""), tmp_path / "facts.json"
        kept.write_text(content)
        assert self.digest(package, kept) == Sources(package).digest("vqbet.a")

    def test_a_file_that_is_not_python_is_said(self, write: Write) -> None:
        package = write(a="from vqbet import b", b="x = 1\nx = = 1")
        with pytest.raises(PipelineError, match=r"b\.py: line 2: is not Python: invalid syntax"):
            Sources(package).digest("vqbet.a")

    def test_a_folder_that_is_missing_is_no_matter(self, write: Write, tmp_path: Path) -> None:
        assert self.digest(write(a=""), tmp_path / "nowhere" / "facts.json")

    @staticmethod
    def digest(package: Path, kept: Path) -> str:
        sources = Sources(package, kept)
        found = sources.digest("vqbet.a")
        sources.save()
        return found


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept") / "facts.json"


class TestThisProject:
    """Edits of a copy of the package, and which stages of which task they run again."""

    @pytest.fixture
    def copy(self, tmp_path: Path) -> Path:
        shutil.copytree(ROOT / "vqbet", tmp_path / "vqbet", ignore=shutil.ignore_patterns("__pycache__"))
        return tmp_path / "vqbet"

    def versions(self, package: Path, kept: Path, task: str = "blockpush") -> dict[str, str]:
        sources, own = Sources(package, kept), own_modules(task, package)
        found = {stage: sources.digest(f"vqbet.stages.{stage}", own) for stage in STAGES}
        sources.save()
        return found

    def again(self, copy: Path, kept: Path, name: str, old: str, new: str, task: str = "blockpush") -> set[str]:
        """The stages that run again after an edit; an empty `old` stands for the file's end."""
        before, path = self.versions(copy, kept, task), copy / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1) if old else text + new)
        after = self.versions(copy, kept, task)
        return {stage for stage in STAGES if after[stage] != before[stage]}

    def test_every_stage_is_versioned(self) -> None:
        assert STAGES == runner.ORDER

    @pytest.mark.slow
    def test_a_comment_and_a_docstring_run_nothing(self, copy: Path, kept: Path) -> None:
        assert not self.again(copy, kept, "contract/__init__.py", "", "# So it is.\n")
        words = "contract/__init__.py", "Types that all packages share", "Words that all share"
        assert not self.again(copy, kept, *words)
        assert not self.again(copy, kept, "stages/gate.py", '"""Stage:', '"""The stage:')

    @pytest.mark.slow
    def test_another_tasks_world_runs_nothing(self, copy: Path, kept: Path) -> None:
        for name in ("world", "picture"):
            assert not self.again(copy, kept, f"tasks/kitchen/{name}.py", "", "PLANTED = 1\n")
        assert self.again(copy, kept, "tasks/kitchen/world.py", "", "PLANTED = 2\n", "kitchen") >= {"gate"}

    def test_both_layouts_live_in_one_room(self, copy: Path, kept: Path) -> None:
        for task in ("blockpush", "blockpush_drawn"):
            found = self.again(copy, kept, "tasks/blockpush/world.py", "", "PLANTED = 1\n", task)
            assert found == {"evaluate", "gate", "report"}, "the report reads `world` of records, maybe a task's"

    def test_a_constant_of_the_prior_runs_it_and_what_loads_it(self, copy: Path, kept: Path) -> None:
        found = self.again(copy, kept, "models/prior.py", "", "PLANTED = 1\n")
        assert found == {"prior", "bundle", "evaluate", "gate"}

    @pytest.mark.slow
    def test_a_template_runs_its_page(self, copy: Path, kept: Path) -> None:
        assert self.again(copy, kept, "evaluation/report.html.j2", "<main>", "<main >") == {"report"}
        assert self.again(copy, kept, "demos/validation/page.html.j2", "<body>", "<body >") == {"validate"}
        assert self.again(copy, kept, "pages/page.css", "body", "body ") == {"validate", "report"}

    @pytest.mark.slow
    def test_how_versions_are_made_and_handed_over_runs_nothing(self, copy: Path, kept: Path) -> None:
        for name in ("stages/code_version.py", "stages/runner.py", "__main__.py", "commands/summary.py"):
            assert not self.again(copy, kept, name, "", "PLANTED = 1\n")

    def test_no_file_beside_the_code_is_forgotten(self) -> None:
        """Every template and style sheet is named by some module, so it counts for whatever runs that."""
        others = {path.relative_to(ROOT).as_posix() for path in (ROOT / "vqbet").rglob("*.*") if path.is_file()}
        others = {name for name in others if not name.endswith((".py", ".pyc", "py.typed", "comparison/params.yaml"))}
        modules = [path.relative_to(ROOT).with_suffix("") for path in (ROOT / "vqbet").rglob("*.py")]
        sources = Sources()
        found = {
            name
            for path in modules
            if path.name != "__init__" and re.search(r"\.(j2|html)\b", (ROOT / path).with_suffix(".py").read_text())
            for name in sources.closure(".".join(path.parts))
        }
        assert others <= found

    def test_nothing_that_takes_long_is_imported(self) -> None:
        code = (
            "import sys; import vqbet.commands.code; print({'numpy', 'torch', 'mlflow', 'pydantic'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "set()"


def test_a_digest_is_that_of_the_task(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQBET_HOME", str(kept.parent))
    module = "vqbet.stages.evaluate"
    assert code_version.digest(module, "blockpush") == code_version.digest(module, "blockpush_drawn")
    assert code_version.digest(module, "blockpush") != code_version.digest(module, "kitchen")
