"""Fingerprint of what a team has stored, for `bench.kills`: run in a new clone of the team's branch, in the team.

python -m bench.kill_checks <task>      prints JSON: what two runs must have equal, and what is broken
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vqbet import bundle, environment, registry
from vqbet.contract import VqbetError
from vqbet.team.objects import DATA, EVIDENCE

OF_THE_RUN = ("facts.json", "manifest.json")  # files of evidence that hold a commit, and the hash of such a file


def fingerprint(root: Path, task: str) -> dict[str, Any]:
    """Return what is stored. `broken`: sentences; everything else must be as in an undisturbed run."""
    broken: list[str] = []
    policy = bundle.read(root / "artifacts" / task / "policy").digest
    versions = {name: list(_versions(name, broken)) for name in (task, f"{task}-tokenizer")}
    champion = registry.champion(task)
    ledger = [
        f"{entry.seq} {entry.action} version {entry.version}, digest {entry.digest}" for entry in registry.history(task)
    ]
    for name, digests in versions.items():
        broken += [
            f"{name}: digest {each[:12]} is registered twice" for each in set(digests) if digests.count(each) > 1
        ]
    data, evidence = dict(_objects(DATA)), dict(_objects(EVIDENCE))
    for key, content in data.items():
        wanted = "".join(key.split("/")[-2:]).removesuffix(".dir")
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != wanted:
            broken.append(f"s3://{DATA}/{key}: {len(content)} bytes, whose md5 is another")
    return {
        "dvc.lock": _sha256((root / "dvc.lock").read_bytes()),
        "data.dvc": _sha256((root / "data.dvc").read_bytes()),
        "policy": policy,
        "versions": versions,
        "champion": f"{champion.version} {champion.digest}" if champion else "",
        "ledger": ledger,
        "objects": {key: len(content) for key, content in sorted(data.items())},
        "evidence": _judged(evidence, broken),
        "running": registry.abandoned(task),
        "broken": broken,
    }


def _judged(evidence: dict[str, bytes], broken: list[str]) -> list[str]:
    """Return what each verdict's evidence says: file and sha256, without what names the run's own commit and time."""
    said = []
    for key, content in sorted(evidence.items()):
        folder, name = key.split("/", 2)[1:]
        if name == "manifest.json" and _sha256(content) != folder:
            broken.append(f"s3://{EVIDENCE}/{key}: is not what its folder is named after")
        said.append(name if name in OF_THE_RUN else f"{name} {_sha256(content)}")
    return said


def _versions(name: str, broken: list[str]) -> Iterator[str]:
    """Yield the digest of each version, oldest first, whose files are downloaded and read."""
    number = 1
    while True:
        try:
            version = registry.resolve(f"{name}/{number}")
        except VqbetError:
            return
        with tempfile.TemporaryDirectory() as folder:
            try:
                bundle.read(registry.download(version, Path(folder) / "bundle"), version.digest)
            except VqbetError as error:
                broken.append(f"{name}/{number}: {error}")
        yield version.digest
        number += 1


def _objects(bucket: str) -> Iterator[tuple[str, bytes]]:
    import boto3

    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for listed in page.get("Contents", ()):
            yield listed["Key"], client.get_object(Bucket=bucket, Key=listed["Key"])["Body"].read()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    print(json.dumps(fingerprint(environment.prepare(), sys.argv[1])))
