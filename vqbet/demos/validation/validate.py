"""Validation of demonstrations for training: exact checks that name episode and field, and Great Expectations.

The expectations test the summary tables with the same bounds and other code, so that a gap in one shows in the other.
An all-NaN or empty column passes `between`, and an infinity passes `not null`. Therefore row counts, not-null, ranges
and counts of values that are not finite are always tested together.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from vqbet.contract import ConfigError, Demonstrations, ValidationError
from vqbet.demos.validation import sheets, tables
from vqbet.demos.validation.checks import RATE_TOLERANCE, RULES, contents
from vqbet.demos.validation.findings import Finding
from vqbet.demos.validation.knowledge import Knowledge
from vqbet.demos.validation.measured import Bounds, Measured
from vqbet.demos.validation.sheets import Sheet
from vqbet.demos.validation.structure import structure
from vqbet.files import atomic

SHOWN = 5  # errors in one exception's message
CONTEXT = ("batch_id", "column", "condition_parser", "row_condition")  # arguments that are reported elsewhere
DIGITS = 6  # significant digits in a report: the last bits of a sum differ between processors


@dataclass(frozen=True, slots=True)
class Report:
    """Result of validation. `errors` block training, `advice` does not.

    `tables`: "summary", "episodes", "channels", "histograms"; only "summary" where the structure is broken.
    `gx`: one entry per expectation (table, expectation, arguments, passed, observed), in the suites' order.
    `sheets`: pictures of episodes, on the page alone; none without cameras.
    """

    errors: tuple[Finding, ...]
    advice: tuple[Finding, ...]
    tables: Mapping[str, Any] = field(default_factory=dict)
    gx: tuple[Mapping[str, Any], ...] = ()
    sheets: tuple[Sheet, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON: equal demonstrations and bounds give equal bytes; non-finite values become null."""
        return {
            "fit": not self.errors,
            "errors": [{**asdict(finding), "remedy": finding.remedy} for finding in self.errors],
            "advice": [{**asdict(finding), "remedy": finding.remedy} for finding in self.advice],
            "tables": _plain(self.tables),
            "expectations": _plain(self.gx),
        }


def validate(
    demos: Demonstrations,
    knowledge: Knowledge,
    *,
    min_steps: int,
    max_steps: int,
    max_saturated: float,
    max_duplicates: float,
    min_success: float,
    waive: Mapping[str, str] = MappingProxyType({}),
) -> Report:
    """Check demonstrations against their spec, the knowledge about their world, and bounds (see `measured.Bounds`).

    Raises ConfigError where `waive` names no check, or has no reason, and ValidationError or StoreError for pictures
    that cannot be read.
    """
    bounds = Bounds(min_steps, max_steps, max_saturated, max_duplicates, min_success, _reasons(waive))
    broken = structure(demos)
    if broken:
        return Report(tuple(broken), (), {"summary": _summary(demos, bounds)})
    measured = Measured.of(demos, bounds, knowledge)
    found = contents(measured)
    expectations = _expect(measured)
    known = {finding.check for finding in found if finding.severity == "error"} | set(bounds.waive)
    found += [_unmet(entry) for entry in expectations if not entry["passed"] and entry["check"] not in known]
    return Report(
        errors=tuple(finding for finding in found if finding.severity == "error"),
        advice=tuple(finding for finding in found if finding.severity == "advice"),
        tables={
            "summary": _summary(demos, bounds),
            "episodes": measured.episodes,
            "channels": measured.channels,
            "histograms": tables.histograms(demos),
        },
        gx=tuple(expectations),
        sheets=sheets.sheets(demos, {finding.episode for finding in found if finding.episode is not None}),
    )


def _reasons(waive: Mapping[str, str]) -> dict[str, str]:
    for check, reason in waive.items():
        if check not in RULES:
            raise ConfigError(f"waive: {check[:40]!r} is no check that may be waived; there are {', '.join(RULES)}")
        if not reason.strip():
            raise ConfigError(f"waive: {check}: expected a reason, got nothing; write why it may be passed over")
    return dict(waive)


def raise_for_errors(report: Report, where: str | Path) -> None:
    """Raise ValidationError with the first few errors and their remedies, if there are errors."""
    if not report.errors:
        return
    count = len(report.errors)
    lines = [f"{finding.message} -> {finding.remedy}" for finding in report.errors[:SHOWN]]
    rest = f"\n  ... and {count - SHOWN} more in report.json" if count > SHOWN else ""
    head = f"{where}: not fit for training, {count} {'error' if count == 1 else 'errors'}:"
    raise ValidationError("\n  - ".join([head, *lines]) + rest)


def write(report: Report, folder: Path) -> None:
    """Write folder/report.json and folder/index.html, a page that needs no other file. Equal reports, equal bytes.

    Raises ValidationError where they cannot be written.
    """
    from vqbet.demos.validation import page

    value = report.to_json()
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    atomic.write(folder / "report.json", text + "\n", ValidationError)
    atomic.write(folder / "index.html", page.render(value, report.sheets), ValidationError)


def _summary(demos: Demonstrations, bounds: Bounds) -> dict[str, Any]:
    spec = demos.spec
    return {
        "task": spec.task,
        "digest": demos.digest,
        "episodes": int(np.size(demos.episode_ends)),
        "steps": int(np.shape(demos.observation)[0]) if np.ndim(demos.observation) else 0,
        "control_hz": spec.control_hz,
        "action_kind": spec.action_kind,
        "frame": spec.frame,
        "bounds": asdict(bounds),
    }


def _suites(measured: Measured) -> dict[str, list[Any]]:
    """Return the expectations of each table; `check` in their meta names the corresponding exact check."""
    from great_expectations import expectations as gxe
    from great_expectations.expectations.row_conditions import Column

    bounds, spec = measured.bounds, measured.demos.spec
    period = 1 / spec.control_hz

    def between(check: str, column: str, low: Any, high: Any, **options: Any) -> list[Any]:
        shared = {"column": column, "meta": {"check": check}, **options}
        strict = {"strict_min": True} if low == 0 and high is None else {}
        return [
            gxe.ExpectColumnValuesToNotBeNull(**shared),
            gxe.ExpectColumnValuesToBeBetween(min_value=low, max_value=high, **strict, **shared),
        ]

    several = {"row_condition": Column("length") >= 2}
    actions = {"row_condition": Column("kind") == "action"}
    slack = RATE_TOLERANCE * period
    episodes, channels = len(measured.episodes["length"]), len(measured.channels["name"])
    return {
        "episodes": [
            gxe.ExpectTableRowCountToEqual(value=episodes, meta={"check": "structure"}),
            *between("length", "length", bounds.min_steps, bounds.max_steps),
            *between("time", "start_s", 0, 1e-6),
            *between("time", "shortest_interval_s", 0, None, **several),
            *between("time", "mean_interval_s", period - slack, period + slack, **several),
            *between("finite", "nonfinite", 0, 0),
            *between("limits", "outside", 0, 0),
            gxe.ExpectColumnMeanToBeBetween(
                column="is_copy", max_value=bounds.max_duplicates, meta={"check": "duplicates"}
            ),
            gxe.ExpectColumnMeanToBeBetween(
                column="is_near_copy", max_value=bounds.max_duplicates, meta={"check": "near_copies"}
            ),
            *between("motion", "motion_faults", 0, 0),
            gxe.ExpectColumnMeanToBeBetween(column="success_unseen", max_value=0, meta={"check": "success_seen"}),
            gxe.ExpectColumnMeanToBeBetween(column="done_at_start", max_value=0, meta={"check": "done_at_start"}),
            gxe.ExpectColumnMeanToBeBetween(
                column="is_success", min_value=bounds.min_success, meta={"check": "success"}
            ),
            gxe.ExpectColumnValuesToBeInSet(column="task", value_set=[spec.task], meta={"check": "columns"}),
            *between("columns", "seed", -1, 2**63 - 1),
            gxe.ExpectColumnValuesToBeUnique(
                column="seed", meta={"check": "columns"}, row_condition=Column("seed") >= 0
            ),
        ],
        "channels": [
            gxe.ExpectTableRowCountToEqual(value=channels, meta={"check": "structure"}),
            gxe.ExpectCompoundColumnsToBeUnique(column_list=["kind", "name"], meta={"check": "structure"}),
            *between("finite", "nonfinite", 0, 0),
            *between("limits", "outside", 0, 0),
            gxe.ExpectColumnValuesToNotBeNull(column="minimum", meta={"check": "finite"}),
            gxe.ExpectColumnPairValuesAToBeGreaterThanB(
                column_A="minimum", column_B="low", or_equal=True, meta={"check": "limits"}
            ),
            gxe.ExpectColumnPairValuesAToBeGreaterThanB(
                column_A="high", column_B="maximum", or_equal=True, meta={"check": "limits"}
            ),
            *between("dead", "deviation", 0, None, **actions),
            *between("saturation", "saturated", 0, bounds.max_saturated, **actions),
        ],
    }


def _expect(measured: Measured) -> list[dict[str, Any]]:
    """Run the suites in an in-memory context that sends nothing and writes nothing."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations
    import pandas
    from great_expectations.data_context.types import base

    settings = base.DataContextConfig(
        store_backend_defaults=base.InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
        progress_bars=base.ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )
    context = great_expectations.get_context(mode="ephemeral", project_config=settings)
    source = context.data_sources.add_pandas("demonstrations")
    episodes = dict(measured.episodes)
    episodes["is_copy"] = (episodes["copy_of"] >= 0).astype(np.float64)
    episodes["is_near_copy"] = (episodes["near_copy_of"] >= 0).astype(np.float64)
    episodes["is_success"] = episodes["success"].astype(np.float64)
    for name in ("success_unseen", "done_at_start"):
        episodes[name] = episodes[name].astype(np.float64)
    frames = {"episodes": pandas.DataFrame(episodes), "channels": pandas.DataFrame(dict(measured.channels))}
    entries = []
    for table, expectations in _suites(measured).items():
        for order, expectation in enumerate(expectations):
            expectation.meta = {**expectation.meta, "order": order}
        suite = great_expectations.ExpectationSuite(table, expectations=expectations)
        batch = source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("all")
        outcome = batch.get_batch({"dataframe": frames[table]}).validate(suite, result_format="SUMMARY")
        entries += _entries(table, outcome.to_json_dict()["results"], expected=len(expectations))
    return entries


def _entries(table: str, results: Sequence[Mapping[str, Any]], *, expected: int) -> list[dict[str, Any]]:
    """Return results in the order of the suite, without ids, times and tracebacks, which change from run to run."""
    entries = []
    for result in sorted(results, key=lambda result: result["expectation_config"]["meta"]["order"]):
        config, observed = result["expectation_config"], result["result"]
        condition = config["kwargs"].get("row_condition")
        entries.append(
            {
                "table": table,
                "check": config["meta"]["check"],
                "expectation": config["type"],
                "column": config["kwargs"].get("column"),
                "where": condition
                and f"{condition['column']['name']} {condition['operator']} {condition['parameter']}",
                "arguments": {key: value for key, value in sorted(config["kwargs"].items()) if key not in CONTEXT},
                "passed": result["success"] is True,
                "observed": observed.get("observed_value"),
                "rows": observed.get("element_count"),
                "unexpected": observed.get("unexpected_count"),
                "examples": observed.get("partial_unexpected_list", [])[:SHOWN],
            }
        )
    if len(entries) != expected:
        raise ValidationError(f"table {table}: {expected} expectations were asked, {len(entries)} were answered")
    return entries


def _unmet(entry: Mapping[str, Any]) -> Finding:
    column = f"{entry['table']}.{entry['column'] or 'table'}"
    count = f"; {entry['unexpected']} of {entry['rows']} rows" if entry["unexpected"] else ""
    return Finding(column, f"table {column}: {entry['expectation']} is not met{count}", check="expectation")


def _plain(value: Any) -> Any:
    """Return JSON types only; floats to DIGITS significant digits, null where not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
