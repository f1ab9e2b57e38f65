"""The comparison is an edge: nothing of the product depends on its code, its parameters or its packages."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vqbet.stages import code_version, runner

ROOT = Path(__file__).resolve().parent.parent
DIGESTS = (
    "import json; from vqbet.stages import code_version, runner; "
    "print(json.dumps({name: code_version.digest(f'vqbet.stages.{name}') for name in runner.ORDER}))"
)
FOREIGN = ("vqbet.comparison", "diffusers", "statsmodels")


def python(code: str, root: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True, timeout=240
    )
    return done.stdout


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "vqbet", tmp_path / "vqbet", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.slow
def test_editing_a_baseline_changes_the_code_of_no_stage(copy: Path) -> None:
    before = json.loads(python(DIGESTS, copy))
    assert set(before) == set(runner.ORDER)
    edited = sorted((copy / "vqbet" / "comparison").rglob("*.*"))
    assert {"bet.py", "params.yaml", "grid.py"} <= {path.name for path in edited}
    for path in edited:
        path.write_text(path.read_text(encoding="utf-8") + "\nEDITED = 1\n", encoding="utf-8")
    assert json.loads(python(DIGESTS, copy)) == before
    contract = copy / "vqbet" / "contract" / "__init__.py"
    contract.write_text(contract.read_text(encoding="utf-8") + "\nEDITED = 1\n", encoding="utf-8")
    after = json.loads(python(DIGESTS, copy))
    assert all(after[name] != before[name] for name in before), "the planted fault: code that every stage runs"


@pytest.mark.slow
@pytest.mark.parametrize("stage", runner.ORDER)
def test_no_stage_runs_code_of_the_comparison(stage: str) -> None:
    files = code_version.Sources().closure(f"vqbet.stages.{stage}")
    assert not [name for name in files if "comparison" in name]


def modules() -> list[str]:
    """Every module of the product but its command lines."""
    files = [path for name in ("vqbet", "flows") for path in sorted((ROOT / name).rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files if path.name != "__main__.py"]
    return [name.removesuffix(".__init__") for name in names if not name.startswith(FOREIGN[0])]


def loaded(code: str) -> set[str]:
    """The modules that a process has imported when it ends after running `code`."""
    return set(
        json.loads(
            python(f"import json, sys\ntry:\n{code}\nfinally:\n    print(json.dumps([*sys.modules]))").splitlines()[-1]
        )
    )


@pytest.mark.slow
def test_the_product_imports_neither_the_comparison_nor_its_packages() -> None:
    found = loaded("    " + "; ".join(f"import {name}" for name in modules()))
    assert {"vqbet.policies.vqbet", "vqbet.stages.gate", "flows.pipeline", "torch"} <= found
    assert not [name for name in found if name.startswith(FOREIGN)]


def test_the_comparisons_own_modules_are_seen_where_they_are_imported() -> None:
    """The planted fault: what the test above would find."""
    assert "vqbet.comparison" in loaded("    import vqbet.comparison.grid")


def test_help_imports_nothing_heavy_and_names_no_command_of_the_comparison() -> None:
    found = loaded("    import vqbet.__main__ as main; main.app(['--help'])")
    assert "vqbet.commands.console" in found
    assert not found & {*FOREIGN, "torch", "numpy"}
    assert "paper" not in python("import vqbet.__main__ as main; main.app(['--help'])")


def test_an_import_of_the_comparison_breaks_a_contract(copy: Path) -> None:
    """The planted fault: a stage that imports a baseline."""
    shutil.copytree(ROOT / "flows", copy / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    stage = copy / "vqbet" / "stages" / "prior.py"
    stage.write_text(stage.read_text(encoding="utf-8") + "\nimport vqbet.comparison.policies.bc  # noqa\n")
    linter = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(linter, cwd=copy, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "the product knows no comparison BROKEN" in " ".join(done.stdout.split())
    assert "vqbet.stages.prior -> vqbet.comparison.policies.bc" in done.stdout
