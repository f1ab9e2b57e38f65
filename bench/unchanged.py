"""Comparison of the artifacts of two runs of the graph, to show that a change of code changes no result.

    python -m bench.unchanged <artifacts before> <artifacts after>

Both are folders artifacts/<task>. Tensors must be equal byte for byte. Episode records, checks and outcome must be
equal except for the names of versions, which change with the code: digests, the plan's hash, the machine. Exits with 1
where one differs.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = {"digest", "plan", "machine", "guard", "video"}  # names of versions, and fields that were never filled
RECORDS = ("evaluation/records.jsonl", "gate/records.jsonl")
VERDICT = ("outcome", "reason", "checks", "episodes", "more_episodes")


def facts(artifacts: Path) -> dict[str, Any]:
    """Return the results of a run by file: hashes of tensors, records and verdicts without names of versions."""
    tensors = {
        path.relative_to(artifacts).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(artifacts.rglob("*.safetensors"))
    }
    records = {name: list(_records(artifacts / name)) for name in RECORDS}
    verdict = json.loads((artifacts / "gate/verdict.json").read_text(encoding="utf-8"))
    return {**tensors, **records, "gate/verdict.json": {name: verdict[name] for name in VERDICT}}


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return one sentence for each file that differs or is in one run only."""
    said = [f"{name}: only in one of the runs" for name in sorted(before.keys() ^ after.keys())]
    for name in sorted(before.keys() & after.keys()):
        one, other = before[name], after[name]
        if one == other:
            continue
        if isinstance(one, list) and len(one) == len(other):
            wrong = [index for index, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]]
            said.append(f"{name}: {len(wrong)} of {len(one)} records differ, the first is line {wrong[0] + 1}")
        else:
            said.append(f"{name}: differs")
    return said


def _records(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        yield {name: value for name, value in json.loads(line).items() if name not in NAMES}


def main(before: str, after: str) -> int:
    one, other = facts(Path(before)), facts(Path(after))
    for name, value in one.items():
        print(f"{name}: {value[:12] if isinstance(value, str) else f'{len(value)} records or fields'}")
    said = differences(one, other)
    print("\n".join(said) or f"equal: {len(one)} files")
    return int(bool(said))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
