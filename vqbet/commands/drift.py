"""Comparison of today's demonstrations with those that a registered policy was trained on.

A report beside the graph, not a stage, since DVC cannot depend on which version is champion. torch is imported only if
there is a champion.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vqbet import registry, tasks, versions
from vqbet.contract import (
    BundleError,
    ConfigError,
    Demonstrations,
    PipelineError,
    RegistryError,
    StoreError,
    VqbetError,
)
from vqbet.coordinates import views
from vqbet.demos import store
from vqbet.demos.windows import Windows
from vqbet.drift import Coded, DriftReport, Thresholds, compare, deviation, page, refuse_unlike
from vqbet.files import atomic
from vqbet.registry import Version
from vqbet.stages import artifacts
from vqbet.stages.paths import Paths
from vqbet.stages.progress import Watch

if TYPE_CHECKING:
    from vqbet.config import DriftParams
    from vqbet.models.tokenizer import Tokenizer

PART = 16384  # chunks encoded at a time
SHOWN = 5  # channels in the terminal


@dataclass(frozen=True, slots=True)
class Drift:
    """Conclusion and rows for the terminal. exceeded: whether a threshold was exceeded."""

    conclusion: str
    exceeded: bool = False
    rows: dict[str, str] = field(default_factory=dict)


def run(root: Path, task: str, limits: DriftParams, against: str, watch: Watch) -> Drift:
    """Compare data/<task>.zarr with the demonstrations of `against` ("": the champion); write artifacts/<task>/drift.

    For a task without a champion the conclusion says that there is nothing to compare. Raises VqbetError where one of
    the two versions, the policy or its tokenizer is not available, or where the versions' specs differ.
    """
    version = _against(task, against)
    if version is None:
        return Drift(f"{task} has no champion yet: there is nothing to compare its demonstrations with")
    paths = Paths(root, task)
    (root / ".vqbet").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root / ".vqbet", prefix="drift-") as folder:
        tokenizer, wanted, trained_on = _policy(version, Path(folder) / "policy")
        new = store.read(paths.store)
        old = new if new.digest == trained_on else _restored(root, version, trained_on, Path(folder) / "past", watch)
    where = f"the demonstrations of {version.name}/{version.version}", str(paths.store)
    report = measured((tokenizer, wanted), old, new, limits, where, watch)
    value = {
        **report.to_json(),
        "against": {
            "policy": f"{version.name}/{version.version}",
            "digest": version.digest,
            "data_dvc": _data_dvc(version),
            "store": old.digest,
        },
        "present": {"data_dvc": versions.data_version(root), "store": new.digest},
    }
    artifacts.write_json(paths.artifacts / "drift" / "drift.json", value)
    atomic.write(paths.artifacts / "drift" / "index.html", page.render(value), PipelineError)
    shown = {"compared with": f"{where[0]}, data version {old.digest[:12]}"}
    shown |= rows(report) | {"open": (paths.artifacts / "drift" / "index.html").relative_to(root).as_posix()}
    return Drift(report.conclusion, bool(report.exceeded), shown)


def after_ingest(root: Path, task: str, limits: DriftParams, watch: Watch) -> Drift:
    """Return the comparison with the champion after an ingest. An error becomes the conclusion and does not fail the
    ingest. The store that the champion was trained on is not measured."""
    try:
        version = _against(task, "")
        if version is not None and version.tags.get("store") == store.digest(Paths(root, task).store):
            found = Drift(f"none: {version.name}/{version.version}, the champion, was trained on these demonstrations")
        else:
            found = run(root, task, limits, "", watch)
    except VqbetError as error:
        found = Drift(f"not compared with the champion's demonstrations: {error}")
    watch.say(f"drift: {found.conclusion}")
    return found


def measured(
    trained: tuple[Tokenizer, Collection[str]],
    old: Demonstrations,
    new: Demonstrations,
    limits: DriftParams,
    where: tuple[str, str],
    watch: Watch,
) -> DriftReport:
    """Encode both versions with the tokenizer, in the views it was trained on, and compare them."""
    task = old.spec.task
    refuse_unlike(old, new, where)
    both = coded(*trained, old, where[0], watch), coded(*trained, new, where[1], watch)
    with watch.bar(f"drift {task}") as advance:
        return compare(
            old,
            new,
            both,
            Thresholds(**limits.model_dump()),
            where=where,
            progress=lambda done, total: advance(done, total, {}),
        )


def coded(tokenizer: Tokenizer, wanted: Collection[str], demos: Demonstrations, where: str, watch: Watch) -> Coded:
    """Return every complete chunk of the demonstrations, in the wanted views, encoded and decoded.

    Raises StoreError where there is no complete chunk.
    """
    import torch

    demos = views.seen(demos, wanted, tasks.of(demos.spec))
    length, normalizer = tokenizer.shape.chunk, tokenizer.normalizer
    left = np.repeat(demos.episode_ends, demos.lengths) - np.arange(len(demos.action))  # steps to the episode's end
    starts = np.flatnonzero(left >= length)
    if not len(starts):
        raise StoreError(
            f"{where}: the longest episode has {int(demos.lengths.max())} steps, the policy's tokenizer takes chunks "
            f"of {length}; record longer episodes, or train a tokenizer of shorter chunks"
        )
    windows = Windows(demos, window=1, chunk=length, pictures=False)
    codes, errors = [], []
    with watch.bar(f"encode {demos.spec.task}") as advance:
        for first in range(0, len(starts), PART):
            chunk = windows.gather(starts[first : first + PART])["action"]
            codes.append(tokenizer.encode(normalizer.normalize(torch.from_numpy(chunk))))
            rebuilt = normalizer.unnormalize(tokenizer.decode(codes[-1])).numpy()
            errors.append(np.abs(rebuilt - chunk))
            advance(min(first + PART, len(starts)), len(starts), {})
    return Coded(
        codes=torch.cat(codes).numpy(),
        error=np.concatenate(errors),
        owner=np.searchsorted(demos.episode_ends, starts, side="right"),
        size=tokenizer.shape.codes,
        channels=demos.spec.action,
        deviation=np.array([deviation(*each) for each in zip(demos.action.T, demos.spec.action, strict=True)]),
    )


def rows(report: DriftReport) -> dict[str, str]:
    """Return the report as two columns for the terminal."""
    difference = report.difference
    found = {
        "episodes": f"{len(difference.kept)} kept, {len(difference.added)} added, {len(difference.removed)} removed, "
        f"{len(difference.changed)} changed",
    }
    for each in report.ranked()[:SHOWN]:
        found[f"shift {each.name}"] = (
            f"{each.distance:.3f} of a standard deviation (mean {each.mean_shift:+.3f}, spread x{each.spread:.3f})"
            f"{_chance(report, each.name)}"
        )
    for layer in report.layers:
        found[f"codes layer {layer.layer}"] = (
            f"{layer.divergence:.4f} bits apart, {len(layer.unused)} no longer used, {len(layer.used)} newly used"
            f"{_chance(report, f'layer {layer.layer}')}"
        )
    for tail in report.tails:
        found[f"error {tail.name}"] = (
            f"p99 {tail.old_p99:.4g} -> {tail.new_p99:.4g} {tail.channel.unit} (x{tail.ratio:.3f}), "
            f"mean {tail.old_mean:.4g} -> {tail.new_mean:.4g}{_chance(report, f'tail of {tail.name}')}"
        )
    return found


def _chance(report: DriftReport, name: str) -> str:
    if not report.tellable:
        return ", too few episodes to tell chance"
    return f", more than chance (p {report.p[name]:.2g})" if report.more_than_chance(name) else ""


def _against(task: str, against: str) -> Version | None:
    """Return the version to compare with; None where the task has no champion. Raises RegistryError, ConfigError."""
    if not against and registry.empty():
        return None
    registry.check()
    version = registry.resolve(against) if against else registry.champion(task)
    if version is not None and version.name != task:
        raise ConfigError(f"--against: expected {task}@<alias> or {task}/<version>, got {against!r}")
    return version


def _policy(version: Version, folder: Path) -> tuple[Tokenizer, frozenset[str], str]:
    """Return the policy's tokenizer, the views it was trained on, and the digest of its training store.

    "mirrored" is left out, since a mirror image shows the same drift as its original. Raises BundleError.
    """
    from vqbet import policies
    from vqbet.policies.vqbet import VQBeT

    policy, bundle = policies.load(registry.download(version, folder), version.digest)
    where = f"{version.name}/{version.version}"
    if not isinstance(policy.planner, VQBeT):
        raise BundleError(f"{where}: a {bundle.kind!r} policy has no tokenizer to compare with; choose a vqbet policy")
    if not bundle.provenance.get("data"):
        raise BundleError(f"{where}: its bundle does not say which store it was trained on; build it again")
    wanted = _views(bundle.provenance.get("params", {})) - {"mirrored"}
    return policy.planner.prior.tokenizer, wanted, str(bundle.provenance["data"])


def _views(params: Mapping[str, Any]) -> frozenset[str]:
    """Return the views that a bundle's parameters name; older bundles have flags in the section tokenizer instead."""
    if "demos" in params:
        return frozenset(params["demos"]["views"])
    return views.flagged(params.get("tokenizer", {}))


def _data_dvc(version: Version) -> str:
    """Return the md5 of data.dvc that a version was registered with; older versions tag it as data_version."""
    return version.tags.get("data_dvc") or version.tags.get("data_version", "")


def _restored(root: Path, version: Version, digest: str, target: Path, watch: Watch) -> Demonstrations:
    """Return the policy's training store, restored from the data version that the policy was registered with."""
    where = f"{version.name}/{version.version}"
    md5 = _data_dvc(version)
    if not md5:
        raise RegistryError(
            f"{where}: has no tag data_dvc, so its demonstrations cannot be found; register it again from the "
            f"commit that made it: vqbet register {version.name}"
        )
    with watch.bar(f"restore {version.name}") as advance:
        versions.restore(
            root,
            md5,
            version.name,
            target,
            progress=lambda done, total: advance(done, total, {}),
        )
    demos = store.read(target)
    if demos.digest != digest:
        raise PipelineError(
            f"{where}: was trained on the store {digest[:12]}, but data.dvc {md5[:12]}, with which it was registered, "
            f"holds {demos.digest[:12]}; register it from the commit that made it"
        )
    return demos
