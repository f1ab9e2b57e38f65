"""Policy bundle on disk: bundle.json and one safetensors file per component, identified by one digest. No pickle.

bundle.json holds `schema`, `kind`, `arguments` (of the constructor, the execution rule among them), `spec`,
`provenance` (code, data and tokenizer digests, params), and `components`: sha256 and size of each component's file.

The digest is the sha256 of this content as canonical JSON (UTF-8, sorted keys, no spaces, no NaN), so it covers every
byte of every file. bundle.json stores the digest beside the content, and must equal the rendering of its own content
byte for byte (sorted keys, indent 2, one newline at the end): no byte of the folder is free. A digest is not a
signature: anyone who can write the folder can write another valid bundle, so pass the expected digest where it matters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vqbet.contract import BundleError, Spec
from vqbet.files import atomic, canonical, manifest, reading
from vqbet.files.manifest import Fingerprint

SCHEMA_VERSION = 1
MANIFEST = "bundle.json"
SUFFIX = ".safetensors"
MAX_MANIFEST_BYTES = 1 << 22
MAX_HEADER_BYTES = 1 << 20  # safetensors' own parser takes 1.4 GB for a header of 59 MB
MAX_COMPONENT_BYTES = 1 << 32
DTYPES = {"F32": "float32", "F64": "float64", "I32": "int32", "I64": "int64", "U8": "uint8", "BOOL": "bool"}
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII)
TENSOR = re.compile(r"[A-Za-z0-9_.]{1,200}", re.ASCII)
METADATA = "__metadata__"  # words of whoever wrote a safetensors file
KEYS = {"schema", "kind", "arguments", "spec", "provenance", "components", "digest"}
MEND = "get the bundle again (dvc pull, or from the registry), or build it again (dvc repro)"

Components = Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True, slots=True)
class Bundle:
    """Bundle that was read and checked; `digest` covers every byte of it."""

    folder: Path
    digest: str
    kind: str
    spec: Spec
    arguments: Mapping[str, Any]
    components: Components
    provenance: Mapping[str, Any]


def write(
    folder: Path,
    *,
    kind: str,
    spec: Spec,
    arguments: Mapping[str, Any],
    components: Components,
    provenance: Mapping[str, Any],
) -> str:
    """Write a bundle to `folder` and return its digest. The same arguments give the same bytes.

    The bundle is written to a staging folder beside `folder`, read back and renamed, so that an existing bundle is
    replaced in one step. Raises BundleError for names, dtypes or values that a bundle cannot hold, and for errors of
    the disk; `folder` then keeps its previous content.
    """
    if not NAME.fullmatch(kind):
        raise BundleError(f"{folder}: kind: expected lower case letters, digits and _, got {kind!r}")
    files = {f"{name}{SUFFIX}": _serialise(f"{folder}: {name}", name, tensors) for name, tensors in components.items()}
    content = {
        "schema": SCHEMA_VERSION,
        "kind": kind,
        "arguments": dict(arguments),
        "spec": spec.to_json(),
        "provenance": dict(provenance),
        "components": {name.removesuffix(SUFFIX): Fingerprint.of(data).to_json() for name, data in files.items()},
    }
    digest = _digest(folder, content)
    files[MANIFEST] = _render(content | {"digest": digest})
    if folder.is_symlink() or (folder.exists() and not _replaceable(folder)):
        raise BundleError(
            f"{folder}: holds something that is not a bundle; it is not overwritten: choose another folder"
        )
    with atomic.replacing(folder, BundleError) as staging:
        for name, data in files.items():
            atomic.create(staging / name, data)
        read(staging, digest)
    return digest


def read(folder: Path, digest: str | None = None) -> Bundle:
    """Return the bundle in `folder` after checking it; with `digest`, accept the bundle of this digest only.

    Size and sha256 of a component are checked before it is parsed. Raises BundleError, naming the component.
    """
    content = _manifest(folder)
    if digest is not None and content["digest"] != digest:
        raise BundleError(f"{folder}: expected the bundle with digest {digest}, got {content['digest']}; {MEND}")
    _inventory(folder, set(content["components"]))
    return Bundle(
        folder=folder,
        digest=content["digest"],
        kind=content["kind"],
        spec=_spec(folder, content["spec"]),
        arguments=content["arguments"],
        components={name: _component(folder, name, entry) for name, entry in content["components"].items()},
        provenance=content["provenance"],
    )


def expect(bundle: Bundle, spec: Spec) -> None:
    """Raise BundleError where the bundle was not made for `spec` (in the message: here `spec`, there the bundle's)."""
    if found := spec.differences(bundle.spec):
        raise BundleError(
            f"{bundle.folder}: is a bundle for another spec: {'; '.join(found)} (here: what is wanted, there: the "
            f"bundle); use a bundle of task {spec.task!r}"
        )


def read_tensors(path: Path, mend: str) -> tuple[str, dict[str, np.ndarray]]:
    """Return the sha256 of a safetensors file that is no part of a bundle, and its tensors by name.

    mend: advice at the end of a message. Raises BundleError where it is missing, too large or of another format.
    """
    data = reading.content(path, BundleError, most=MAX_COMPONENT_BYTES, mend=mend, links=True)
    return Fingerprint.of(data).sha256, _parsed(f"{path}", data, mend, told=True)


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> str:
    """Write a safetensors file for `read_tensors` and return its sha256; the same tensors give the same bytes.

    Raises BundleError for names, dtypes or values that it cannot hold, and for errors of the disk.
    """
    data = _serialise(f"{path}", "weights", tensors)
    atomic.write(path, data, BundleError)
    return Fingerprint.of(data).sha256


def _digest(folder: Path, content: Mapping[str, Any]) -> str:
    try:
        digest = canonical.digest(content, ascii=False)
    except ValueError as error:
        raise BundleError(f"{folder}: arguments, spec or provenance are not finite JSON: {error}") from error
    if not _text_keys(content):
        raise BundleError(f"{folder}: arguments or provenance: a key is not text, JSON has no other keys")
    return digest


def _text_keys(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _text_keys(item) for key, item in value.items())
    return not isinstance(value, (list, tuple)) or all(_text_keys(item) for item in value)


def _render(content: Mapping[str, Any]) -> bytes:
    return canonical.document(content, ascii=False).encode()


def _serialise(where: str, name: str, tensors: Mapping[str, np.ndarray]) -> bytes:
    from safetensors.numpy import save

    if not NAME.fullmatch(name):
        raise BundleError(f"{where}: a component's name is lower case letters, digits and _, at most 40")
    if not tensors:
        raise BundleError(f"{where}: a component holds at least one tensor")
    packed = {}
    for key in sorted(tensors):
        value = np.asarray(tensors[key], order="C")
        if not TENSOR.fullmatch(key) or value.dtype.name not in DTYPES.values():
            raise BundleError(
                f"{where}: tensor {key!r} ({value.dtype}): expected a name of letters, digits, _ and ., at most 200, "
                f"and one of {', '.join(DTYPES.values())}"
            )
        if not np.isfinite(value).all():
            raise BundleError(f"{where}: tensor {key!r} holds values that are not finite; train again")
        packed[key] = value
    data = save(packed)
    if len(data) > MAX_COMPONENT_BYTES:
        raise BundleError(f"{where}: {len(data)} bytes, at most {MAX_COMPONENT_BYTES} fit into a component")
    return data


def _replaceable(folder: Path) -> bool:
    return folder.is_dir() and all(
        entry.is_file() and (entry.name == MANIFEST or entry.suffix == SUFFIX) for entry in folder.iterdir()
    )


def _manifest(folder: Path) -> dict[str, Any]:
    """Return bundle.json, checked against itself: schema, types, canonical rendering, digest."""
    if folder.is_symlink() or not folder.is_dir():
        raise BundleError(f"{folder}: expected a folder that holds a bundle (no symbolic link); {MEND}")
    where = f"{folder}: {MANIFEST}"
    data = reading.content(folder / MANIFEST, BundleError, most=MAX_MANIFEST_BYTES, mend=MEND)
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where}: was changed or is damaged, it is not JSON: {error}; {MEND}") from error
    if not isinstance(content, dict) or content.get("schema", SCHEMA_VERSION) != SCHEMA_VERSION:
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise BundleError(f"{where}: expected schema {SCHEMA_VERSION}, got {found!r}; use the code that wrote it")
    if content.keys() != KEYS:
        raise BundleError(f"{where}: unknown or missing keys: {', '.join(sorted(content.keys() ^ KEYS))}; {MEND}")
    try:
        exact = _render(content) == data
    except ValueError:
        exact = False
    covered = {key: item for key, item in content.items() if key != "digest"}
    if not exact or _digest(folder, covered) != content["digest"]:
        raise BundleError(f"{where}: was changed or is damaged: its content does not have the digest it names; {MEND}")
    _typed(where, content)
    return content


def _typed(where: str, content: Mapping[str, Any]) -> None:
    bad = [key for key in ("arguments", "spec", "provenance", "components") if not isinstance(content[key], dict)]
    if bad or not isinstance(content["kind"], str) or not NAME.fullmatch(content["kind"]):
        raise BundleError(f"{where}: wrong type or value of {', '.join(bad) or 'kind'}; {MEND}")
    for name, entry in content["components"].items():
        try:
            manifest.from_json({name: entry}, MAX_COMPONENT_BYTES)
        except ValueError as error:
            raise BundleError(f"{where}: component {name!r}: {error}; {MEND}") from error
        if not NAME.fullmatch(name):
            raise BundleError(f"{where}: component {name!r}: not the name of a component; {MEND}")


def _spec(folder: Path, value: Mapping[str, Any]) -> Spec:
    try:
        return Spec.from_json(value)
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{folder}: {MANIFEST}: spec: not a spec this code knows ({error}); {MEND}") from error


def _inventory(folder: Path, components: set[str]) -> None:
    expected = {MANIFEST} | {f"{name}{SUFFIX}" for name in components}
    found = {entry.name for entry in folder.iterdir()}
    for name in sorted(found - expected):
        raise BundleError(f"{folder}: {name} does not belong to the bundle; {MEND}")
    for name in sorted(expected - found):
        raise BundleError(f"{folder}: component {name.removesuffix(SUFFIX)!r}: {name} is missing; {MEND}")


def _contents(folder: Path, name: str, entry: Mapping[str, Any]) -> bytes:
    where = f"{folder}: component {name!r}"
    data = reading.content(folder / f"{name}{SUFFIX}", BundleError, most=entry["bytes"], mend=MEND)
    found = Fingerprint.of(data)
    if found.to_json() != entry:
        raise BundleError(
            f"{where}: was changed, damaged or swapped with another bundle's: expected {entry['bytes']} bytes with "
            f"sha256 {entry['sha256']}, got {found.size} with {found.sha256}; {MEND}"
        )
    return data


def _component(folder: Path, name: str, entry: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return _parsed(f"{folder}: component {name!r}", _contents(folder, name, entry), MEND)


def _parsed(where: str, data: bytes, mend: str, *, told: bool = False) -> dict[str, np.ndarray]:
    """Return the tensors of a safetensors file. told: whether it may have METADATA; a bundle's never has."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as parse

    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(MAX_HEADER_BYTES, len(data) - 8):
        raise BundleError(f"{where}: header of {length} bytes, expected at most {MAX_HEADER_BYTES}; {mend}")
    try:
        header = json.loads(data[8 : 8 + length])
        for key, tensor in header.items():
            if not (told and key == METADATA) and (not TENSOR.fullmatch(key) or tensor["dtype"] not in DTYPES):
                raise BundleError(f"{where}: tensor {key!r}: name or dtype is not one that a bundle holds; {mend}")
        tensors = parse(data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise BundleError(f"{where}: is not a safetensors file that this code reads: {error}; {mend}") from error
    return {key: tensors[key] for key in sorted(tensors)}
