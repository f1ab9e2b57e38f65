"""Results carried over to parameters of another form: old keys first, then only what the tables say."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from vqbet.comparison import grid, params, rekey
from vqbet.comparison.rekey import Tables
from vqbet.contract import ConfigError

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"small": {"train_s": 60.0, "ablation_s": 30.0}}


def result(**changed: Any) -> dict[str, Any]:
    """As in a file: an ablation of VQ-BeT in PushT, with its key."""
    value = {
        **{"task": "pusht", "policy": "vqbet", "goal": False, "variant": "other codes", "seed": 0, "size": "small"},
        **{"score": [1.0, 0.0], "first_seed": 7, "changes": {"tokenizer.kind": "vq"}},
        "params": {"tokenizer": {"kind": "vq", "layers": 1}, "prior": {"compiled": False, "depth": 4}},
        **changed,
    }
    return value | {"key": rekey.key(value, SIZES)}


def test_the_shipped_results_have_the_keys_that_their_contents_give() -> None:
    """Any difference between a file and its key, and any change of how keys are made, shows here."""
    sizes = {name: size.model_dump() for name, size in params.read(ROOT / "params.yaml").paper.sizes.items()}
    files = {path: json.loads(path.read_text()) for path in sorted((ROOT / "docs" / "results").glob("*/*.json"))}
    assert len(files) == 86
    again = rekey.rekeyed({str(path): value for path, value in files.items()}, sizes, Tables())
    assert list(again.values()) == list(files.values())


def test_a_key_is_that_of_the_cell_as_the_comparison_makes_it() -> None:
    known = params.read(ROOT / "params.yaml")
    (cell,) = [cell for cell in grid.plan(known.paper) if cell.name == "pusht.vqbet.s0"]
    path = ROOT / "docs" / "results" / known.paper.size / f"{cell.name}.json"
    chosen = grid.resolved(known, cell)
    expected = grid.key(cell, chosen, known.paper.first_seed, rekey.DIGESTS["pusht"])
    assert json.loads(path.read_text())["key"] == expected


def test_tables_change_parameters_and_key_and_nothing_else() -> None:
    old = result()
    tables = Tables(
        dropped={"prior.compiled": False, "options.rho": 5.0},
        replaced={"tokenizer.kind": {"vq": "residual"}},
        variants={"other codes": {"tokenizer.layers": 1}},
    )
    (new,) = rekey.rekeyed({"a": old}, SIZES, tables).values()
    assert new["params"] == {"tokenizer": {"kind": "residual", "layers": 1}, "prior": {"depth": 4}}
    assert new["changes"] == {"tokenizer.layers": 1}
    assert new["key"] == rekey.key(new, SIZES) != old["key"]
    assert {name for name in new if new[name] != old[name]} == {"params", "changes", "key"}
    assert old == result(), "the old one is left as it was"
    (kept,) = rekey.rekeyed({"a": old}, SIZES, Tables(replaced={"tokenizer.kind": {"vq": "residual"}})).values()
    assert kept["changes"] == {"tokenizer.kind": "residual"}


@pytest.mark.parametrize(
    "fault",
    [
        {"score": [1.0, 0.0, 1.0]},
        {"first_seed": 8},
        {"seed": 1},
        {"changes": {}},
        {"params": {"tokenizer": {"kind": "vq", "layers": 2}}},
    ],
)
def test_a_result_whose_old_key_is_another_stops_all(fault: dict[str, Any]) -> None:
    files = {"good.json": result(), "bad.json": result() | fault}
    with pytest.raises(ConfigError, match=r"1 of 2 old keys differ, nothing was written: bad\.json"):
        rekey.rekeyed(files, SIZES, Tables())
    with pytest.raises(ConfigError, match="2 of 2 old keys differ"):
        rekey.rekeyed(files, {"small": {"train_s": 60.0, "ablation_s": 31.0}}, Tables())


def test_a_parameter_that_was_used_cannot_be_dropped() -> None:
    used = result(params={"prior": {"compiled": True}})
    with pytest.raises(ConfigError, match=r"prior\.compiled: 'other codes' has another value than False: remove"):
        rekey.rekeyed({"a": used}, SIZES, Tables(dropped={"prior.compiled": False}))


@pytest.mark.parametrize("own", [True, False])
def test_results_and_sizes_are_those_of_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool) -> None:
    """Sizes come from the comparison's own file or, as before it had one, from the project's."""

    def git(*arguments: str) -> None:
        subprocess.run(
            ["git", "-C", tmp_path, "-c", "user.name=t", "-c", "user.email=t@localhost", *arguments], check=True
        )

    file = tmp_path / rekey.RESULTS / "small" / "a.json"
    sizes = tmp_path / (rekey.SIZES if own else "params.yaml")
    for path in (file, sizes):
        path.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result()))
    sizes.write_text(json.dumps({"sizes": SIZES} if own else {"paper": {"sizes": SIZES}}))
    git("init", "--quiet")
    git("add", "-A")
    git("commit", "-qm", "old")
    file.write_text("damaged since")
    monkeypatch.setattr(rekey, "NOW", Tables(dropped={"prior.compiled": False}))
    assert rekey.run(tmp_path, "HEAD") == "1 results of HEAD: every key reproduced, 1 of them new"
    assert json.loads(file.read_text())["params"]["prior"] == {"depth": 4}
    with pytest.raises(ConfigError, match="name a commit of this project"):
        rekey.run(tmp_path, "nowhere")
