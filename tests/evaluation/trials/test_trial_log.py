"""The log of a session: durable, chained, idempotent; every change and every crash at any byte is seen or survived."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.trials import rewrite
from vqbet.contract import GateError
from vqbet.evaluation.trials import trial_log
from vqbet.evaluation.trials.trial_log import TrialLog
from vqbet.files import canonical

names = st.text(max_size=12)
FEW = settings(max_examples=40, deadline=None)


def filled(path: Path, remarks: list[str]) -> bytes:
    log = TrialLog(path)
    for number, remark in enumerate(remarks):
        log.append("graded", f"key {number}", trial="T", operator="Ada", stage="done", tag="", remark=remark)
    log.close()
    return path.read_bytes()


@FEW
@given(st.lists(names, min_size=1, max_size=4), st.data())
def test_after_a_crash_at_any_byte_the_whole_lines_are_there_and_writing_goes_on(
    remarks: list[str], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "session.jsonl"
        whole = filled(path, remarks)
        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:cut])
        log = TrialLog(path)
        there = whole[:cut].count(b"\n")
        assert [event["remark"] for event in log.events] == remarks[:there]
        for number, remark in enumerate(remarks):  # whoever had no answer says it again
            log.append("graded", f"key {number}", trial="T", operator="Ada", stage="done", tag="", remark=remark)
        log.close()
        assert [event["remark"] for event in trial_log.read(path)] == remarks


@FEW
@given(st.lists(names, min_size=2, max_size=5), st.data())
def test_a_changed_byte_a_removed_a_doubled_and_a_moved_line_are_each_refused(
    remarks: list[str], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "session.jsonl"
        whole = filled(path, remarks)
        lines = whole.splitlines(keepends=True)
        place = data.draw(st.integers(0, len(whole) - 1))
        bit = 1 << data.draw(st.integers(0, 6))
        one = data.draw(st.integers(0, len(lines) - 2))  # the last line alone can be cut off without a trace
        changed = {
            "byte": whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :],
            "removed": b"".join(lines[:one] + lines[one + 1 :]),
            "doubled": b"".join(lines[: one + 1] + lines[one:]),
            "moved": b"".join([*lines[:one], lines[one + 1], lines[one], *lines[one + 2 :]]),
        }
        for content in changed.values():
            path.write_bytes(content)
            with pytest.raises(GateError, match=r"session\.jsonl"):
                trial_log.read(path)


def test_a_key_counts_once_also_after_the_log_was_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    log = TrialLog(path)
    first = log.append("paused", "tap 1", operator="Ada")
    assert log.append("paused", "tap 1", operator="Ada") is first
    assert log.append("resumed", "tap 1", operator="Bob") is first, "whatever else it says"
    log.close()
    again = TrialLog(path)
    assert again.append("paused", "tap 1", operator="Ada") == first
    assert again.known("tap 1") == first
    assert again.known("tap 2") is None
    assert len(again.events) == 1


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / "session.jsonl")
    with pytest.raises(GateError, match="another process runs this session"):
        TrialLog(tmp_path / "session.jsonl")
    log.close()
    TrialLog(tmp_path / "session.jsonl").close()


def test_a_full_disk_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    """/dev/full takes nothing; what is written to it is written to no log."""
    log = TrialLog(tmp_path / "session.jsonl")
    log.append("paused", "1", operator="Ada")
    before = log.path.read_bytes()
    kept, log._file = log._file, open("/dev/full", "a+b", buffering=0)  # noqa: SIM115
    with pytest.raises(GateError, match="nothing was written: No space left"):
        log.append("resumed", "2", operator="Ada")
    log._file.close()
    log._file = kept
    assert log.path.read_bytes() == before
    assert log.append("resumed", "2", operator="Ada").seq == 2
    log.close()


@pytest.mark.parametrize(
    ("kind", "fields"), [("paused", {}), ("danced", {"operator": "Ada"}), ("paused", {"operator": "Ada", "arm": "x"})]
)
def test_an_event_of_another_form_is_not_written(tmp_path: Path, kind: str, fields: dict[str, Any]) -> None:
    log = TrialLog(tmp_path / "session.jsonl")
    with pytest.raises(GateError, match="has no fields"):
        log.append(kind, "key", **fields)
    assert log.path.read_bytes() == b""


def test_a_chain_that_was_computed_anew_must_still_be_a_log(tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    filled(path, ["a", "b"])
    rewrite(path, lambda lines: [lines[0], {**lines[1], "kind": "danced"}])
    with pytest.raises(GateError, match="line 2: is no event of a session"):
        trial_log.read(path)
    filled_again = [json.loads(line) for line in path.read_text().splitlines()]
    rewrite(path, lambda _: [{**filled_again[0]}, {**filled_again[0]}])
    with pytest.raises(GateError, match="one event is there twice"):
        trial_log.read(path)


def test_a_line_of_another_form_with_the_right_hash_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    filled(path, ["a"])
    said = json.loads(path.read_text())
    path.write_text(json.dumps(said) + "\n")  # spaces
    with pytest.raises(GateError, match="line 1: was changed"):
        trial_log.read(path)
    path.write_text(canonical.line({**said, "seq": "one"}, ascii=False) + "\n")
    with pytest.raises(GateError, match="line 1: was changed"):
        trial_log.read(path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GateError, match="cannot be written"):
        TrialLog(tmp_path / "file" / "session.jsonl")
    assert os.listdir(tmp_path) == ["file"]
