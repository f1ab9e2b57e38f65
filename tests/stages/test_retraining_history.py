"""What earlier verdicts say: trainings of the same recipe, and how scores spread; from evidence that is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vqbet.bundle import Bundle
from vqbet.commands import plan
from vqbet.config import task as read_params
from vqbet.contract import GateError
from vqbet.demos import store
from vqbet.files import canonical, manifest
from vqbet.files.manifest import Fingerprint
from vqbet.stages import retraining_history
from vqbet.stages.paths import Paths
from vqbet.tasks.blockpush.oracle import demonstrations

ROOT = Path(__file__).resolve().parent.parent.parent


def made(seed: int = 0, width: int = 64, data: str = "d") -> dict[str, Any]:
    """The provenance of a policy."""
    params = {"tokenizer": {"codes": 8, "seed": seed}, "prior": {"width": width, "seed": seed}, "bundle": {}}
    return {"code": "c", "data": data, "params": params}


def kept(root: Path, digest: str, score: float, provenance: dict[str, Any], **verdict: Any) -> Path:
    """Evidence as far as it is read here, under its right hash."""
    store = Paths(root, "tiny").verdicts
    folder = store / "new"
    folder.mkdir(parents=True)
    said = {"numbers": {"candidate": {"score": score}}, "comparison": None, "episodes": 200, **verdict}
    (folder / "plan.json").write_text(canonical.document({"task": verdict.get("task", "tiny")}))
    (folder / "verdict.json").write_text(canonical.document(said))
    (folder / "records.jsonl").write_text("")
    (folder / "facts.json").write_text(canonical.document({"policy": {"digest": digest, "provenance": provenance}}))
    listed = manifest.to_json(manifest.taken(folder, GateError, ""))
    (folder / "manifest.json").write_text(canonical.document({"version": 1, "files": listed}))
    named = store / Fingerprint.of((folder / "manifest.json").read_bytes()).sha256
    folder.rename(named)
    return named


@pytest.fixture
def policy() -> Bundle:
    bundle: Bundle = type("Made", (), {"digest": "mine", "provenance": made(0)})()
    return bundle


def test_only_other_trainings_of_the_same_recipe_count(tmp_path: Path, policy: Bundle) -> None:
    kept(tmp_path, "b", 0.8, made(1))
    kept(tmp_path, "a", 0.7, made(2))
    kept(tmp_path, "mine", 0.1, made(0))
    kept(tmp_path, "wider", 0.2, made(3, width=128))
    kept(tmp_path, "elsewhere", 0.3, made(4, data="e"))
    kept(tmp_path, "other task", 0.4, made(5), task="large")
    kept(tmp_path, "not comparable", 0.5, made(6), numbers=None)
    assert retraining_history.retrained(tmp_path, "tiny", policy) == [0.7, 0.8]


def test_without_evidence_nothing_is_known(tmp_path: Path, policy: Bundle) -> None:
    assert retraining_history.retrained(tmp_path, "tiny", policy) == []


def test_changed_evidence_says_nothing(tmp_path: Path, policy: Bundle) -> None:
    folder = kept(tmp_path, "b", 0.8, made(1))
    path = folder / "verdict.json"
    path.write_text(path.read_text().replace("0.8", "0.9"))
    with pytest.raises(GateError, match=r"verdict\.json: was changed"):
        retraining_history.retrained(tmp_path, "tiny", policy)


def test_the_plan_is_told_before_anything_is_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / '.vqbet' / 'mlflow.db'}")
    params = read_params(ROOT / "params.yaml", "blockpush")
    store.write(Paths(tmp_path, "blockpush").store, demonstrations(4, 0))
    guessed = plan.run(tmp_path, "blockpush", params)
    assert "a guess" in guessed["assumed"]
    powers = [int(row.split(" %")[0]) for name, row in guessed.items() if name.startswith("power at")]
    assert powers == sorted(powers)
    assert len(powers) == len(params.gate.looks)
    known = {"score_spread": 0.1, "gained": 6.0, "lost": 4.0}
    kept(tmp_path, "b", 0.8, made(1), task="blockpush", comparison=known)
    seen = plan.run(tmp_path, "blockpush", params)
    assert "differ by 0.100 (standard deviation), 5.0 % of successes differ; as in 1 verdicts" in seen["assumed"]
    needed = [int(rows["90 % with one look"].split(" ")[1]) for rows in (guessed, seen)]
    assert needed[0] == pytest.approx(9 * needed[1], abs=9)
