"""A verdict that was sought is known: to the registry, to every clone, and to the next attempt."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.support.judging import TASK, forge, params
from vqbet import bundle, environment, registry
from vqbet.contract import GateError, RegistryError
from vqbet.demos import store
from vqbet.evaluation.plan import MOST_ATTEMPTS, Plan
from vqbet.registry import chain
from vqbet.stages import gate, runner, sealing
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

PLANNED = {"kind": "plan", "candidate": "c" * 64, "plan": "f" * 64, "content": {}}
VERDICT = {"kind": "verdict", "plan": "f" * 64, "outcome": "HOLD", "episodes": 1, "evidence": "e" * 64}


@pytest.fixture
def root(judged_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy with a registry of its own."""
    copy = shutil.copytree(judged_once, tmp_path / "copy", symlinks=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copy / '.vqbet' / 'mlflow.db'}")
    return copy


def planned(root: Path, attempt: int = 1, **changed: object) -> Plan:
    """The plan that the gate would make, with these values of its section."""
    asked = params(root)
    asked = asked.model_copy(update={"gate": asked.gate.model_copy(update=changed)})
    digests = {"candidate": bundle.read(Paths(root, TASK).policy).digest}
    return gate.make_plan(TASK, asked, store.read(Paths(root, TASK).store), digests, attempt=attempt)


def maker(root: Path, **changed: object) -> partial[Plan]:
    return partial(planned, root, **changed)


def test_the_gate_seals_what_it_was_asked_and_what_it_said(root: Path) -> None:
    (found,) = registry.Attempts(TASK).all
    said = json.loads((Paths(root, TASK).gate / "verdict.json").read_text())
    assert (found.outcome, found.episodes) == ("HOLD", 16)
    sealed = Plan.from_json(found.content)
    assert sealed.machine == environment.machine(), "the seal names it"
    assert found.plan == said["plan"] == replace(sealed, machine="").sha256, "the plan does not"
    assert (said["attempt"], said["level"]) == (1, 0.0375)
    assert sealing.sealed(root, TASK)[0] == found.evidence
    shutil.rmtree(root / ".vqbet" / "verdicts")
    assert sealing.sealed(root, TASK)[0] == found.evidence, "it is in the registry too"


def test_the_same_plan_again_is_the_same_attempt(root: Path) -> None:
    before = registry.Attempts(TASK).all
    assert sealing.plan(TASK, maker(root)) == Plan.read(Paths(root, TASK).gate / "plan.json")
    runner.run(root, TASK, "gate", params(root), Watch())
    assert registry.Attempts(TASK).all == before


@pytest.mark.parametrize(
    "changed", [{"floor": 0.1}, {"question": "not_worse", "margin": 0.6}, {"first_seed": 2000015}, {"looks": [4]}]
)
def test_another_plan_on_seeds_that_were_met_is_refused(root: Path, changed: dict[str, object]) -> None:
    """Also where the folder of verdicts is gone, and in another clone: the registry answers, not a folder."""
    shutil.rmtree(root / ".vqbet" / "verdicts")
    sentence = (
        f"met the seeds 2000000 to 2000015 before .HOLD.* set it to 2000016 or more. It differs in .*{min(changed)}"
    )
    with pytest.raises(GateError, match=sentence):
        sealing.plan(TASK, maker(root, **changed))
    clone = root.parent / "clone"
    shutil.copytree(root, clone, symlinks=True, ignore=shutil.ignore_patterns(".vqbet"))
    with pytest.raises(GateError, match=sentence):
        sealing.plan(TASK, maker(clone, **changed))


def test_another_machine_is_no_second_try(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the same episodes may end otherwise: whoever could choose the machine could choose the verdict."""
    monkeypatch.setattr(environment, "machine", lambda: "another, 4 cores")
    with pytest.raises(GateError, match=r"met the seeds 2000000 to 2000015 before .*It differs in machine$"):
        sealing.plan(TASK, maker(root))


def test_a_plan_that_was_sealed_with_its_machine_goes_on_as_it_was(root: Path) -> None:
    """Before plans were the same on every machine, their hash was over its name too."""
    named = replace(planned(root, first_seed=2000100, attempt=2), machine=environment.machine())
    registry.Attempts(TASK).seal_plan(named.candidate, named.sha256, named.to_json())
    assert sealing.plan(TASK, maker(root, first_seed=2000100)) == named


def test_fresh_seeds_are_counted_and_cost(root: Path) -> None:
    asked = params(root)
    fresh = asked.model_copy(update={"gate": asked.gate.model_copy(update={"first_seed": 2000016})})
    runner.run(root, TASK, "gate", fresh, Watch())
    said = json.loads((Paths(root, TASK).gate / "verdict.json").read_text())
    assert (said["attempt"], said["level"]) == (2, 0.009375)
    assert "attempt 2 on this candidate, so its error rate is 0.0094 of alpha 0.05" in said["reason"]
    rows = sealing.sought(TASK, said["candidate"])
    assert list(rows) == ["attempt 1", "attempt 2"]
    assert "seeds 2000016 to 2000031, error rate 0.0094 of alpha 0.05: HOLD after 16 episodes" in rows["attempt 2"]


def test_a_gate_that_was_stopped_has_met_its_seeds(root: Path) -> None:
    """Whoever stops a gate that displeases, has sought a verdict; the same gate may go on."""
    sealing.plan(TASK, maker(root, first_seed=2000100))
    with pytest.raises(GateError, match=r"met the seeds 2000100 to 2000115 before .a gate that did not finish"):
        sealing.plan(TASK, maker(root, first_seed=2000110))
    assert sealing.plan(TASK, maker(root, first_seed=2000100)).attempt == 2
    assert sealing.plan(TASK, maker(root, first_seed=2000200)).attempt == 3


def test_attempts_end(root: Path) -> None:
    for number in range(1, MOST_ATTEMPTS):
        sealing.plan(TASK, maker(root, first_seed=2000000 + 100 * number))
    with pytest.raises(GateError, match=f"was judged {MOST_ATTEMPTS} times, and no share of alpha is left"):
        sealing.plan(TASK, maker(root, first_seed=2900000))


def test_other_trainings_make_no_other_plan(root: Path) -> None:
    demos, digests = store.read(Paths(root, TASK).store), {"candidate": planned(root).candidate}
    make = partial(gate.make_plan, TASK, params(root), demos, digests, (0.5, 0.6))
    assert sealing.plan(TASK, make) == planned(root)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_chain_that_was_cut_is_noticed(root: Path, rows: int) -> None:
    """The newest links, or all of them, gone from the ledger beside a registry that knows of them."""
    with closing(sqlite3.connect(root / ".vqbet" / "ledger.db")) as database:
        database.execute("DELETE FROM vqbet_ledger WHERE chain = ? AND number > ?", (f"{TASK}.attempts", 2 - rows))
        database.commit()
    with pytest.raises(RegistryError, match=r"the registry's last attempt .* is not in .*links are missing"):
        sealing.plan(TASK, maker(root, first_seed=2000100))


@pytest.mark.parametrize(
    ("link", "says"),
    [
        ({"kind": "wish"}, "field 'kind': expected plan or verdict, got 'wish'"),
        ({"kind": ["plan"]}, "field 'kind': expected plan or verdict"),
        ({**VERDICT}, "plan ffffffffffff was never sealed"),
        ({**VERDICT, "outcome": 3}, "field 'outcome': expected a name, got 3"),
        ({**VERDICT, "evidence": "e"}, "field 'evidence': expected a sha256"),
        ({**VERDICT, "episodes": -1}, "field 'episodes': expected a whole number"),
        ({**PLANNED, "content": []}, "field 'content': expected an object"),
        ({**PLANNED, "colour": "red"}, "field 'colour' is unknown"),
    ],
)
def test_a_link_that_is_none_is_a_sentence(root: Path, link: dict[str, object], says: str) -> None:
    chain.append(
        f"{TASK}.attempts", {"who": "ann", "when": "2026-05-01T14:30:00+00:00", **link}, chain.read(f"{TASK}.attempts")
    )
    with pytest.raises(RegistryError, match=f"attempts, link 3: {says}"):
        registry.Attempts(TASK)


@pytest.mark.parametrize("name", sealing.JUDGED)
def test_artefacts_that_are_not_what_was_sealed_are_named(root: Path, name: str) -> None:
    path = Paths(root, TASK).gate / name
    if name == "plan.json":  # the seal is found by the plan
        path.write_text(path.read_text().replace('"floor": 0.0', '"floor": 0.5'))
        with pytest.raises(GateError, match=r"no gate has sealed this verdict in the registry.*dvc repro -f -s gate@"):
            sealing.sealed(root, TASK)
        return
    path.write_text(path.read_text().replace("0.0", "1.0"))
    with pytest.raises(GateError, match=rf"{name}: is not what the gate sealed .*HOLD"):
        sealing.sealed(root, TASK)


def test_one_plan_has_one_outcome(root: Path) -> None:
    """Other records under the sealed plan, though they follow from one another."""
    folder = Paths(root, TASK).gate
    assert forge(folder).outcome == "PROMOTE"
    with pytest.raises(GateError, match=r"the plan led to HOLD before, to PROMOTE now; it cannot be both"):
        sealing.verdict(root, TASK, Plan.read(folder / "plan.json"), 8)
    assert registry.Attempts(TASK).all[0].outcome == "HOLD"
