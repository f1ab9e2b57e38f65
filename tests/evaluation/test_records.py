"""Records on disk: what comes back is what was written, and anything odd is refused by file, line and field."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqbet.contract import EpisodeRecord, GateError
from vqbet.evaluation import records
from vqbet.files import canonical

GOOD = EpisodeRecord(
    world="point",
    policy="candidate",
    digest="c" * 64,
    plan="p" * 64,
    seed=7,
    steps=20,
    success=True,
    score=0.5,
    mode="left",
    slice="undisturbed",
    machine="this one",
    metrics={"distance_m": 0.25},
)


def test_the_format_is_canonical_and_does_not_change(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "records.jsonl"
    records.write(path, [GOOD])
    assert path.read_bytes() == (
        b'{"digest":"' + b"c" * 64 + b'","machine":"this one","metrics":{"distance_m":0.25},'
        b'"mode":"left","plan":"' + b"p" * 64 + b'","policy":"candidate","score":0.5,"seed":7,"slice":"undisturbed",'
        b'"steps":20,"success":true,"world":"point"}\n'
    )
    assert [item.name for item in path.parent.iterdir()] == ["records.jsonl"]


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(
    score=st.floats(0, 1),
    seeds=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5, unique=True),
    mode=st.text(max_size=8),
    metrics=st.dictionaries(st.text(max_size=8), finite, max_size=3),
)
def test_what_is_read_is_what_was_written(
    tmp_path: Path, score: float, seeds: list[int], mode: str, metrics: dict[str, float]
) -> None:
    written = [replace(GOOD, seed=seed, score=score, mode=mode, metrics=metrics) for seed in seeds]
    path = tmp_path / "records.jsonl"
    records.write(path, written)
    assert records.read(path) == written


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"score": 1}, "score: expected float, got int"),
        ({"score": "0.5"}, "score: expected float, got str"),
        ({"score": 1.5}, r"score: expected 0\.\.1"),
        ({"score": -0.1}, r"score: expected 0\.\.1"),
        ({"seed": True}, "seed: expected int, got bool"),
        ({"seed": 7.0}, "seed: expected int, got float"),
        ({"seed": -1}, "seed >= 0"),
        ({"steps": 0}, "steps >= 1"),
        ({"success": 1}, "success: expected bool, got int"),
        ({"world": ""}, "world: expected a name"),
        ({"plan": ""}, "plan: expected a name"),
        ({"mode": None}, "mode: expected str, got NoneType"),
        ({"metrics": []}, "metrics: expected dict, got list"),
        ({"metrics": {"distance_m": 1}}, r"metrics\.distance_m: expected a finite float"),
        ({"extra": 1}, r"unknown fields \['extra'\]"),
    ],
)
def test_a_wrong_value_is_refused_with_line_and_field(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    path = tmp_path / "records.jsonl"
    lines = [canonical.line(value) for value in (GOOD.to_json(), {**GOOD.to_json(), "seed": 8, **change})]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(GateError, match=rf"records\.jsonl: line 2: .*{sentence}"):
        records.read(path)


LINE = canonical.line(GOOD.to_json())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "empty file"),
        (LINE, "line 1: the last line is cut off"),
        (LINE + "\n" + LINE[:40], "line 2: the last line is cut off"),
        (LINE + "\n\n", "line 2: is not strict JSON"),
        (LINE + "\n" + LINE + "\n", "line 2: seed 7 of 'candidate' in 'point' is already on line 1"),
        (LINE.replace(":0.5", ":NaN") + "\n", "line 1: is not strict JSON: NaN"),
        (LINE.replace(":0.25", ":1e999") + "\n", r"metrics\.distance_m: expected a finite float, got inf"),
        (LINE.replace(":0.5", ":0.50") + "\n", "line 1: is not canonical"),
        (json.dumps(GOOD.to_json()) + "\n", "line 1: is not canonical"),
        (LINE.replace('"seed":7', '"seed":7,"seed":7') + "\n", "a key appears twice"),
        (LINE.replace('"mode":"left",', "") + "\n", r"missing fields \['mode'\]"),
        ("[1]\n", "expected an object, got list"),
        ("[" * 200_000 + "\n", "nested too deeply|not strict JSON"),
    ],
)
def test_an_odd_file_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(text)
    with pytest.raises(GateError, match=sentence):
        records.read(path)


def test_bytes_that_are_not_text_a_missing_and_a_huge_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records.jsonl"
    with pytest.raises(GateError, match="cannot be read: No such file"):
        records.read(path)
    path.write_bytes(b"\xff\n")
    with pytest.raises(GateError, match="is not UTF-8"):
        records.read(path)
    monkeypatch.setattr(records, "MAX_BYTES", 1)
    with pytest.raises(GateError, match="expected at most 1 bytes, got 2"):
        records.read(path)


@pytest.mark.parametrize(
    "broken", [replace(GOOD, score=float("nan")), replace(GOOD, metrics={"a": float("inf")}), replace(GOOD, seed=8)]
)
def test_writing_refuses_what_reading_would(tmp_path: Path, broken: EpisodeRecord) -> None:
    path = tmp_path / "records.jsonl"
    records.write(path, [GOOD])
    before = path.read_bytes()
    with pytest.raises(GateError, match="line 2"):
        records.write(path, [replace(GOOD, seed=8), broken])
    assert path.read_bytes() == before


def test_a_disk_that_refuses_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "records.jsonl"
    records.write(path, [GOOD])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(GateError, match="cannot be written: No space left"):
        records.write(path, [replace(GOOD, seed=8)])
    assert [item.name for item in tmp_path.iterdir()] == ["records.jsonl"]
    assert records.read(path) == [GOOD]
