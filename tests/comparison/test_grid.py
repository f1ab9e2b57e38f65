"""What the comparison consists of, and what of it is refused before anything is trained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from vqbet.comparison import cell as cells
from vqbet.comparison import grid, params
from vqbet.comparison.grid import Cell
from vqbet.comparison.params import Params
from vqbet.comparison.results import Result
from vqbet.contract import ConfigError

PROJECT = Path(__file__).resolve().parents[2] / "params.yaml"
MAIN = ["vqbet", "diffusion_transformer"]


def changed(tmp_path: Path, **values: object) -> Params:
    """The shipped comparison with some of its values replaced."""
    yaml = YAML()
    content = yaml.load(params.OWN.read_text(encoding="utf-8"))
    content.update(values)
    path = tmp_path / "own.yaml"
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(content, file)
    return params.read(PROJECT, own=path)


def test_the_table_comes_first_then_ablations_then_more_seeds(tmp_path: Path) -> None:
    chosen = changed(tmp_path, size="hours", tasks=["pusht"], ablations={"as it is": {}}, main=MAIN)
    names = [cell.name for cell in grid.plan(chosen.paper)]
    assert names[:2] == ["pusht.vqbet.s0", "pusht.bc.s0"]
    assert names.index("pusht.vqbet.as-it-is.s0") == 10
    assert names[11:17] == [
        *("pusht.vqbet.s1", "pusht.diffusion_transformer.s1", "pusht-goals.vqbet.s1"),
        *("pusht.vqbet.s2", "pusht.diffusion_transformer.s2", "pusht-goals.vqbet.s2"),
    ]
    assert names[17:] == ["pusht.vqbet.as-it-is.s1", "pusht.vqbet.as-it-is.s2"]
    assert len(set(names)) == len(names)


def test_main_policies_have_more_episodes(tmp_path: Path) -> None:
    plan = grid.plan(changed(tmp_path, size="hours", main=MAIN).paper)
    assert {cell.episodes for cell in plan if cell.policy == "vqbet" and not cell.variant} == {500}
    assert {cell.episodes for cell in plan if cell.policy == "bc"} == {200}


def test_every_cell_of_the_shipped_file_has_parameters() -> None:
    chosen = params.read(PROJECT)
    for cell in grid.plan(chosen.paper):
        assert grid.resolved(chosen, cell)


def test_goals_and_seeds_reach_the_parameters(tmp_path: Path) -> None:
    chosen = changed(tmp_path, goal_changes={"prior.dropout": 0.25})
    plain, asked = (
        next(cell for cell in grid.plan(chosen.paper) if cell.policy == "vqbet" and cell.goal == goal)
        for goal in (False, True)
    )
    assert grid.resolved(chosen, plain)["prior"]["goal_steps"] == 0
    assert set(grid.TOLD) <= set(grid.resolved(chosen, asked)["prior"])
    assert not set(grid.TOLD) & set(grid.resolved(chosen, plain)["prior"]), "what plays no part makes no cell anew"
    found = grid.resolved(chosen, replace(asked, seed=2))
    assert found["prior"]["goal_steps"] == 1
    assert found["prior"]["dropout"] == 0.25
    assert found["prior"]["seed"] == found["tokenizer"]["seed"] == 2


def result(chosen: Params, of: Cell, size: str = "minutes") -> Result:
    """As `paper.run` would have written it and `results.read` gives it back."""
    value = {
        **{name: getattr(of, name) for name in ("task", "goal", "policy", "variant", "seed")},
        **{"key": "k" * 64, "size": size, "first_seed": chosen.paper.first_seed, "act_ms": {}, "modes": {}},
        **{"train_s": 300.0, "tokenizer_s": 0.0, "steps": 1, "batch": 1, "samples_per_s": 1.0, "parameters": 1},
        **{"score": [1.0], "success": "1", "metrics": {}, "made_with": {}, "demonstrations": 1},
        **{"params": grid.resolved(chosen, of), "changes": dict(of.changes)},
    }
    return Result.from_json(json.loads(json.dumps(value)), "a file")


def test_a_result_of_other_parameters_is_not_shown(tmp_path: Path) -> None:
    chosen = changed(tmp_path)
    plan = {cell.name: cell for cell in grid.plan(chosen.sized("minutes").paper)}
    ablation = plan["pusht.vqbet.4x4-codes.s0"]
    found = [result(chosen, cell) for cell in (plan["pusht.bc.s0"], plan["kitchen-goals.vqbet.s2"], ablation)]
    assert cells.current(chosen, found) == found
    gone, other = replace(found[0], seed=99), replace(found[0], first_seed=7)
    unlike = replace(found[1], params=found[1].params | {"prior": found[1].params["prior"] | {"lr": 0.5}})
    otherwise = replace(ablation, changes=(("tokenizer.codes", 5),))
    assert cells.current(chosen, [gone, other, unlike, result(chosen, otherwise), *found]) == found
    assert not cells.current(changed(tmp_path, ablations={}, policies=["vqbet"]), [found[0], found[2]])


def cell(**changes: object) -> Cell:
    return Cell("pusht", "vqbet", False, "another", 0, 60.0, 100, tuple(sorted(changes.items())))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer.kind": "vq"}, r"pusht\.tokenizer, 'another'\.kind: .*got 'vq'"),
        ({"demos.views": ["upside_down"]}, r"pusht\.demos, 'another'\.views\.0: .*got 'upside_down'"),
        ({"prior.wings": 2}, r"pusht\.prior, 'another': wings: unknown key"),
        ({"tokenizer.codes": 1}, r"pusht\.tokenizer, 'another'\.codes: .*greater than or equal to 2, got 1"),
        ({"prior.width": 129}, "width 129 is not a multiple of heads"),
    ],
)
def test_ablations_are_checked_as_the_file_is(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        grid.resolved(params.read(PROJECT), cell(**changes))


def test_an_ablation_of_something_else_is_refused(tmp_path: Path) -> None:
    chosen = changed(tmp_path, ablations={"odd": {"evaluate.videos": 3}})
    with pytest.raises(ConfigError, match=r"cannot change 'evaluate\.videos': expected tokenizer"):
        grid.plan(chosen.paper)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("bet", "options", "sequential"), True, r"own.yaml: baselines\.pusht\.bet\.options\.sequential: unknown key"),
        (("bc", "shape", "window"), 0, r"own.yaml: baselines\.pusht\.bc\.shape\.window: .*got 0"),
        (("diffusion_cnn", "shape", "execute_steps"), 17, "execute_steps 17 is above horizon 16"),
        (("bet", "execute"), "twice", r"own.yaml: baselines\.pusht\.bet\.execute: .*got 'twice'"),
    ],
)
def test_a_switch_that_a_baseline_does_not_have_is_refused(
    tmp_path: Path, where: tuple[str, ...], value: object, message: str
) -> None:
    content = YAML(typ="safe", pure=True).load(params.OWN.read_text(encoding="utf-8"))
    section = content["baselines"]["pusht"]
    for name in where[:-1]:
        section = section[name]
    section[where[-1]] = value
    path = tmp_path / "own.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(content, file)
    with pytest.raises(ConfigError, match=message):
        params.read(PROJECT, own=path)


@pytest.mark.parametrize("size", ["", "weeks"])
def test_a_size_that_is_not_there_is_refused(size: str) -> None:
    if not size:
        assert params.read(PROJECT, size="hours").paper.size == "hours"
        return
    with pytest.raises(ConfigError, match="size 'weeks' is none of smoke, minute, minutes"):
        params.read(PROJECT, size=size)


def test_what_is_trained_the_same_has_the_same_key() -> None:
    chosen = params.read(PROJECT)
    base, acting = cell(), cell(**{"bundle.execute": "first"})
    noisy, other = cell(observation_noise=0.01), cell(**{"prior.dropout": 0.3})
    keys = [grid.training_key(one, grid.resolved(chosen, one), "d") for one in (base, acting, noisy, other)]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    results = [grid.key(one, grid.resolved(chosen, one), 1, "d") for one in (base, acting, noisy, other)]
    assert len(set(results)) == 4
    assert grid.key(base, grid.resolved(chosen, base), 1, "e") != results[0]


def test_how_many_steps_a_task_takes_makes_no_cell_anew_but_the_share_of_warmup_does() -> None:
    chosen = params.read(PROJECT)
    steps, warmup = chosen.task("pusht").prior.steps, chosen.task("pusht").prior.warmup
    base, longer = cell(), cell(**{"prior.steps": 2 * steps, "prior.warmup": 2 * warmup})
    resolved = [grid.resolved(chosen, one) for one in (base, longer, cell(**{"prior.warmup": 2 * warmup}))]
    assert resolved[0] == resolved[1] != resolved[2]
    assert resolved[0]["prior"]["warmup"] == warmup / steps
