"""Play a registered policy in its world, outside any plan: for inspection, not for a verdict."""

from __future__ import annotations

import tempfile
from pathlib import Path

from vqbet import config, environment, policies, registry
from vqbet.demos import store
from vqbet.evaluation import rollout, video
from vqbet.evaluation.rollout import UNPLANNED, Label
from vqbet.stages import evaluate, worlds
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch


def run(root: Path, reference: str, episodes: int, seed: int, out: Path, watch: Watch) -> dict[str, str]:
    """Fetch and verify a policy, play `episodes` from `seed` on, and write one film of all of them to `out`."""
    registry.check()
    version = registry.resolve(reference)
    with tempfile.TemporaryDirectory() as folder:
        policy, _ = policies.load(registry.download(version, Path(folder) / "bundle"), version.digest)
    params = config.task(root / "params.yaml", version.name)
    told = policy.goal or params.evaluate.world is not None
    demos = store.read(Paths(root, version.name).store) if told else None
    world = worlds.name(version.name, asked=bool(policy.goal), params=params)
    with watch.bar(f"{version.name}/{version.version}") as advance:
        played = rollout.play(
            worlds.make(world, demos),
            policy,
            range(seed, seed + episodes),
            Label(world, "candidate", version.digest, UNPLANNED, environment.machine()),
            progress=lambda done, total: advance(done, total, {}),
            film=range(episodes),
        )
    films = [played.films[row] for row in range(episodes)]
    video.write(out, [frame for film in films for frame in film.frames], films[0].fps)
    summary = evaluate.summary(played.records)
    return {
        "policy": f"{version.name}/{version.version}, digest {version.digest[:12]}",
        "episodes": str(episodes),
        "score": f"{summary['score']:.3f} ({summary['score_low']:.3f} to {summary['score_high']:.3f})",
        "success": f"{summary['success']:.3f}",
        "video": str(out),
    }
