"""Package that provides tasks, in the form that pip installs: a module and a .dist-info folder."""

from __future__ import annotations

import importlib
from pathlib import Path


def installed(site: Path, name: str, module: str, source: str, **tasks: str) -> None:
    """Install `module` of the package `name` into the folder `site`. tasks: values of its entry points, by task."""
    (site / f"{module}.py").write_text(source, encoding="utf-8")
    about = site / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    rows = "".join(f"{task} = {value}\n" for task, value in tasks.items())
    (about / "entry_points.txt").write_text(f"[vqbet.tasks]\n{rows}", encoding="utf-8")
    importlib.invalidate_caches()
