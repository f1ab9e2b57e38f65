"""The report of one task: a single HTML page, made from the outputs of other stages, that loads only its films.

Equal files produce an equal page. Optional outputs (films, champion) may be missing; the records of the
evaluation and the verdict with its inputs must exist.
"""

from __future__ import annotations

import base64
import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vqbet.contract import EpisodeRecord, GateError
from vqbet.evaluation import gate, gate_figures, offline_view, records
from vqbet.evaluation.plan import Plan
from vqbet.files import atomic, reading
from vqbet.pages import figures, page

BADGES = {"PROMOTE": "good", "REJECT": "bad", "HOLD": "warn", "NOT_COMPARABLE": "none"}
MEANINGS = {
    "PROMOTE": "Every check passed: this policy may become champion.",
    "REJECT": "A check failed: the champion stays.",
    "HOLD": "No check failed, and at least one is undecided: more episodes may decide it.",
    "NOT_COMPARABLE": "The records cannot be compared as the plan requires.",
}
ON_HELD_OUT = {
    "REJECT": "On held-out episodes the policy is below the floor, or no better than a baseline: do not try it.",
    "HOLD": "Nothing on held-out episodes speaks against this policy: trials on the robot decide.",
}
MEND = "run the stage that writes it again: dvc repro"
DRAWN = 150  # episodes in a chart of trajectories


@dataclass(frozen=True, slots=True)
class ReportInputs:
    """Inputs of the report.

    artifacts: the task's folder, with evaluation/, gate/, metrics/, plots/, health.json, policy/bundle.json and
    validation/. tracks: trajectories to draw, title -> names of two observation channels. facts: additional rows of the
    provenance, such as the data version.
    """

    artifacts: Path
    tracks: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


def write(folder: Path, *, task: str, inputs: ReportInputs) -> Path:
    """Write folder/index.html and return its path. Raises GateError naming the file that is missing or damaged."""
    with reading.sentences(f"{inputs.artifacts}: verdict, health or bundle", GateError, MEND):
        text = _text(folder, task, inputs)
    target = folder / "index.html"
    atomic.write(target, text, GateError)
    return target


def _text(folder: Path, task: str, inputs: ReportInputs) -> str:
    from markupsafe import Markup

    files = inputs.artifacts
    plan = Plan.read(files / "gate" / "plan.json")
    evaluated = files / "evaluation" / "records.jsonl"
    offline = offline_view.shown(files / "evaluation")
    unplayed = offline is not None or (files / "evaluation" / "unplayed.json").is_file()  # of a task without a world
    candidate = [] if unplayed else records.read(evaluated)
    verdict = _json(files / "gate" / "verdict.json")
    played = files / "gate" / "records.jsonl"
    judged = gate.by_policy(records.read(played)) if played.is_file() else {}
    bundle = _optional(files / "policy" / "bundle.json") or {}
    trainings = {name: _curves(files / "plots" / f"{name}.csv") for name in ("prior", "tokenizer")}
    health = _optional(files / "health.json")
    return page.render(
        "evaluation/report.html.j2",
        task=task,
        plan=plan,
        verdict=verdict,
        badge=BADGES.get(verdict["outcome"], "none"),
        meaning=(ON_HELD_OUT if plan.held_out else MEANINGS).get(verdict["outcome"], ""),
        clauses=str(verdict["reason"]).split("; "),
        arms=_arms(verdict),
        offline=offline,
        modes=_modes(candidate),
        metrics=_means(candidate),
        films=_films(files / "evaluation" / "films", folder, candidate),
        pictures={title: Markup(picture) for title, picture in _gate_pictures(plan, verdict, judged).items()},
        worst=_worst(files / "gate" / "films", folder, judged),
        trajectories=Markup(_trajectories(files / "evaluation", inputs.tracks, bundle, candidate)),
        curves={name: Markup(figures.curves(rows, name=f"curves-{name}")) for name, rows in trainings.items() if rows},
        health=health,
        usage=Markup(_usage(health)),
        provenance=_provenance(plan, verdict, bundle, inputs.facts),
        links=_links(files, folder),
    )


def _json(path: Path) -> Any:
    return records.parse(records.load(path), str(path))


def _optional(path: Path) -> Any:
    return _json(path) if path.is_file() else None


def _curves(path: Path) -> dict[str, list[float]]:
    """Return the columns of a CSV file with a column "step"; empty where there is no file. Raises GateError."""
    if not path.is_file():
        return {}
    rows = list(csv.DictReader(records.load(path).splitlines()))
    if not rows or "step" not in rows[0]:
        raise GateError(f"{path}: expected a column 'step' and one column per metric; run the training stage again")
    try:
        return {name: [float(row[name]) for row in rows] for name in rows[0]}
    except (TypeError, ValueError) as error:
        raise GateError(f"{path}: expected a number in every cell ({error}); run the training stage again") from error


def _arms(verdict: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the comparison: candidate, champion, then baselines by descending score."""
    numbers = verdict["numbers"] or {}
    first = ("candidate", "champion")
    others = sorted(set(numbers) - set(first), key=lambda name: (-numbers[name]["score"], name))
    return [{"name": name, **numbers[name]} for name in (*first, *others) if name in numbers]


def _modes(candidate: Sequence[EpisodeRecord]) -> list[dict[str, Any]]:
    """Return count, share and mean score of each mode's episodes."""
    names = sorted({record.mode for record in candidate}, key=lambda mode: (mode == "", mode))
    found = []
    for name in names if any(names) else []:
        scores = [record.score for record in candidate if record.mode == name]
        share = len(scores) / len(candidate)
        found.append({"name": name or "none", "count": len(scores), "share": share, "score": float(np.mean(scores))})
    return found


def _means(candidate: Sequence[EpisodeRecord]) -> dict[str, float]:
    """Return the mean of each metric of this world, over the episodes that have the metric."""
    values: dict[str, list[float]] = {}
    for record in candidate:
        for name, value in record.metrics.items():
            values.setdefault(name, []).append(value)
    return {name: float(np.mean(values[name])) for name in sorted(values)}


def _films(source: Path, folder: Path, candidate: Sequence[EpisodeRecord]) -> list[dict[str, Any]]:
    """Return films seed-<seed>.webm by relative path, each with its strip of pictures to embed in the page."""
    found = []
    for record in sorted(candidate, key=lambda record: record.seed):
        film, strip = source / f"seed-{record.seed}.webm", source / f"seed-{record.seed}.png"
        if not film.is_file():
            continue
        picture = base64.b64encode(strip.read_bytes()).decode() if strip.is_file() else ""
        found.append({"record": record, "film": _relative(film, folder), "strip": picture})
    return found


def _gate_pictures(
    plan: Plan, verdict: Mapping[str, Any], judged: Mapping[str, Sequence[EpisodeRecord]]
) -> dict[str, str]:
    """Return the figures of the gate by caption; none where the records could not be compared."""
    if not verdict["looked"]:
        return {}
    rivals = "the candidate's score above the champion's" if plan.champion else "the candidate's score"
    other = f"; a dot: not {plan.slices[0].name}" if len(plan.slices) > 1 else ""
    found = {
        "Confidence interval at each interim look. Dashed: the limit that it must exceed.": gate_figures.looked(
            plan, verdict["looked"], name="looked"
        ),
    }
    if verdict["comparison"]:
        caption = (
            "Power over the true difference. Dashed: no difference, and the margin. Dotted: error rate and required "
            "power. Paler: earlier looks."
        )
        found[caption] = gate_figures.power(plan, verdict["comparison"], name="power")
    found[f"Every seed, in order: {rivals}{other}."] = gate_figures.outcomes(plan, judged, name="outcomes")
    return found


def _worst(source: Path, folder: Path, judged: Mapping[str, Sequence[EpisodeRecord]]) -> list[dict[str, Any]]:
    """Return films <policy>-<seed>.webm of the candidate's worst episodes and of the champion on the same seeds."""
    found = []
    for film in sorted(source.glob("*.webm"), key=lambda film: (film.stem.split("-")[1], film.stem)):
        policy, seed = film.stem.split("-")
        record = next((record for record in judged.get(policy, ()) if record.seed == int(seed)), None)
        if record is not None:
            found.append({"record": record, "film": _relative(film, folder)})
    return found


def _trajectories(
    source: Path,
    tracks: Mapping[str, tuple[str, str]],
    bundle: Mapping[str, Any],
    candidate: Sequence[EpisodeRecord],
) -> str:
    """Draw paths of the first DRAWN episodes by mode, or by success in a world without modes. Raises GateError."""
    stacked, ends = source / "paths.npy", source / "path_ends.npy"
    if not (tracks and bundle and stacked.is_file() and ends.is_file()):
        return ""
    channels = {channel["name"]: index for index, channel in enumerate(bundle["spec"]["observation"])}
    missing = sorted({name for pair in tracks.values() for name in pair} - set(channels))
    if missing:
        raise GateError(f"tracks: no observation channel {', '.join(missing)}; there are: {', '.join(channels)}")
    try:
        values, cuts = np.load(stacked, allow_pickle=False), np.load(ends, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise GateError(f"{stacked}: cannot be read ({error}); evaluate again") from error
    if values.ndim != 2 or values.shape[1] != len(channels) or not len(cuts) or cuts[-1] != len(values):
        raise GateError(f"{stacked}: expected {len(channels)} channels and the rows of {ends.name}; evaluate again")
    episodes = np.split(values, cuts[:-1])[: min(DRAWN, len(candidate))]
    drawn = candidate[: len(episodes)]
    by_mode = any(record.mode for record in drawn)
    groups = [record.mode if by_mode else ("success" if record.success else "no success") for record in drawn]
    panels = {
        title: [episode[:, [channels[name] for name in pair]] for episode in episodes] for title, pair in tracks.items()
    }
    unit = bundle["spec"]["observation"][channels[next(iter(tracks.values()))[0]]]["unit"]
    return figures.trajectories(panels, groups, unit=unit, name="trajectories")


def _usage(health: Mapping[str, Any] | None) -> str:
    usage = (health or {}).get("usage")
    return figures.code_usage(np.array(usage, np.float64), name="usage") if usage else ""


def _provenance(
    plan: Plan, verdict: Mapping[str, Any], bundle: Mapping[str, Any], facts: Mapping[str, str]
) -> dict[str, str]:
    """Return the rows of the provenance: digests, plan, seeds, machine, code and facts."""
    made = bundle.get("provenance", {})
    named = {f"{name} digest" if len(str(made[name])) == 64 else name: made[name] for name in sorted(made)}
    return {
        "candidate": verdict["candidate"] or "–",
        "champion": verdict["champion"] or "none",
        "plan": verdict["plan"],
        "attempt": f"{plan.attempt} on this candidate, error rate {plan.level:.2g} of alpha {plan.alpha:g}",
        "seeds": f"{plan.first_seed} to {plan.first_seed + max(verdict['episodes'], 1) - 1}",
        **({"machine": plan.machine} if plan.machine else {}),
        **{name: str(value) for name, value in named.items() if isinstance(value, str | int | float)},
        **facts,
    }


def _links(files: Path, folder: Path) -> dict[str, str]:
    places = {
        "validation of the demonstrations": files / "validation" / "index.html",
        "verdict": files / "gate" / "verdict.json",
        "plan": files / "gate" / "plan.json",
        "episode records": files / "gate" / "records.jsonl",
        "bundle": files / "policy" / "bundle.json",
    }
    return {name: _relative(path, folder) for name, path in places.items() if path.is_file()}


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()
