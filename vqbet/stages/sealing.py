"""Plans and verdicts, sealed in the registry by the gate and nowhere else: what was sought is known to every clone.

A plan is sealed before its first episode, under the number of the attempt it is; a verdict when its evidence is packed.
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

JUDGED = ("plan.json", "records.jsonl", "verdict.json")


def plan(task: str, make: Callable[[int], Plan]) -> Plan:
    """The plan that `make` returns for the number of this attempt, sealed.

    The same plan as an earlier one, on the same machine, is that attempt again: it plays the same episodes. The seal
    names the machine, the plan does not. Where candidate and champion are the same policy nothing is played, and
    nothing is sealed. Raises GateError where the candidate has met some of the plan's seeds under another plan or on
    another machine, or was judged as often as can be.
    """
    if make(1).candidate == make(1).champion:
        return make(1)
    machine = environment.machine()
    while True:
        attempts = registry.Attempts(task)
        candidate = make(1).candidate
        before = attempts.of(candidate)
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
        except registry.OvertakenError:  # another clone sought a verdict at this moment: count again
            continue
        return wanted


def verdict(root: Path, task: str, judged: Plan, played: int) -> str:
    """Pack the evidence of the verdict in the artefacts, keep it in the registry, and seal it; return its id.

    Returns nothing for a plan that was not sealed, since there was nothing to play.

    played: episodes of each arm. A verdict that is sealed already keeps its evidence. Raises GateError where the same
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
    """The id of the evidence that was sealed for the verdict in the task's artefacts, and the verdict, recomputed.

    Raises GateError where the verdict is about another policy than the one in the artefacts, was sealed by no gate, or
    where plan, records or verdict are not byte for byte those that were sealed.
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
    """Return whether the registry has sealed the verdict in the task's artefacts, or it is one about nothing."""
    said = Plan.read(Paths(root, task).gate / "plan.json")
    attempt = registry.Attempts(task).under(said.sha256)
    return said.candidate == said.champion or (attempt is not None and bool(attempt.outcome))


def sought(task: str, candidate: str) -> dict[str, str]:
    """Every attempt about one policy, in words: when, on which seeds, and what came of it."""
    rows = {}
    for one in registry.Attempts(task).of(candidate):
        asked = Plan.from_json(one.content, f"attempt on {candidate[:12]}")
        rows[f"attempt {asked.attempt}"] = (
            f"{one.when}, seeds {asked.first_seed} to {asked.seeds.stop - 1}, error rate {asked.level:.2g} of "
            f"alpha {asked.alpha:g}: {one.outcome or 'not finished'}"
            + (f" after {one.episodes} episodes, evidence {one.evidence[:12]}" if one.outcome else "")
        )
    return rows


def _refuse_met(wanted: Plan, before: Sequence[Attempt], plans: Sequence[Plan]) -> None:
    """To choose a plan after having seen how its episodes end is to choose the verdict."""
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
    """Whether the sealed evidence can be had and holds exactly this verdict."""
    try:
        folder, _ = verdicts.found(root, attempt.evidence)
    except (RegistryError, StorageError, GateError):
        return False
    return _bytes(folder / "verdict.json") == _bytes(paths.gate / "verdict.json")


def _bytes(path: Path) -> str:
    """The text of a small file; empty where there is none, as records where nothing was played."""
    return records.load(path) if path.exists() else ""
