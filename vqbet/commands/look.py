"""Look at one episode of a task's demonstrations: a page of cameras, channels, actions and codes, and films."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vqbet import bundle
from vqbet.contract import BundleError, ConfigError, Demonstrations
from vqbet.coordinates import views
from vqbet.demos import episode_page, store
from vqbet.evaluation import video
from vqbet.files import atomic
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch
from vqbet.tasks import of

PART = 64  # pictures that are decoded at a time


def run(root: Path, task: str, episode: int, watch: Watch) -> Path:
    """Write the page of an episode, and a film of each camera beside it; return the page's path.

    Raises ConfigError for an episode that does not exist, StoreError where the demonstrations cannot be read.
    """
    paths = Paths(root, task)
    demos = store.read(paths.store)
    count = len(demos.episode_ends)
    if not 0 <= episode < count:
        raise ConfigError(f"--episode {episode}: {paths.store} has the episodes 0 to {count - 1}")
    folder = paths.scratch("look") / f"episode-{episode}"
    films = {}
    for name in demos.cameras:
        watch.say(f"film of camera {name}")
        films[name] = f"{name}.webm"
        video.write(
            folder / films[name], _pictures(demos, episode, name), float(np.clip(demos.spec.control_hz, 1, 240))
        )
    page = folder / "index.html"
    atomic.write(page, episode_page.render(demos, episode, _codes(paths, demos, episode), films), ConfigError)
    return page


def _pictures(demos: Demonstrations, episode: int, name: str) -> list[np.ndarray]:
    steps = np.arange(demos.episode_starts[episode], demos.episode_ends[episode])
    parts = [demos.cameras[name][steps[first : first + PART]] for first in range(0, len(steps), PART)]
    return [picture for part in parts for picture in part]


def _codes(paths: Paths, demos: Demonstrations, episode: int) -> np.ndarray | None:
    """Return the codes of the episode's chunks by the tokenizer in the artefacts; None where none fits."""
    import torch

    from vqbet.models.tokenizer import Tokenizer

    if not paths.tokenizer.is_dir():
        return None
    packed = bundle.read(paths.tokenizer)
    try:
        bundle.expect(packed, demos.spec)
    except BundleError:  # of other demonstrations; the page does without
        return None
    tokenizer = Tokenizer.from_components(packed.arguments, packed.components)
    chunk = int(packed.arguments["chunk"])
    wanted = set(packed.provenance.get("views", ())) - {"mirrored"}
    seen = views.seen(demos, wanted, of(demos.spec)) if wanted else demos
    action = seen.action[demos.episode_starts[episode] : demos.episode_ends[episode]]
    if len(action) < chunk:
        return None
    chunks = np.lib.stride_tricks.sliding_window_view(action, chunk, axis=0).transpose(0, 2, 1)
    normalized = tokenizer.normalizer.normalize(torch.from_numpy(np.ascontiguousarray(chunks)))
    return np.asarray(tokenizer.encode(normalized).numpy())
