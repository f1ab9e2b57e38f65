"""Export of VQ-BeT as a graph: the same codes and actions as torch, whatever the policy's form."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import small
from tests.support.small import GOALS, SEEDS, A, D, observations, play
from tests.support.untrained import SPEC, H, Q, T, build
from vqbet.contract import BundleError
from vqbet.models.normalizer import Normalizer
from vqbet.models.prior import Prior, PriorShape
from vqbet.models.tokenizer import Tokenizer, TokenizerShape
from vqbet.policies import parity, to_onnx
from vqbet.policies.actor import SIGNALS, Actor, Undecided
from vqbet.policies.in_onnx import InOnnx
from vqbet.policies.vqbet import VQBeT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
FORMS: dict[str, dict[str, Any]] = {
    "plain": {"execute": "average", "watched": True},
    "goals as tokens, codes in turn": {"watched": True, "goal": 2, "sequential": True, "temperature": 0.7},
    "goals as features, likeliest codes": {"goal": 2, "goal_as": "features", "argmax": True, "execute": "chunk"},
}


@cache
def both(form: str) -> tuple[Actor, Actor, bytes]:
    """Return a policy in torch, its export, and the graph."""
    one = build(**FORMS[form]) if form in FORMS else odd()
    graph = to_onnx.graph(one.planner)
    return one, Actor(one.spec, InOnnx(graph, to_onnx.shape(one.planner)), execute=one.execute, goal=one.goal), graph


def odd() -> Actor:
    """One observation, one linear layer as head, no offset, and too many combinations of codes for a table."""
    torch.manual_seed(0)
    codes = Tokenizer(Normalizer(A), TokenizerShape(chunk=H, layers=5, codes=7, latent=5, hidden=16, kind="fsq"))
    codes.initialise(np.random.default_rng(0).normal(size=(300, H, A)).astype(np.float32), torch.Generator())
    codes.trained_steps += 1
    shape = PriorShape(window=1, depth=1, heads=2, width=16, head_hidden=0, dropout=0.0, sequential=False, offset=False)
    prior = Prior(codes, small.between(-3.0, 3.0, D), shape)
    assert prior.decoded is None
    return Actor(SPEC, VQBeT(prior), execute="first")


@pytest.mark.parametrize("form", [*FORMS, "odd"])
def test_a_graph_plans_what_torch_plans(form: str) -> None:
    one, other, _ = both(form)
    scenes = parity.generated(SPEC, one.goal, one.planner.window, 400, seed=1)
    found = parity.compare(one, other, scenes, lambda _done, _count: None)
    assert found.apart < 1e-6
    assert to_onnx.shape(one.planner).signals == (len(SIGNALS) if one.planner.watched else 0)
    goals = GOALS if one.goal else None
    ours, theirs = (play(actor, observations(), SEEDS, goals) for actor in (one, other))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert np.array_equal(one._tags, other._tags), "codes of whole episodes"


def test_logits_that_are_no_numbers_are_seen_as_in_torch() -> None:
    observation = np.zeros((3, T, D), np.float32)
    observation[1, 2, 0] = np.inf
    for actor in both("plain")[:2]:
        with pytest.raises(Undecided, match="row 1 is not finite"):
            actor.planner.plan(observation, None, np.full((3, Q), 0.5))


def test_an_export_says_nothing_and_tells_nothing_of_its_machine(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    graph = to_onnx.graph(build(**FORMS["plain"]).planner)
    assert tuple(capfd.readouterr()) == ("", "")
    assert not recwarn.list
    assert b".py" not in graph
    assert b"stack_trace" not in graph
    assert graph == both("plain")[2], "equal policies give equal bytes"


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(BundleError, match=r"export needs onnxscript, which is not here: pip install 'vqbet\[export\]'"):
        to_onnx.graph(build().planner)
