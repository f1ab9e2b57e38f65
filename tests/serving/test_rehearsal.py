"""A bundle is rehearsed in a clean process before it counts, and each thing that can be wrong is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import seeing_pusht, untrained
from tests.support.synthetic import synthetic
from vqbet.contract import BundleError, Demonstrations, GateError
from vqbet.serving import rehearsal

AMPLE_MS = 10_000.0


@pytest.fixture
def demos() -> Demonstrations:
    return synthetic(4, D=5, A=2)


def written(folder: Path, demos: Demonstrations, *, goal: tuple[str, ...] = (), **edit: Any) -> str:
    """A small policy's bundle; `edit` replaces tensors of its prior by a function of them."""
    actor, _ = untrained.written(folder, demos, goal=goal)
    components = {name: dict(tensors) for name, tensors in actor.components().items()}
    for name, change in edit.items():
        key = next(key for key in components["prior"] if key.endswith(name))
        components["prior"][key] = change(components["prior"][key])
    return untrained.packed(folder, actor, components)


@pytest.mark.slow
def test_a_good_bundle_is_rehearsed(demos: Demonstrations, tmp_path: Path) -> None:
    digest = written(tmp_path / "policy", demos)
    rehearsed = rehearsal.rehearse(tmp_path / "policy", digest, demos, budget_ms=AMPLE_MS)
    assert rehearsed.digest == digest
    assert rehearsed.calls == np.minimum(demos.lengths[: rehearsal.EPISODES], rehearsal.STEPS).sum()
    assert 0 < rehearsed.latency_ms < AMPLE_MS
    assert json.loads(json.dumps(rehearsed.to_json()))["digest"] == digest


@pytest.mark.slow
def test_a_policy_that_is_told_a_goal_is_rehearsed(demos: Demonstrations, tmp_path: Path) -> None:
    goal = tuple(channel.name for channel in demos.spec.observation[:2])
    digest = written(tmp_path / "policy", demos, goal=goal)
    assert rehearsal.rehearse(tmp_path / "policy", digest, demos, budget_ms=AMPLE_MS).calls > 0


@pytest.mark.slow
def test_a_policy_that_sees_is_rehearsed_with_pictures(tmp_path: Path) -> None:
    actor, demos = seeing_pusht.actor(), seeing_pusht.demonstrations()
    digest = untrained.packed(tmp_path / "policy", actor, actor.components())
    calls = rehearsal.rehearse(tmp_path / "policy", digest, demos, budget_ms=AMPLE_MS).calls
    assert calls == rehearsal.EPISODES * seeing_pusht.STEPS


@pytest.mark.slow
def test_an_action_that_is_no_number_is_refused(demos: Demonstrations, tmp_path: Path) -> None:
    """Tensors that are finite and overflow when they meet; NaN passes every clamp on the way out."""
    digest = written(tmp_path / "policy", demos, **{"head.4.weight": lambda tensor: 3e38 * np.sign(tensor)})
    with pytest.raises(GateError, match=r"cannot be served: action 'target_\d' is not finite at call \d"):
        rehearsal.rehearse(tmp_path / "policy", digest, demos, budget_ms=AMPLE_MS)


@pytest.mark.slow
def test_a_slow_policy_is_refused(demos: Demonstrations, tmp_path: Path) -> None:
    digest = written(tmp_path / "policy", demos)
    with pytest.raises(GateError, match=r"a call takes .* ms \(99th percentile\), gate.latency_ms allows 1e-06"):
        rehearsal.rehearse(tmp_path / "policy", digest, demos, budget_ms=1e-6)


def test_another_bundle_in_its_place_is_refused(demos: Demonstrations, tmp_path: Path) -> None:
    digest = written(tmp_path / "policy", demos)
    written(tmp_path / "policy", demos, bias=lambda tensor: tensor + 1)
    with pytest.raises(BundleError, match=digest[:12]):
        rehearsal.rehearse(tmp_path / "policy", digest, demos, budget_ms=AMPLE_MS)


@pytest.mark.slow
def test_other_actions_elsewhere_are_refused(
    demos: Demonstrations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: the clean process is given other observations, as if it computed otherwise."""
    digest = written(tmp_path / "policy", demos)
    real = rehearsal._elsewhere

    def elsewhere(folder: Path, digest: str, recorded: dict[str, np.ndarray]) -> Any:
        return real(folder, digest, {**recorded, "observation": recorded["observation"] + np.float32(1e-3)})

    monkeypatch.setattr(rehearsal, "_elsewhere", elsewhere)
    with pytest.raises(GateError, match=r"\d+ of \d+ actions differ from those of this process, by up to"):
        rehearsal.rehearse(tmp_path / "policy", digest, demos, budget_ms=AMPLE_MS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "content", "sentence"),
    [
        ("sitecustomize", "import zarr", "the process that acts has imported zarr, which a robot does not have"),
        ("torch", "raise ImportError('no torch here')", "cannot be served: ImportError: no torch here"),
    ],
)
def test_a_process_with_more_or_less_than_acting_needs_is_refused(
    demos: Demonstrations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, content: str, sentence: str
) -> None:
    """The planted fault: a module beside the project, which the clean process finds first."""
    digest = written(tmp_path / "policy", demos)
    (tmp_path / "vqbet").symlink_to(rehearsal.PACKAGE_ROOT / "vqbet")
    (tmp_path / f"{module}.py").write_text(content)
    monkeypatch.setattr(rehearsal, "PACKAGE_ROOT", tmp_path)
    with pytest.raises(GateError, match=sentence):
        rehearsal.rehearse(tmp_path / "policy", digest, demos, budget_ms=AMPLE_MS)
