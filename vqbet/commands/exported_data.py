"""A task's demonstrations, written in a foreign format."""

from __future__ import annotations

from pathlib import Path

from vqbet.contract import ConfigError
from vqbet.demos import store
from vqbet.demos.exporters import lerobot
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

VERSIONS = ("v3.0", "v2.1")


def run(root: Path, task: str, folder: Path, version: str, watch: Watch) -> dict[str, str]:
    """Write the store of a task as a LeRobot set, and return a table of it. Raises StoreError, ConfigError."""
    if version not in VERSIONS:
        raise ConfigError(f"--version {version}: expected {' or '.join(VERSIONS)}")
    demos = store.read(Paths(root, task).store)
    with watch.bar(f"export {task}") as advance:
        lerobot.write(
            folder,
            demos,
            "v3.0" if version == "v3.0" else "v2.1",
            lambda done, total: advance(done, total, {}),
        )
    return {
        "demonstrations": f"{len(demos.episode_ends)} episodes, {len(demos.action)} steps, {demos.digest[:12]}",
        "cameras": ", ".join(demos.cameras) or "none",
        "format": f"LeRobot {version}",
        "folder": str(folder),
    }
