"""Publication of the ends of a task's chains where a writer of the registry cannot revoke them, and checks against it.

`promotion.publish` in params.yaml selects the place: an annotated git tag, or a write-once object in S3.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from vqbet import registry, storage
from vqbet.commands import bounds
from vqbet.contract import RegistryError, VqbetError
from vqbet.registry import Head
from vqbet.versions import tags

Place = Literal["none", "git", "s3"]


def ready(root: Path, place: Place) -> None:
    """Check, before a promotion, that it can be published.

    Raises PipelineError or StorageError where git or the bucket refuses, RegistryError where no bucket is configured.
    """
    if place == "git":
        tags.ready(root)
    elif place == "s3":
        _bucket().check()


def publish(root: Path, task: str, place: Place) -> dict[str, str]:
    """Publish the present ends of the task's chains, once per ledger entry, and return rows about their place.

    Raises RegistryError where the ledger is broken, not trusted or empty, or another end was published for this entry.
    """
    if place == "none":
        raise RegistryError(
            f"{task}: promotion.publish is none in params.yaml; set it to git or s3 to publish the ledger's head"
        )
    head = registry.head(task)
    if not head.seq:
        raise RegistryError(f"{task}: there is no entry to publish; promote first")
    name, content = f"{task}/{head.seq}", head.content()
    where, note = _tagged(root, name, content) if place == "git" else _stored(name, content)
    for kind, found in _published(root, task):
        if found.seq == head.seq and found.ends[task] != head.ends[task]:
            raise RegistryError(
                f"{task}: entry {head.seq} was published in {kind} as {found.ends[task][1][:12]} and is "
                f"{head.ends[task][1][:12]}: the ledger was written again; restore it from a copy"
            )
    return {"published": where, "entry": f"{head.seq}, hash {head.ends[task][1][:12]}", "note": note}


def after(root: Path, task: str, place: Place) -> dict[str, str]:
    """Publish a new entry if the task asks for it. Raises RegistryError, which says what is left to do."""
    if place == "none":
        return {}
    try:
        rows = publish(root, task, place)
    except VqbetError as error:
        raise RegistryError(
            f"{task}: the champion is as asked, but the entry is not published: {error}. Publish it: vqbet "
            f"publish {task}"
        ) from error
    return {"published": f"{rows['published']}; {rows['note']}"}


def compared(root: Path, task: str) -> tuple[list[str], int]:
    """Return the faults between the chains and the published ends, and the number of published ends.

    Faults are a published end that the chains lack, and a last entry that should be published and is not. Tags are read
    from this clone; run `git fetch --tags` first. Raises RegistryError, StorageError.
    """
    place = bounds.committed(root, task).promotion.publish
    published = list(_published(root, task))
    faults = [f"{where}: {sentence}" for where, head in published for sentence in registry.misses(head)]
    if place == "s3" and storage.configured() is None:
        faults.append("promotion.publish is s3 and VQBET_STORAGE is not set: nothing was compared there; set it")
    last, newest = registry.length(task), max((head.seq for _, head in published), default=0)
    if place != "none" and last > newest:
        faults.append(f"{task}: entry {last} is not published; look at it, then: vqbet publish {task}")
    return faults, len(published)


def _published(root: Path, task: str) -> Iterator[tuple[str, Head]]:
    """Yield published ends with their place: tags of this clone, and all versions of objects in the bucket, if any."""
    for name, message in tags.read(root, f"vqbet/{task}/"):
        yield f"tag {name}", _parsed(task, f"tag {name}", message.encode())
    bucket = storage.configured()
    for key, content in storage.versions(bucket, f"heads/{task}/") if bucket else ():
        yield bucket.address(key) if bucket else key, _parsed(task, key, content)


def _parsed(task: str, where: str, content: bytes) -> Head:
    try:
        return Head.parse(task, content)
    except RegistryError as error:
        raise RegistryError(f"{where}: {error}; find out who made it") from error


def _tagged(root: Path, name: str, content: bytes) -> tuple[str, str]:
    made = tags.make(root, f"vqbet/{name}", content.decode())
    push = f"push it, for a tag of this clone alone binds nobody: git push <remote> vqbet/{name}"
    return f"tag vqbet/{name}{'' if made else ', as before'}", push


def _stored(name: str, content: bytes) -> tuple[str, str]:
    bucket, key = _bucket(), f"heads/{name}.json"
    made, lock = storage.create(bucket, key, content)
    return f"{bucket.address(key)}{'' if made else ', as before'}", lock


def _bucket() -> storage.Bucket:
    bucket = storage.configured()
    if bucket is None:
        raise RegistryError(
            "promotion.publish is s3 and VQBET_STORAGE is not set; set it to s3://<bucket>/<prefix>, or choose another "
            "promotion.publish in params.yaml"
        )
    return bucket
