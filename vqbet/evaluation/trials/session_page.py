"""The page of a session of robot trials after its unblinding: a single HTML page that loads only its films.

Made from the evidence of the verdict alone (`judging`), and from the robot's recordings where they are at hand. Equal
files produce an equal page.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqbet.contract import GateError, WorldError
from vqbet.evaluation import gate, gate_figures, records, report, video
from vqbet.evaluation.trials import judging, trial_figures, trial_films, trial_log
from vqbet.evaluation.trials.trial_figures import Row
from vqbet.evaluation.trials.trial_films import TrialFilm
from vqbet.evaluation.trials.trial_folder import TrialFolder
from vqbet.evaluation.trials.trial_log import TrialEvent
from vqbet.evaluation.trials.trial_plan import Condition, TrialPlan
from vqbet.files import atomic, reading

MEANINGS = {
    **report.MEANINGS,
    "HOLD": "No check failed, and at least one is undecided: more trials may decide it.",
    "NOT_COMPARABLE": "The trials do not answer the plan's question.",
}
MEND = "fetch the evidence again: vqbet evidence fetch"
FILMS = "films"
MOST_PICTURE_BYTES = 32 * 2**20
MOST_WIDTH = 240  # pixels of a condition's picture in the page
LONG_MINUTES = 120  # from then on, hours


@dataclass(frozen=True, slots=True)
class UnblindedSession:
    """A session as its evidence holds it. summary: see `trial_summary`. events: of the log, by their number."""

    plan: TrialPlan
    verdict: Mapping[str, Any]
    summary: Mapping[str, Any]
    simulated: Mapping[str, Any] | None  # the verdict that the trials complete
    events: Mapping[int, TrialEvent]
    pictures: Path

    @classmethod
    def read(cls, evidence: Path) -> UnblindedSession:
        """Read the evidence of a robot verdict. Raises GateError naming the file that is missing or damaged."""
        folder, simulated = TrialFolder(evidence / judging.TRIALS), evidence / judging.SIMULATED / "verdict.json"
        return cls(
            plan=TrialPlan.read(folder.plan),
            verdict=_json(evidence / "verdict.json"),
            summary=_json(folder.path / judging.SUMMARY),
            simulated=_json(simulated) if simulated.is_file() else None,
            events={event.seq: event for event in trial_log.read(folder.log)},
            pictures=folder.pictures,
        )

    @property
    def rows(self) -> Sequence[Row]:
        """The summary's trials, in the order in which they ran."""
        rows: Sequence[Row] = self.summary["trials"]
        return rows

    @property
    def invalid(self) -> list[Row]:
        return [row for row in self.rows if row["state"] == "invalid"]


def write(evidence: Path, target: Path, *, recordings: Path | None) -> Path:
    """Write target/index.html, and films into target/films, and return the page's path.

    evidence: folder of a robot verdict. recordings: folder of the robot's recordings; None where they are elsewhere,
    and then there are no films. Raises GateError naming the file that is missing or damaged.
    """
    session = UnblindedSession.read(evidence)
    with reading.sentences(f"{evidence}: verdict or summary", GateError, MEND):
        pairs = trial_films.worst(session.rows, list(session.plan.arms))
        films = [trial_films.write(pair, recordings, target / FILMS) for pair in pairs]
        text = _text(session, films, target / FILMS)
    atomic.write(target / "index.html", text, GateError)
    return target / "index.html"


def _text(session: UnblindedSession, films: Sequence[Sequence[TrialFilm]], folder: Path) -> str:
    from markupsafe import Markup

    from vqbet.pages import page

    plan, verdict, summary = session.plan, session.verdict, session.summary
    order = trial_figures.order(list(plan.arms), session.rows)
    return page.render(
        "evaluation/trials/session_page.html.j2",
        plan=plan,
        judged=plan.judged,
        verdict=verdict,
        judgement={**verdict, "checks": [check for check in verdict["checks"] if check["name"] != "modes"]},
        summary=summary,
        simulated=session.simulated,
        badge=report.BADGES.get(verdict["outcome"], "none"),
        meaning=MEANINGS.get(verdict["outcome"], ""),
        lead=_lead(session),
        arms=_arms(session),
        tiles=_tiles(session),
        cost=_cost(session),
        order={block: Markup(drawn) for block, drawn in order.items()},
        legend=trial_figures.legend(plan),
        uncounted=any(row["state"] == "graded" and not row["counts"] for row in session.rows),
        looks=Markup(_looks(session)),
        stages=_stages(session),
        tags=_tags(session),
        invalid=session.invalid,
        films=[[(film, _strip(folder, film)) for film in pair] for pair in films],
        conditions=_conditions(session),
        colour=lambda row: trial_figures.colour(row["credit"]),
        proofs=[(row, session.events[row["armed"]]) for row in session.rows],
        provenance=_provenance(session),
    )


def _json(path: Path) -> Any:
    return records.parse(records.load(path), str(path))


def _lead(session: UnblindedSession) -> str:
    """Return the sentence on the plan's question at the last look; without a look, why there is none."""
    verdict = session.verdict
    if not verdict["looked"]:
        return "; ".join(session.summary["voiding"]) or str(verdict["reason"]).split("; ")[0]
    last = gate.Check(**verdict["looked"][-1])
    return f"after {verdict['episodes']} pairs, {last.sentence()}"


def _arms(session: UnblindedSession) -> list[dict[str, Any]]:
    """Return a row per arm: digest, numbers of the verdict where there are any, and trials."""
    numbers = session.verdict["numbers"] or {}
    found = []
    for arm, digest in session.plan.arms.items():
        counted = sum(row["arm"] == arm and row["counts"] for row in session.rows)
        invalid = sum(session.summary["invalid"][arm].values())
        found.append(
            {"name": arm, "digest": digest, "trials": counted, "invalid": invalid, "numbers": numbers.get(arm)}
        )
    return found


def _tiles(session: UnblindedSession) -> dict[str, str]:
    """Return the numbers at the head of the page, by what they count."""
    cost, numbers = session.summary["cost"], session.verdict["numbers"] or {}
    more = _more(session)
    return {
        **{f"of the {arm}'s trials succeed": f"{100 * numbers[arm]['success']:.0f} %" for arm in numbers},
        f"trials count, of at most {session.plan.trials}": str(cost["trials_counted"]),
        **({"more trials may decide": str(more)} if more else {}),
        f"invalid, {100 * session.summary['invalid_share']:.0f} % of all": str(cost["trials_invalid"]),
        "robot minutes": f"{cost['robot_minutes']:.1f}",
    }


def _more(session: UnblindedSession) -> int:
    """Return how many further trials may decide; 0 where none are needed, or nobody knows."""
    cost = session.summary["cost"]
    return 0 if cost["trials_needed"] is None else cost["trials_needed"] - cost["trials_counted"]


def _cost(session: UnblindedSession) -> dict[str, str]:
    """Return the rows of the cost card."""
    cost, more = dict(session.summary["cost"]), _more(session)
    spent, counted, invalid = (cost.pop(f"trials_{name}") for name in ("spent", "counted", "invalid"))
    unknown = cost.pop("trials_needed") is None
    robot, minutes = cost.pop("robot_minutes"), cost.pop("session_minutes")
    whole = f"{minutes:.0f} minutes" if minutes < LONG_MINUTES else f"{minutes / 60:.1f} hours"
    gpu = cost.pop(judging.GPU, None)
    return {
        "trials spent": f"{spent}: {counted} count, {invalid} invalid",
        "trials needed": "not known" if unknown else f"{more} more" if more else "no more",
        "robot": f"{robot:.1f} minutes in motion",
        "session": f"{whole} from start to end",
        **{name: str(sum(row[name] or 0 for row in session.rows)) for name in ("holds", "interventions")},
        "GPU hours": "not known" if gpu is None else f"{gpu:.2f}",
        **{name.replace("_", " "): f"{value:.4g}" for name, value in sorted(cost.items())},
    }


def _looks(session: UnblindedSession) -> str:
    looked = session.verdict["looked"]
    return gate_figures.looked(session.plan.judged, looked, name="looked", unit="pairs") if looked else ""


def _stages(session: UnblindedSession) -> dict[str, list[tuple[str, int]]]:
    """Return by arm how many trials that count ended at each stage of the rubric, in its order."""
    found = session.summary["stages"]
    return {arm: [(grade.name, found[arm].get(grade.name, 0)) for grade in session.plan.rubric] for arm in found}


def _tags(session: UnblindedSession) -> dict[str, dict[str, int]]:
    """Return the failures that count with each tag, by arm; "" stands for those without a tag."""
    failed = [row for row in session.rows if row["counts"] and row["credit"] < 1]
    used = Counter((row["tag"], row["arm"]) for row in failed)
    names = [tag for tag in (*session.plan.tags, "") if any(used[tag, arm] for arm in session.plan.arms)]
    return {tag: {arm: used[tag, arm] for arm in session.plan.arms} for tag in names}


def _conditions(session: UnblindedSession) -> list[dict[str, Any]]:
    """Return the conditions that were run, with a picture to embed and the outcome of each pair."""
    plan, arms = session.plan, list(session.plan.arms)
    pairs: dict[int, list[Row]] = {}
    for row in sorted(session.rows, key=lambda row: (row["pair"], arms.index(row["arm"]))):
        if row["state"] == "graded":
            pairs.setdefault(row["pair"], []).append(row)
    found: dict[str, dict[str, Any]] = {}
    for pair, rows in pairs.items():
        one = plan.condition(pair)
        if one.name not in found:
            found[one.name] = {"condition": one, "picture": _picture(one, session.pictures), "pairs": []}
        found[one.name]["pairs"].append((pair + 1, rows))
    return list(found.values())


def _picture(condition: Condition, folder: Path) -> str:
    """Return a condition's picture, smaller, in base64; "" where there is none, or no OpenCV. Raises GateError."""
    if not condition.picture:
        return ""
    path = folder / f"{condition.picture}.png"
    content = reading.content(path, GateError, most=MOST_PICTURE_BYTES, mend=MEND)
    try:
        made = video.png(video.shrunk(video.read_png(content, str(path)), MOST_WIDTH))
    except WorldError:
        return ""
    return base64.b64encode(made).decode()


def _strip(folder: Path, film: TrialFilm) -> str:
    return base64.b64encode((folder / film.strip).read_bytes()).decode() if film.strip else ""


def _provenance(session: UnblindedSession) -> dict[str, str]:
    """Return the rows of the provenance: plans, keys, people and times."""
    plan, summary = session.plan, session.summary
    return {
        **plan.arms,
        "plan of the trials": plan.sha256,
        "plan of the gate": session.verdict["plan"],
        "robot": plan.robot,
        "server key": plan.server_key,
        "salt, sha256": plan.salt,
        "operators": ", ".join(summary["operators"]),
        "accounts": ", ".join(summary["users"]),
        "opened": summary["opened"],
        "closed": f"{summary['closed']}, {summary['why']}",
        "attempt": f"{plan.judged.attempt} on this candidate, error rate {plan.judged.level:.2g} of alpha "
        f"{plan.judged.alpha:g}",
        **({"simulated verdict": plan.after} if plan.after else {}),
    }
