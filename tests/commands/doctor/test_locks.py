"""Every distribution is pinned with a hash, and nothing is installed without one."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from vqbet.commands.doctor import locks
from vqbet.commands.doctor.locks import LockEntry
from vqbet.contract import SupplyError

ROOT = Path(__file__).parents[3]


def test_every_entry_of_every_lock_has_a_hash() -> None:
    pins = locks.read(ROOT)
    assert locks.without_hash(pins) == []
    assert {"torch", "uv", "numpy", "triton"} <= {pin.name for pin in pins}
    lines = [line for name in locks.ALL for line in (ROOT / name).read_text().splitlines()]
    assert not [line for line in lines if line and not re.match(r"[a-z0-9]|    --hash=sha256:[0-9a-f]{64}", line)]


def test_all_kinds_of_torch_are_of_the_version_that_the_project_asks_for() -> None:
    wanted = re.search(r'"torch==([^"]+)"', (ROOT / "pyproject.toml").read_text())
    assert wanted is not None
    (index,), (cpu,) = locks.read(ROOT, [locks.TORCH]), locks.read(ROOT, [locks.CPU])
    assert (index.version, cpu.version) == (wanted[1], f"{wanted[1]}+cpu")


def test_setup_installs_nothing_without_hashes() -> None:
    script = (ROOT / "infra" / "setup" / "setup.sh").read_text().replace("\\\n", " ").replace("\n         --", " --")
    code = [line for line in script.splitlines() if not line.lstrip().startswith("#")]
    for line in [line for line in code if "pip install" in line and "--dry-run" not in line]:
        assert "--require-hashes" in line
        assert "--no-deps" in line
        assert "-m pip" in line or "--build-constraints requirements.lock" in line
    for line in [line for line in code if '"${install[@]}"' in line]:
        assert re.search(r"-r \$?[a-z/]*[\w.-]+\.lock", line), line
    assert "$here/*.lock" in next(line for line in code if line.startswith("stamp="))


def test_uv_refuses_a_wheel_with_another_hash(tmp_path: Path) -> None:
    """And takes the right one. No index is asked, nothing is built."""
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    info = "tiny-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")

    def installed(digest: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "tiny.lock").write_text(f"tiny==1.0 \\\n    --hash=sha256:{digest}\n")
        options = ["--no-index", "--find-links", str(tmp_path), "--no-deps", "--require-hashes", "--no-cache"]
        target = ["--target", str(tmp_path / "site"), "--python", sys.executable, "-r", str(tmp_path / "tiny.lock")]
        command = [sys.executable, "-m", "uv", "pip", "install", *options, *target]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    refused = installed("0" * 64)
    assert refused.returncode != 0
    assert "Hash mismatch" in refused.stderr
    assert not (tmp_path / "site" / "tiny.py").exists()
    taken = installed(hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert taken.returncode == 0, taken.stderr
    assert (tmp_path / "site" / "tiny.py").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("numpy>=2\n", "one exact version"),
        ("numpy==2.*\n", "one exact version"),
        ("numpy\n", "<name>==<version>"),
        ("-r other.txt\n", "<name>==<version>"),
        ("numpy @ file:///tmp/numpy.whl\n", "<name>==<version>"),
        (b"\xff\xfe", "UnicodeDecodeError"),
    ],
)
def test_a_broken_lock_is_a_sentence(tmp_path: Path, text: str | bytes, said: str) -> None:
    (tmp_path / "some.lock").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SupplyError, match=re.escape(said)):
        locks.read(tmp_path, ["some.lock"])
    with pytest.raises(SupplyError, match="make lock"):
        locks.read(tmp_path, ["none.lock"])


def test_an_entry_without_hash_is_named(tmp_path: Path) -> None:
    (tmp_path / "some.lock").write_text(f"good==1 \\\n    --hash=sha256:{'a' * 64}\nbare==1\nmd==1 --hash=md5:aa\n")
    assert locks.without_hash(locks.read(tmp_path, ["some.lock"])) == ["bare in some.lock", "md in some.lock"]


def test_what_is_installed_is_compared_with_what_is_locked() -> None:
    def pin(name: str, version: str, here: bool = True) -> LockEntry:
        return LockEntry(name, version, (), "some.lock", here)

    numpy, torch = locks.installed("numpy"), locks.installed("torch").split("+")[0]
    assert locks.differences([pin("numpy", numpy), pin("torch", torch), pin("no-such", "1", here=False)]) == []
    assert locks.differences([pin("numpy", "0.1"), pin("no-such-thing", "1")]) == [
        f"numpy is {numpy}, locked is 0.1",
        "no-such-thing 1 is missing",
    ]


def test_markers_decide_what_is_for_this_machine(tmp_path: Path) -> None:
    (tmp_path / "some.lock").write_text("a==1 ; sys_platform == 'plan9'\nb==1 ; python_full_version > '3'\n")
    assert [pin.here for pin in locks.read(tmp_path, ["some.lock"])] == [False, True]


def test_the_scripts_are_sound() -> None:
    bash = shutil.which("bash")
    assert bash is not None
    for script in ("infra/setup/setup.sh", "infra/setup/project.sh", "infra/setup/lock.sh", ".ci/run"):
        assert subprocess.run([bash, "-n", str(ROOT / script)], capture_output=True).stderr == b""
