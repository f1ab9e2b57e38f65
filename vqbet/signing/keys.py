"""Ed25519 keys in PEM files (PKCS8, mode 0600), and signatures with them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vqbet.contract import RegistryError
from vqbet.signing import repository

VARIABLE = "VQBET_KEY"
DEFAULT = Path("~/.config/vqbet/key.pem")
PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64
MAX_FILE_BYTES = 4096


class SigningError(RegistryError):
    """A key or the trust file is missing, invalid or unsafe."""


@dataclass(frozen=True, slots=True)
class Key:
    """A private key. `id`: sha256 of the public key's 32 bytes, as hexadecimal."""

    id: str
    public: str  # base64 of the 32 bytes
    private: Any = field(repr=False, compare=False)

    def sign(self, content: bytes) -> str:
        """Return the signature of `content` as base64."""
        return base64.b64encode(self.private.sign(content)).decode()


def make(path: Path) -> Key:
    """Write a new key into the file `path`, readable by this user only, and return it.

    Raises SigningError if the file exists, cannot be written, or lies where git may commit it.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    path = path.expanduser().absolute()
    if repository.exposed(path):
        raise SigningError(
            f"{path}: lies in a git work tree that does not ignore it, and a key must never be committed; name a file "
            f"elsewhere, such as {DEFAULT}"
        )
    private = Ed25519PrivateKey.generate()
    content = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError as error:
        raise SigningError(
            f"{path}: is there already, and is not overwritten: what it signed could not be told any more; name "
            "another file, or use this key"
        ) from error
    except OSError as error:
        raise SigningError(f"{path}: the key cannot be written: {error.strerror}; name another file") from error
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    return _key(private)


def read(path: Path) -> Key:
    """Return the key in the file `path`. Raises SigningError if others may read the file or it holds no Ed25519 key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    path = path.expanduser()
    try:
        private = load_pem_private_key(_content(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: the key needs a password
        raise SigningError(
            f"{path}: expected an Ed25519 key as PEM (PKCS8) without a password; make one: vqbet keys make"
        ) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise SigningError(f"{path}: expected an Ed25519 key, got another kind; make one: vqbet keys make")
    return _key(private)


def configured() -> Key | None:
    """Return the key in the file that $VQBET_KEY names, None if it is not set. Raises SigningError like `read`."""
    named = os.environ.get(VARIABLE, "")
    return read(Path(named)) if named else None


def parse(public: str) -> bytes:
    """Return the 32 bytes of a public key in base64. Raises SigningError for anything else."""
    try:
        content = base64.b64decode(public, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SigningError(f"public key: expected base64 of {PUBLIC_BYTES} bytes, got {public[:60]!r}") from error
    if len(content) != PUBLIC_BYTES:
        raise SigningError(f"public key: expected base64 of {PUBLIC_BYTES} bytes, got {len(content)} bytes")
    return content


def identify(public: bytes) -> str:
    """Return a public key's id: its sha256, as hexadecimal."""
    return hashlib.sha256(public).hexdigest()


def verified(public: bytes, signature: str, content: bytes) -> bool:
    """Return whether `signature` (base64) is a valid signature of `content` by the key `public`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        given = base64.b64decode(signature, validate=True)
        Ed25519PublicKey.from_public_bytes(public).verify(given, content)
    except (binascii.Error, ValueError, InvalidSignature):
        return False
    return len(given) == SIGNATURE_BYTES


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise SigningError(
            f"{path}: the key cannot be read: {error.strerror}; correct {VARIABLE}, or make one: vqbet keys make"
        ) from error
    if mode & 0o077:
        raise SigningError(f"{path}: mode {mode:04o} lets others at the key; chmod 600 it, or make a new one")
    return content


def _key(private: Any) -> Key:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return Key(identify(public), base64.b64encode(public).decode(), private)
