"""Exported policy on disk: one ONNX graph and a manifest that binds it to the bundle it was made of. No torch.

exported.json holds `schema`, `bundle` (digest of the bundle), `kind`, `spec`, `arguments` (of the actor), `graph` (the
numbers of its inputs and outputs), `guard` (the bundle's component of this name, as lists; empty where it has none),
`parity` (how far it was from torch when exported), `files` (size and sha256 of policy.onnx, and
of eyes.onnx where the policy has cameras) and `digest`, the sha256 of
all this as canonical JSON. Like bundle.json it must equal the rendering of its content byte for byte. What identifies
the policy, in records and on the wire, is `bundle`: the same weights under the same rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vqbet.bundle import Bundle
from vqbet.contract import BundleError, Spec
from vqbet.files import atomic, canonical, manifest, reading
from vqbet.files.manifest import SHA256, Fingerprint
from vqbet.policies.actor import Actor, understood
from vqbet.policies.in_onnx import GraphShape, InOnnx

SCHEMA_VERSION = 1
MANIFEST, GRAPH = "exported.json", "policy.onnx"
EYES = "eyes.onnx"  # beside it, of a policy with cameras: from pictures to the features that policy.onnx takes
MAX_MANIFEST_BYTES = 1 << 26  # the guard's table of 1,024 codes has a million numbers
MAX_GRAPH_BYTES = 1 << 31  # a protobuf holds no more
KEYS = {"schema", "bundle", "kind", "spec", "arguments", "graph", "guard", "parity", "files", "digest"}
GUARD = "guard"  # the component of a bundle that holds the numbers of the robot's guard
MEND = "export the bundle again (vqbet export), or copy the whole folder again"


@dataclass(frozen=True, slots=True)
class Exported:
    """Exported policy that was read and checked. parity: as written by `write`, for people."""

    policy: Actor
    bundle: Bundle  # without the tensors of the policy: its components are those of the guard alone
    parity: Mapping[str, Any]


def is_exported(folder: Path) -> bool:
    """Return True where the folder claims to hold an exported policy."""
    return (folder / MANIFEST).is_file()


def check_free(folder: Path) -> None:
    """Raise BundleError where the folder holds anything but an exported policy, which `write` would replace."""
    if folder.is_symlink() or (folder.exists() and not _replaceable(folder)):
        raise BundleError(f"{folder}: holds something that is no exported policy; choose another folder")


def write(
    folder: Path,
    actor: Actor,
    bundle: Bundle,
    graph: bytes,
    shape: GraphShape,
    parity: Mapping[str, Any],
    *,
    eyes: bytes = b"",
) -> str:
    """Write an exported policy to `folder` and return the digest of its manifest. eyes: of a policy with cameras.

    An earlier one is replaced in one step, after the new one was read back. Raises BundleError where the folder holds
    anything else or cannot be written.
    """
    graphs = {GRAPH: graph} | ({EYES: eyes} if eyes else {})
    content = {
        "schema": SCHEMA_VERSION,
        "bundle": bundle.digest,
        "kind": bundle.kind,
        "spec": bundle.spec.to_json(),
        "arguments": {"execute": actor.execute, **actor.terms()},
        "graph": shape.to_json(),
        "guard": {name: value.tolist() for name, value in bundle.components.get(GUARD, {}).items()},
        "parity": dict(parity),
        "files": {name: Fingerprint.of(data).to_json() for name, data in graphs.items()},
    }
    digest = canonical.digest(content, ascii=False)
    check_free(folder)
    with atomic.replacing(folder, BundleError) as staging:
        for name, data in graphs.items():
            atomic.create(staging / name, data)
        atomic.create(staging / MANIFEST, canonical.document(content | {"digest": digest}, ascii=False))
        read(staging, bundle.digest)
    return digest


def read(folder: Path, digest: str | None = None) -> Exported:
    """Return the exported policy in `folder`, ready to act; with `digest`, only that of the bundle of this digest.

    Raises BundleError, naming the file, for anything that is not as it was written.
    """
    content = _content(folder)
    if digest is not None and content["bundle"] != digest:
        raise BundleError(
            f"{folder}: {MANIFEST}: expected an export of the bundle with digest {digest}, got {content['bundle']}; "
            f"{MEND}"
        )
    graphs = {name: _graph(folder, content["files"], name) for name in _graphs(content["files"])}
    with reading.sentences(f"{folder}: {MANIFEST}", BundleError, MEND):
        spec, arguments = Spec.from_json(content["spec"]), content["arguments"]
        shape = GraphShape.from_json(content["graph"])
        guard = {str(name): np.array(value, np.float64) for name, value in content["guard"].items()}
        execute, terms = arguments["execute"], understood(arguments)
        kind, parity = str(content["kind"]), dict(content["parity"])
    if bool(spec.cameras) != (EYES in graphs):
        raise BundleError(f"{folder}: {MANIFEST}: expected {EYES} where the spec has cameras, and nowhere else; {MEND}")
    where = f"{folder}: {GRAPH}"
    planner = InOnnx(graphs[GRAPH], shape, eyes=graphs.get(EYES, b""), cameras=spec.cameras, where=where)
    policy = Actor(spec, planner, execute=execute, **terms)
    components = {GUARD: guard} if guard else {}
    return Exported(policy, Bundle(folder, content["bundle"], kind, spec, arguments, components, {}), parity)


def _replaceable(folder: Path) -> bool:
    return folder.is_dir() and {entry.name for entry in folder.iterdir()} <= {MANIFEST, GRAPH, EYES}


def _content(folder: Path) -> dict[str, Any]:
    """Return exported.json, checked against itself, of a folder that holds the two files and nothing else."""
    where = f"{folder}: {MANIFEST}"
    data = reading.content(folder / MANIFEST, BundleError, most=MAX_MANIFEST_BYTES, mend=MEND)
    with reading.sentences(where, BundleError, MEND):
        content = reading.parse(data.decode(), where, BundleError)
        schema = content["schema"]
    if schema != SCHEMA_VERSION:
        raise BundleError(f"{where}: expected schema {SCHEMA_VERSION}, got {schema!r}; use the code that wrote it")
    if content.keys() != KEYS:
        raise BundleError(f"{where}: unknown or missing keys: {', '.join(sorted(content.keys() ^ KEYS))}; {MEND}")
    covered = {key: value for key, value in content.items() if key != "digest"}
    with reading.sentences(where, BundleError, MEND):
        exact = canonical.document(content, ascii=False).encode() == data
        if not exact or canonical.digest(covered, ascii=False) != content["digest"]:
            raise BundleError(f"{where}: was changed or is damaged: its content does not have its digest; {MEND}")
        if not SHA256.fullmatch(content["bundle"]):
            raise BundleError(f"{where}: bundle: expected a sha256, got {reading.short(content['bundle'])}; {MEND}")
    for entry in sorted(folder.iterdir()):
        if entry.name not in (MANIFEST, *_graphs(content["files"])):
            raise BundleError(f"{folder}: {entry.name} does not belong to the exported policy; {MEND}")
    return dict(content)


def _graphs(files: Any) -> list[str]:
    return [GRAPH, EYES] if isinstance(files, dict) and EYES in files else [GRAPH]


def _graph(folder: Path, files: Any, name: str) -> bytes:
    where = f"{folder}: {name}"
    with reading.sentences(f"{folder}: {MANIFEST}: files", BundleError, MEND):
        expected = manifest.from_json(files, MAX_GRAPH_BYTES)[name]
    data = reading.content(folder / name, BundleError, most=expected.size, mend=MEND)
    if (found := Fingerprint.of(data)) != expected:
        raise BundleError(
            f"{where}: was changed, damaged or swapped: expected {expected.size} bytes with sha256 {expected.sha256}, "
            f"got {found.size} with {found.sha256}; {MEND}"
        )
    return data
