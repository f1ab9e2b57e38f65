"""Plan and blinding: the order follows from a secret, every code is fresh, and neither says anything about an arm."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.trials import SALT, judged, key, planned
from vqbet.contract import GateError
from vqbet.evaluation.plan import Slice
from vqbet.evaluation.trials.blinding import ALPHABET, CODE_LETTERS, Blinding, committed, new_salt
from vqbet.evaluation.trials.trial_plan import Condition, Grade, TrialPlan
from vqbet.files import canonical
from vqbet.signing.statements import commitment

salts = st.binary(min_size=32, max_size=32)


def blinded(salt: bytes, **fields: object) -> tuple[TrialPlan, Blinding]:
    plan = planned(salt=committed(salt), **fields)
    return plan, Blinding(plan, salt)


@given(salts, st.sampled_from([1, 2, 4]))
def test_every_block_holds_every_pair_once_with_every_arm(salt: bytes, block: int) -> None:
    plan, blinding = blinded(salt, block=block)
    assert [slot.number for slot in blinding.slots] == list(range(plan.trials))
    for number, slots in itertools.groupby(blinding.slots, lambda slot: slot.block):
        cells = Counter((slot.pair, slot.arm) for slot in slots)
        pairs = range(number * block, (number + 1) * block)
        assert cells == Counter(itertools.product(pairs, plan.arms))


@given(salts)
def test_every_trial_and_every_repeat_has_a_code_of_its_own(salt: bytes) -> None:
    plan, blinding = blinded(salt)
    codes = [blinding.code(slot, repeat) for slot in range(plan.trials) for repeat in range(5)]
    assert len(set(codes)) == len(codes)
    assert all(len(code) == CODE_LETTERS and set(code) <= set(ALPHABET) for code in codes)


def test_over_many_salts_each_arm_is_first_half_of_the_time_and_no_letter_of_a_code_says_which() -> None:
    runs, first, letters = 2000, Counter[str](), {"candidate": Counter[str](), "champion": Counter[str]()}
    plan = planned()
    for number in range(runs):
        salt = number.to_bytes(32, "big")
        blinding = Blinding(replace(plan, salt=committed(salt)), salt)
        first[blinding.slots[0].arm] += 1
        for slot in blinding.slots[:4]:
            letters[slot.arm][blinding.code(slot.number, 0)[0]] += 1
    assert abs(first["candidate"] / runs - 0.5) < 0.04
    for letter in ALPHABET:
        shares = [counts[letter] / counts.total() for counts in letters.values()]
        assert abs(shares[0] - shares[1]) < 0.02


def test_the_plan_reveals_neither_order_nor_salt() -> None:
    """Two salts give two orders of one plan, which differs in nothing but the hash of the salt."""
    one, two = (blinded(bytes([number]) * 32) for number in (1, 2))
    assert [slot.arm for slot in one[1].slots] != [slot.arm for slot in two[1].slots]
    said = [plan.to_json() for plan, _ in (one, two)]
    assert {name for name in said[0] if said[0][name] != said[1][name]} == {"salt"}
    text = canonical.document(one[0].to_json())
    assert one[1].salt not in text
    assert not any(one[1].code(slot.number, 0) in text for slot in one[1].slots)


def test_another_salt_than_the_plan_s_is_refused() -> None:
    with pytest.raises(GateError, match=r"not the one that plan \w+ committed to"):
        Blinding(planned(), new_salt())


@given(salts, st.text("0123456789abcdef", min_size=64, max_size=64))
def test_a_commitment_is_of_one_digest_and_of_one_trial(salt: bytes, digest: str) -> None:
    _, blinding = blinded(salt)
    one, other = blinding.code(0, 0), blinding.code(1, 0)
    made = blinding.commitment(one, digest)
    assert made == commitment(blinding.key(one), digest)
    assert len({made, blinding.commitment(other, digest), blinding.commitment(one, digest[::-1] + "0")}) == 3


def test_a_plan_is_the_same_after_reading_it(tmp_path: Path) -> None:
    plan = planned(after="a" * 64)
    plan.write(tmp_path / "plan.json")
    read = TrialPlan.read(tmp_path / "plan.json")
    assert (read, read.sha256) == (plan, plan.sha256)
    assert read.plan.protocol == plan.sha256


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"block": 3}, "block: expected a divisor of every look"),
        ({"conditions": ()}, "conditions: expected 1 to"),
        ({"conditions": (Condition("one"), Condition("one"))}, "conditions: expected distinct names"),
        ({"conditions": (Condition("one", picture="up"),)}, "conditions: expected name, text and the sha256"),
        ({"rubric": (Grade("none", 0.0),)}, "rubric: expected credits rising from 0 to 1"),
        ({"rubric": (Grade("none", 0.0), Grade("done", 0.5))}, "rubric: expected credits rising from 0 to 1"),
        ({"rubric": (Grade("done", 0.0), Grade("done", 1.0))}, "rubric: expected distinct names"),
        ({"tags": ("same", "same")}, "tags: expected distinct names"),
        ({"invalid": ()}, "invalid: expected one reason at least"),
        ({"most_invalid": 0.0}, "most_invalid: expected a number above 0"),
        ({"timeout_s": float("inf")}, "timeout_s: expected a number above 0"),
        ({"salt": "open"}, "salt: expected a sha256"),
        ({"server_key": "c2hvcnQ="}, "server_key: expected base64 of a public key"),
        ({"after": "yesterday"}, "after: expected the id of a verdict"),
        ({"judged": {"protocol": "a" * 64}}, "judged: expected a plan without a protocol"),
        ({"judged": {"world": "point"}}, "judged: expected world robot:arm 1 and machine arm 1"),
        ({"robot": "arm 2"}, "judged: expected world robot:arm 2"),
        ({"judged": {"baselines": ("noop",)}}, "judged: expected one slice, no baselines"),
        ({"judged": {"slices": (Slice("a", 0.5), Slice("b", 0.5))}}, "judged: expected one slice, no baselines"),
        ({"judged": {"champion": "c" * 64}}, "judged: expected two policies"),
    ],
)
def test_a_plan_with_a_wrong_value_is_refused_by_its_name(fields: dict, message: str) -> None:
    with pytest.raises(GateError, match=message):
        planned(**fields)


def test_a_plan_with_a_changed_field_has_another_hash_and_another_gate_plan() -> None:
    one, other = planned(), planned(timeout_s=61.0)
    assert one.sha256 != other.sha256
    assert one.plan.sha256 != other.plan.sha256
    assert one.judged.sha256 == other.judged.sha256 == judged().sha256


def test_one_arm_alone_has_one_trial_a_pair() -> None:
    plan = planned(judged={"champion": ""})
    assert list(plan.arms) == ["candidate"]
    assert len(Blinding(plan, SALT).slots) == plan.pairs == plan.trials


def test_a_file_that_is_no_plan_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(GateError, match="is no plan of trials"):
        TrialPlan.read(tmp_path / "plan.json")
    said = {**planned().to_json(), "version": 9}
    (tmp_path / "plan.json").write_text(canonical.document(said))
    with pytest.raises(GateError, match="is of version 9"):
        TrialPlan.read(tmp_path / "plan.json")
    assert key().public in canonical.document(said)
