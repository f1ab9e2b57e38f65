"""Registration, promotion and rollback of policies: run by the flow after the graph, or by hand."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vqbet import bundle, registry, signing, storage, versions
from vqbet.bundle import Bundle
from vqbet.commands import bounds, canary_due, notices, origin, publication, recheck
from vqbet.commands.trials import accepted
from vqbet.contract import ConfigError, GateError, PipelineError, RegistryError
from vqbet.evaluation.gate import Verdict
from vqbet.evaluation.plan import Plan
from vqbet.files import reading
from vqbet.registry import LedgerEntry, Signature, Version, links
from vqbet.stages import artifacts, kept, sealing, worktree
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

SIMULATED, ROBOT = "simulated", "robot"  # kinds of evidence, as in gate.evidence


def register(root: Path, task: str) -> dict[str, str]:
    """Register tokenizer and policy as models; the policy becomes the candidate. A second call changes nothing.

    The artefacts must match dvc.lock, and the verdict must be sealed by the gate. If a bucket is configured, the
    evidence is stored there too, at the address in "stored". The champion keeps the verdict of its promotion. Raises
    PipelineError or GateError naming the file that was changed.
    """
    paths = Paths(root, task)
    registry.check()
    tokenizer, policy = bundle.read(paths.tokenizer), bundle.read(paths.policy)
    champion = registry.champion(task)
    if champion and champion.digest == policy.digest == kept.verdict(paths).get("champion"):
        restored = registry.complete(champion, paths.policy)
        told = {"policy": f"{task}/{champion.version}", "digest": champion.digest, "is": "the champion already"}
        return told | ({"put back": ", ".join(restored)} if restored else {})
    bucket = storage.configured()
    if bucket is not None:
        bucket.check()
    judged, stored = _judged(root, task, bucket)
    trained_on = policy.provenance["data"]
    common = {"store": trained_on, "demonstrations": origin.told(paths, trained_on), **worktree.tags(root)}
    tokenizer_version = _register_tokenizer(paths, tokenizer, common)
    version = _register_policy(paths, policy, common | judged | {"tokenizer": tokenizer.digest})
    registry.set_candidate(task, version)
    links.describe(registry.resolve(f"{task}/{version}"))
    return {
        "policy": f"{task}/{version}",
        "tokenizer": f"{task}-tokenizer/{tokenizer_version}",
        "digest": policy.digest,
        **stored,
    }


def _judged(root: Path, task: str, bucket: storage.Bucket | None) -> tuple[dict[str, str], dict[str, str]]:
    """Return tags of the gate's verdict, and where its evidence was stored; empty where it has judged nothing."""
    paths = Paths(root, task)
    if SIMULATED not in bounds.committed(root, task).gate.evidence and not Plan.read(paths.gate / "plan.json").held_out:
        return {}, {}
    proof, verdict = sealing.sealed(root, task)
    _as_made(root, task)
    registry.attach(proof, paths.report / "index.html")
    stored = {} if bucket is None else {"stored": bucket.put_folder(proof, paths.verdicts / proof)}
    return {"verdict": f"{verdict.outcome}: {verdict.reason}", "evidence": proof, **stored}, stored


def _register_tokenizer(paths: Paths, tokenizer: Bundle, tags: Mapping[str, str]) -> int:
    shape = tokenizer.arguments
    signature = Signature(
        {"chunk": ("float32", (-1, shape["chunk"], shape["channels"]))}, {"codes": ("int64", (-1, shape["layers"]))}
    )
    tags = {**tags, "digest": tokenizer.digest}
    name = f"{paths.task}-tokenizer"
    return registry.register(name, paths.tokenizer, tags=tags, spec=tokenizer.spec, signature=signature)


def _register_policy(paths: Paths, policy: Bundle, tags: Mapping[str, str]) -> int:
    score = artifacts.read_metrics(paths.metrics("evaluate"))
    tags = {**tags, "digest": policy.digest}
    if "score" in score:  # not where the task has no world
        tags["score"] = f"{score['score']:.3f} ({score['score_low']:.3f} to {score['score_high']:.3f})"
    return registry.register(paths.task, paths.policy, tags=tags, spec=policy.spec)


def promote(root: Path, task: str, *, candidate: int, why: str, watch: Watch) -> dict[str, str]:
    """Move the champion alias to `candidate` (0: the alias candidate) if the verdict in the artefacts allows it.

    Each kind of evidence that `gate.evidence` asks for must be a verdict PROMOTE, sealed under the bounds of the
    committed params.yaml. Simulated: the artefacts must match dvc.lock, and a replayed random sample of the episodes
    must equal its records. Robot: see `trials.accepted`. Raises PipelineError, GateError or RegistryError otherwise.
    """
    registry.check()
    notices.check()
    asked = bounds.committed(root, task).promotion
    worktree.refuse_dirty(root, f"{task}: nothing was promoted", required=asked.clean)
    version = _version(task, candidate)
    digest = unchanged(task, version).digest
    proof, verdict, played = _evidence(root, task, digest)
    publication.ready(root, asked.publish)
    barred = trainers(root, task, digest) if asked.four_eyes and asked.approvals else ()
    said: dict[str, Any] = {"verdict": verdict.to_json(), "evidence": proof}
    said |= {"approvals": asked.approvals, "barred": barred}
    checked, number = "", 0
    if registry.admit(task, version, **said):
        checked = _checked(root, task, proof, played, watch)
        number = canary_due.require(root, task, verdict.candidate)
    before = len(registry.history(task))
    entry = registry.promote(task, version, **said, who=signing.who(), why=why, checked=checked)
    canary_due.confirm(root, entry, number)
    told = _told(entry) if entry.seq > before else {}
    return described(entry, _signer(entry)) | publication.after(root, task, asked.publish) | told


def _evidence(root: Path, task: str, candidate: str) -> tuple[str, Verdict, str]:
    """Return the id and the verdict that a promotion of this digest rests on, and the id of its simulated episodes.

    The last id is "" where no episode was simulated. Raises GateError where a kind that is asked for is missing.
    """
    kinds = bounds.committed(root, task).gate.evidence
    if ROBOT in kinds:
        proof, verdict, plan = accepted.verdict(root, task, candidate)
        return proof, verdict, plan.after
    proof, verdict = sealing.sealed(root, task)
    _as_made(root, task)
    bounds.check(root, task, Plan.read(Paths(root, task).gate / "plan.json"))
    return proof, verdict, proof


def _checked(root: Path, task: str, proof: str, played: str, watch: Watch) -> str:
    """Return a sentence on how the evidence was checked: simulated episodes again, robot trials by their proofs."""
    said = (recheck.run(root, task, played, watch) or _vouched(task, played)) if played else ""
    proved = "" if played == proof else "statements and recordings of the robot trials verified"
    return "; ".join(filter(None, [said, proved]))


def _as_made(root: Path, task: str) -> None:
    """Raise PipelineError where outputs of evaluation and gate differ from dvc.lock."""
    if changed := versions.unmade(root, [f"evaluate@{task}", f"gate@{task}"]):
        others = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise PipelineError(
            f"{changed[0]}{others}: is not what dvc.lock says the graph made; it was changed by hand, or a stage ran "
            f"outside the graph: dvc repro gate@{task}"
        )


def _vouched(task: str, proof: str) -> str:
    """Return who signed a verdict that this kind of machine cannot replay. Raises GateError for an unsigned one."""
    signer = registry.Attempts(task).judge(proof)
    if signer == registry.UNSIGNED:
        raise GateError(
            f"{task}: verdict {proof[:12]} was judged on another kind of machine, so its episodes cannot be played "
            "again here, and no trusted key signed it; promote on the kind that judged, or judge with a key: "
            "vqbet keys --help"
        )
    return f"judged on another kind of machine, not played again; signed by {signer}"


def approve(root: Path, task: str, *, why: str) -> dict[str, str]:
    """Approve the verdict in the artefacts, as this user and for promotion.approval_hours."""
    registry.check()
    asked = bounds.committed(root, task)
    if ROBOT in asked.gate.evidence:
        proof, verdict, _ = _evidence(root, task, registry.resolve(f"{task}@{registry.CANDIDATE}").digest)
    else:
        proof, verdict = sealing.sealed(root, task)
    who = signing.who()
    if asked.promotion.four_eyes and who in trainers(root, task, verdict.candidate):
        raise RegistryError(
            f"{task}: {who} trained candidate {verdict.candidate[:12]}, and promotion.four_eyes asks for the approval "
            "of somebody else"
        )
    given = registry.approve(task, proof, who=who, why=why, hours=asked.promotion.approval_hours)
    return {
        "approved": f"{verdict.outcome}: {verdict.reason}",
        "evidence": given.evidence,
        "by": given.who,
        "until": given.until,
        "why": given.why,
    }


def force(root: Path, task: str, *, candidate: int, why: str) -> dict[str, str]:
    """Make `candidate` the champion without a verdict, which the ledger records permanently."""
    registry.check()
    notices.check()
    version = _version(task, candidate)
    digest = unchanged(task, version).digest
    place = bounds.committed(root, task).promotion.publish
    number = canary_due.require(root, task, digest)
    entry = registry.force(task, version, who=signing.who(), why=why)
    canary_due.confirm(root, entry, number)
    return described(entry, _signer(entry)) | publication.after(root, task, place) | _told(entry)


def rollback(root: Path, task: str, *, why: str, of: str = "") -> dict[str, str]:
    """Make the previous champion the champion again. of: hash of the only entry that may be undone; empty: any."""
    registry.check()
    notices.check()
    if target := registry.predecessor(task):
        unchanged(task, target)
    place = bounds.committed(root, task).promotion.publish
    entry = registry.rollback(task, why, signing.who(), of=of)
    return described(entry, _signer(entry)) | publication.after(root, task, place) | _told(entry)


def publish(root: Path, task: str) -> dict[str, str]:
    """Publish the ends of the task's chains at promotion.publish. Raises RegistryError where that is "none"."""
    registry.check()
    return publication.publish(root, task, bounds.committed(root, task).promotion.publish)


def show(reference: str) -> dict[str, str]:
    """Return rows about a registered policy: its data, its verdict, and every attempt at a verdict."""
    registry.check()
    rows = registry.show(reference)
    task, version = rows["model"].split("/")
    return rows | canary_due.by_entry(task, int(version)) | sealing.sought(task, rows["digest"])


def history(task: str, at: str = "") -> list[dict[str, str]]:
    """Return the ledger of a task, oldest entry first, after a check of its chain.

    at: return only the entry in force at this time, in ISO 8601, UTC if without offset; a date means its last second.
    Raises ConfigError for any other text.
    """
    entries = registry.history(task)
    if not entries:
        registry.refuse_without_ledger(task)
    if at:
        moment = _moment(at)
        entries = [entry for entry in entries if datetime.fromisoformat(entry.when) <= moment][-1:]
    parts = zip(entries, registry.signers(task, entries), canary_due.rows(task, entries), strict=True)
    return [described(entry, by) | canary for entry, by, canary in parts]


def _told(entry: LedgerEntry) -> dict[str, str]:
    """Give notice of a new champion; see `notices.tell`."""
    action = "forced without a verdict" if entry.action == "force" else entry.action
    sentence = f"{entry.task}: champion is version {entry.version} ({action}) by {entry.who}: {entry.why}"
    return notices.tell(notices.MOVED, entry.task, sentence, digest=entry.digest, before=entry.previous_digest)


def described(entry: LedgerEntry, signer: str) -> dict[str, str]:
    previous = f"version {entry.previous_version}, digest {entry.previous_digest[:12]}"
    action = "FORCED WITHOUT A VERDICT" if entry.action == "force" else entry.action
    return {
        "entry": f"{entry.seq} {action} {entry.when} by {entry.who}",
        "champion": f"{entry.task}/{entry.version}, digest {entry.digest[:12]}",
        "before": previous if entry.previous_version else "none",
        "why": entry.why,
        "evidence": entry.evidence or "none",
        **({"approved by": entry.approved} if entry.approved else {}),
        **({"checked": entry.checked} if entry.checked else {}),
        "signed by": "nobody: unsigned" if signer == registry.UNSIGNED else signer,
    }


def unchanged(task: str, version: int) -> Version:
    """Return the version. Raises BundleError, naming the component, where the registry's files have changed."""
    registered = registry.resolve(f"{task}/{version}")
    with tempfile.TemporaryDirectory() as folder:
        bundle.read(registry.download(registered, Path(folder) / "bundle"), registered.digest)
    return registered


def _signer(entry: LedgerEntry) -> str:
    return registry.signers(entry.task, [entry])[0]


def trainers(root: Path, task: str, digest: str) -> set[str]:
    """Return who trained a policy, its tokenizer and its prior: the one in the artefacts, or a registered one.

    Raises RegistryError where no run names the trainer of a part.
    """
    policy = bundle.read(Paths(root, task).policy)
    if policy.digest != digest:
        with tempfile.TemporaryDirectory() as folder:
            policy = bundle.read(registry.download(registry.by_digest(task, digest), Path(folder) / "bundle"), digest)
    found = registry.trainers(task, policy.digest)
    for part in ("tokenizer", "prior"):
        digest = str(policy.provenance.get(part, ""))
        names = registry.trainers(task, digest)
        if not names:
            raise RegistryError(
                f"{task}: promotion.four_eyes: no run here says who trained {part} {digest[:12]}, so nobody can be "
                f"told from its trainer; train it again here: dvc repro --force {part}@{task}"
            )
        found |= names
    return found


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
