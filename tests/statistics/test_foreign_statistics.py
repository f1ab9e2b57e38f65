"""Statistics of the gate beside those of fieldtrial and statsmodels, in an environment of their own: 500 tables."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import foreign
from tests.support.once import once
from vqbet import statistics
from vqbet.statistics import Pairs
from vqbet.statistics.multiple import holm

# fieldtrial's web console wants 30 packages more; its statistics need these two only
PACKAGES = ("numpy>=2,<3", "scipy>=1.16,<2", "statsmodels>=0.14.6,<0.15")
FIELDTRIAL = "fieldtrial==0.3.0"
INSTALLING_S = 280.0
TABLES = 500
CLOSE = 1e-9
# Answers every table with the numbers of both, by names that the tests know.
ANSWER = """
import json, sys
from importlib import metadata
import numpy as np
from fieldtrial import stats as theirs
from statsmodels.stats import contingency_tables, multitest
from statsmodels.stats.proportion import proportion_confint

asked = json.load(open(sys.argv[1]))
found = []
for table in asked:
    n, b, c, both, level = (table[name] for name in ("pairs", "gained", "lost", "both", "level"))
    k, q = b + both, c + both
    cells = np.array([[both, b], [c, n - both - b - c]])
    exact = contingency_tables.mcnemar(cells, exact=True)
    wilson = theirs.proportion_ci(k, n, level=level, method="wilson").interval
    clopper = theirs.proportion_ci(k, n, level=level, method="clopper-pearson").interval
    strata = table["strata"]
    pooled = contingency_tables.StratifiedTable([np.array(s, float) for s in strata])
    mine = theirs.cmh_test([(s[0][0], sum(s[0]), s[1][0], sum(s[1])) for s in strata], correction=True)
    y, f, others = (np.array(table[name]) for name in ("measured", "predicted", "others"))
    powered = theirs.ppi_mean(y, f, others)
    crossed = theirs.crossing_probabilities(table["boundaries"], table["shares"], alternative="greater")
    found.append({
        "mcnemar": theirs.mcnemar_exact(b, c, alternative="greater").pvalue,
        "mcnemar_two_sided": [theirs.mcnemar_exact(b, c).pvalue, float(exact.pvalue)],
        "tango": list(theirs.tango_interval(b, c, n, level=level)),
        "wilson": [[wilson.low, wilson.high], list(map(float, proportion_confint(k, n, 1 - level, method="wilson")))],
        "clopper": [[clopper.low, clopper.high], list(map(float, proportion_confint(k, n, 1 - level, method="beta")))],
        "fisher": theirs.compare_independent(k, n, q, n, test="fisher").primary.pvalue,
        "stratified": [mine.test.pvalue, float(pooled.test_null_odds(correction=True).pvalue)],
        "holm": [list(theirs.adjust_pvalues(table["chances"], method="holm").adjusted),
                 multitest.multipletests(table["chances"], method="holm")[1].tolist()],
        "powered": [powered.lam, powered.estimate],
        "crossed": list(crossed),
    })
print(json.dumps({"fieldtrial": metadata.version("fieldtrial"), "answers": found}))
"""


def install(folder: Path) -> None:
    """Make an environment with both."""
    foreign.install(folder, "fieldtrial", PACKAGES, ["--no-deps", FIELDTRIAL], timeout_s=INSTALLING_S)


def tables() -> list[dict[str, Any]]:
    """Return random tables of paired successes, and what else is compared, the same each time."""
    random, made = np.random.default_rng(23), []
    for _ in range(TABLES):
        pairs = int(random.integers(2, 80))
        both, gained, lost, _ = random.multinomial(pairs, random.dirichlet(np.full(4, random.choice([0.3, 1.0, 3.0]))))
        looks = np.unique(random.integers(1, 40, int(random.integers(1, 5))))
        shares = (looks / looks[-1]).tolist()
        level = float(random.uniform(0.01, 0.1))
        values = np.array([0.0, 0.5, 1.0])
        made.append(
            {
                "pairs": pairs,
                **{"gained": int(gained), "lost": int(lost), "both": int(both)},
                "level": float(random.choice([0.8, 0.9, 0.95, 0.99])),
                "strata": [random.integers(1, 12, (2, 2)).tolist() for _ in range(int(random.integers(1, 4)))],
                "chances": random.uniform(0, 0.2, int(random.integers(1, 6))).tolist(),
                "measured": [*values, *random.choice(values, 12)],
                "predicted": [*values, *random.choice(values, 12)],
                "others": random.choice(values, 40).tolist(),
                "shares": shares,
                "spent": [level * share**2 for share in shares],
                "boundaries": statistics.boundaries(shares, [level * share**2 for share in shares]),
            }
        )
    return made


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Every table with the answers of both packages."""
    folder = once(tmp_path_factory, "fieldtrial", install)
    asked = tables()
    path = tmp_path_factory.mktemp("tables") / "tables.json"
    path.write_text(json.dumps(asked))
    done = subprocess.run(
        [str(folder / "env" / "bin" / "python"), "-W", "ignore", "-c", ANSWER, str(path)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["fieldtrial"] == "0.3.0"
    assert len(said["answers"]) == TABLES
    return list(zip(asked, said["answers"], strict=True))


def scores(table: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the successes of candidate and champion."""
    both, gained, lost = (table[name] for name in ("both", "gained", "lost"))
    neither = table["pairs"] - both - gained - lost
    counts = [both, gained, lost, neither]
    return np.repeat([1.0, 1.0, 0.0, 0.0], counts), np.repeat([1.0, 0.0, 1.0, 0.0], counts)


Compared = list[tuple[dict[str, Any], dict[str, Any]]]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_mcnemar(compared: Compared) -> None:
    for table, answer in compared:
        mine, theirs = scores(table)
        one, other = (statistics.mcnemar(Pairs.count(a > 0, b > 0)) for a, b in ((mine, theirs), (theirs, mine)))
        assert one == pytest.approx(answer["mcnemar"], abs=CLOSE)
        assert [min(1, 2 * min(one, other))] * 2 == pytest.approx(answer["mcnemar_two_sided"], abs=CLOSE)


def test_tango(compared: Compared) -> None:
    """Ours is the interval of a mean of scores; for successes it is Tango's."""
    for table, answer in compared:
        found = statistics.paired_difference(*scores(table), table["level"])
        assert [found.low, found.high] == pytest.approx(answer["tango"], abs=1e-6)


@pytest.mark.parametrize(("name", "function"), [("wilson", statistics.wilson), ("clopper", statistics.clopper_pearson)])
def test_proportions(compared: Compared, name: str, function: Any) -> None:
    for table, answer in compared:
        found = function(table["both"] + table["gained"], table["pairs"], table["level"])
        for theirs in answer[name]:
            assert [found.low, found.high] == pytest.approx(theirs, abs=CLOSE)


def test_the_mean_of_successes_has_wilson_s_interval(compared: Compared) -> None:
    for table, answer in compared:
        found = statistics.mean_interval(scores(table)[0], table["level"])
        assert [found.low, found.high] == pytest.approx(answer["wilson"][0], abs=1e-6)


def test_fisher(compared: Compared) -> None:
    for table, answer in compared:
        counts = [table["both"] + table[name] for name in ("gained", "lost")]
        rows = [(count, table["pairs"] - count) for count in counts]
        assert statistics.fisher(rows[0], rows[1]) == pytest.approx(answer["fisher"], abs=CLOSE)


def test_slices(compared: Compared) -> None:
    """Ours is one-sided. fieldtrial takes an excess smaller than the continuity correction for none, p = 1."""
    clamped = 0
    for table, answer in compared:
        found = statistics.stratified([tuple(map(tuple, one)) for one in table["strata"]])  # type: ignore[misc]
        foreign, same = answer["stratified"]
        assert 2 * min(found, 1 - found) == pytest.approx(same, abs=1e-8)
        clamped += foreign == 1
        assert foreign == 1 or foreign == pytest.approx(same, abs=1e-8)
    assert clamped < TABLES / 2


def test_several_comparisons(compared: Compared) -> None:
    for table, answer in compared:
        for theirs in answer["holm"]:
            assert holm(np.array(table["chances"])).tolist() == pytest.approx(theirs, abs=CLOSE)


def test_boundaries_spend_what_they_should(compared: Compared) -> None:
    """By fieldtrial's own integration of the looks."""
    for table, answer in compared:
        assert np.cumsum(answer["crossed"]) == pytest.approx(table["spent"], abs=2e-6)


def test_prediction_powered_means(compared: Compared) -> None:
    for table, answer in compared:
        rows = [np.array(table[name], float) for name in ("measured", "predicted", "others")]
        found = statistics.prediction_powered(*rows)
        assert [found.weight, found.interval.estimate] == pytest.approx(answer["powered"], abs=CLOSE)
