"""From files to the registry and the champion alias: what the flow does after the graph, and a person by hand."""

from __future__ import annotations

import getpass
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from vqbet import bundle, config, reading, registry, storage, versions
from vqbet.bundle import Bundle
from vqbet.contract import ConfigError
from vqbet.registry import LedgerEntry, Signature, Version
from vqbet.stages import evidence, files
from vqbet.stages.paths import Paths


def register(root: Path, task: str) -> dict[str, str]:
    """Tokenizer and policy as registered models; the policy becomes the candidate. Doing it again changes nothing.

    The verdict is replayed from its evidence first. Raises GateError where it is not about this policy. Where a bucket
    is configured it gets the evidence too; "stored" says where. The champion keeps the verdict that made it one.
    """
    paths = Paths(root, task)
    registry.check()
    tokenizer, policy = bundle.read(paths.tokenizer), bundle.read(paths.policy)
    champion = registry.champion(task)
    if (
        champion
        and files.read_object(paths.gate / "verdict.json", champion=str)["champion"] == champion.digest == policy.digest
    ):
        return {"policy": f"{task}/{champion.version}", "digest": champion.digest, "is": "the champion already"}
    bucket = storage.configured()
    if bucket is not None:
        bucket.check()
    proof, verdict = evidence.pack(root, task)
    registry.keep(
        task,
        paths.verdicts / proof,
        paths.report / "index.html",
        metrics=files.read_metrics(paths.metrics("gate")),
        tags={"outcome": verdict.outcome, "reason": verdict.reason, "digest": verdict.candidate},
    )
    stored = {} if bucket is None else {"stored": bucket.put_folder(proof, paths.verdicts / proof)}
    common = {
        "data_version": versions.data_version(root),
        "store": policy.provenance["data"],
        "git_commit": versions.git_commit(root),
    }
    judged = {"verdict": f"{verdict.outcome}: {verdict.reason}", "evidence": proof, **stored}
    tokenizer_version = _register_tokenizer(paths, tokenizer, common)
    version = _register_policy(paths, policy, common | judged | {"tokenizer": tokenizer.digest})
    registry.set_candidate(task, version)
    return {
        "policy": f"{task}/{version}",
        "tokenizer": f"{task}-tokenizer/{tokenizer_version}",
        "digest": policy.digest,
        **stored,
    }


def _register_tokenizer(paths: Paths, tokenizer: Bundle, tags: Mapping[str, str]) -> int:
    shape = tokenizer.arguments
    signature = Signature(
        {"chunk": ("float32", (-1, shape["chunk"], shape["channels"]))}, {"codes": ("int64", (-1, shape["layers"]))}
    )
    tags = {**tags, "digest": tokenizer.digest}
    name = f"{paths.task}-tokenizer"
    return registry.register(name, paths.tokenizer, tags=tags, spec=tokenizer.spec, signature=signature)


def _register_policy(paths: Paths, policy: Bundle, tags: Mapping[str, str]) -> int:
    score = files.read_metrics(paths.metrics("evaluate"), "score", "score_low", "score_high")
    scored = f"{score['score']:.3f} ({score['score_low']:.3f} to {score['score_high']:.3f})"
    tags = {**tags, "digest": policy.digest, "score": scored}
    return registry.register(paths.task, paths.policy, tags=tags, spec=policy.spec)


def promote(root: Path, task: str, *, candidate: int, why: str) -> dict[str, str]:
    """Move the champion alias to `candidate` (0: the alias candidate) if the verdict in the artefacts allows it."""
    registry.check()
    proof, verdict = evidence.pack(root, task)
    version = _version(task, candidate)
    unchanged(task, version)
    needed = config.task(root / "params.yaml", task).promotion.approvals
    entry = registry.promote(
        task,
        version,
        verdict=verdict.to_json(),
        evidence=proof,
        who=getpass.getuser(),
        why=why,
        approvals=needed,
    )
    return described(entry)


def approve(root: Path, task: str, *, why: str) -> dict[str, str]:
    """Agree, as this user and for promotion.approval_hours, that the verdict in the artefacts may be acted upon."""
    registry.check()
    proof, verdict = evidence.pack(root, task)
    hours = config.task(root / "params.yaml", task).promotion.approval_hours
    given = registry.approve(task, proof, who=getpass.getuser(), why=why, hours=hours)
    return {
        "approved": f"{verdict.outcome}: {verdict.reason}",
        "evidence": given.evidence,
        "by": given.who,
        "until": given.until,
        "why": given.why,
    }


def force(task: str, *, candidate: int, why: str) -> dict[str, str]:
    """Make `candidate` the champion without a verdict; the ledger says so for ever."""
    registry.check()
    version = _version(task, candidate)
    unchanged(task, version)
    return described(registry.force(task, version, who=getpass.getuser(), why=why))


def rollback(root: Path, task: str, *, why: str) -> dict[str, str]:
    """The champion before this one, again."""
    registry.check()
    if target := registry.predecessor(task):
        unchanged(task, target)
    return described(registry.rollback(task, why, getpass.getuser()))


def show(reference: str) -> dict[str, str]:
    """What a registered policy is, from which data, with which verdict."""
    registry.check()
    return registry.show(reference)


def history(task: str, at: str = "") -> list[dict[str, str]]:
    """The ledger of a task, oldest first, its chain checked; `at`: only the entry that held at that moment.

    at: ISO 8601, UTC where it names no offset; a date means its last second. Raises ConfigError for anything else.
    """
    entries = registry.history(task)
    if at:
        moment = _moment(at)
        entries = [entry for entry in entries if datetime.fromisoformat(entry.when) <= moment][-1:]
    return [described(entry) for entry in entries]


def described(entry: LedgerEntry) -> dict[str, str]:
    previous = f"version {entry.previous_version}, digest {entry.previous_digest[:12]}"
    action = "FORCED WITHOUT A VERDICT" if entry.action == "force" else entry.action
    return {
        "entry": f"{entry.seq} {action} {entry.when} by {entry.who}",
        "champion": f"{entry.task}/{entry.version}, digest {entry.digest[:12]}",
        "before": previous if entry.previous_version else "none",
        "why": entry.why,
        "evidence": entry.evidence or "none",
        **({"approved by": entry.approved} if entry.approved else {}),
    }


def unchanged(task: str, version: int) -> Version:
    """The version. Raises BundleError, naming the component, where the registry's files are not those registered."""
    registered = registry.resolve(f"{task}/{version}")
    with tempfile.TemporaryDirectory() as folder:
        bundle.read(registry.download(registered, Path(folder) / "bundle"), registered.digest)
    return registered


def _moment(at: str) -> datetime:
    try:
        moment = datetime.fromisoformat(at)
    except ValueError as error:
        raise ConfigError(
            f"--at: expected a date or a time such as 2026-05-01T14:30, got {reading.short(at)}"
        ) from error
    if len(at) == len("2026-05-01"):
        moment = moment.replace(hour=23, minute=59, second=59)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _version(task: str, candidate: int) -> int:
    return registry.resolve(f"{task}/{candidate}" if candidate else f"{task}@candidate").version
