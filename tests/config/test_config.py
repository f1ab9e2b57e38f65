"""params.yaml: what is accepted, and that every refusal names the path of the key."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from dvc.utils import hydra
from dvc.utils.serialize._yaml import parse_yaml
from ruamel.yaml import YAML

from vqbet import config
from vqbet.config.document import read
from vqbet.contract import ConfigError

SHIPPED = Path(__file__).resolve().parents[2] / "params.yaml"
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "params.json"


def edited(tmp_path: Path, old: str, new: str, among: str = "defaults") -> Path:
    """The shipped file with the first `old` from section `among` on replaced."""
    before, section, after = SHIPPED.read_text(encoding="utf-8").partition(
        f"\n{among}:" if old[0] != "[" else "tasks: "
    )
    assert old in after
    path = tmp_path / "params.yaml"
    path.write_text(before + section + after.replace(old, new, 1), encoding="utf-8")
    return path


def test_the_shipped_file_is_good() -> None:
    assert config.tasks(SHIPPED) == ["blockpush"]
    for name in ("blockpush", "pusht"):
        assert config.task(SHIPPED, name).gate.alpha == 0.05


def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    """YAML 1.2: 1e-4 is a number (PyYAML gives a string)."""
    path = edited(tmp_path, "weight_decay: 1.0e-4", "weight_decay: 1e-4")
    assert config.task(path, "blockpush").tokenizer.weight_decay == 1e-4


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("  window: 1", "  windwo: 1", "blockpush.prior.windwo: unknown key"),
        ("    window: 1\n", "", "blockpush.prior.window: missing"),
        ("    window: 1", "    window: '3'", "blockpush.prior.window: .* got '3'"),
        ("    window: 1", "    window: 0", "blockpush.prior.window: .* got 0"),
        ("    window: 1", "    window: 3.5", "blockpush.prior.window: .* got 3.5"),
        ("    codes: 16", "    codes: 100000", "blockpush.tokenizer.codes: .* got 100000"),
        ('execute: "first"', 'execute: "second"', "blockpush.bundle.execute: .* got 'second'"),
        ("alpha: 0.05", "alpha: 0.9", "blockpush.gate.alpha: .* got 0.9"),
        ("alpha: 0.05", "alpha: .nan", "blockpush.gate.alpha"),
        ("alpha: 0.05", "alpha: 1.0e-300", "blockpush.gate.alpha: .* got 1e-300"),
        ("    heads: 4", "    heads: 7", "not a multiple of heads 7"),
        ("max_divergence: 0.02", "max_divergence: 2.0", "blockpush.drift.max_divergence: .* got 2.0"),
        ("max_shift: 0.2", "max_shift: 0.0", "blockpush.drift.max_shift: .* got 0.0"),
        ("max_tail: 1.25", "max_tail: .inf", "blockpush.drift.max_tail"),
        ("    clip: 1.0\n", "", "blockpush.prior.clip: missing"),
        ("stopping:", "audit_seed: 4000000\n    stopping:", "blockpush.gate.audit_seed: unknown key"),
        ("min_steps: 20", "min_steps: 900", "min_steps 900 is above max_steps"),
        ("[blockpush]", "[blockpsuh]", "'blockpsuh' has no section"),
        ("[blockpush]", "blockpush", "expected a list of names"),
        ("[blockpush]", "[defaults]", "'defaults' has no section of its own"),
    ],
)
def test_a_mistake_is_refused_with_its_path(tmp_path: Path, old: str, new: str, named: str) -> None:
    path = edited(tmp_path, old, new)
    read = config.tasks if old == "[blockpush]" else lambda path: config.task(path, "blockpush")
    with pytest.raises(ConfigError, match=named) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("text", "named"), [("a: [", "is not YAML"), ("- 1", "expected a mapping"), ("", "mapping")])
def test_a_file_that_is_not_parameters(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=named):
        config.task(path, "blockpush")


def test_a_missing_file_and_a_missing_task(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        config.task(tmp_path / "params.yaml", "blockpush")
    with pytest.raises(ConfigError, match="no section 'bathroom'; sections: blockpush, pusht"):
        config.task(SHIPPED, "bathroom")


BOMB = "bomb0: &b0 [1, 2]\n" + "".join(f"bomb{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 9)}]\n" for i in range(1, 12))
MERGED = "m0: &m0 {a: 1}\n" + "".join(f"m{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}, *m{i - 1}]}}\n" for i in range(1, 20))


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ('!!float "abc"', "holds a value that YAML cannot read: could not convert string to float: 'abc'"),
        ('!!int "zz"', "holds a value that YAML cannot read"),
        ("2026-13-01", "holds a value that YAML cannot read: month must be in 1..12"),
        ("9" * 5000, "a value of 5000 characters, at most 1000, line 7"),
        ("9" * 900, "blockpush.demos.episodes: .* got 9{20}"),
        ("0b" + "1" * 900, "blockpush.demos.episodes: .* got 8"),
        ("[" * 500 + "]" * 500, "maximum depth of data structure exceeded"),
        ("[" * 50_000, "maximum depth of data structure exceeded"),
        ("&a [*a]", "an alias stands for what holds it, line 7"),
        ("x" * 300_000, "expected at most 262144 bytes"),
        ('"' + "x" * 900 + '"', r"blockpush.demos.episodes: .* got 'x+\.\.\.x+'"),
        ("!!python/object:os.system x", "could not determine a constructor"),
        ("{" + ", ".join(f"k{i}: 1" for i in range(500)) + "}", "blockpush.demos.episodes"),
    ],
)
def test_a_value_that_is_none_is_a_short_sentence(tmp_path: Path, value: str, named: str) -> None:
    path = edited(tmp_path, "{<<: *demos}", f"{{<<: *demos, episodes: {value}}}", "blockpush")
    line = 1 + path.read_text(encoding="utf-8").split("  demos: {<<: *demos, episodes:")[0].count("\n")
    with pytest.raises(ConfigError, match=named.replace("line 7", f"line {line}")) as caught:
        config.task(path, "blockpush")
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("head", [BOMB, MERGED])
def test_few_lines_that_stand_for_too_many_values_are_refused_before_they_are_made(tmp_path: Path, head: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(head + SHIPPED.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(ConfigError, match="more than 100000 values, aliases repeated"):
        config.task(path, "blockpush")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(SHIPPED.read_bytes().replace(b"first", b"\xff"))
    with pytest.raises(ConfigError, match=r"is not UTF-8 text: .* at byte \d+"):
        config.task(path, "blockpush")


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("    batch: 1024", "    batch: 1" + "0" * 30, "tokenizer.batch"),
        ("    revive_below: 1.0", "    revive_below: 1.0e+300", "tokenizer.revive_below"),
        ("    first_seed: 2000000", "    first_seed: -1", "gate.first_seed"),
        ("{episodes: 200, first", "{episodes: 1" + "0" * 30 + ", first", "evaluate.episodes"),
        ("    first_seed: 2000000", "    first_seed: 1" + "0" * 30, "gate.first_seed"),
        ("looks: [200,", "looks: [1" + "0" * 30 + ",", "gate.looks.0"),
        ("    lr: 2.0e-3", "    lr: 1.0e+300", "prior.lr"),
        ("{temperature: 0.7", "{temperature: 1.0e-300", "bundle.temperature: .* got 1e-300"),
        ("    window: 1", "    window: 512\n    goal_noise: 0.1", "the key 'goal_noise' is there twice"),
    ],
)
def test_every_count_and_size_has_an_end(tmp_path: Path, old: str, new: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        config.task(edited(tmp_path, old, new), "blockpush")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"window": 512, "batch": 4096},
            "window 512 x batch 4096 are 2,097,152 observations a step, at most 1,048,576",
        ),
        ({"width": 4096, "depth": 48, "steps": 100_000_000}, r"about 3e\+21 operations, at most 1e\+21; lower one"),
    ],
)
def test_a_training_that_has_no_end_is_refused(changes: dict[str, int], named: str) -> None:
    prior = config.task(SHIPPED, "blockpush").prior
    with pytest.raises(ConfigError, match=named):
        config.changed(prior, changes, "blockpush.prior")


def test_an_offset_head_that_no_memory_holds_is_refused() -> None:
    task = config.task(SHIPPED, "blockpush")
    tokenizer = task.tokenizer.model_dump() | {"codes": 1024, "layers": 4, "chunk": 64}
    prior = task.prior.model_dump() | {"head_hidden": 8192}
    with pytest.raises(ConfigError, match=r"has 2,147,483,648 weights an action channel, at most 134,217,728"):
        config.changed(task, {"tokenizer": tokenizer, "prior": prior}, "blockpush")


def test_many_mistakes_are_not_all_repeated(tmp_path: Path) -> None:
    unknown = "".join(f"    k{number}: 1\n" for number in range(50))
    path = edited(tmp_path, "  prior:\n", f"  prior:\n{unknown}", "blockpush")
    with pytest.raises(ConfigError, match=r"k0: unknown key .* and 40 more"):
        config.task(path, "blockpush")


def test_a_task_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected each name once"):
        config.tasks(edited(tmp_path, "[blockpush]", "[blockpush, blockpush]"))


# --- defaults --------------------------------------------------------------------------------------------------------


def merged(path: Path) -> dict[str, Any]:
    """What DVC reads: the same bytes by its own parser."""
    return parse_yaml(path.read_text(encoding="utf-8"), path)


def test_every_task_has_the_values_of_before_there_were_defaults() -> None:
    """By DVC's reader and by ours; the golden file was made from the params.yaml that repeated every value."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for content in (merged(SHIPPED), read(SHIPPED)):
        assert {name: content[name] for name in golden} == golden
    assert set(golden) == set(merged(SHIPPED)) - set(config.RESERVED)


def test_a_task_takes_defaults_and_what_it_says_itself_counts(tmp_path: Path) -> None:
    path = edited(tmp_path, "width: 128", "width: 64")
    assert (merged(path)["blockpush"]["prior"]["width"], merged(path)["pusht"]["prior"]["width"]) == (96, 64)
    assert config.task(path, "pusht").prior.width == 64
    assert config.task(path, "blockpush").prior.width == 96


def test_anchors_stand_on_flat_mappings_and_no_task_is_one_object_with_another() -> None:
    """`dvc exp run -S` changes what it finds in place: an object that two tasks share would change for both."""
    text = SHIPPED.read_text(encoding="utf-8")
    content = YAML().load(text)
    for values in content["defaults"].values():
        assert not any(isinstance(value, dict) for value in values.values())
    mappings = [content[name] for name in json.loads(GOLDEN.read_text(encoding="utf-8"))]
    seen: list[int] = []
    while mappings:
        value = mappings.pop()
        seen.append(id(value))
        mappings += [each for key, each in value.items() if isinstance(each, dict) and key in own(value)]
    assert len(set(seen)) == len(seen)


def own(mapping: Any) -> list[str]:
    """The keys that a mapping has itself, without those it takes from defaults."""
    return [key for key, _ in mapping.non_merged_items()]


def test_a_value_varied_by_dvc_changes_one_task(tmp_path: Path) -> None:
    """What `dvc exp run -S` does with the file."""
    path = tmp_path / "params.yaml"
    path.write_bytes(SHIPPED.read_bytes())
    before = {name: config.task(path, name) for name in ("blockpush", "blockpush_drawn", "pusht")}
    hydra.apply_overrides(path, ["blockpush.prior.width=64", "blockpush.gate.slices.disturbed.action_noise=0.5"])
    found = config.task(path, "blockpush")
    assert (found.prior.width, found.gate.slices["disturbed"].action_noise) == (64, 0.5)
    assert found.tokenizer == before["blockpush"].tokenizer
    assert all(config.task(path, name) == before[name] for name in ("blockpush_drawn", "pusht"))


def test_a_stage_of_dvc_depends_on_the_merged_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project of one stage: a default that changes makes it stale where its task takes the default, only there."""
    shutil.copy(SHIPPED, tmp_path / "params.yaml")
    do = {"cmd": "true", "params": ["${item}.prior"]}
    graph = {"stages": {"prior": {"foreach": ["blockpush", "pusht"], "do": do}}}
    (tmp_path / "dvc.yaml").write_text(json.dumps(graph), encoding="utf-8")
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.chdir(tmp_path)
    dvc = Repo.init(str(tmp_path), no_scm=True)
    dvc.reproduce()
    lock = merged(tmp_path / "dvc.lock")
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for task in ("blockpush", "pusht"):
        assert lock["stages"][f"prior@{task}"]["params"]["params.yaml"] == {f"{task}.prior": golden[task]["prior"]}
    edited(tmp_path, "width: 128", "width: 64")
    assert set(Repo(str(tmp_path)).status()) == {"prior@pusht"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("{<<: 3}", "<<: expected a mapping of defaults such as \\*prior, or a list of them, line"),
        ("{<<: []}", "<<: expected a mapping of defaults"),
        ("{<<: [*prior, 3]}", "<<: expected a mapping of defaults"),
        ("{<<: *priro}", "found undefined alias 'priro'"),
        ("{<<: *prior, <<: *gate}", "the key '<<' is there twice in one mapping, line"),
        ("{<<: *prior, seed: 1, seed: 2}", "the key 'seed' is there twice in one mapping, line"),
        ("&mine {<<: *mine}", "an alias stands for what holds it, line"),
        ("{<<: *prior, <<<: 1}", "blockpush.drift.window: unknown key"),
        ("{<<: *prior}", "blockpush.drift.max_shift: missing"),
    ],
)
def test_a_merge_that_is_wrong_is_a_sentence(tmp_path: Path, value: str, named: str) -> None:
    path = edited(tmp_path, "{<<: *drift}", value, "blockpush")
    with pytest.raises(ConfigError, match=named) as caught:
        config.task(path, "blockpush")
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


def test_defaults_are_no_task() -> None:
    with pytest.raises(ConfigError, match="no section 'defaults'; sections: blockpush, pusht"):
        config.task(SHIPPED, "defaults")


@pytest.mark.slow
def test_many_keys_are_read_in_no_time(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("".join(f"k{number}: 1\n" for number in range(20_000)), encoding="utf-8")
    assert len(read(path)) == 20_000


@pytest.mark.parametrize(
    ("views", "named"),
    [
        ("[sideways]", r"blockpush\.demos\.views\.0: .* got 'sideways'"),
        ("[mirrored, mirrored]", r"blockpush\.demos: views: expected each view once, got mirrored, mirrored"),
        ("mirrored", r"blockpush\.demos\.views: .* got 'mirrored'"),
    ],
)
def test_views_are_known_names_each_once(tmp_path: Path, views: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        config.task(edited(tmp_path, "{<<: *demos}", f"{{<<: *demos, views: {views}}}", "blockpush"), "blockpush")


def test_the_default_of_corrections_is_not_in_a_policys_provenance(tmp_path: Path) -> None:
    """Policies of before there was the parameter have the same recipe."""
    assert config.task(SHIPPED, "kitchen").demos.learned() == {"views": ["absolute"]}
    path = edited(tmp_path, "views: [absolute]", "views: [absolute], corrections: only", "kitchen")
    assert config.task(path, "kitchen").demos.learned() == {"views": ["absolute"], "corrections": "only"}


def test_an_encoder_that_is_not_there_is_in_no_digest() -> None:
    """Policies of before there were cameras have the same recipe."""
    blind, seeing = (config.task(SHIPPED, name).prior for name in ("pusht", "pusht_image"))
    assert "encoder" not in blind.model_dump()
    assert "encoder" not in blind.model_dump_json()
    assert seeing.model_dump(mode="json")["encoder"]["crop"] == 0.9
    again = config.changed(seeing, {"window": 2}, "pusht_image.prior")
    assert (again.window, again.encoder) == (2, seeing.encoder)
