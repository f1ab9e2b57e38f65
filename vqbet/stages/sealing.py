"""Sealing of plans and verdicts in the registry, by the gate only, so that every clone knows all attempts.

A plan is sealed before its first episode, under its attempt number; a verdict when its evidence is packed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from vqbet import bundle, environment, registry
from vqbet.contract import GateError, RegistryError, StorageError
from vqbet.evaluation import records
from vqbet.evaluation.gate import Verdict
from vqbet.evaluation.plan import MOST_ATTEMPTS, Plan
from vqbet.registry import Attempt
from vqbet.stages import artifacts, kept, verdicts
from vqbet.stages.paths import Paths

UNPLAYED = "gate.evidence does not ask for simulated evidence, so no episode was played"
JUDGED = ("plan.json", "records.jsonl", "verdict.json")


def plan(task: str, make: Callable[[int], Plan]) -> Plan:
    """Return the plan that `make` returns for the number of this attempt, sealed.

    A plan equal to an earlier one, on the same machine, repeats that attempt and plays the same episodes. The seal
    names the machine, the plan does not. Where candidate and champion are the same policy, nothing is played or sealed.
    Raises GateError where the candidate has played some of the plan's seeds under another plan or on another machine,
    or has reached the maximum number of attempts.
    """
    if make(1).candidate == make(1).champion:
        return make(1)
    machine = environment.machine()
    while True:
        attempts = registry.Attempts(task)
        candidate = make(1).candidate
        before = [one for one in attempts.of(candidate) if one.simulated]
        plans = [Plan.from_json(one.content, f"attempt {number}") for number, one in enumerate(before, start=1)]
        for one, sealed in zip(before, plans, strict=True):
            if sealed.asks(replace(make(sealed.attempt), machine=machine)):
                nameless = replace(sealed, machine="")
                return nameless if nameless.sha256 == one.plan else sealed
        if len(before) >= MOST_ATTEMPTS:
            raise GateError(
                f"the candidate {candidate[:12]} was judged {len(before)} times, and no share of alpha is left for it; "
                "train another one"
            )
        wanted = make(len(before) + 1)
        named = replace(wanted, machine=machine)
        _refuse_met(named, before, plans)
        try:
            attempts.seal_plan(candidate, wanted.sha256, named.to_json())
        except registry.OvertakenError:  # another clone sealed an attempt at the same time: count again
            continue
        return wanted


def on_held_out(task: str, wanted: Plan) -> None:
    """Seal a plan about held-out episodes, at most once.

    It spends no alpha, since its verdict promotes nothing, and nobody is kept from asking again with another floor: the
    registry shows both.
    """
    while True:
        attempts = registry.Attempts(task)
        if wanted.candidate == wanted.champion or attempts.under(wanted.sha256) is not None:
            return
        try:
            attempts.seal_plan(wanted.candidate, wanted.sha256, wanted.to_json())
        except registry.OvertakenError:  # another clone sealed an attempt at the same time: look again
            continue


def verdict(root: Path, task: str, judged: Plan, played: int) -> str:
    """Pack the evidence of the verdict in the artefacts, store it in the registry, and seal it; return its id.

    Returns "" for a plan that was not sealed, since there was nothing to play.

    played: episodes of each arm. A verdict that is already sealed keeps its evidence. Raises GateError where the same
    plan led to another verdict before.
    """
    if judged.candidate == judged.champion:
        return ""
    paths = Paths(root, task)
    while True:
        attempts = registry.Attempts(task)
        before = attempts.under(judged.sha256)
        if before is not None and before.outcome and _there(root, paths, before):
            return before.evidence
        proof, found = verdicts.pack(root, task)
        if before is None or before.outcome not in ("", found.outcome):
            said = before.outcome if before else "nothing, and was not sealed"
            raise GateError(f"{paths.gate}: the plan led to {said} before, to {found.outcome} now; it cannot be both")
        registry.keep(
            task,
            paths.verdicts / proof,
            metrics=artifacts.read_metrics(paths.metrics("gate")),
            tags={"outcome": found.outcome, "reason": found.reason, "digest": found.candidate},
        )
        try:
            attempts.seal_verdict(judged.sha256, outcome=found.outcome, episodes=played, evidence=proof)
        except registry.OvertakenError:
            continue
        return proof


def sealed(root: Path, task: str) -> tuple[str, Verdict]:
    """Return the evidence id sealed for the verdict in the task's artefacts, and the recomputed verdict.

    Raises GateError where the verdict is about another policy than the one in the artefacts, where no gate has sealed
    it, or where plan, records or verdict differ by a byte from the sealed ones.
    """
    paths = Paths(root, task)
    kept.verdict(paths)
    policy, said = bundle.read(paths.policy), Plan.read(paths.gate / "plan.json")
    if said.candidate != policy.digest:
        raise GateError(
            f"{paths.gate}: the verdict is about {said.candidate[:12]}, {paths.policy} is {policy.digest[:12]}; run "
            f"the graph: dvc repro gate@{task}"
        )
    attempt = registry.Attempts(task).under(said.sha256)
    if attempt is None or not attempt.outcome:
        raise GateError(
            f"{paths.gate}: no gate has sealed this verdict in the registry, so it counts for nothing; let the gate "
            f"play its episodes here: dvc repro -f -s gate@{task}"
        )
    folder, verdict = verdicts.found(root, attempt.evidence)
    for name in JUDGED:
        if _bytes(paths.gate / name) != _bytes(folder / name):
            raise GateError(
                f"{paths.gate / name}: is not what the gate sealed (verdict {attempt.evidence[:12]}, "
                f"{attempt.outcome}); it was changed since: dvc checkout gate@{task}"
            )
    return attempt.evidence, verdict


def known(root: Path, task: str) -> bool:
    """Return whether the verdict in the task's artefacts is sealed, or there was nothing to play."""
    paths = Paths(root, task)
    said, why = Plan.read(paths.gate / "plan.json"), str(kept.verdict(paths).get("reason"))
    attempt = registry.Attempts(task).under(said.sha256)
    return said.candidate == said.champion or why == UNPLAYED or (attempt is not None and bool(attempt.outcome))


def sought(task: str, candidate: str) -> dict[str, str]:
    """Return a row for every attempt on one policy: time, seeds, error rate and outcome."""
    rows = {}
    for one in registry.Attempts(task).of(candidate):
        asked = Plan.from_json(one.content, f"attempt on {candidate[:12]}")
        outcome = one.outcome or "not finished"
        if asked.held_out:
            proof = f", evidence {one.evidence[:12]}" if one.outcome else ""
            limits = f"floor {asked.floor:g}, not worse than {', '.join(asked.baselines) or 'nothing'}"
            rows[f"held out, plan {one.plan[:12]}"] = f"{one.when}, {asked.most} episodes, {limits}: {outcome}{proof}"
            continue
        played = (
            f"{asked.most} pairs at most" if one.on_robot else f"seeds {asked.first_seed} to {asked.seeds.stop - 1}"
        )
        rows[f"{asked.machine}, session {asked.attempt}" if one.on_robot else f"attempt {asked.attempt}"] = (
            f"{one.when}, {played}, error rate {asked.level:.2g} of "
            f"alpha {asked.alpha:g}: {outcome}"
            + (f" after {one.episodes} {'pairs' if one.on_robot else 'episodes'}, " if one.outcome else "")
            + (f"evidence {one.evidence[:12]}" if one.outcome else "")
        )
    return rows


def _refuse_met(wanted: Plan, before: Sequence[Attempt], plans: Sequence[Plan]) -> None:
    """Raise GateError where the plan has seeds of an earlier one: choosing a plan after seeing the outcomes is
    choosing the verdict."""
    for one, earlier in zip(before, plans, strict=True):
        met = range(earlier.first_seed, earlier.first_seed + (one.episodes if one.outcome else earlier.most))
        if earlier.world == wanted.world and max(met.start, wanted.seeds.start) < min(met.stop, wanted.seeds.stop):
            proof = f", verdict {one.evidence[:12]}" if one.evidence else ""
            raise GateError(
                f"gate.first_seed: the candidate {wanted.candidate[:12]} met the seeds {met.start} to {met.stop - 1} "
                f"before ({one.outcome or 'a gate that did not finish'}{proof}); a new plan needs new seeds: set it to "
                f"{met.stop} or more. It differs in {', '.join(_differences(earlier, wanted))}"
            )


def _differences(one: Plan, two: Plan) -> list[str]:
    mine, theirs = one.to_json(), two.to_json()
    return [name for name in mine if mine[name] != theirs[name] and name not in ("attempt", "retrained")]


def _there(root: Path, paths: Paths, attempt: Attempt) -> bool:
    """Return whether the sealed evidence is available and holds exactly this verdict."""
    try:
        folder, _ = verdicts.found(root, attempt.evidence)
    except (RegistryError, StorageError, GateError):
        return False
    return _bytes(folder / "verdict.json") == _bytes(paths.gate / "verdict.json")


def _bytes(path: Path) -> str:
    """Return the text of a small file; "" where it does not exist, as records where nothing was played."""
    return records.load(path) if path.exists() else ""
