"""Keys in files, the trust file as it counts, and who acts."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vqbet import signing
from vqbet.__main__ import app
from vqbet.signing import SigningError, identity, repository


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in git, with one commit."""
    folder = tmp_path / "a project"
    (folder / "infra").mkdir(parents=True)
    (folder / "params.yaml").write_text("tasks: []\n")
    (folder / ".gitignore").write_text("secret/\n")
    git(folder, "init", "--quiet")
    commit(folder)
    monkeypatch.setenv("VQBET_PROJECT", str(folder))
    return folder


def git(root: Path, *arguments: str) -> None:
    named = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    subprocess.run(["git", *named, *arguments], cwd=root, check=True, capture_output=True)


def commit(root: Path) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-qm", "as it is", "--allow-empty")


def write(root: Path, *names: str) -> None:
    keys = {name: signing.make(root.parent / f"{name}.pem") for name in names}
    holders = {
        key.id: signing.Holder(name=name, key=key.id, public_key=key.public, roles=["approve"])
        for name, key in keys.items()
    }
    signing.write(root, signing.Trust("", holders))


class TestKeys:
    def test_a_key_is_this_users_alone_and_signs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "new" / "key.pem"
        made = signing.make(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        monkeypatch.setenv("VQBET_KEY", str(path))
        key = signing.configured()
        assert key is not None
        assert key == made
        public, signature = signing.parse(key.public), key.sign(b"content")
        assert signing.identify(public) == key.id
        assert signing.verified(public, signature, b"content")
        assert not signing.verified(public, signature, b"another content")
        assert not signing.verified(public, "no base64", b"content")
        assert "private" not in repr(key).lower()

    def test_a_key_is_not_overwritten(self, tmp_path: Path) -> None:
        signing.make(tmp_path / "key.pem")
        with pytest.raises(SigningError, match="is there already, and is not overwritten"):
            signing.make(tmp_path / "key.pem")

    def test_no_key_where_git_may_commit_it(self, root: Path) -> None:
        for place in (root / "key.pem", root / "new" / "key.pem"):
            with pytest.raises(SigningError, match="git work tree that does not ignore it"):
                signing.make(place)
            assert not place.exists()
        assert signing.make(root / "secret" / "key.pem")
        assert signing.make(root.parent / "key.pem")

    @pytest.mark.parametrize(
        ("content", "mode", "says"),
        [
            (None, 0o600, "cannot be read: No such file"),
            (b"", 0o600, "expected an Ed25519 key as PEM"),
            (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 0o600, "expected an Ed25519 key"),
            (b"x", 0o644, "mode 0644 lets others at the key; chmod 600"),
        ],
    )
    def test_a_file_that_is_no_key(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, mode: int, says: str
    ) -> None:
        path = tmp_path / "key.pem"
        if content is not None:
            path.write_bytes(content)
            path.chmod(mode)
        monkeypatch.setenv("VQBET_KEY", str(path))
        with pytest.raises(SigningError, match=says):
            signing.configured()

    def test_another_kind_of_key(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
        from cryptography.hazmat.primitives.serialization import (
            BestAvailableEncryption,
            Encoding,
            NoEncryption,
            PrivateFormat,
        )

        private, path = generate_private_key(SECP256R1()), tmp_path / "key.pem"
        monkeypatch.setenv("VQBET_KEY", str(path))
        for how in (NoEncryption(), BestAvailableEncryption(b"secret")):
            path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
            path.chmod(0o600)
            with pytest.raises(SigningError, match="expected an Ed25519 key"):
                signing.configured()


class TestTrust:
    def test_only_the_committed_file_counts(self, root: Path) -> None:
        assert signing.current() is None
        write(root, "ann")
        assert signing.current() is None
        assert "is not committed, so it does not count" in signing.note()
        commit(root)
        trust = signing.current()
        assert trust is not None
        assert [holder.name for holder in trust.holders.values()] == ["ann"]
        assert signing.note() == trust.hint == ""
        write(root, "eve")
        trust = signing.current()
        assert trust is not None
        assert [holder.name for holder in trust.holders.values()] == ["ann"]
        assert "differs from the committed one" in trust.hint
        (root / repository.FILE).unlink()
        assert signing.current() is not None

    def test_an_outer_git_points_nowhere_else(
        self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(root, "ann")
        commit(root)
        (tmp_path / "empty").mkdir()
        git(tmp_path / "empty", "init", "--quiet")
        monkeypatch.setenv("GIT_DIR", str(tmp_path / "empty" / ".git"))
        assert signing.current() is not None

    def test_without_git_the_file_counts_and_without_a_commit_nothing(self, tmp_path: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("VQBET_PROJECT", str(tmp_path))
            write(tmp_path, "ann")
            assert signing.current() is not None
            git(tmp_path, "init", "--quiet")
            assert signing.current() is None

    def test_a_silent_git_does_not_mean_that_nothing_is_committed(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(root, "ann")
        commit(root)
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(SigningError, match="git does not say what is committed: there is no git here"):
            signing.current()

    def test_a_file_outside(self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(root, "ann")
        monkeypatch.setenv("VQBET_TRUST", str(root / repository.FILE))
        assert signing.current() is not None
        monkeypatch.setenv("VQBET_TRUST", str(tmp_path / "nowhere.yaml"))
        with pytest.raises(SigningError, match="the trust file cannot be read"):
            signing.current()

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ("keys: [", "is no YAML"),
            ("[" * 5000, "is no YAML"),
            ("\xff", "is no YAML"),
            ("keys: 5", "keys: "),
            ("other: 1", "other: Extra inputs"),
            ("keys: [{name: ann, key: abc, public_key: x, roles: []}]", r"keys\.0\.key: "),
            ("keys: [{name: 'a, b', key: abc, public_key: x, roles: []}]", r"keys\.0\.name: "),
            (f"keys: [{{name: ann, key: {'a' * 64}, public_key: x, roles: [approve]}}]", "expected base64 of 32 bytes"),
            (f"keys: [{{name: ann, key: {'a' * 64}, public_key: {'A' * 43}=, roles: []}}]", "is not the sha256 of"),
            ("unsigned_until: {tiny: {seq: 0, hash: x}}", r"unsigned_until\.tiny\.seq: "),
        ],
    )
    def test_a_malformed_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, says: str) -> None:
        (tmp_path / "trust.yaml").write_bytes(content.encode("latin-1"))
        monkeypatch.setenv("VQBET_TRUST", str(tmp_path / "trust.yaml"))
        with pytest.raises(SigningError, match=says) as caught:
            signing.current()
        assert len(str(caught.value)) < 600

    def test_a_key_has_one_holder(self, root: Path) -> None:
        write(root, "ann")
        path = root / repository.FILE
        text = path.read_text()
        path.write_text(text.replace("keys:\n", "keys:\n" + text.split("keys:\n")[1].split("unsigned")[0]))
        with pytest.raises(SigningError, match="is named twice"):
            signing.draft(root)


class TestWho:
    def test_the_environment_says_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
            monkeypatch.setenv(name, "alice")
        assert signing.who() == pwd.getpwuid(os.getuid()).pw_name

    def test_a_user_without_a_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(identity.os, "getuid", lambda: 54321)
        assert signing.who() == "uid 54321"

    def test_the_trusted_keys_holder(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(root, "ann")
        monkeypatch.setenv("VQBET_KEY", str(root.parent / "ann.pem"))
        assert signing.who() == signing.user()
        commit(root)
        assert signing.who() == "ann"


def command(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


class TestCommands:
    def test_from_a_key_to_trust(self, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(root)
        path = tmp_path / "key.pem"
        assert f"export VQBET_KEY={path}" in command("keys", "make", str(path))
        with pytest.raises(SigningError, match="VQBET_KEY is not set"):
            command("keys", "show")
        monkeypatch.setenv("VQBET_KEY", str(path))
        assert "nothing: it is in no trust file" in command("keys", "show")
        assert "may   " in command("keys", "trust", "ann", "--role", "approve", "--role", "promote")
        assert "none: nothing that is written is signed" in command("keys", "list")
        commit(root)
        assert "approve, promote, as ann" in command("keys", "show")
        assert "approve, promote" in command("keys", "list")
        with pytest.raises(SigningError, match="is ann's already"):
            command("keys", "trust", "eve", "--role", "judge")
        with pytest.raises(SigningError, match="expected judge, approve, promote, serve, got 'king'"):
            command("keys", "trust", "ann", "--role", "king")
        other = signing.make(tmp_path / "other.pem")
        with pytest.raises(SigningError, match="name: expected letters"):
            command("keys", "trust", "bob, ann", "--role", "judge", "--public-key", other.public)
        command("keys", "trust", "bob", "--role", "judge", "--public-key", other.public)
        assert "differs from the committed one" in command("keys", "list")
