"""People with keys, and a git project whose committed trust file names them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from vqbet import signing
from vqbet.signing import Holder, Key, Trust

ROOT = Path(__file__).resolve().parent.parent.parent
NAMED = ("-c", "user.name=t", "-c", "user.email=t@localhost")


def repository(root: Path, *, publish: str = "none") -> Path:
    """Make a git repository with one commit of params.yaml, whose tasks publish to `publish`."""
    root.mkdir(parents=True, exist_ok=True)
    params = (ROOT / "params.yaml").read_text(encoding="utf-8").partition("\npusht:")[0]  # the first task only
    (root / "params.yaml").write_text(params.replace("publish: none", f"publish: {publish}"), encoding="utf-8")
    (root / ".gitignore").write_text(".vqbet/\n")
    git(root, "init", "--quiet")
    git(root, "config", "user.name", "t")
    git(root, "config", "user.email", "t@localhost")
    commit(root)
    return root


def git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def commit(root: Path) -> None:
    git(root, "add", "-A")
    git(root, *NAMED, "commit", "-qm", "as it is", "--allow-empty")


def person(root: Path, name: str, *roles: str, folder: Path | None = None) -> Path:
    """Return the file of a new key. With `roles`, its holder is added to the working copy's trust file."""
    path = (folder or root.parent) / f"{name}.pem"
    key = signing.make(path)
    if roles:
        trusted(root, name, key, *roles)
    return path


def trusted(root: Path, name: str, key: Key, *roles: str) -> None:
    before = signing.draft(root)
    holder = Holder.model_validate({"name": name, "key": key.id, "public_key": key.public, "roles": list(roles)})
    signing.write(root, Trust("", {**before.holders, key.id: holder}, before.pins))
