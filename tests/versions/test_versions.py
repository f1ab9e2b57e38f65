"""DVC in a repository of its own: versions, pushes, audits with planted damage, interrupts, single stages."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import EndpointConnectionError

from tests.support.waiting import LONG_S, until
from vqbet import versions
from vqbet.contract import PipelineError
from vqbet.versions import process, strangers, transfer

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def project(folder: Path) -> Path:
    """A new repository with this project's DVC settings and three small files in data/."""
    folder.mkdir(parents=True)
    git(folder, "init", "--quiet")
    (folder / ".dvc").mkdir()
    for name in (".dvc/config", ".dvc/.gitignore", ".dvc/plots.html", ".dvcignore", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "data" / "tiny.zarr" / "c").mkdir(parents=True)
    for index in range(3):
        (folder / "data" / "tiny.zarr" / "c" / str(index)).write_bytes(bytes([index]) * (1000 + index))
    return folder


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture(autouse=True)
def private(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_SITE_CACHE_DIR", raising=False)  # what a plain `dvc` sees


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose data/ is versioned and pushed, by a user whose home is "home" beside it; tests copy it."""
    folder = tmp_path_factory.mktemp("pushed")
    (folder / "home").mkdir()
    root = project(folder / "a project")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
            patch.setenv(name, str(folder / "home"))
        patch.delenv("DVC_SITE_CACHE_DIR", raising=False)
        assert versions.add(root).changed
        versions.push(root)
    return root


@pytest.fixture
def root(pushed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pushed, tmp_path / "a project", symlinks=True)


def stored(root: Path, file: str) -> Path:
    """The remote's object of a file in data/."""
    oid = hashlib.md5((root / "data" / file).read_bytes()).hexdigest()
    return root / ".vqbet" / "remote" / "files" / "md5" / oid[:2] / oid[2:]


def manifest(root: Path) -> Path:
    oid = versions.data_version(root)
    return root / ".vqbet" / "remote" / "files" / "md5" / oid[:2] / oid[2:]


def overwrite(path: Path, content: bytes | bytearray) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


class TestVersion:
    def test_add_says_what_there_is_and_whether_it_is_new(self, root: Path) -> None:
        same = versions.add(root)
        assert (same.files, same.size, same.changed) == (3, 3003, False)
        assert same.md5.endswith(".dir")
        assert versions.data_version(root) == same.md5

    def test_git_is_left_as_it_was(self, root: Path) -> None:
        assert (root / ".gitignore").read_text() == (ROOT / ".gitignore").read_text()
        assert git(root, "status", "--short").split() == [
            "??",
            ".dvc/",
            "??",
            ".dvcignore",
            "??",
            ".gitignore",
            "??",
            "data.dvc",
        ]

    def test_nothing_to_version(self, tmp_path: Path) -> None:
        root = project(tmp_path / "p")
        shutil.rmtree(root / "data")
        with pytest.raises(PipelineError, match="expected demonstrations to version"):
            versions.add(root)
        for act in (versions.push, versions.audit, versions.data_version):
            with pytest.raises(PipelineError, match=r"data\.dvc: missing: data/ has no version yet"):
                act(root)

    @pytest.mark.parametrize(
        "content", ["", "outs: []", "outs:\n- path: data", "{", "outs:\n- {md5: abc, nfiles: 1, size: 1}"]
    )
    def test_a_pointer_that_is_none(self, root: Path, content: str) -> None:
        (root / "data.dvc").write_text(content)
        with pytest.raises(PipelineError, match=r"data\.dvc: expected .*restore it from git"):
            versions.data_version(root)

    def test_no_repository(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "x").write_text("x")
        with pytest.raises(PipelineError, match=r"dvc add data in .*DVC"):
            versions.add(tmp_path)

    def test_commit(self, tmp_path: Path) -> None:
        assert versions.git_commit(tmp_path) == ""
        root = project(tmp_path / "p")
        assert versions.git_commit(root) == ""
        git(root, "add", ".")
        git(root, "commit", "--quiet", "--message", "first")
        commit = git(root, "rev-parse", "HEAD").strip()
        assert versions.git_commit(root) == commit
        assert versions.as_committed(root, ".gitignore")
        assert versions.as_committed(root, "dvc.lock") is None
        (root / ".gitignore").write_text("other\n")
        assert versions.git_commit(root) == f"{commit}-dirty"
        assert versions.as_committed(root, ".gitignore") is False
        (root / ".gitignore").unlink()
        assert versions.as_committed(root, ".gitignore") is False


class TestAudit:
    FILE = "tiny.zarr/c/1"

    def test_whole(self, root: Path) -> None:
        assert versions.audit(root) == versions.Audit(3, 3003)

    def test_missing_object(self, root: Path) -> None:
        stored(root, self.FILE).unlink()
        with pytest.raises(
            PipelineError, match=r"1 of 3 files: .*\(tiny\.zarr/c/1\): missing\. Delete .*\.dir .*fresh"
        ):
            versions.audit(root)

    def test_truncated_object(self, root: Path) -> None:
        overwrite(stored(root, self.FILE), b"\x01" * 500)
        with pytest.raises(PipelineError, match=r"\(tiny\.zarr/c/1\): 500 bytes, expected 1001"):
            versions.audit(root)

    def test_truncated_object_seen_from_a_clone_without_data(self, root: Path) -> None:
        overwrite(stored(root, self.FILE), b"\x01" * 500)
        shutil.rmtree(root / "data")
        shutil.rmtree(root / ".dvc" / "cache")
        with pytest.raises(PipelineError, match=r"2502 bytes, expected 3003"):
            versions.audit(root)

    @pytest.mark.parametrize("fault", ["missing", "content changed"])
    def test_manifest(self, root: Path, fault: str) -> None:
        if fault == "missing":
            manifest(root).unlink()
        else:
            overwrite(manifest(root), json.dumps(json.loads(manifest(root).read_text())[:2]).encode())
        with pytest.raises(PipelineError, match=rf"\(the manifest\): {fault}"):
            versions.audit(root)

    def test_no_remote_at_all(self, root: Path) -> None:
        (root / ".dvc" / "config").write_text("[core]\n    site_cache_dir = .vqbet/dvc-site\n")
        with pytest.raises(PipelineError, match=r"cannot be audited: .*no remote specified"):
            versions.audit(root)

    def test_a_bucket_out_of_reach(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def unreachable(*_: object) -> bytes:
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1:9")

        monkeypatch.setattr("vqbet.versions.objects.Stores.read", unreachable)
        with pytest.raises(PipelineError, match=r"cannot be audited: Could not connect .*check `dvc remote list`"):
            versions.audit(root)

    def test_dvc_itself_sees_no_damage(self, root: Path) -> None:
        """Why there is an audit: after a push with a shared site cache, DVC goes on calling the remote complete."""
        versions.dvc(root, "push", "data.dvc")
        stored(root, self.FILE).unlink()
        assert "up to date" in versions.dvc(root, "push", "data.dvc")
        with pytest.raises(PipelineError, match="missing"):
            versions.audit(root)


class TestRestore:
    """The fixture's version, after data/ has moved on to another one."""

    @pytest.fixture(scope="class")
    def later(self, pushed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        root = shutil.copytree(pushed, tmp_path_factory.mktemp("later") / "a project", symlinks=True)
        store = root / "data" / "tiny.zarr" / "c"
        (root / "data" / "other.zarr").mkdir()
        (root / "data" / "other.zarr" / "0").write_bytes(b"another task")
        versions.add(root)
        versions.push(root)
        (root / "past").write_text(versions.data_version(root))
        overwrite(store / "1", b"changed")
        (store / "9").write_bytes(b"added")
        (store / "0").unlink()
        versions.add(root)
        return root

    @pytest.fixture
    def root(self, later: Path, tmp_path: Path) -> Path:
        return shutil.copytree(later, tmp_path / "a project", symlinks=True)

    @pytest.fixture
    def past(self, root: Path) -> tuple[str, dict[str, bytes]]:
        return (root / "past").read_text(), {f"c/{index}": bytes([index]) * (1000 + index) for index in range(3)}

    def restored(self, root: Path, md5: str) -> dict[str, bytes]:
        target = versions.restore(root, md5, "tiny", root / ".vqbet" / "past")
        found = {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}
        shutil.rmtree(target)
        assert not list((root / ".vqbet").glob(".past.*"))
        return found

    def object(self, root: Path, content: bytes, *, cached: bool = False) -> Path:
        oid = hashlib.md5(content).hexdigest()
        home = root / ".dvc" / "cache" if cached else root / ".vqbet" / "remote"
        return home / "files" / "md5" / oid[:2] / oid[2:]

    def test_byte_for_byte_from_the_remote_without_a_cache(self, root: Path, past: tuple[str, dict]) -> None:
        shutil.rmtree(root / ".dvc" / "cache")
        assert self.restored(root, past[0]) == past[1]
        assert (root / "data" / "tiny.zarr" / "c" / "1").read_bytes() == b"changed"

    @pytest.mark.parametrize("fault", ["gone", "no remote"])
    def test_from_the_cache_without_the_remote(self, root: Path, past: tuple[str, dict], fault: str) -> None:
        shutil.rmtree(root / ".vqbet" / "remote")
        if fault == "no remote":
            (root / ".dvc" / "config").write_text("[core]\n    site_cache_dir = .vqbet/dvc-site\n")
        assert self.restored(root, past[0]) == past[1]

    def test_one_flipped_bit_in_the_remote_is_refused(self, root: Path, past: tuple[str, dict]) -> None:
        shutil.rmtree(root / ".dvc" / "cache")
        path = self.object(root, past[1]["c/2"])
        content = bytearray(path.read_bytes())
        content[500] ^= 8
        overwrite(path, content)
        with pytest.raises(PipelineError, match=rf"{past[0]}: tiny\.zarr/c/2: the remote's .* is damaged, .*md5"):
            self.restored(root, past[0])
        assert not (root / ".vqbet" / "past").exists()

    def test_a_damaged_cache_is_passed_over(self, root: Path, past: tuple[str, dict]) -> None:
        overwrite(self.object(root, past[1]["c/2"], cached=True), b"rotten")
        assert self.restored(root, past[0]) == past[1]

    def test_a_changed_manifest_is_refused(self, root: Path, past: tuple[str, dict]) -> None:
        shutil.rmtree(root / ".dvc" / "cache")
        path = root / ".vqbet" / "remote" / "files" / "md5" / past[0][:2] / past[0][2:]
        overwrite(path, json.dumps(json.loads(path.read_text())[:2]).encode())
        with pytest.raises(PipelineError, match=r"its manifest: the remote's object .* is damaged"):
            self.restored(root, past[0])

    def test_a_version_that_is_nowhere(self, root: Path) -> None:
        with pytest.raises(PipelineError, match=r"data version 0{32}\.dir: its manifest is neither .* nor .*dvc push"):
            self.restored(root, "0" * 32 + ".dir")
        with pytest.raises(PipelineError, match=r"ending in \.dir, got 'd1'"):
            self.restored(root, "d1")

    def test_a_file_that_is_nowhere(self, root: Path, past: tuple[str, dict]) -> None:
        for cached in (True, False):
            self.object(root, past[1]["c/2"], cached=cached).unlink()
        with pytest.raises(PipelineError, match=r"tiny\.zarr/c/2 is neither in the local cache .* nor in the remote"):
            self.restored(root, past[0])

    def test_no_remote_and_no_cache(self, root: Path, past: tuple[str, dict]) -> None:
        shutil.rmtree(root / ".dvc" / "cache")
        (root / ".dvc" / "config").write_text("[core]\n    site_cache_dir = .vqbet/dvc-site\n")
        with pytest.raises(PipelineError, match=rf"data version {past[0]} cannot be restored: .*no remote specified"):
            self.restored(root, past[0])

    def test_another_task_and_a_folder_in_use(self, root: Path, past: tuple[str, dict]) -> None:
        with pytest.raises(PipelineError, match=r"holds no sofa\.zarr, it holds other\.zarr, tiny\.zarr"):
            versions.restore(root, past[0], "sofa", root / "new")
        with pytest.raises(PipelineError, match="expected a new folder"):
            versions.restore(root, past[0], "tiny", root / "data")

    def test_a_path_that_leads_out_is_refused(self, root: Path) -> None:
        content = b"gotcha"
        listing = json.dumps([{"md5": hashlib.md5(content).hexdigest(), "relpath": "tiny.zarr/../../escaped"}]).encode()
        for blob in (content, listing):
            path = self.object(root, blob)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(blob)
        md5 = hashlib.md5(listing).hexdigest() + ".dir"
        manifest = self.object(root, listing)
        manifest.rename(f"{manifest}.dir")
        with pytest.raises(PipelineError, match="leads out of the store"):
            self.restored(root, md5)
        assert not list(root.rglob("escaped"))


class TestOutside:
    def test_nothing_is_written_outside_and_push_leaves_no_cache(self, pushed: Path) -> None:
        assert list((pushed.parent / "home").iterdir()) == []
        assert sorted(path.name for path in pushed.parent.iterdir()) == ["a project", "home"]
        assert sorted(path.name for path in (pushed / ".vqbet").iterdir()) == ["dvc-site", "remote"]

    def test_the_caches_of_a_push_are_private(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = []

        def look(_: Path, *arguments: str, environment: Any = None) -> str:
            folder = Path(environment["DVC_SITE_CACHE_DIR"])
            seen.append((folder, stat.S_IMODE(folder.stat().st_mode), list(folder.iterdir())))
            return ""

        monkeypatch.setattr(transfer, "dvc", look)
        versions.push(root)
        versions.push(root)
        (first, mode, content), (second, _, _) = seen
        assert (mode, content) == (0o700, [])
        assert first != second
        assert first.parent == root / ".vqbet"


def test_plots_need_no_network(root: Path) -> None:
    """The page draws with a script of its own; DVC's usual one loads a library from a public server."""
    (root / "curve.csv").write_text("step,loss\n0,1.0\n1,0.5\n")
    (root / "dvc.yaml").write_text("plots: [{loss: {x: step, y: {curve.csv: loss}}}]")
    versions.dvc(root, "plots", "show")
    page = (root / "dvc_plots" / "index.html").read_text()
    assert "vegaEmbed('#loss', spec)" in page
    assert '"loss": "0.5"' in page
    assert "function vegaEmbed(" in page
    assert "src=" not in page
    assert "href=" not in page


STAGES = """
stages:
  quick: {cmd: "python -c \\"open('quick.txt', 'w').write(open('in.txt').read())\\"", deps: [in.txt], outs: [quick.txt]}
  bad: {cmd: "echo what went wrong >&2; exit 3"}
  killed: {cmd: "kill -9 $$"}
  slow: {cmd: "echo started > started; sleep 47", outs: [started]}
"""


@pytest.fixture
def graph(root: Path) -> Path:
    (root / "dvc.yaml").write_text(STAGES)
    (root / "in.txt").write_text("one")
    return root


class TestRepro:
    def test_whether_it_ran(self, graph: Path) -> None:
        assert versions.repro(graph, "quick")
        assert (graph / "quick.txt").read_text() == "one"
        assert not versions.repro(graph, "quick")

    def test_failures_in_dvcs_and_the_stages_words(self, graph: Path) -> None:
        with pytest.raises(PipelineError, match=r"dvc repro bad in .*what went wrong.*exited with 3") as caught:
            versions.repro(graph, "bad")
        assert not isinstance(caught.value, versions.Killed)

    def test_a_killed_stage_is_told_apart(self, graph: Path) -> None:
        with pytest.raises(versions.Killed, match=r"dvc repro killed in .*was killed .*run it again"):
            versions.repro(graph, "killed")

    def test_dvc_killed_takes_its_stage_along(self, graph: Path) -> None:
        def kill() -> None:
            dvc_of(started(graph)).kill()

        threading.Thread(target=kill, daemon=True).start()
        with pytest.raises(versions.Killed):
            versions.repro(graph, "slow")
        until(lambda: sleepers(graph) == [])  # the kernel tells it; it needs its turn to end

    def test_interrupt_leaves_no_process(self, graph: Path) -> None:
        # A shell tells what it runs in the background to ignore interrupts, and tests may run there.
        heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        code = f"from pathlib import Path; from vqbet import versions; versions.repro(Path({str(graph)!r}), 'slow')"
        ours = subprocess.Popen([sys.executable, "-c", heard + code], stderr=subprocess.PIPE, cwd=ROOT)
        started(graph)
        ours.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in ours.communicate(timeout=LONG_S)[1]
        until(lambda: sleepers(graph) == [])

    def test_a_repository_that_stays_busy(self, graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(process, "BUSY_S", 0.0)
        holder = subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro", "slow"],
            cwd=graph,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        started(graph)
        with pytest.raises(PipelineError, match=r"dvc repro slow in .*another DVC command has held the repository"):
            versions.repro(graph, "slow")
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()

    @pytest.mark.parametrize(
        "said", ["ERROR: Unable to acquire lock. Most", "'in.txt' is busy, it is being blocked by:"]
    )
    def test_a_busy_repository_is_waited_for(self, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        answers = [(1, said), (255, said), (0, "")]
        monkeypatch.setattr(process, "_execute", lambda *_: answers.pop(0))
        monkeypatch.setattr(process.time, "sleep", lambda _: None)
        assert versions.dvc(tmp_path, "push") == ""
        assert answers == []

    def test_a_number_that_another_program_has_since_holds_nothing(self, graph: Path) -> None:
        """A planted lock of a killed `dvc repro`, whose number is now a shell's; DVC alone would wait for ever."""
        other = subprocess.Popen(["sleep", "600"])
        try:
            path = locked(graph, other.pid)
            assert versions.repro(graph, "quick")
            assert str(other.pid) not in path.read_text()
            assert (graph / "quick.txt").exists()
        finally:
            other.kill()
            other.wait()

    @pytest.mark.parametrize("age_s", [-3600, 3600])
    def test_who_began_after_the_lock_was_written_has_not_made_it(self, graph: Path, age_s: int) -> None:
        """A Python may be DVC: it keeps its entry, unless it began after the file was last written."""
        python = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        try:
            path = locked(graph, python.pid)
            os.utime(path, (time.time() + age_s,) * 2)
            before = path.read_text()
            assert strangers.forget(graph, [python.pid]) is (age_s < 0)
            assert (path.read_text() == before) is (age_s > 0)
        finally:
            python.communicate(b"\n")

    @pytest.mark.parametrize("content", ["", "[]", "{", '{"write": 3}', '{"write": {"a": {}}}', '{"read": {"a": 5}}'])
    def test_a_lock_that_is_none_is_left_alone(self, graph: Path, content: str) -> None:
        path = locked(graph, 1)
        path.write_text(content)
        assert strangers.forget(graph, [2**22 + 1]) is False
        assert path.read_text() == content

    def test_dvc_names_its_blockers(self) -> None:
        said = "'in.txt' is busy, it is being blocked by:\n  (PID 41): dvc repro\n  (PID 42): dvc push\n"
        assert strangers.named(said) == [41, 42]
        assert strangers.named("stage failed (PID 41)") == []


def locked(root: Path, pid: int) -> Path:
    """DVC's lock on files, as a `dvc repro` of this number left it; gives its path."""
    entry = {"pid": pid, "cmd": "dvc repro quick"}
    path = root / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"write": {str(root / "quick.txt"): entry}, "read": {str(root / "in.txt"): [entry]}}))
    return path


def sleepers(root: Path) -> list[psutil.Process]:
    """The processes of stage `slow` of this repository."""
    found = []
    for each in psutil.process_iter():
        try:
            if "sleep" in each.name() and "47" in each.cmdline() and Path(each.cwd()) == root:
                found.append(each)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def started(root: Path) -> psutil.Process:
    """Wait until stage `slow` runs; gives its process."""
    until(lambda: (root / "started").exists() and sleepers(root))
    return sleepers(root)[0]


def dvc_of(stage: psutil.Process) -> psutil.Process:
    return next(parent for parent in stage.parents() if "reproduce.py" in " ".join(parent.cmdline()))
