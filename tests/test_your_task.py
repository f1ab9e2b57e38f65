"""docs/your-task.md, run as it stands: a humanoid's demonstrations from their folder to a verdict."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.project import Project

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "your-task.md").read_text(encoding="utf-8")
FOLDER = "~/data/g1_bottle"
FEW = {  # so little training that a test can wait for it
    "tokenizer": {"steps": 150, "batch": 256, "health": {"max_mean_error": 2.0, "max_p99_error": 9.0, "min_used": 0.1}},
    "prior": {"steps": 60, "batch": 64, "warmup": 10, "width": 32, "depth": 1},
    "gate": {"latency_ms": 5000.0},  # tests share the cores
}


def commands() -> list[str]:
    """Return the lines of the page's first block of shell."""
    return re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)[0].splitlines()


def printed(number: int) -> list[str]:
    """Return the lines of one of the page's blocks of output."""
    return [line for line in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)[number].splitlines() if line]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_from_a_folder_to_a_verdict(tmp_path: Path, real_demos: Callable[[str], Path]) -> None:
    demos, project = real_demos("g1_bottle"), Project(tmp_path / "project")
    project.commit()
    setup, new, ingest, repro = commands()
    assert setup.startswith("make setup")
    told = project.run(*shlex.split(new.replace(FOLDER, str(demos)))).stdout
    assert [line for line in printed(0) if line not in told] == []
    project.small("g1", FEW)
    told = project.run(*shlex.split(ingest)).stdout
    assert [line for line in printed(1) if "data.dvc" not in line and line not in told] == []
    project.commit("demonstrations of a humanoid")
    told = project.run(*shlex.split(repro)).stdout
    assert re.search(
        r"10 held-out episodes, error of the next action .* linear 0\.128, nearest 0\.283, mean 0\.871", told
    )
    verdict = json.loads((project.root / "artifacts/g1/gate/verdict.json").read_text())
    assert verdict["outcome"] in ("HOLD", "REJECT"), "never PROMOTE"
    project.commit("trained")
    assert "g1/1" in project.here("register", "g1").stdout
    assert verdict["outcome"] in project.here("show", "g1@candidate").stdout
    refused = project.here("promote", "g1", check=False)
    assert refused.returncode == 1
    assert "asks for robot evidence" in refused.stderr
    assert "byte for byte the same" in project.here("verdict", "replay", _packed(project)).stdout


def _packed(project: Project) -> str:
    (folder,) = [path for path in (project.root / ".vqbet" / "verdicts").iterdir() if len(path.name) == 64]
    return folder.name[:8]


def test_every_link_and_picture_of_the_page_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert target.startswith("https://") or (ROOT / "docs" / target).exists(), target
