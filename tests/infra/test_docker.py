"""Tests of the Dockerfile, of what reaches a build, and of the script that installs from the locks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import infra
from tests.support.infra import INFRA, ROOT, BuildStage

DOCKERFILE = INFRA / "docker" / "Dockerfile"
TARGETS = ("robot", "serve", "servers", "sim", "train")
SECRETS = (".vqbet", ".env", ".git", "data", "artifacts", ".dvc/config.local", "infra/terraform/terraform.tfstate")


@pytest.fixture(scope="module")
def stages() -> dict[str, BuildStage]:
    return infra.dockerfile(DOCKERFILE.read_text("utf-8"))


def ignored(path: str) -> bool:
    """Return whether .dockerignore keeps a path out of a build: the last pattern that names it or a folder of it."""
    out = False
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern, inside = line.removeprefix("!"), not line.startswith("!")
        words = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{words}(/.*)?", path):
            out = inside
    return out


@pytest.mark.slow
def test_hadolint_has_nothing_to_say(checkers: Path) -> None:
    done = infra.run(checkers / "hadolint", DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.slow
def test_hadolint_sees_a_planted_fault(checkers: Path, tmp_path: Path) -> None:
    faulty = tmp_path / "Dockerfile"
    faulty.write_text(DOCKERFILE.read_text("utf-8").replace("WORKDIR /build", "WORKDIR build"))
    assert "DL3000" in infra.run(checkers / "hadolint", faulty).stdout


def test_the_targets_are_there_and_none_runs_as_root(stages: dict[str, BuildStage]) -> None:
    assert set(TARGETS) <= set(stages)
    for name in TARGETS:
        assert stages[name].of("USER") == ["1000"], name
        assert stages[name].lines[-1][0] in ("CMD", "ENTRYPOINT")


def test_packages_come_from_the_locks_alone(stages: dict[str, BuildStage]) -> None:
    installs = [
        line for stage in stages.values() for line in stage.of("RUN") if re.search(r"\b(pip|uv|install)\b", line)
    ]
    allowed = "|".join(
        (
            "apt-get update .*",
            "python3 -m venv /opt/tools .*--no-deps --require-hashes.*",
            "infra/docker/install.sh /opt/vqbet .*",
        )
    )
    assert len(installs) == 3 + len(TARGETS), "git, g++, the tools that read locks, and the packages of each image"
    assert all(re.fullmatch(allowed, line) for line in installs), installs


def test_every_copied_thing_exists_and_reaches_the_build(stages: dict[str, BuildStage]) -> None:
    for stage in stages.values():
        for line in stage.of("COPY"):
            words = [word for word in line.split() if not word.startswith("--")]
            if found := re.search(r"--from=(\S+)", line):
                assert found[1] in stages, line
                continue
            for source in words[:-1]:
                if source not in (".", "wheel[s]"):
                    assert (ROOT / source).exists(), line
                    assert not ignored(source), line
        assert stage.base in (*stages, "${BASE}")


def test_credentials_and_data_never_reach_a_build() -> None:
    assert all(ignored(path) for path in SECRETS)
    assert not ignored("vqbet/contract/errors.py")
    assert ignored("vqbet/__pycache__/x.pyc")


def test_no_file_of_infra_names_a_registry() -> None:
    files = [*(INFRA / "docker").iterdir(), INFRA / "compose.yaml", *(INFRA / "k8s").rglob("*.yaml")]
    for path in files:
        named = set(infra.HOST.findall(path.read_text("utf-8")))
        assert not {host for host in named if re.search("registry|docker|ghcr|quay|pypi|gcr", host)}, path


def test_every_target_asks_for_extras_that_exist(stages: dict[str, BuildStage]) -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    for name in TARGETS:
        (line,) = stages[f"{name}-packages"].of("RUN")
        for extra in re.findall(r"\[(\w+)\]", line):
            assert re.search(rf"^{extra} = \[", text, re.M), (name, extra)


def installed(folder: Path, *names: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the script of the images as a build does."""
    return subprocess.run(
        ["bash", "infra/docker/install.sh", str(folder), *names],
        cwd=root,
        env={**os.environ, "PYTHON": sys.executable, "UV_COMPILE_BYTECODE": "0"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the script reads, to be damaged."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("pyproject.toml", "requirements.lock", "infra/setup", "infra/docker"):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, target)
    return folder


@pytest.mark.slow
def test_a_robot_gets_its_packages_and_nothing_else(tmp_path: Path, checkers: Path) -> None:
    done = installed(tmp_path / "env", "[robot]")
    assert done.returncode == 0, done.stderr
    code = "import importlib.metadata as m, vqbet.serving.client; print(*sorted(d.name for d in m.distributions()))"
    python = subprocess.run(
        [tmp_path / "env" / "bin" / "python", "-c", code],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = ["jaxtyping", "msgpack", "numpy", "wadler-lindig", "websockets"]
    assert python.stdout.replace("_", "-").split() == expected


@pytest.mark.slow
def test_a_package_that_no_lock_has_is_refused(tmp_path: Path, checkers: Path) -> None:
    done = installed(tmp_path / "env", "iniconfig", "cowsay")
    assert done.returncode != 0
    assert "install: cowsay is in no lock; run: make lock" in done.stderr


@pytest.mark.slow
def test_other_bytes_than_those_of_the_lock_are_refused(tmp_path: Path, copy: Path, checkers: Path) -> None:
    lock = copy / "requirements.lock"
    entry = re.compile(r"^(wadler-lindig==[^\\]*\\\n)(?:    --hash=sha256:.*\n)+", re.M)
    text, count = entry.subn(rf"\1    --hash=sha256:{'0' * 64}\n", lock.read_text())
    assert count == 1
    lock.write_text(text)
    done = installed(tmp_path / "env", "wadler-lindig", root=copy)
    assert done.returncode != 0
    assert "Hash mismatch" in done.stderr


def test_without_a_builder_a_sentence_says_so(tmp_path: Path) -> None:
    for name in ("bash", "dirname"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    done = subprocess.run(
        [tmp_path / "bash", str(INFRA / "docker" / "images.sh")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    said = "images: nothing was built, since neither a docker engine nor buildah is here; install one of them\n"
    assert done.stdout == said
