"""Planning of a session of robot trials: which policies, on which initial conditions, by the committed rules.

The plan is locked by its sha256 and sealed in the registry before the first trial, as a simulated gate's is.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqbet import bundle, registry, signing
from vqbet.commands import bounds
from vqbet.commands.trials import plan_table, server_key, sessions
from vqbet.contract import GateError, RegistryError, Spec
from vqbet.demos import store
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

if TYPE_CHECKING:
    from vqbet.config import TaskParams, TrialsParams

MOST_PICTURE_BYTES = 4 * 2**20
JUDGED_BY = ("metric", "question", "stopping", "margin", "alpha", "power", "floor")  # rules in the gate's plan
PNG = b"\x89PNG\r\n\x1a\n"
WHOLE = Slice("all", 1.0)
SCENE = "scene {}"  # name of a drawn initial condition
OF_YOUR_CHOICE = "of your choice at its first trial; the same again whenever this number returns"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialsAsked:
    """Settings of a new plan. candidate: a version; 0: the alias. server_key: base64; "": the project's own.
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
    expect_trusted(key)
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
        return plan_table.rows(plan, folder.path)


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


def expect_trusted(public: str) -> None:
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
    try:
        return Plan(
            task=task,
            world=f"{WORLD}{robot}",
            spec=spec_sha256(spec),
            candidate=digests["candidate"],
            champion=digests.get("champion", ""),
            machine=robot,
            first_seed=params.gate.first_seed if chosen.conditions == "drawn" else 0,
            looks=tuple(chosen.looks),
            reserved={},
            slices=(WHOLE,),
            min_modes=0,
            baselines=(),
            attempt=attempt,
            **{name: getattr(chosen, name) for name in JUDGED_BY},
        )
    except GateError as error:
        raise GateError(f"{task}.trials: {error}") from error


def _locked(
    judged: Plan, params: TaskParams, conditions: Sequence[Condition], after: str, key: str
) -> tuple[TrialPlan, bytes]:
    salt = new_salt()
    try:
        plan = TrialPlan(
            judged=judged,
            robot=judged.machine,
            conditions=tuple(conditions),
            **_rules(params.trials),
            salt=committed(salt),
            server_key=key,
            after=after,
        )
    except GateError as error:
        raise GateError(f"{judged.task}.trials: {error}") from error
    return plan, salt


def _rules(chosen: TrialsParams) -> dict[str, Any]:
    """Return the fields of a plan of trials that equal the parameters, but for those of the gate."""
    return {
        "block": chosen.block,
        "rubric": tuple(Grade(name, credit) for name, credit in chosen.rubric.items()),
        "tags": tuple(chosen.tags),
        "invalid": tuple(chosen.invalid),
        "most_invalid": chosen.most_invalid,
        "timeout_s": chosen.timeout_s,
    }


def _conditions(root: Path, task: str, params: TaskParams, watch: Watch) -> tuple[list[Condition], dict[str, bytes]]:
    """Return the initial conditions, and their pictures by sha256."""
    if params.trials.conditions == "drawn":
        return _drawn(root, task, params, watch) if worlds.exists(task, params) else (_numbered(params), {})
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


def _drawn(root: Path, task: str, params: TaskParams, watch: Watch) -> tuple[list[Condition], dict[str, bytes]]:
    """Return a condition per pair, with its picture: the world of the task as its seed starts it."""
    import numpy as np
    from PIL import Image

    demos = store.read(Paths(root, task).store) if params.evaluate.world is not None else None
    env = worlds.make(worlds.name(task, asked=False, params=params), demos)
    found, pictures = list[Condition](), dict[str, bytes]()
    pairs, first = params.trials.looks[-1], params.gate.first_seed
    with watch.bar(f"{task}: initial conditions") as advance:
        for pair in range(pairs):
            env.reset(np.array([first + pair]))
            drawn = io.BytesIO()
            Image.fromarray(env.render(0)).save(drawn, "png")
            sha256 = Fingerprint.of(drawn.getvalue()).sha256
            pictures[sha256] = drawn.getvalue()
            found.append(Condition(SCENE.format(pair + 1), "as in the picture", sha256))
            advance(pair + 1, pairs, {})
    return found, pictures


def _numbered(params: TaskParams) -> list[Condition]:
    """Return a condition per pair for a task without a world, which the operator chooses."""
    return [Condition(SCENE.format(pair + 1), OF_YOUR_CHOICE) for pair in range(params.trials.looks[-1])]


def recommitted(plan: TrialPlan, params: TaskParams) -> list[str]:
    """Return the names of the rules in which a plan differs from the parameters; conditions by name and text."""
    chosen = params.trials
    wanted = replace(
        plan,
        judged=replace(
            plan.judged,
            looks=tuple(chosen.looks),
            **{name: getattr(chosen, name) for name in JUDGED_BY},
        ),
        **_rules(chosen),
    )
    mine, theirs = _flat(plan), _flat(wanted)
    differing = [name for name in mine if mine[name] != theirs[name]]
    if chosen.conditions == "drawn":
        same = [one.name for one in plan.conditions] == [SCENE.format(pair + 1) for pair in range(plan.pairs)]
    else:
        listed = [(one.name, one.text) for one in chosen.conditions]
        same = listed == [(one.name, one.text) for one in plan.conditions]
    return differing if same else [*differing, "conditions"]


def _flat(plan: TrialPlan) -> dict[str, object]:
    said = plan.to_json()
    judged = said.pop("judged")
    return {**judged, **said}
