"""The page of the comparison: every cell told with its seeds and episodes, marks as intervals say, nothing hidden."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from tests.support.examples import more, up_to
from tests.support.results import made
from vqbet.comparison import figures, published, results
from vqbet.comparison import page as results_page
from vqbet.comparison.results import Result
from vqbet.contract import GateError
from vqbet.statistics import Interval

SIZES = ("small", "large")
PICTURES = {"time.png": 2, "training.png": 1, "modes.png": 2, "ablations.png": 2, "data.png": 2}  # panels in a row


def page(found: Sequence[Result]) -> str:
    return results_page.text(found, SIZES, {}, folder="results")


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """The table below a heading: first column -> the other ones."""
    section = text.split(f"{heading}\n", 1)[1]
    lines = section[section.index("|") :].split("\n\n", 1)[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return {cell[0]: cell[1:] for cell in cells}


def successes(count: int, episodes: int = 100, **fields: Any) -> Result:
    return made([1.0] * count + [0.0] * (episodes - count), **fields)


@pytest.fixture(scope="module")
def several() -> list[Result]:
    """Something of everything, few episodes: two worlds, sizes, seeds, goals, modes, ablations, shares of the data."""
    draw = np.random.default_rng(0)
    found = []

    def add(**fields: Any) -> None:
        found.append(made([float(score) for score in draw.choice([0.0, 0.5, 1.0], 20)], **fields))

    for seed in (0, 1):
        add(seed=seed)
        add(seed=seed, size="large", train_s=3000.0)
        add(seed=seed, task="blockpush_drawn", modes={"b0-t0": 8, "b0-t1": 5, "b1-t1": 3})
    add(policy="bc", size="large", train_s=3010.0)
    add(policy="diffusion_cnn", act_ms={"batch_1": 42.0, "action_1": 5.0})
    add(policy="beso", goal=True, task="blockpush_drawn", modes={"b1-t0": 20})
    for task in ("pusht", "blockpush_drawn"):
        for variant in ("as it is", "no offset", "data 5 %", "data 50 %"):
            add(task=task, variant=variant)
    add(variant="one layer | of codes")
    return found


def test_nothing_run_is_a_page_that_says_so(tmp_path: Path) -> None:
    results_page.write(tmp_path / "results.md", tmp_path / "results", [], SIZES)
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert not list(tmp_path.glob("results/*.png"))
    assert "Ablations: not run yet." in text
    for task, goal in published.SCORES:
        kind = "goal-conditioned" if goal else "unconditional"
        table = rows(text, f"### {results.world(task).title}, {kind}")
        assert list(table) == [results.policy_name(policy, goal) for policy in results.policies(goal)], task
        assert all(cells[0] == "not run yet" for cells in table.values())
    assert "sides fixed" not in text, "a world that the paper has not and nobody asked for"


def test_every_cell_says_its_size_seeds_and_episodes(several: list[Result]) -> None:
    text = page(several)
    unconditional = rows(text, "### PushT, unconditional")
    assert unconditional["VQ-BeT"][5] == "large, 2 × 20"
    assert unconditional["Diffusion Policy (CNN)"][5] == "small, 1 × 20"
    assert unconditional["BeT"][0] == "not run yet"
    assert rows(text, "### BlockPush, sides drawn, goal-conditioned")["C-BESO"][5] == "small, 1 × 20"
    tables = re.findall(r"^\| .* \|$", text, flags=re.MULTILINE)
    told = [line for line in tables if re.search(r"\d \(", line)]
    assert len(told) > 15
    assert all(re.search(r"\| (small|large), \d × 20 \|", line) for line in told)


def test_uneven_seeds_are_told_one_by_one() -> None:
    text = page([successes(5, 10), successes(5, 20, seed=1)])
    assert rows(text, "### PushT, unconditional")["VQ-BeT"][4:6] == ["0.250 to 0.500", "small, 10 + 20"]


def test_a_row_tells_score_costs_and_the_papers_number() -> None:
    cells = rows(
        page([successes(50, task="kitchen", policy="bet", modes={"kettle": 4, "microwave": 4})]),
        "### Kitchen, unconditional",
    )
    assert cells["BeT"] == [
        "2.00 (1.62 to 2.38)", "1.00", "50 % (40 to 60)", "3.07 <sup>a</sup>", "one seed", "small, 1 × 100", "5.0",
        "1.16", "1.30", "0.30",
    ]  # fmt: skip


@pytest.mark.parametrize("key", [key for key in published.SCORES if key[0] in results.WORLDS])
def test_the_papers_numbers_stand_beside_ours_with_their_notes(key: tuple[str, bool]) -> None:
    task, goal = key
    kind = "goal-conditioned" if goal else "unconditional"
    text = page([])
    table = rows(text, f"### {results.WORLDS[task].title}, {kind}")
    for policy in results.policies(goal):
        number = published.SCORES[key].get(policy)
        shown = table[results.policy_name(policy, goal)][3]
        assert shown.split(" <sup>")[0] == (f"{number.value:.2f}" if number else "not found")
        assert ("<sup>" in shown) == bool(number and number.note)
        if number and number.note:
            assert published.NOTES[number.note] in text
    assert published.COMPARED[task] in text


def test_published_numbers_name_known_policies_and_notes() -> None:
    for (task, goal), scores in published.SCORES.items():
        assert set(scores) <= set(results.policies(goal))
        assert {score.note for score in scores.values()} <= {"", *published.NOTES}
        assert all(0 <= score.value <= results.WORLDS[task].top for score in scores.values())
    assert all(set(times) <= set(results.policies(goal)) for (_, goal), times in published.CALL_MS.items())
    assert "19" in published.COMPARED["kitchen"]
    assert "clean-room" in published.COMPARED["blockpush_drawn"]


def test_where_vqbet_is_below_a_baseline_the_page_says_so() -> None:
    text = page(
        [successes(30), successes(80, policy="bet"), successes(10, policy="bc"), successes(35, policy="diffusion_cnn")]
    )
    assert (
        "**VQ-BeT is below BeT at equal training time**: in final coverage, 0.300 (0.219 to 0.396) against 0.800"
        in text
    )
    assert "in success at 0.95, 30 % (22 to 40) against 80 % (71 to 87)." in text
    assert "VQ-BeT is above MLP-BC in final coverage." in text
    assert "VQ-BeT cannot be told apart from Diffusion Policy (CNN) in final coverage." in text


def test_below_in_success_only_is_said_too() -> None:
    often, never = made([1.0, 0.2] * 100, policy="bet"), made([0.6] * 200)
    text = page([often, never])
    assert "**VQ-BeT is below BeT at equal training time**: in success at 0.95, 0 %" in text
    assert "VQ-BeT cannot be told apart from BeT in final coverage." in text


def test_where_vqbet_is_not_below_nothing_is_claimed() -> None:
    assert "VQ-BeT is below" not in page([successes(50), successes(55, policy="bet")])
    assert "nothing to compare" in page([successes(50)])


def test_below_at_a_smaller_size_only_is_said_of_that_size() -> None:
    less = [successes(20), successes(60, policy="bet"), successes(90, policy="bc")]
    more = [successes(80, size="large"), successes(50, size="large", policy="bet")]
    text = page([*less, *more])
    assert "With less training (small): **VQ-BeT is below BeT at equal training time**" in text
    assert "VQ-BeT is above BeT in final coverage." in text
    assert text.count("With less training (small)") == 1
    assert "With less training" not in page([successes(60), successes(20, policy="bet"), *more])


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (("small", 300), ("large", 3000), ", which was trained for longer (5.0 against 50.0 min)**"),
        (("large", 3000), ("small", 300), ", although VQ-BeT was trained for longer (50.0 against 5.0 min)**"),
        (("small", 300), ("large", 310), " at equal training time**"),
        (("small", 300), ("small", 360), " at equal training time (measured: 5.0 against 6.0 min)**"),
    ],
)
def test_training_time_is_part_of_the_sentence(ours: tuple[str, float], theirs: tuple[str, float], words: str) -> None:
    (size, train_s), (other, other_s) = ours, theirs
    found = [successes(30, size=size, train_s=train_s), successes(80, policy="bet", size=other, train_s=other_s)]
    assert f"**VQ-BeT is below BeT{words}" in page(found)


def test_different_hardware_is_said() -> None:
    other = {"device": "gpu", "threads": 8, "git_commit": ""}
    text = page([successes(50), successes(50, policy="bet", made_with=other)])
    assert "different hardware" in text
    assert set(rows(text, "## Hardware and versions")) == {"device cpu, threads 2", "device gpu, threads 8"}
    assert "different hardware" not in page([successes(50), successes(50, policy="bet")])


def test_only_the_largest_size_is_marked() -> None:
    found = [successes(90, policy="bet"), successes(20, size="large"), successes(60, size="large", policy="bc")]
    table = rows(page(found), "### PushT, unconditional")
    assert "**" not in table["BeT"][0]
    assert table["MLP-BC"][0].startswith("**0.600**")


triples = st.dictionaries(
    st.sampled_from("abcdef"), st.tuples(*[st.floats(0, 1)] * 3).map(sorted), min_size=0, max_size=6
)


@more(200)
@given(found=triples)
def test_marks_agree_with_the_intervals(found: dict[str, list[float]]) -> None:
    intervals = {name: Interval(estimate, low, high) for name, (low, estimate, high) in found.items()}
    marks = results_page.marked(intervals)
    if len(intervals) < 2:
        assert not marks
        return
    highest = max(intervals, key=lambda name: intervals[name].estimate)
    apart = all(results.relation(intervals[highest], intervals[name]) == 1 for name in intervals if name != highest)
    assert (marks == {highest: "bold"}) == apart
    if not apart:
        assert len(marks) > 1
        assert set(marks.values()) == {"close"}
    for name in set(intervals) - set(marks):
        assert results.relation(intervals[name], intervals[highest]) == -1


@up_to(25)
@given(counts=st.lists(st.integers(0, 40), min_size=3, max_size=3))
def test_the_table_is_marked_as_its_intervals_say(counts: list[int]) -> None:
    policies = ("vqbet", "bc", "bet")
    found = [successes(count, 40, policy=policy) for count, policy in zip(counts, policies, strict=True)]
    table = rows(page(found), "### PushT, unconditional")
    cells = {cell.name: cell for cell in results.cells(found, SIZES)}
    for name, cell in cells.items():
        others = [results.relation(cell.success, other.success) for other in cells.values() if other is not cell]
        assert table[name][2].startswith("**") == (min(others) == 1)
        if "≈" in table[name][2]:
            assert -1 not in others


def test_ablations_are_told_beside_the_unchanged_policy() -> None:
    found = [
        successes(50, variant="as it is"),
        successes(20, variant="no offset"),
        successes(52, variant="sequential | heads"),
        successes(50, variant="no offset", task="kitchen"),
        successes(50, variant="more codes", task="kitchen"),
        successes(50),
        successes(60, seed=1),
    ]
    text = page(found).replace("\\|", "/")
    table = rows(text, "### Ablations: PushT")
    assert list(table) == ["as it is", "no offset", "sequential / heads", "more codes"]
    assert table["as it is"][1] == ""
    assert table["no offset"][1].startswith("**-0.300** (-0.3")
    assert table["sequential / heads"][1].startswith("+0.020 (-")
    assert table["more codes"][0] == "not run yet"
    assert "Worse than 'as it is': no offset. Not to be told apart from 'as it is': sequential | heads." in text
    assert "VQ-BeT itself has 0.500 to 0.600 (small, 2 × 100)" in text
    assert table["no offset"][2] == "one seed"
    assert rows(text, "### Ablations: Kitchen")["no offset"][1] == "'as it is' not run yet"


def test_a_difference_that_another_training_reverses_is_not_told_as_one() -> None:
    """+0.6 with one seed and -0.1 with the other: over the episodes alone it would be sure."""
    found = [successes(count, seed=seed, variant="as it is") for seed, count in ((0, 30), (1, 50))]
    found += [successes(count, seed=seed, variant="luck") for seed, count in ((0, 90), (1, 40))]
    found += [successes(count, seed=seed, variant="sure") for seed, count in ((0, 90), (1, 90))]
    table = rows(page(found), "### Ablations: PushT")
    assert table["luck"][1].startswith("+0.250 (+0.1")
    assert table["luck"][2] == "-0.100 to +0.600"
    assert table["sure"][1].startswith("**+0.500** (+0.4")
    assert "Better than 'as it is': sure. Not to be told apart from 'as it is': luck." in page(found)


def test_shares_of_the_data_have_a_table_of_their_own(several: list[Result]) -> None:
    text = page(several)
    assert list(rows(text, "### Share of the demonstrations: PushT")) == ["as it is", "data 50 %", "data 5 %"]
    assert "data 5 %" not in rows(text, "### Ablations: PushT")
    assert "Share of the demonstrations: not run yet." in page([successes(5)])


def test_times_stand_beside_the_papers() -> None:
    found = [successes(50), successes(50, policy="diffusion_cnn", act_ms={"batch_1": 13.0, "action_1": 2.0})]
    lines = [line for line in page(found).splitlines() if line.startswith("| PushT | ")]
    assert "| PushT | Diffusion Policy (CNN) | 13.00 | 10.0 | 103.1 | 32.5 |" in lines
    assert "| PushT | Diffusion Policy (transformer) | not run yet |  | 77.5 | 24.4 |" in lines


def test_unknown_worlds_and_policies_are_shown() -> None:
    text = page([successes(5, 10, task="juggling", policy="juggler"), successes(5, 10, size="odd", policy="bet")])
    assert rows(text, "### juggling, unconditional")["juggler"][5] == "small, 1 × 10"
    assert "1 results of other sizes are not shown." in text
    assert "other parameters" not in text


def test_what_is_of_other_parameters_is_counted() -> None:
    text = results_page.text([successes(5)], SIZES, {}, folder="[results](results)", left_out=3)
    assert "3 results of other parameters than today's are not shown" in text


def test_equal_results_give_equal_bytes_whatever_their_order(tmp_path: Path, several: list[Result]) -> None:
    for name, found in (("one", several), ("two", several[::-1])):
        results_page.write(tmp_path / name / "results.md", tmp_path / name / "results", found, SIZES)
    one, two = (sorted((tmp_path / name).rglob("*.*")) for name in ("one", "two"))
    assert [path.name for path in one] == sorted([*PICTURES, "results.md"], key=[path.name for path in two].index)
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    text = (tmp_path / "one" / "results.md").read_text(encoding="utf-8")
    for name, panels in PICTURES.items():
        assert f"](results/{name})" in text
        picture = tmp_path / "one" / "results" / name
        assert b"Software" not in picture.read_bytes()[:4096]
        pixels = imread(picture)
        assert pixels.shape[1] == 720 * panels
        assert 0.003 < float((pixels[..., :3].min(axis=2) < 0.9).mean()) < 0.6


def test_a_picture_of_what_is_no_longer_there_is_removed(tmp_path: Path) -> None:
    (tmp_path / "modes.png").write_bytes(b"old")
    (tmp_path / "small").mkdir()
    cells = results.cells([successes(5, 10)], SIZES)
    assert figures.write(tmp_path, cells, cells) == ["time.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small", "time.png"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file", encoding="utf-8")
    with pytest.raises(GateError, match="cannot be written"):
        results_page.write(tmp_path / "results.md", tmp_path / "results", [successes(5, 10)], SIZES)


def test_names_at_line_ends_keep_their_order_and_distance() -> None:
    assert figures._apart([10, 12, 13, 90], 10, 100) == [10, 20, 30, 90]
    assert figures._apart([95, 96, 97], 10, 100) == [80, 90, 100]
