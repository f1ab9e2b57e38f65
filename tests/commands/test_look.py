"""`vqbet look`: the page of an episode, its films, and the codes of its chunks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.page_references import PageReferences
from tests.support.synthetic import synthetic
from vqbet import bundle, config
from vqbet.commands import look
from vqbet.contract import Camera, ConfigError, Demonstrations
from vqbet.demos import store
from vqbet.demos.windows import complete_chunks
from vqbet.models.tokenizer import Tokenizer
from vqbet.stages import tokenizer as stage
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"


def seen(demos: Demonstrations) -> Demonstrations:
    """The demonstrations with a camera, and a person who acted in the middle of the second episode."""
    pictures = np.random.default_rng(0).integers(0, 256, (len(demos.action), 24, 32, 3), np.uint8)
    marked = np.zeros(len(demos.action), bool)
    marked[demos.episode_starts[1] + 3 : demos.episode_starts[1] + 6] = True
    spec = replace(demos.spec, cameras=(Camera("top", 24, 32),))
    return replace(demos, spec=spec, cameras={"top": pictures}, intervention=marked)


def test_the_page_stands_alone(tmp_path: Path) -> None:
    store.write(Paths(tmp_path, "synthetic").store, seen(synthetic(3)))
    page = look.run(tmp_path, "synthetic", 1, Watch())
    references = PageReferences(page.read_text(encoding="utf-8"))
    outside = [name for name in references.found if not name.startswith(("#", "data:image/"))]
    assert outside == ["top.webm"]
    assert (page.parent / "top.webm").stat().st_size > 1000
    assert "script" not in references.tags
    text = page.read_text(encoding="utf-8")
    assert "Shaded: a person acted" in text
    assert "Codes over time" not in text, "nothing is trained"
    assert "Shaded" not in look.run(tmp_path, "synthetic", 0, Watch()).read_text(encoding="utf-8")


def test_no_such_episode(tmp_path: Path) -> None:
    store.write(Paths(tmp_path, "synthetic").store, synthetic(3))
    with pytest.raises(ConfigError, match=r"--episode 3: .*has the episodes 0 to 2"):
        look.run(tmp_path, "synthetic", 3, Watch())


def packed(root: Path, demos: Demonstrations) -> Tokenizer:
    """A tokenizer with codebooks from these demonstrations, in the project's artefacts."""
    chosen = config.task(PARAMS, "blockpush").tokenizer
    made = stage.build(chosen, demos)
    made.initialise(complete_chunks(demos, chosen.chunk), torch.Generator().manual_seed(0))
    bundle.write(
        Paths(root, "synthetic").tokenizer,
        kind="tokenizer",
        spec=demos.spec,
        arguments=made.arguments(),
        components=made.components(),
        provenance={"views": []},
    )
    return made.eval()


def test_codes_are_those_of_the_tokenizer(tmp_path: Path) -> None:
    demos, paths = synthetic(1), Paths(tmp_path, "synthetic")
    store.write(paths.store, demos)
    tokenizer = packed(tmp_path, demos)
    codes = look._codes(paths, demos, 0)
    assert codes is not None
    usage = tokenizer.health(complete_chunks(demos, tokenizer.shape.chunk))["usage"]
    assert len(np.unique(codes[:, 0])) > 1
    for layer, shares in enumerate(usage):
        assert np.bincount(codes[:, layer], minlength=len(shares)) / len(codes) == pytest.approx(shares, abs=1e-6)
    assert "Codes over time" in look.run(tmp_path, "synthetic", 0, Watch()).read_text(encoding="utf-8")


def test_a_tokenizer_of_other_demonstrations_is_left_out(tmp_path: Path) -> None:
    demos, paths = synthetic(2), Paths(tmp_path, "synthetic")
    packed(tmp_path, demos)
    store.write(paths.store, replace(demos, spec=replace(demos.spec, control_hz=demos.spec.control_hz * 2)))
    assert look._codes(paths, store.read(paths.store), 0) is None
