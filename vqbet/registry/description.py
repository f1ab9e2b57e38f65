"""Summary of one registered version for `vqbet show`."""

from __future__ import annotations

from vqbet.registry import connection, ledger, models, promotion, seals


def show(reference: str) -> dict[str, str]:
    """Return the identity, data, verdict, ledger entries and run of the version `reference`. Raises RegistryError."""
    version = promotion.resolve(reference)
    rows = {
        "model": f"{version.name}/{version.version}",
        "digest": version.digest,
        "aliases": ", ".join(version.aliases) or "none",
        "registered": version.created,
        "demonstrations": version.tags.get("demonstrations", "unknown: registered before sources were recorded"),
        "data version": version.tags.get("store") or version.tags.get("data_version", "unknown"),
        "data.dvc": version.tags.get("data_dvc") or version.tags.get("data_version", "unknown"),
        "git commit": version.tags.get("git_commit", "unknown"),
        "not committed": version.tags.get("dirty", "unknown"),
        "verdict": version.tags.get("verdict", "none"),
    }
    told = {"digest", "demonstrations", "store", "data_dvc", "data_version", "git_commit", "dirty", "verdict"}
    rows |= {key.replace("_", " "): value for key, value in sorted(version.tags.items()) if key not in told}
    if wrong := promotion.amiss(version.name):
        rows["NOT AS IT SHOULD BE"] = f"{wrong}; vqbet audit {version.name} --repair"
    rows |= _reign(version)
    return rows | _run(version.run_id)


def _reign(version: models.Version) -> dict[str, str]:
    """Return the ledger entries that made this version champion."""
    entries = [entry for entry in promotion.history(version.name) if entry.version == version.version]
    signers = ledger.signers(version.name, entries)
    return {f"ledger {one.seq}": _sentence(one, by) for one, by in zip(entries, signers, strict=True)}


def _sentence(entry: ledger.LedgerEntry, signer: str) -> str:
    before = f" after version {entry.previous_version}" if entry.previous_version else " as the first"
    proof = f"; evidence {entry.evidence[:12]}" if entry.evidence else ""
    proof += f"; approved by {entry.approved}" if entry.approved else ""
    proof += f"; {entry.checked}" if entry.checked else ""
    proof += f"; {signer}" if signer == seals.UNSIGNED else f"; signed by {signer}"
    action = "FORCED WITHOUT A VERDICT" if entry.action == "force" else entry.action
    return f"{action} {entry.when} by {entry.who}{before}: {entry.why}{proof}"


def _run(run_id: str) -> dict[str, str]:
    if not run_id:
        return {}
    client = connection.client()
    with connection.refused(f"read run {run_id}"):
        run = client.get_run(run_id)
    place = f"#/experiments/{run.info.experiment_id}/runs/{run_id}"
    address = connection.uri()
    if address.startswith(connection.SQLITE):
        where = f"mlflow ui --backend-store-uri {address}, then /{place}"
    else:
        where = f"{connection.shown().rstrip('/')}/{place}"
    return {**{name: f"{value:.6g}" for name, value in sorted(run.data.metrics.items())}, "run": where}
