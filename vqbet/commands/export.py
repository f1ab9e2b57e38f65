"""`vqbet export`: a policy as one ONNX graph, which acts without torch; checked against torch before it is written."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vqbet import environment, policies
from vqbet.commands.load import is_reference
from vqbet.contract import BundleError
from vqbet.environment import threads
from vqbet.policies import exported, parity
from vqbet.policies.actor import Actor, understood
from vqbet.policies.in_onnx import InOnnx
from vqbet.policies.parity import SCENES, SEEN, Scenes
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

if TYPE_CHECKING:
    from vqbet.policies.vqbet import VQBeT


def run(policy: str, out: Path, watch: Watch) -> dict[str, str]:
    """Export a registered policy, or the bundle in a folder, to `out`, and return a summary.

    The graph is compared with torch on steps of data/<task>.zarr, where the project around the working directory has
    demonstrations of this spec, and on generated ones elsewhere. Raises BundleError where they differ, where the extra
    `export` is missing, and for a kind of policy that has no graph; `out` is then as it was.
    """
    exported.check_free(out)
    with _bundle(policy) as (folder, digest), threads.of(1):
        actor, bundle = policies.load(folder, digest, watched=True)
        planner = _exportable(policy, actor)
        from vqbet.policies import to_onnx  # imported late: needs torch

        with watch.bar("export: graph") as advance:
            advance(0, 1, {})
            graph, shape = to_onnx.graph(planner), to_onnx.shape(planner)
            eyes = to_onnx.eyes(planner) if planner.features else b""
            advance(1, 1, {})
        exact = InOnnx(graph, shape, eyes=eyes, cameras=actor.spec.cameras)
        again = Actor(actor.spec, exact, execute=actor.execute, **understood(actor.terms()))
        scenes = _recorded(actor) or parity.generated(actor.spec, actor.goal, planner.window)
        with watch.bar("export: parity") as advance:
            found = parity.compare(actor, again, scenes, lambda done, count: advance(done, count, {}))
        exported.write(out, actor, bundle, graph, shape, found.to_json(), eyes=eyes)
    return {
        "policy": f"{bundle.spec.task}, digest {bundle.digest[:12]}",
        "folder": f"{out} ({exported.GRAPH}, {(len(graph) + len(eyes)) / 1e6:.1f} MB, and {exported.MANIFEST})",
        "parity": f"{found.plans} {found.scenes} scenes: codes equal, actions within {found.apart:.1e} of their ranges",
    }


@contextmanager
def _bundle(policy: str) -> Iterator[tuple[Path, str | None]]:
    """Yield a folder with the bundle, and the digest it must have, None for any."""
    if not is_reference(policy):
        yield Path(policy), None
        return
    from vqbet import registry  # imported late: a folder needs no MLflow

    environment.prepare()
    registry.check()
    version = registry.resolve(policy)
    with tempfile.TemporaryDirectory() as scratch:
        yield registry.download(version, Path(scratch) / "bundle"), version.digest


def _exportable(policy: str, actor: Actor) -> VQBeT:
    if isinstance(actor.planner, InOnnx):
        raise BundleError(f"{policy}: expected a bundle, got a policy that was exported already; copy the folder")
    from vqbet.policies.vqbet import VQBeT

    if not isinstance(actor.planner, VQBeT):
        raise BundleError(f"{policy}: expected a vqbet policy, got {type(actor.planner).__name__}, which has no graph")
    if actor.planner.goal_features:
        raise BundleError(f"{policy}: its goals are pictures, for which an exported graph has no input")
    return actor.planner


def _recorded(actor: Actor) -> Scenes | None:
    """Return steps of the project's demonstrations, each with the last observation of its episode as goal, if any."""
    store_path = Paths(environment.find_root(), actor.spec.task).store
    if not store_path.is_dir():
        return None
    from vqbet.demos import store
    from vqbet.demos.windows import Windows

    demos = store.read(store_path)
    if demos.spec.differences(actor.spec):
        return None
    count = SEEN if demos.cameras else SCENES
    rows = np.random.default_rng(0).integers(len(demos.observation), size=count)
    windows = Windows(demos, window=actor.planner.window, chunk=1)
    ends = demos.episode_ends[np.searchsorted(demos.episode_ends, rows, side="right")] - 1
    wanted = [[channel.name for channel in actor.spec.observation].index(name) for name in actor.goal]
    found = windows.gather(rows)
    shown = {name: found[f"camera/{name}"] for name in demos.cameras}
    return Scenes(found["observation"], demos.observation[ends][:, wanted], "recorded", shown)
