"""What a promotion rests on, lost and found again: a champion's files, a rehearsal, a verdict, a ledger."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.synthetic import synthetic
from vqbet import bundle, registry, versions
from vqbet.commands import audit, release
from vqbet.commands.audit import AuditFinding
from vqbet.contract import GateError, RegistryError
from vqbet.evaluation import evidence
from vqbet.files import canonical, manifest
from vqbet.files.manifest import Fingerprint
from vqbet.registry import connection
from vqbet.stages import kept
from vqbet.stages import verdicts as stage
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

ROOT = Path(__file__).resolve().parent.parent.parent
TASK = "synthetic"
SPEC = synthetic(2).spec


def made(folder: Path, number: float) -> str:
    """A bundle that nobody plays; gives its digest."""
    return bundle.write(
        folder,
        kind="vqbet",
        spec=SPEC,
        arguments={},
        components={
            "prior": {"weight": np.full(3, number, np.float32)},
            "tokenizer": {"codes": np.zeros(2, np.float32)},
        },
        provenance={"data": "d"},
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose champion was replaced in artifacts/ by a newer bundle; DVC's cache has both."""
    root = tmp_path_factory.mktemp("kept") / "a project"
    (root / ".dvc").mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", root], check=True)
    for name in (".dvc/config", ".dvc/.gitignore", ".dvc/plots.html", ".dvcignore"):
        shutil.copy(ROOT / name, root / name)
    shipped = (ROOT / "params.yaml").read_text(encoding="utf-8").partition("\npusht:")[0]
    defaults, _, section = shipped.replace("tasks: [blockpush]", f"tasks: [{TASK}]").partition("\nblockpush:\n")
    text = f"{defaults}\n{TASK}:\n{section}\nanother:\n{section}\n"
    (root / "params.yaml").write_text(text, encoding="utf-8")
    policy = Paths(root, TASK).policy
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / '.vqbet' / 'mlflow.db'}")
        digest = made(policy, 1.0)
        versions.dvc(root, "add", policy.relative_to(root).as_posix())
        number = registry.register(TASK, policy, tags={"digest": digest}, spec=SPEC)
        registry.force(TASK, number, who="a test", why="a test")
        shutil.rmtree(policy)
        made(policy, 2.0)
        versions.dvc(root, "add", policy.relative_to(root).as_posix())
        yield root


@pytest.fixture
def root(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = shutil.copytree(template, tmp_path / "a copy", symlinks=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / '.vqbet' / 'mlflow.db'}")
    return root


def audited(root: Path, *, repair: bool = False) -> dict[str, AuditFinding]:
    return {one.what: one for one in audit.run(root, TASK, Watch(), repair=repair)}


def lose(root: Path) -> None:
    shutil.rmtree(root / ".vqbet" / "mlartifacts")


class TestPutBack:
    @pytest.mark.slow
    def test_out_of_the_cache(self, root: Path) -> None:
        lose(root)
        wrong = audited(root)[f"{TASK}/1"]
        assert wrong.open
        assert "lost its files" in wrong.wrong
        mended = audited(root, repair=True)[f"{TASK}/1"].mended
        assert mended.startswith(
            "bundle.json, prior.safetensors, tokenizer.safetensors put back from DVC's cache, object "
        )
        assert not any(one.wrong for one in audited(root).values())
        assert release.unchanged(TASK, 1).digest == registry.resolve(f"{TASK}/1").digest

    def test_out_of_the_artefacts(self, root: Path) -> None:
        lose(root)
        shutil.rmtree(root / ".dvc" / "cache")
        policy = Paths(root, TASK).policy
        shutil.rmtree(policy)
        made(policy, 1.0)
        assert audited(root, repair=True)[f"{TASK}/1"].mended.endswith("put back from artifacts/synthetic/policy")
        assert not audited(root)[f"{TASK}/1"].wrong

    def test_a_changed_file_too(self, root: Path) -> None:
        (path,) = (root / ".vqbet" / "mlartifacts").rglob("prior.safetensors")
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        assert audited(root, repair=True)[f"{TASK}/1"].mended.startswith("prior.safetensors put back")
        assert not audited(root)[f"{TASK}/1"].wrong

    def test_only_bytes_of_the_digest_are_taken(self, root: Path) -> None:
        """A cache whose object says the right digest and holds other bytes."""
        lose(root)
        wanted = registry.resolve(f"{TASK}/1").digest
        for path in (root / ".dvc" / "cache" / "files").rglob("*"):
            if path.is_file() and not path.suffix and b"safetensors" not in path.read_bytes()[:1]:
                content = path.read_bytes()
                if not content.startswith(b"{\n"):
                    path.chmod(0o644)
                    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        found = audited(root, repair=True)[f"{TASK}/1"]
        assert found.open
        assert f"neither artifacts/synthetic/policy nor DVC's cache holds the bundle {wanted[:12]}" in found.wrong
        assert not list((root / ".vqbet").rglob("prior.safetensors"))

    def test_nowhere(self, root: Path) -> None:
        lose(root)
        shutil.rmtree(root / ".dvc" / "cache")
        found = audited(root, repair=True)[f"{TASK}/1"]
        assert found.open
        assert "dvc fetch --all-commits" in found.wrong

    def test_a_strange_cache_ends_nothing(self, root: Path) -> None:
        lose(root)
        cache = root / ".dvc" / "cache" / "files" / "md5" / "00"
        cache.mkdir(parents=True)
        entry = {"md5": "0" * 32, "relpath": "bundle.json"}
        for number, text in enumerate(("{", "[]", "[1]", json.dumps([{**entry, "relpath": "../bundle.json"}, entry]))):
            (cache / f"{number:030d}.dir").write_text(text)
        assert audited(root, repair=True)[f"{TASK}/1"].mended

    def test_the_champion_again_registered(self, root: Path) -> None:
        """`register` of the champion that is in artifacts/: it knows the digest, and looks at the bytes."""
        paths = Paths(root, TASK)
        shutil.rmtree(paths.policy)
        digest = made(paths.policy, 1.0)
        made(paths.tokenizer, 3.0)
        paths.gate.mkdir(parents=True)
        (paths.gate / "verdict.json").write_text(canonical.document({"champion": digest, "candidate": digest}))
        assert "put back" not in release.register(root, TASK)
        lose(root)
        told = release.register(root, TASK)
        assert (told["is"], told["put back"]) == (
            "the champion already",
            "bundle.json, prior.safetensors, tokenizer.safetensors",
        )
        assert not audited(root)[f"{TASK}/1"].wrong


class TestWithoutALedger:
    @pytest.mark.parametrize("alias", [True, False])
    def test_a_registry_with_a_champion_says_so(self, root: Path, alias: bool) -> None:
        (root / ".vqbet" / "ledger.db").unlink()
        if not alias:
            connection.client().delete_registered_model_alias(TASK, "champion")
        with pytest.raises(RegistryError, match=r"ledger\.db has no entry, but the registry has .*bring it here"):
            release.history(TASK)
        found = audited(root)
        assert found["ledger beside the registry"].open
        assert "has no entry, but the registry has" in found["ledger beside the registry"].wrong

    def test_a_task_without_a_champion_has_no_history(self, root: Path, tmp_path: Path) -> None:
        assert release.history("another") == []
        assert not [one.wrong for one in audit.run(root, "another", Watch(), repair=False) if one.wrong]

    def test_a_registry_that_was_never_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'none' / 'mlflow.db'}")
        assert release.history(TASK) == []
        assert not (tmp_path / "none" / "mlflow.db").exists()


class TestVerdict:
    @pytest.mark.parametrize("digest", [1.0, 2.0], ids=["the champion", "another"])
    def test_registering_without_one_is_a_sentence(self, root: Path, digest: float) -> None:
        paths = Paths(root, TASK)
        shutil.rmtree(paths.policy)
        made(paths.policy, digest)
        made(paths.tokenizer, 3.0)
        with pytest.raises(GateError, match=r"gate/verdict\.json: there is no verdict.*dvc repro gate@synthetic"):
            release.register(root, TASK)

    @pytest.mark.parametrize("text", ["{", "[]", "3", "NaN"])
    def test_what_is_not_one(self, root: Path, text: str) -> None:
        paths = Paths(root, TASK)
        paths.gate.mkdir(parents=True)
        (paths.gate / "verdict.json").write_text(text)
        with pytest.raises(GateError, match=r"gate/verdict\.json: "):
            stage.pack(root, TASK)


class TestRehearsal:
    def packed(self, root: Path, digest: str) -> Path:
        """Evidence as far as it is read here."""
        folder = Paths(root, TASK).verdicts / "new"
        folder.mkdir(parents=True)
        for name in (*evidence.NEEDED, "rehearsal.json"):
            (folder / name).write_text(canonical.document({"digest": digest}))
        listed = manifest.to_json(manifest.taken(folder, GateError, ""))
        (folder / "manifest.json").write_text(canonical.document({"version": 1, "files": listed}))
        named = folder.with_name(Fingerprint.of((folder / "manifest.json").read_bytes()).sha256)
        folder.rename(named)
        return named

    def test_out_of_the_evidence(self, root: Path) -> None:
        paths = Paths(root, TASK)
        policy = bundle.read(paths.policy)
        self.packed(root, "e" * 64)
        folder = self.packed(root, policy.digest)
        assert kept.rehearsal(paths, policy) == folder / "rehearsal.json"
        files = {"digest": policy.digest}
        paths.rehearsal(policy.digest).parent.mkdir(parents=True)
        paths.rehearsal(policy.digest).write_text(json.dumps(files))
        assert kept.rehearsal(paths, policy) == paths.rehearsal(policy.digest), "the gate's own comes first"

    def test_changed_evidence_is_not_taken_and_a_new_one_is_made(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from vqbet.serving import rehearsal

        paths = Paths(root, TASK)
        policy = bundle.read(paths.policy)
        folder = self.packed(root, policy.digest)
        (folder / "plan.json").write_text("{}")
        fresh = rehearsal.Rehearsal(policy.digest, "a machine", 3, 1.5)
        monkeypatch.setattr(rehearsal, "rehearse", lambda *_, **__: fresh)
        monkeypatch.setattr(kept.store, "read", lambda _: synthetic(2))
        path = kept.rehearsal(paths, policy)
        assert path == paths.rehearsal(policy.digest)
        assert json.loads(path.read_text()) == fresh.to_json()
