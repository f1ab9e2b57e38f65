"""Trust file: the keys that may judge, approve, promote or serve, and the last link of each chain that may be unsigned.

    keys:
      - {name: ann, key: <sha256 of the public key>, public_key: <base64>, roles: [approve, promote]}
    unsigned_until:
      blockpush: {seq: 3, hash: <hash of entry 3>}

Only the committed version is used: infra/trust.yaml of the last commit, not of the working copy, which anyone with
write access can change. $VQBET_TRUST names a file outside of the project instead, for a robot or another host.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vqbet.files import atomic
from vqbet.signing import keys, repository
from vqbet.signing.keys import SigningError

VARIABLE = "VQBET_TRUST"
ROLES = ("judge", "approve", "promote", "serve")
MAX_BYTES = 256 * 1024
HEADING = "# Whose key may judge, approve, promote and serve. Only the committed file counts; see docs/security.md.\n"

Role = Literal["judge", "approve", "promote", "serve"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ChainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Holder(_Part):
    """A person or a machine, with one of its keys and its roles."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.@-]{0,63}$")]  # no comma: approvals list names
    key: Sha256
    public_key: str
    roles: list[Role]

    @model_validator(mode="after")
    def of_one_key(self) -> Holder:
        try:
            own = keys.identify(self.public)
        except SigningError as error:
            raise ValueError(str(error)) from error
        if self.key != own:
            raise ValueError(f"key {self.key[:12]} is not the sha256 of the public key beside it")
        return self

    @property
    def public(self) -> bytes:
        return keys.parse(self.public_key)


class Pin(_Part):
    """The last link of a chain that may be unsigned."""

    seq: Annotated[int, Field(ge=1)]
    hash: Sha256


class _File(_Part):
    keys: list[Holder] = []
    unsigned_until: dict[ChainName, Pin] = {}

    @model_validator(mode="after")
    def one_holder_each(self) -> _File:
        known = [holder.key for holder in self.keys]
        if twice := sorted({key for key in known if known.count(key) > 1}):
            raise ValueError(f"key {twice[0][:12]} is named twice")
        return self


@dataclass(frozen=True, slots=True)
class Trust:
    """Content of the trust file. `where`: its path; `hint`: a sentence if the working copy differs, else empty."""

    where: str
    holders: Mapping[str, Holder] = field(default_factory=dict)  # by the id of the key
    pins: Mapping[str, Pin] = field(default_factory=dict)  # by the name of the chain
    hint: str = ""


def current() -> Trust | None:
    """Return the trust in force, None if there is no trust file. Raises SigningError for a malformed one."""
    if outside := os.environ.get(VARIABLE, ""):
        return _parsed(_outside(Path(outside)), outside)
    root = repository.project()
    if root is None:
        return None
    content = _counting(root)
    return None if content is None else _parsed(content, repository.FILE, _hint(root, content))


def note() -> str:
    """Return a sentence if the trust file of the working copy differs from the one in force, otherwise empty."""
    root = repository.project()
    if os.environ.get(VARIABLE, "") or root is None:
        return ""
    return _hint(root, _counting(root))


def draft(root: Path) -> Trust:
    """Return the trust of the working copy, which may not be committed yet; empty if there is no file."""
    path = root / repository.FILE
    return _parsed(_outside(path), str(path)) if path.is_file() else Trust(str(path))


def write(root: Path, trust: Trust) -> Path:
    """Write `trust` into the working copy and return the file's path. It takes effect once committed."""
    from ruamel.yaml import YAML

    path = root / repository.FILE
    content = _File(keys=list(trust.holders.values()), unsigned_until=dict(trust.pins)).model_dump()
    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.width = 200
    yaml.dump(content, text)
    atomic.write(path, HEADING + text.getvalue(), SigningError)
    return path


def _counting(root: Path) -> bytes | None:
    """Return the committed bytes of the trust file; those on disk if the project is not a git repository."""
    path = root / repository.FILE
    if not repository.in_git(root.absolute()):
        return _outside(path) if path.is_file() else None
    try:
        return repository.committed(root, repository.FILE)
    except repository.GitSilentError as error:
        if not path.is_file():
            return None
        raise SigningError(
            f"{path}: git does not say what is committed: {error}; mend that, or set {VARIABLE} to a trust file "
            "outside of the project"
        ) from error


def _hint(root: Path, counting: bytes | None) -> str:
    path = root / repository.FILE
    present = path.read_bytes() if path.is_file() else None
    if present == counting:
        return ""
    if counting is None:
        return f"{repository.FILE} is not committed, so it does not count; commit it"
    return f"{repository.FILE} in the working copy differs from the committed one, which is the one that counts"


def _outside(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SigningError(f"{path}: the trust file cannot be read: {error.strerror}; correct {VARIABLE}") from error


def _parsed(content: bytes, where: str, hint: str = "") -> Trust:
    file = _read(content, where)
    return Trust(where, {holder.key: holder for holder in file.keys}, file.unsigned_until, hint)


@lru_cache(maxsize=16)
def _read(content: bytes, where: str) -> _File:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    if len(content) > MAX_BYTES:
        raise SigningError(f"{where}: expected a trust file of at most {MAX_BYTES} bytes, got {len(content)}")
    try:
        found: Any = YAML(typ="safe", pure=True).load(content.decode())
        return _File.model_validate({} if found is None else found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise SigningError(f"{where}: {place}: {first['msg'][:200]}; correct it") from error
    except (YAMLError, ValueError, RecursionError) as error:
        raise SigningError(f"{where}: is no YAML: {' '.join(str(error).split())[:200]}; correct it") from error
