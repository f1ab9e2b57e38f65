"""Planning of a session of robot trials: which policies, on which initial conditions, by the committed rules.

The plan is locked by its sha256 and sealed in the registry before the first trial, as a simulated gate's is.
"""

from __future__ import annotations

import io
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vqbet import bundle, registry, signing, statistics
from vqbet.commands import bounds
from vqbet.commands.trials import server_key, sessions
from vqbet.contract import GateError, RegistryError, Spec
from vqbet.evaluation.interim import Look
from vqbet.evaluation.plan import MOST_ATTEMPTS, Plan, Slice, spec_sha256
from vqbet.evaluation.trials.blinding import committed, new_salt
from vqbet.evaluation.trials.trial_folder import TrialFolder
from vqbet.evaluation.trials.trial_plan import WORLD, Condition, Grade, TrialPlan
from vqbet.files import atomic, reading
from vqbet.files.manifest import Fingerprint
from vqbet.registry import Attempt
from vqbet.stages import worlds
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.tasks import TASKS

if TYPE_CHECKING:
    from vqbet.config import TaskParams

DIFFERING = 0.2  # share of pairs in which one policy alone succeeds, assumed for the power
ABOVE = 0.3  # true success above the floor, assumed for the power of a candidate alone
MOST_PICTURE_BYTES = 4 * 2**20
PNG = b"\x89PNG\r\n\x1a\n"
WHOLE = Slice("all", 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialsAsked:
    """What a person asks of a plan. candidate: a version; 0: the alias. server_key: base64; "": the project's own.
    again: whether another plan for the same policies may stand beside one that is not closed."""

    robot: str = "simrobot"
    candidate: int = 0
    server_key: str = ""
    again: bool = False


def run(root: Path, task: str, asked: TrialsAsked, watch: Watch) -> dict[str, str]:
    """Lock and seal a plan, and return a table of it. Raises GateError or RegistryError where none can be made."""
    registry.check()
    params = bounds.committed(root, task)
    if "robot" not in params.gate.evidence:
        raise GateError(
            f"{task}.gate.evidence: the committed params.yaml asks for {', '.join(params.gate.evidence)} only; "
            'add "robot", and commit it'
        )
    digests, spec = _arms(task, asked)
    if not asked.again:
        sessions.refuse_open(root, task, digests)
    key = asked.server_key or server_key.own(root).public
    _expect_trusted(key)
    after = completed(root, task, digests) if "simulated" in params.gate.evidence else ""
    conditions, pictures = _conditions(root, task, params, watch)
    while True:
        attempts = registry.Attempts(task)
        judged = _judged(task, params, spec, digests, asked.robot, _attempt(attempts.of(digests["candidate"])))
        plan, salt = _locked(judged, params, conditions, after, key)
        folder = TrialFolder(Paths(root, task).trials(plan.sha256))
        folder.keep(plan, salt)
        for sha256, content in pictures.items():
            atomic.write(folder.pictures / f"{sha256}.png", content, GateError)
        try:
            attempts.seal_plan(plan.judged.candidate, plan.plan.sha256, plan.plan.to_json())
        except registry.OvertakenError:  # another attempt was sealed at the same time: count again
            shutil.rmtree(folder.path)
            continue
        return _described(plan, folder.path)


def completed(root: Path, task: str, digests: Mapping[str, str]) -> str:
    """Return the evidence of the simulated verdict PROMOTE about exactly these policies.

    Raises GateError where there is none under the committed bounds.
    """
    about = {"candidate": digests["candidate"], "champion": digests.get("champion", "")}
    for one in reversed(registry.Attempts(task).of(digests["candidate"])):
        if one.outcome == "PROMOTE" and not one.on_robot and one.content["champion"] == about["champion"]:
            bounds.check(root, task, Plan.from_json(one.content, f"attempt on {one.candidate[:12]}"))
            return one.evidence
    raise GateError(
        f"{task}.gate.evidence: asks for simulated evidence too, and no gate says PROMOTE about candidate "
        f"{about['candidate'][:12]} and champion {about['champion'][:12] or 'none'}; run it before the robot: "
        f"dvc repro gate@{task}, then vqbet register {task}"
    )


def _arms(task: str, asked: TrialsAsked) -> tuple[dict[str, str], Spec]:
    """Return the digests by arm and the spec that they share."""
    candidate = registry.resolve(f"{task}/{asked.candidate}" if asked.candidate else f"{task}@{registry.CANDIDATE}")
    champion = registry.champion(task)
    digests = {"candidate": candidate.digest}
    with tempfile.TemporaryDirectory() as scratch:
        packed = bundle.read(registry.download(candidate, Path(scratch) / "candidate"), candidate.digest)
        if champion is not None:
            digests["champion"] = champion.digest
            theirs = bundle.read(registry.download(champion, Path(scratch) / "champion"), champion.digest)
            if differing := packed.spec.differences(theirs.spec):
                raise GateError(f"{task}: candidate (here) and champion (there) differ: {'; '.join(differing)}")
    if digests.get("champion") == candidate.digest:
        raise GateError(f"{task}/{candidate.version}: is the champion already; train and register another policy")
    return digests, packed.spec


def _expect_trusted(public: str) -> None:
    """Raise RegistryError where a trust file is in force and nobody in it may serve with this key."""
    trust = signing.current()
    if trust is None:
        return
    holder = trust.holders.get(signing.identify(signing.parse(public)))
    if holder is None or "serve" not in holder.roles:
        raise RegistryError(
            f"{trust.where}: nobody with the role serve has the server's key; vqbet keys trust <name> --role serve "
            f"--public-key {public}, and commit it"
        )


def _attempt(before: Sequence[Attempt]) -> int:
    """Return the number of the next session about a candidate."""
    sessions_before = sum(one.on_robot for one in before)
    if sessions_before >= MOST_ATTEMPTS:
        raise GateError(
            f"the candidate was tried on a robot {sessions_before} times, and no share of alpha is left; train another"
        )
    return sessions_before + 1


def _judged(task: str, params: TaskParams, spec: Spec, digests: Mapping[str, str], robot: str, attempt: int) -> Plan:
    chosen = params.trials
    names = ("metric", "question", "stopping", "margin", "alpha", "power", "floor")
    try:
        return Plan(
            task=task,
            world=f"{WORLD}{robot}",
            spec=spec_sha256(spec),
            candidate=digests["candidate"],
            champion=digests.get("champion", ""),
            machine=robot,
            first_seed=params.gate.first_seed,
            looks=tuple(chosen.looks),
            reserved={},
            slices=(WHOLE,),
            min_modes=0,
            baselines=(),
            attempt=attempt,
            **{name: getattr(chosen, name) for name in names},
        )
    except GateError as error:
        raise GateError(f"{task}.trials: {error}") from error


def _locked(
    judged: Plan, params: TaskParams, conditions: Sequence[Condition], after: str, key: str
) -> tuple[TrialPlan, bytes]:
    chosen, salt = params.trials, new_salt()
    try:
        plan = TrialPlan(
            judged=judged,
            robot=judged.machine,
            conditions=tuple(conditions),
            block=chosen.block,
            rubric=tuple(Grade(name, credit) for name, credit in chosen.rubric.items()),
            tags=tuple(chosen.tags),
            invalid=tuple(chosen.invalid),
            most_invalid=chosen.most_invalid,
            timeout_s=chosen.timeout_s,
            salt=committed(salt),
            server_key=key,
            after=after,
        )
    except GateError as error:
        raise GateError(f"{judged.task}.trials: {error}") from error
    return plan, salt


def _conditions(root: Path, task: str, params: TaskParams, watch: Watch) -> tuple[list[Condition], dict[str, bytes]]:
    """Return the initial conditions, and their pictures by sha256."""
    if params.trials.conditions == "drawn":
        return _drawn(task, params, watch)
    found, pictures = list[Condition](), dict[str, bytes]()
    for one in params.trials.conditions:
        sha256 = ""
        if one.picture:
            content = reading.content(root / one.picture, GateError, most=MOST_PICTURE_BYTES, mend="name a PNG file")
            if not content.startswith(PNG):
                raise GateError(f"{root / one.picture}: expected a PNG picture of condition {one.name!r}")
            sha256 = Fingerprint.of(content).sha256
            pictures[sha256] = content
        found.append(Condition(one.name, one.text, sha256))
    return found, pictures


def _drawn(task: str, params: TaskParams, watch: Watch) -> tuple[list[Condition], dict[str, bytes]]:
    """Return one condition per pair: the world of the task as its seed starts it."""
    import numpy as np
    from PIL import Image

    if task not in TASKS or TASKS[task].world is None:
        raise GateError(
            f"{task}.trials.conditions: drawn needs a simulated world, which this task has not; list the initial "
            "conditions: [{name: ..., text: ..., picture: ...}]"
        )
    env, found, pictures = worlds.make(task), list[Condition](), dict[str, bytes]()
    pairs, first = params.trials.looks[-1], params.gate.first_seed
    with watch.bar(f"{task}: initial conditions") as advance:
        for pair in range(pairs):
            env.reset(np.array([first + pair]))
            drawn = io.BytesIO()
            Image.fromarray(env.render(0)).save(drawn, "png")
            sha256 = Fingerprint.of(drawn.getvalue()).sha256
            pictures[sha256] = drawn.getvalue()
            found.append(Condition(f"scene {pair + 1}", "as in the picture", sha256))
            advance(pair + 1, pairs, {})
    return found, pictures


def _described(plan: TrialPlan, folder: Path) -> dict[str, str]:
    judged = plan.judged
    than = "better than the champion's" if judged.question == "better" else f"not worse by {judged.margin:g}"
    alone = f"above {judged.floor:g}, without a champion"
    rows = {
        "plan": f"{plan.sha256[:12]}, locked and sealed; attempt {judged.attempt} on this candidate",
        "question": f"is the candidate's {judged.metric} on {plan.robot} {than if judged.champion else alone}",
        "policies": ", ".join(f"{arm} {digest[:12]}" for arm, digest in plan.arms.items()),
        "trials": f"{plan.trials} at most, {plan.pairs} initial conditions in blocks of {plan.block}",
        "looks": f"after {', '.join(map(str, judged.looks))} of them; {judged.stopping.replace('_', ' ')}",
        "robot time": f"{plan.trials * plan.timeout_s / 60:.0f} minutes at most, {plan.timeout_s:g} s a trial",
    }
    for pairs in judged.looks:
        rows[f"power at {pairs}"] = _power(judged, pairs)
    if plan.after:
        rows["completes"] = f"simulated verdict {plan.after[:12]}"
    return rows | {
        "invalid trials": f"at most {100 * plan.most_invalid:.0f} %: {', '.join(plan.invalid)}",
        "server's key": plan.server_key,
        "folder": str(folder),
        "next": f"vqbet trials run {plan.task}",
    }


def _power(judged: Plan, pairs: int) -> str:
    """Return the power of a look, in words, with what it assumes."""
    chance = Look(judged, pairs).chance
    if not judged.champion:
        rate = min(judged.floor + ABOVE, 0.99)
        spread = math.sqrt(rate * (1 - rate))
        power = statistics.mean_power(pairs, spread=spread, difference=rate, limit=judged.floor, alpha=chance)
        return f"{100 * power:.0f} % if it succeeds in {100 * rate:.0f} %"
    aimed, limit = (judged.margin, 0.0) if judged.question == "better" else (0.0, -judged.margin)
    share = max(DIFFERING, aimed)
    power = statistics.pairs_power(
        pairs, gained=(share + aimed) / 2, lost=(share - aimed) / 2, limit=limit, alpha=chance
    )
    same = "equal policies" if not aimed else f"a candidate better by {aimed:g}"
    return f"{100 * power:.0f} % for {same} that differ in {100 * share:.0f} % of the pairs"


def recommitted(plan: TrialPlan, params: TaskParams) -> list[str]:
    """Return the names of the rules in which a plan differs from the parameters; conditions by name and text."""
    chosen = params.trials
    wanted = replace(
        plan,
        judged=replace(
            plan.judged,
            looks=tuple(chosen.looks),
            **{
                name: getattr(chosen, name)
                for name in ("metric", "question", "stopping", "margin", "alpha", "power", "floor")
            },
        ),
        block=chosen.block,
        rubric=tuple(Grade(name, credit) for name, credit in chosen.rubric.items()),
        tags=tuple(chosen.tags),
        invalid=tuple(chosen.invalid),
        most_invalid=chosen.most_invalid,
        timeout_s=chosen.timeout_s,
    )
    mine, theirs = _flat(plan), _flat(wanted)
    differing = [name for name in mine if mine[name] != theirs[name]]
    if chosen.conditions != "drawn":
        listed = [(one.name, one.text) for one in chosen.conditions]
        differing += ["conditions"] if listed != [(one.name, one.text) for one in plan.conditions] else []
    return differing


def _flat(plan: TrialPlan) -> dict[str, object]:
    said = plan.to_json()
    judged = said.pop("judged")
    return {**judged, **said}
