"""What a stage left is read strictly: the file, the key and what came are named, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from vqbet.contract import GateError, PipelineError
from vqbet.files import reading
from vqbet.stages import artifacts


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "is not strict JSON"),
        (b"", "is not strict JSON"),
        (b"\xff{}", "is not UTF-8 text"),
        (b'{"score": NaN}', "NaN is not a number"),
        (b'{"score": 1, "score": 2}', "a key appears twice"),
        (b"[" * 100_000, "nested too deeply"),
        (b"9" * 5000, "is not strict JSON"),
        (b"[]", r"expected an object, got \[\]; run the stage that writes it again: dvc repro"),
        (b"{}", "score: missing; run the stage"),
        (b'{"score": "0.5"}', "score: expected a finite number, got '0.5'"),
        (b'{"score": true}', "score: expected a finite number, got True"),
        (b'{"score": 1e400}', "score: expected a finite number, got inf"),
        (b'{"score": 0.5, "other": null}', "other: expected a finite number, got None"),
        (b'{"score": ' + b"9" * 4000 + b"}", "score: expected a finite number, got 9+"),
    ],
)
def test_a_damaged_artefact_is_a_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "evaluate.json"
    path.write_bytes(content)
    with pytest.raises(PipelineError, match=sentence) as caught:
        artifacts.read_metrics(path, "score")
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 500


def test_an_artefact_that_is_not_there(tmp_path: Path) -> None:
    for read in (artifacts.read_json, artifacts.read_object, artifacts.read_metrics, artifacts.read_number):
        with pytest.raises(PipelineError, match="cannot be read: No such file"):
            read(tmp_path / "none.json")


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    artifacts.write_json(path, {"score": 0.5, "episodes": 3})
    assert artifacts.read_metrics(path, "score") == {"score": 0.5, "episodes": 3}
    assert artifacts.read_object(path, episodes=int)["episodes"] == 3
    with pytest.raises(PipelineError, match=r"episodes: expected str, got 3; run the stage"):
        artifacts.read_object(path, episodes=str)
    artifacts.write_json(path, 2.5)
    assert artifacts.read_number(path) == 2.5
    artifacts.write_json(path, -1)
    with pytest.raises(PipelineError, match="expected a finite number >= 0, got -1"):
        artifacts.read_number(path)


def test_an_echo_is_short() -> None:
    values = ["x" * 10_000, list(range(10_000)), 10**4299, 10**9999, {"a": {"b": [{}] * 99}}, b"x" * 999, "a\nb"]
    assert all(len(reading.short(value)) <= reading.ECHO for value in values)
    assert "\n" not in "".join(map(reading.short, values))


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (KeyError("score"), "a.json: 'score' is missing; do it again"),
        (RecursionError(), "a.json: is nested too deeply to be read; do it again"),
        (TypeError("x" * 1000), r"a.json: is not what it should be: x+\.\.\.x+; do it again"),
        (ZeroDivisionError(), "a.json: is not what it should be: ZeroDivisionError"),
        (GateError("as it was"), "^as it was$"),
    ],
)
def test_a_wrong_shape_is_a_sentence(error: Exception, sentence: str) -> None:
    with pytest.raises(GateError, match=sentence), reading.sentences("a.json", GateError, "do it again"):
        raise error


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "full"), KeyboardInterrupt()])
def test_what_is_not_of_the_file_passes(error: BaseException) -> None:
    with pytest.raises(type(error)), reading.sentences("a.json", GateError):
        raise error
