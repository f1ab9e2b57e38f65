"""Serving of a plan's policies to its robot, blind: `vqbet trials serve`.

Policies come from the registry by the digests of the plan, or from folders where there is no registry. A child process
talks to the registry, as for `vqbet serve`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from vqbet import policies
from vqbet.commands import serve
from vqbet.commands.load import check_folder
from vqbet.commands.trials import server_key
from vqbet.contract import GateError, RegistryError, ServingError, VqbetError
from vqbet.environment import threads
from vqbet.evaluation.trials.trial_plan import TrialPlan
from vqbet.serving.blind_arms import BlindArms
from vqbet.serving.desk_line import DeskLine
from vqbet.serving.seats import Served
from vqbet.serving.server import Server, ServerOptions
from vqbet.signing.keys import Key
from vqbet.stages.paths import Paths

DESK_TOKEN = "VQBET_DESK_TOKEN"
FETCH_S = 600.0  # for the registry to hand out all policies
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialServing:
    """Settings of a server of trials. plan: a plan's file, or the first letters of its sha256; "": the newest. folders:
    of the policies; none: the registry's. key: file of the server's key; None: the project's own."""

    plan: str = ""
    folders: Sequence[Path] = ()
    key: Path | None = None

    @property
    def alone(self) -> bool:
        """Return whether plan, policies and key are all files, so that no project is needed."""
        return bool(self.folders) and self.key is not None and Path(self.plan).is_file()


def run(root: Path, task: str, asked: TrialServing, options: ServerOptions, desk_token: str, say: Say) -> None:
    """Serve the policies of a plan of trials until SIGTERM or SIGINT.

    Raises VqbetError where plan, key and policies do not belong together, or nothing can be served.
    """
    plan = planned(root, task, asked.plan)
    key = server_key.read(asked.key) if asked.key is not None else server_key.own(root)
    _refuse_key(plan, key, alone=asked.alone)
    with tempfile.TemporaryDirectory() as scratch:
        folders = asked.folders or _fetched(task, plan, Path(scratch), say)
        arms = _loaded(plan, folders)
    with threads.of(1) if "torch" in sys.modules else nullcontext():  # timed as they will be served
        blind = BlindArms(arms, plan=plan.sha256, robot=plan.robot, key=key)
    desk = DeskLine(blind, desk_token, robots=options.token)
    server = Server(desk, options, say=say)
    asyncio.run(serve.act(server, lambda port: _announce(plan, blind, options, port, say)))


def planned(root: Path, task: str, plan: str) -> TrialPlan:
    """Return a plan by its file, by the first letters of its sha256, or the newest of the task. Raises GateError."""
    if plan and Path(plan).is_file():
        found = TrialPlan.read(Path(plan))
    else:
        files = sorted(Paths(root, task).trials().glob("*/plan.json"), key=lambda file: file.stat().st_mtime)
        named = [file for file in files if file.parent.name.startswith(plan[:12])]
        if not named:
            known = ", ".join(file.parent.name for file in files) or "none"
            raise GateError(
                f"{task}: no plan of trials {plan!r}; there are: {known}; make one: vqbet trials plan {task}"
            )
        found = TrialPlan.read(named[-1])
        if not all(map(found.sha256.startswith, (plan, named[-1].parent.name))):
            wanted = max(plan, named[-1].parent.name, key=len)
            raise GateError(f"{named[-1]}: holds plan {found.sha256}, not {wanted}; bring the locked plan back")
    if found.task != task:
        raise GateError(f"plan {found.sha256[:12]}: is of task {found.task}, not of {task}")
    return found


def _refuse_key(plan: TrialPlan, key: Key, *, alone: bool) -> None:
    if key.public != plan.server_key:
        raise GateError(
            f"plan {plan.sha256[:12]}: expects statements signed by {plan.server_key}, this server's key is "
            f"{key.public}; serve with that key (--server-key), or plan again with this one"
        )
    if alone:
        return
    from vqbet import signing  # the trust file needs a project, and its packages

    trust = signing.current()
    holder = trust.holders.get(key.id) if trust else None
    if trust is not None and (holder is None or "serve" not in holder.roles):
        raise GateError(
            f"{trust.where}: nobody with the role serve has the server's key {key.id[:12]}; vqbet keys trust <name> "
            f"--role serve --public-key {key.public}"
        )


def _loaded(plan: TrialPlan, folders: Sequence[Path]) -> list[Served]:
    """Return the policies. Raises ServingError where they are not exactly the plan's, BundleError for a broken one."""
    found: dict[str, Served] = {}
    for folder in folders:
        check_folder(folder)
        actor, packed = policies.load(folder)
        found[packed.digest] = Served.of(actor, packed.digest, "", packed.components)
    wanted = set(plan.arms.values())
    if found.keys() != wanted:
        raise ServingError(
            f"plan {plan.sha256[:12]}: compares {' and '.join(sorted(wanted))}, the folders hold "
            f"{' and '.join(sorted(found)) or 'none'}; give the folders of exactly those policies"
        )
    return [found[digest] for digest in sorted(found)]


def _fetched(task: str, plan: TrialPlan, into: Path, say: Say) -> list[Path]:
    say(f"{task}: asking the registry for {len(plan.arms)} policies")
    digests = sorted(plan.arms.values())
    command = [sys.executable, "-m", "vqbet.commands.trials.serving", task, str(into), *digests]
    done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_S, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RegistryError(done.stderr.strip().rpartition("\n")[2] or "the registry's process ended; vqbet doctor")
    return [into / digest for digest in digests]


def fetch(task: str, into: Path, digests: Sequence[str]) -> None:
    """Download policies into folders of `into` that are named by their digests. Raises RegistryError."""
    from vqbet import environment, registry

    environment.prepare()
    registry.check()
    for digest in digests:
        registry.download(registry.by_digest(task, digest), into / digest)


def _announce(plan: TrialPlan, blind: BlindArms, options: ServerOptions, port: int, say: Say) -> None:
    scheme = "wss" if options.certificate else "ws"
    host = f"[{options.host}]" if ":" in options.host else options.host
    say(f"serving the trials of plan {plan.sha256[:12]}, {len(plan.arms)} policies, to robot {plan.robot}")
    say(f"  plan       {plan.sha256}")
    say(f"  key        {blind.public_key}")
    say(f"  answers    after {1000 * blind.pace_s:.1f} ms, whichever policy acts")
    say(f"  address    {scheme}://{host}:{port}" + ("" if options.certificate else ", not encrypted"))
    say(f"  desk       vqbet trials run {plan.task} --server {scheme}://{host}:{port}, with the same {DESK_TOKEN}")


def _main(task: str, into: str, *digests: str) -> None:
    try:
        fetch(task, Path(into), digests)
    except VqbetError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    _main(*sys.argv[1:])
