"""Parameters of a task as every stage sees them: the task's own values merged with the defaults."""

from __future__ import annotations

import io
from pathlib import Path

from vqbet import config


def run(root: Path, task: str) -> str:
    """Return the task's section as YAML that is valid in params.yaml. Raises ConfigError as `config.task`."""
    from ruamel.yaml import YAML

    yaml, text = YAML(), io.StringIO()
    yaml.default_flow_style = False
    yaml.dump({task: config.task(root / "params.yaml", task).model_dump(mode="json", by_alias=True)}, text)
    return text.getvalue().rstrip("\n")


def tasks(root: Path) -> dict[str, str]:
    """Return every task of params.yaml and whether the graph builds it. Raises ConfigError as `config.tasks`."""
    path = root / "params.yaml"
    built = config.tasks(path)
    return {name: "built by `dvc repro`" if name in built else "not built" for name in config.sections(path)}
