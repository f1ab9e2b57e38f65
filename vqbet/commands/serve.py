"""Serving of a policy to robots: `vqbet serve`, and `vqbet fetch` for a machine that has no registry.

A child process talks to the registry: the process that acts imports no MLflow, and waits for no database.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from vqbet import bundle, policies
from vqbet.commands import folders
from vqbet.commands.load import check_folder, is_reference
from vqbet.contract import BundleError, RegistryError, VqbetError
from vqbet.environment import threads
from vqbet.serving.seats import Served
from vqbet.serving.server import Server, ServerOptions

if TYPE_CHECKING:
    from vqbet.registry import Version

EVERY_S = 10.0  # between two looks at the ledger
FIRST_S = 120.0  # for the first answer of the registry
STOPPING_S = 5.0  # for the child to end
TOKEN = "VQBET_TOKEN"
MOST_LINE = 1 << 16
CHAMPION = "champion"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Followed:
    """A reference to the registry, and how it is followed. canary: serve a champion before its canary has passed."""

    reference: str
    every_s: float
    canary: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A bundle on this machine: its folder, the digest that it must have, and how it is called."""

    folder: Path
    digest: str | None
    reference: str


def run(
    policy: str,
    digest: str | None,
    options: ServerOptions,
    say: Say,
    *,
    every_s: float = EVERY_S,
    canary: bool = False,
) -> None:
    """Serve a registered policy or the bundle in a folder until SIGTERM or SIGINT.

    digest: of the only bundle that may be served, None for any. A champion or candidate is followed: when the ledger
    names another one, robots get it from their next episode on. every_s: between two looks at the ledger. canary:
    serve a champion that waits for its canary; else the champion before it is served. Raises VqbetError where nothing
    can be served.
    """
    if canary and not policy.endswith(f"@{CHAMPION}"):
        raise RegistryError(f"{policy}: --canary is for a task's champion, such as blockpush@champion; leave it out")
    if is_reference(policy):
        followed = Followed(policy, every_s, canary=canary)
        asyncio.run(_registered(followed, digest, options, say))
    else:
        asyncio.run(_alone(policy, digest, options, say))


def fetch(reference: str, folder: Path, digest: str = "") -> dict[str, str]:
    """Copy a registered policy to a new or empty folder, and check every byte of it.

    digest: of the only bundle that may be copied, "" for any. Raises RegistryError where there is no such version,
    BundleError where the registry's files are not those of its digest; the folder is then as it was before.
    """
    from vqbet import registry  # imported late: a folder needs no MLflow

    registry.check()
    version = registry.resolve(reference)
    if digest and digest != version.digest:
        raise BundleError(f"{reference}: expected the digest {digest}, its bundle has {version.digest}")
    with tempfile.TemporaryDirectory(dir=folders.parent(folder), prefix=f".{folder.name}.") as staging:
        copied = registry.download(version, Path(staging) / "bundle")
        bundle.read(copied, version.digest)
        try:
            os.replace(copied, folder)
        except OSError as error:
            raise BundleError(f"{folder}: expected a new or empty folder: {error.strerror}; choose another") from error
    return {
        "policy": f"{version.name}/{version.version}",
        "digest": version.digest,
        "folder": str(folder),
        **folders.held(reference),
        "serve it": f"vqbet serve {folder} --digest {version.digest}",
    }


def follow(followed: Followed, into: Path, *, say: Say, ended: Callable[[float], bool]) -> None:
    """Say a line of JSON for every new bundle, downloaded into a folder of `into`, and for every error and note.

    Runs in the child until `ended`, which waits for at most its seconds, returns true.
    """
    from vqbet import environment, registry

    environment.prepare()
    known, told = "", ""
    while True:
        try:
            version, note = _served(followed)
            if note and note != told:
                say(json.dumps({"note": note}))
            told = note
            if version.digest != known:
                folder = into / version.digest
                shutil.rmtree(folder, ignore_errors=True)
                registry.download(version, folder)
                say(json.dumps({"folder": str(folder), "digest": version.digest, "version": version.version}))
                known = version.digest
        except VqbetError as error:
            if str(error) != told:
                told = str(error)
                say(json.dumps({"error": told}))
        if ended(followed.every_s):
            return


def _served(followed: Followed) -> tuple[Version, str]:
    """Return the version to serve, and a sentence where that is not the champion, whose canary has not passed.

    Raises RegistryError where there is none.
    """
    from vqbet import registry

    version = registry.resolve(followed.reference)
    task, _, alias = followed.reference.partition("@")
    if alias != CHAMPION or followed.canary:
        return version, ""
    free, held = registry.released(task)
    if held is None:
        return version, ""
    waits = f"{task}: champion {held.version} of entry {held.seq} is held back until its canary has passed"
    serve = f"serve it to one robot: vqbet serve {followed.reference} --canary"
    if free is None:
        raise RegistryError(f"{waits}, and no champion was before it; {serve}")
    before = registry.resolve(f"{task}/{free.version}")
    if before.digest != free.digest:
        raise RegistryError(f"{task}/{free.version}: was replaced since it was champion; {waits}; {serve}")
    return before, f"{waits}, version {free.version} is served; {serve}"


async def act(server: Server, ready: Callable[[int], None]) -> None:
    """Run a server until a signal, with a process that does nothing else."""
    gc.collect()
    gc.freeze()  # what is loaded stays: collections then look at a request's objects only
    with threads.of(1) if "torch" in sys.modules else nullcontext():  # onnxruntime needs no torch
        await server.run(ready)


async def _alone(policy: str, digest: str | None, options: ServerOptions, say: Say) -> None:
    folder = Path(policy)
    check_folder(folder)
    await _serve(Found(folder, digest, folder.resolve().name), options, say, None)


async def _registered(followed: Followed, digest: str | None, options: ServerOptions, say: Say) -> None:
    reference = followed.reference
    with tempfile.TemporaryDirectory() as scratch:
        say(f"{reference}: asking the registry")
        async with _following(followed, Path(scratch), say) as news:
            async with asyncio.timeout(FIRST_S):
                first = await anext(news, None)
            if first is None:
                raise RegistryError(f"{reference}: the process that asks the registry ended; run: vqbet doctor")
            found = _found(first, reference)
            if digest is not None and digest != found.digest:
                raise BundleError(f"{reference}: expected the digest {digest}, its bundle has {found.digest}")
            await _serve(found, options, say, None if "/" in reference or digest else news)


def _found(news: dict[str, Any], reference: str) -> Found:
    if "error" in news:
        raise RegistryError(news["error"])
    name = reference.partition("@")[0].partition("/")[0]
    return Found(Path(news["folder"]), news["digest"], f"{reference} ({name}/{news['version']})")


async def _serve(found: Found, options: ServerOptions, say: Say, news: AsyncIterator[dict[str, Any]] | None) -> None:
    served = _loaded(found)
    server = Server(served, options, say=say)
    follower = asyncio.create_task(_switching(server, found.reference.partition(" ")[0], news, say)) if news else None
    try:
        await act(server, lambda port: _announce(served, options, port, say))
    finally:
        if follower:
            follower.cancel()
            with suppress(asyncio.CancelledError):
                await follower


def _loaded(found: Found) -> Served:
    actor, packed = policies.load(found.folder, found.digest, watched=True)
    return Served.of(actor, packed.digest, found.reference, packed.components)


async def _switching(server: Server, reference: str, news: AsyncIterator[dict[str, Any]], say: Say) -> None:
    """Switch the server to every new bundle; what is wrong with one is said, and the present one stays."""
    async for each in news:
        try:
            server.switch(await asyncio.to_thread(_loaded, _found(each, reference)))
        except VqbetError as error:
            say(f"{reference}: {error}; {server.served.handshake.digest[:12]} is served as before")
    say(f"{reference}: the process that asks the registry ended; {server.served.handshake.digest[:12]} stays")


@asynccontextmanager
async def _following(followed: Followed, into: Path, say: Say) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """Run `follow` in a child, which ends when its input ends, as it does when this process dies. Notes are said."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *(
            "-m",
            "vqbet.commands.serve",
            followed.reference,
            str(into),
            str(followed.every_s),
            str(int(followed.canary)),
        ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=MOST_LINE,
        start_new_session=True,  # Ctrl-C is for the server, which ends its child itself
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        yield _lines(child.stdout, say)
    finally:
        child.stdin.close()
        try:
            async with asyncio.timeout(STOPPING_S):
                await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()


async def _lines(stream: asyncio.StreamReader, say: Say) -> AsyncIterator[dict[str, Any]]:
    while line := await stream.readline():
        news = json.loads(line)
        if "note" in news:
            say(news["note"])
        else:
            yield news


def _announce(served: Served, options: ServerOptions, port: int, say: Say) -> None:
    said, scheme = served.handshake, "wss" if options.certificate else "ws"
    host = f"[{options.host}]" if ":" in options.host else options.host
    seen = f"{said.window} x {len(said.spec.observation)} numbers"
    say(f"serving {said.reference}")
    say(f"  digest     {said.digest}")
    say(f"  takes      {seen}" + (f", and a goal of {', '.join(said.goal)}" if said.goal else ""))
    say(f"  returns    {said.chunk} x {len(said.spec.action)} numbers at {said.spec.control_hz:g} Hz, {said.execute}")
    say(f"  address    {scheme}://{host}:{port}" + ("" if options.certificate else ", not encrypted"))
    say(f"  robot      vqbet.serving.client.connect('{scheme}://{host}:{port}', digest='{said.digest[:12]}...')")
    say(f"  look       /healthz /readyz /metrics; Ctrl-C lets running episodes end for {options.grace_s:g} s")


def _write(output: TextIO, line: str) -> None:
    output.write(line + "\n")
    output.flush()


def _main(reference: str, into: str, every_s: str, canary: str) -> None:
    """Follow in this process, which writes lines to its output and ends with its input."""
    import select

    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a package prints is no line of ours

    def ended(seconds: float) -> bool:
        readable, _, _ = select.select([0], [], [], seconds)
        return bool(readable)

    with suppress(BrokenPipeError):
        followed = Followed(reference, float(every_s), canary=canary == "1")
        follow(followed, Path(into), say=lambda line: _write(output, line), ended=ended)


if __name__ == "__main__":
    _main(*sys.argv[1:])
