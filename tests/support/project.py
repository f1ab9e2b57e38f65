"""Copy of this project in its own folder, with a task so small that the whole graph takes a minute."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from ruamel.yaml import YAML

from vqbet import environment

ROOT = Path(__file__).resolve().parents[2]

# Values that make the shipped BlockPush small enough for a test; the floor is low, since so little training scores low.
TINY: Mapping[str, Mapping[str, object]] = {
    "demos": {"episodes": 120},
    "tokenizer": {"steps": 400, "batch": 256, "health": {"max_mean_error": 0.5, "max_p99_error": 2.0, "min_used": 0.3}},
    "prior": {"steps": 600, "batch": 256, "width": 48, "depth": 2, "head_hidden": 128, "warmup": 20, "ema": 0.95},
    "evaluate": {"episodes": 24, "videos": 1},
    "gate": {"floor": 0.0, "min_modes": 0, "baselines": ["noop"], "looks": [24, 48]},
}


class Project:
    """Copy of the project: a git repository with its own .vqbet and cache, and the packages of this environment."""

    def __init__(self, root: Path, of: Path | None = None) -> None:
        """A new project at `root`; or what another one has become."""
        self.root = root
        if of:
            shutil.copytree(of, root, symlinks=True)
            return
        files = self._git(ROOT, "ls-files", "-co", "--exclude-standard", "-z").split("\0")
        for name in filter(None, files):
            if (ROOT / name).is_file():
                target = root / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes((ROOT / name).read_bytes())
                target.chmod((ROOT / name).stat().st_mode)
        for name in ("data.dvc", "dvc.lock"):
            (root / name).unlink(missing_ok=True)
        (root / ".venv").symlink_to(Path(sys.prefix))
        self._git(root, "init", "--quiet")

    def small(self, task: str = "blockpush", sections: Mapping[str, Mapping[str, object]] = TINY) -> None:
        """Make `task` the only task of the graph, with the small values of `sections`."""
        self.edit(lambda params: params.update(tasks=[task]))
        for section, values in sections.items():
            self.edit(lambda params, section=section, values=values: params[task][section].update(values))

    def edit(self, change: object, name: str = "params.yaml") -> None:
        """Change a YAML file, by default params.yaml, with a function that edits its content."""
        yaml = YAML()
        path = self.root / name
        content = yaml.load(path.read_text(encoding="utf-8"))
        change(content)  # type: ignore[operator]
        with path.open("w", encoding="utf-8") as file:
            yaml.dump(content, file)

    def commit(self, message: str = "project") -> None:
        self._git(self.root, "add", "-A")
        self._git(self.root, "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", message)

    def git(self, *argv: str) -> str:
        return self._git(self.root, *argv).strip()

    def run(self, *argv: str, check: bool = True, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m ...` in the project, without network traffic and without the caller's project settings."""
        done = subprocess.run(
            [sys.executable, "-m", *argv],
            cwd=self.root,
            env=self.environment(**extra),
            capture_output=True,
            text=True,
            timeout=840,  # hangs; a slow machine that is busy takes 240 s for the demo
        )
        return self._checked(done) if check else done

    def here(self, *argv: str, check: bool = True, **extra: str) -> subprocess.CompletedProcess[str]:
        """`vqbet ...` in the project, as `run` does it, but in this process, with this process's code."""
        from vqbet.__main__ import main

        told, complained, before = io.StringIO(), io.StringIO(), Path.cwd()
        inside = {**self.environment(**extra), "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        with (
            patch.dict(os.environ, inside),
            patch.object(sys, "argv", ["vqbet", *argv]),
            redirect_stdout(told),
            redirect_stderr(complained),
        ):
            os.chdir(self.root)
            try:
                code = main()
            except SystemExit as end:
                code = int(end.code or 0)
            finally:
                os.chdir(before)
        done = subprocess.CompletedProcess(argv, code, told.getvalue(), complained.getvalue())
        return self._checked(done) if check else done

    def environment(self, **extra: str) -> dict[str, str]:
        own = {**environment.SILENCE, **environment.embedded(self.root), "PYTHONPATH": str(self.root)}
        own |= {"OMP_NUM_THREADS": "1", **extra}  # tests share the cores
        return {**{key: value for key, value in os.environ.items() if key not in own}, **own}

    @staticmethod
    def _checked(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
        if done.returncode:
            raise AssertionError(
                f"{done.args}: exit code {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            )
        return done

    @staticmethod
    def _git(folder: Path, *argv: str) -> str:
        return subprocess.run(["git", "-C", folder, *argv], check=True, capture_output=True, text=True).stdout
