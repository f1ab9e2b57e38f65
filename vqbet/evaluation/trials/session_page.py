"""The page of a session of robot trials after its unblinding: a single HTML page that loads only its films.

Made from the evidence of the verdict alone, and from the recordings where they are at hand. Equal files produce an
equal page.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from vqbet.contract import GateError, WorldError
from vqbet.evaluation import gate, gate_figures, records, report, video
from vqbet.evaluation.plan import Plan
from vqbet.evaluation.trials import trial_figures, trial_films, trial_log, trial_session
from vqbet.evaluation.trials.blinding import Blinding
from vqbet.evaluation.trials.trial_films import TrialFilm
from vqbet.evaluation.trials.trial_log import TrialEvent
from vqbet.evaluation.trials.trial_plan import Condition, TrialPlan
from vqbet.evaluation.trials.trial_session import Trial
from vqbet.files import atomic, reading
from vqbet.files.manifest import Fingerprint

MEANINGS = {
    **report.MEANINGS,
    "HOLD": "No check failed, and at least one is undecided: more trials may decide it.",
    "NOT_COMPARABLE": "The trials do not answer the plan's question.",
}
MEND = "fetch the evidence again: vqbet evidence fetch"
FILMS = "films"
MOST_PICTURE_BYTES = 32 * 2**20
MOST_WIDTH = 240  # pixels of a condition's picture in the page


@dataclass(frozen=True, slots=True)
class UnblindedSession:
    """A session as its evidence holds it. trials: in the order in which they ran."""

    plan: TrialPlan
    verdict: Mapping[str, Any]
    summary: Mapping[str, Any]
    events: Sequence[TrialEvent]
    trials: Sequence[Trial]
    closed: str

    @classmethod
    def read(cls, evidence: Path) -> UnblindedSession:
        """Read the evidence of a robot verdict. Raises GateError naming the file that is missing or damaged."""
        folder = evidence / "trials"
        plan = TrialPlan.read(folder / "plan.json")
        verdict = _json(evidence / "verdict.json")
        with reading.sentences(str(folder / "salt"), GateError, MEND):
            blinding = Blinding(plan, bytes.fromhex(records.load(folder / "salt").strip()))
        events = trial_log.read(folder / "session.jsonl")
        progress = trial_session.progress(plan, blinding, events)
        trials = tuple(progress.trials.values())
        return cls(plan, verdict, _json(folder / "summary.json"), events, trials, progress.closed)

    @property
    def numbers(self) -> dict[str, int]:
        """The number of each trial in the order in which they ran, from 1, by its code."""
        return {trial.code: number for number, trial in enumerate(self.trials, start=1)}

    @property
    def graded(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.state == "graded"]

    @property
    def invalid(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.state == "invalid"]


def write(evidence: Path, target: Path, *, recordings: Path | None) -> Path:
    """Write target/index.html, and films into target/films, and return the page's path.

    evidence: folder of a robot verdict. recordings: folder of the robot's recordings; None where they are elsewhere,
    and then there are no films. Pictures of the conditions come from the evidence, or from beside the recordings.
    Raises GateError naming the file that is missing or damaged.
    """
    session = UnblindedSession.read(evidence)
    pairs = trial_films.worst(session.plan, session.trials)
    films = [trial_films.write(pair, recordings, target / FILMS, session.numbers) for pair in pairs]
    pictures = [evidence / "trials" / "pictures", *([recordings.parent / "pictures"] if recordings else [])]
    with reading.sentences(f"{evidence}: verdict or summary", GateError, MEND):
        text = _text(session, films, target / FILMS, pictures)
    atomic.write(target / "index.html", text, GateError)
    return target / "index.html"


def _text(
    session: UnblindedSession, films: Sequence[Sequence[TrialFilm]], folder: Path, pictures: Sequence[Path]
) -> str:
    from markupsafe import Markup

    from vqbet.pages import page

    plan, verdict = session.plan, session.verdict
    order = trial_figures.order(plan, session.trials)
    return page.render(
        "evaluation/trials/session_page.html.j2",
        plan=plan,
        judged=plan.judged,
        verdict=verdict,
        badge=report.BADGES.get(verdict["outcome"], "none"),
        meaning=MEANINGS.get(verdict["outcome"], ""),
        lead=_lead(verdict),
        judgement={**verdict, "checks": [check for check in verdict["checks"] if check["name"] != "modes"]},
        arms=_arms(session),
        tiles=_tiles(session),
        cost=_cost(session),
        irregular=session.summary["irregularities"],
        fused=session.summary["fused"],
        order={block: Markup(drawn) for block, drawn in order.items()},
        legend=trial_figures.legend(plan),
        looks=Markup(_looks(plan.judged, verdict)),
        stages=reached(session),
        tags=_tags(session),
        invalid=[(session.numbers[trial.code], trial) for trial in session.invalid],
        films=[[(film, _strip(folder, film)) for film in pair] for pair in films],
        conditions=_conditions(session, pictures),
        colour=lambda trial: trial_figures.colour(plan.grade(trial.stage).credit),
        condition=lambda trial: plan.condition(trial.slot.pair),
        trials=list(enumerate(session.trials, start=1)),
        provenance=_provenance(session),
    )


def reached(session: UnblindedSession) -> dict[str, dict[str, int]]:
    """Return how many valid trials of each arm ended at each stage of the rubric, in its order."""
    found = {arm: dict.fromkeys((grade.name for grade in session.plan.rubric), 0) for arm in session.plan.arms}
    for trial in session.graded:
        found[trial.slot.arm][trial.stage] += 1
    return found


def _json(path: Path) -> Any:
    return records.parse(records.load(path), str(path))


def _lead(verdict: Mapping[str, Any]) -> str:
    """Return the sentence on the plan's question at the last look; the whole reason where there was no look."""
    if not verdict["looked"]:
        return str(verdict["reason"])
    last = gate.Check(**verdict["looked"][-1])
    return f"after {verdict['episodes']} pairs, {last.sentence()}"


def _arms(session: UnblindedSession) -> list[dict[str, Any]]:
    """Return a row per arm: digest, numbers of the verdict where there are any, and trials."""
    numbers = session.verdict["numbers"] or {}
    found = []
    for arm, digest in session.plan.arms.items():
        invalid = sum(trial.slot.arm == arm for trial in session.invalid)
        mine = [trial for trial in session.graded if trial.slot.arm == arm]
        row = {"name": arm, "digest": digest, "trials": len(mine), "invalid": invalid}
        found.append({**row, "numbers": numbers.get(arm)})
    return found


def _tiles(session: UnblindedSession) -> dict[str, str]:
    """Return the numbers at the head of the page, by what they count."""
    plan, more = session.plan, session.verdict["more_episodes"]
    numbers = session.verdict["numbers"] or {}
    shares = {f"of the {arm}'s trials succeed": f"{100 * numbers[arm]['success']:.0f} %" for arm in numbers}
    still = {"more trials may decide": f"{more * len(plan.arms)}"} if more else {}
    return {
        **shares,
        f"valid trials, of at most {plan.trials}": str(len(session.graded)),
        **still,
        f"invalid, {100 * _share(session):.0f} % of all": str(len(session.invalid)),
        "robot minutes": f"{_robot_s(session) / 60:.1f}",
    }


def _cost(session: UnblindedSession) -> dict[str, str]:
    """Return the rows of the cost card."""
    plan, more = session.plan, session.verdict["more_episodes"]
    needed = f"{more * len(plan.arms)} more ({more} pairs)" if more else "none"
    hours = session.summary["cost"].get("gpu_hours")
    opened, closed = (datetime.fromisoformat(session.events[place].when) for place in (0, -1))
    interventions = sum(trial.stopped["interventions"] for trial in session.trials if trial.stopped)
    holds = sum(trial.stopped["holds"] for trial in session.trials if trial.stopped)
    minutes = (closed - opened).total_seconds() / 60
    return {
        "trials spent": f"{len(session.trials)}: {len(session.graded)} valid, {len(session.invalid)} invalid",
        "trials needed": needed,
        "robot": f"{_robot_s(session) / 60:.1f} minutes in motion",
        "session": f"{f'{minutes:.0f} minutes' if minutes < 120 else f'{minutes / 60:.1f} hours'} from start to end",
        "guard's holds": str(holds),
        "interventions": str(interventions),
        "GPU hours": "not known" if hours is None else f"{hours:.2f}",
    }


def _robot_s(session: UnblindedSession) -> float:
    return sum(float(trial.stopped["duration_s"]) for trial in session.trials if trial.stopped)


def _share(session: UnblindedSession) -> float:
    return len(session.invalid) / max(len(session.trials), 1)


def _looks(plan: Plan, verdict: Mapping[str, Any]) -> str:
    if not verdict["looked"]:
        return ""
    return gate_figures.looked(plan, verdict["looked"], name="looked", unit="pairs")


def _tags(session: UnblindedSession) -> dict[str, dict[str, int]]:
    """Return the failures with each tag, by arm; "" stands for those without a tag."""
    failed = [trial for trial in session.graded if session.plan.grade(trial.stage).credit < 1]
    used = Counter((trial.tag, trial.slot.arm) for trial in failed)
    names = [tag for tag in (*session.plan.tags, "") if any(used[tag, arm] for arm in session.plan.arms)]
    return {tag: {arm: used[tag, arm] for arm in session.plan.arms} for tag in names}


def _conditions(session: UnblindedSession, folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the conditions that were run, with a picture to embed and the outcome of each pair."""
    plan, pairs = session.plan, dict[int, list[Trial]]()
    for trial in sorted(session.graded, key=lambda trial: (trial.slot.pair, list(plan.arms).index(trial.slot.arm))):
        pairs.setdefault(trial.slot.pair, []).append(trial)
    found: dict[str, dict[str, Any]] = {}
    for pair, trials in pairs.items():
        one = plan.condition(pair)
        if one.name not in found:
            found[one.name] = {"condition": one, "picture": _picture(one, folders), "pairs": []}
        found[one.name]["pairs"].append((pair + 1, trials))
    return list(found.values())


def _picture(condition: Condition, folders: Sequence[Path]) -> str:
    """Return a condition's picture, smaller, in base64; "" where there is none at hand. Raises GateError."""
    paths = [folder / f"{condition.picture}.png" for folder in folders]
    path = next((path for path in paths if condition.picture and path.is_file()), None)
    if path is None:
        return ""
    content = reading.content(path, GateError, most=MOST_PICTURE_BYTES, mend=MEND)
    if Fingerprint.of(content).sha256 != condition.picture:
        raise GateError(f"{path}: is not the picture that the plan names; {MEND}")
    try:
        made = video.png(video.shrunk(video.read_png(content, str(path)), MOST_WIDTH))
    except WorldError:  # without OpenCV, or a picture that is none: the plan names it all the same
        return ""
    return base64.b64encode(made).decode()


def _strip(folder: Path, film: TrialFilm) -> str:
    return base64.b64encode((folder / film.strip).read_bytes()).decode() if film.strip else ""


def _provenance(session: UnblindedSession) -> dict[str, str]:
    """Return the rows of the provenance: plans, keys, people and times."""
    plan, opened = session.plan, [event for event in session.events if event.kind == "opened"]
    people = dict.fromkeys(f"{event['operator']} (account {event['user']})" for event in opened)
    return {
        "plan of the trials": plan.sha256,
        "plan of the gate": session.verdict["plan"],
        "robot": plan.robot,
        "server key": plan.server_key,
        "salt, sha256": plan.salt,
        "operators": ", ".join(people),
        "opened": session.events[0].when,
        "closed": f"{session.events[-1].when}, {session.closed}",
        "attempt": f"{plan.judged.attempt} on this candidate, error rate {plan.judged.level:.2g} of alpha "
        f"{plan.judged.alpha:g}",
        **({"simulated verdict": plan.after} if plan.after else {}),
    }
