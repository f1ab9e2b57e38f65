"""The command line `vqbet`. No logic: reads params.yaml, passes paths and parameters to a command, prints the result.

An edge like flows/: the only module of vqbet that may import flows, and only for `vqbet flow`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

try:
    import typer
except ModuleNotFoundError:
    sys.exit("vqbet: only a robot's part is installed (docs/robot.md); for this command: pip install 'vqbet[pipeline]'")

from vqbet.commands import console
from vqbet.commands.key_verbs import keys
from vqbet.commands.manual import Manual
from vqbet.commands.options import Reference, Task
from vqbet.commands.project import project as _project
from vqbet.commands.project import root as _root
from vqbet.commands.registry_verbs import registered
from vqbet.commands.robot_verbs import robot
from vqbet.commands.team_verbs import team, working
from vqbet.commands.trial_verbs import trials


class Flows(Manual):
    """Verbs of `vqbet flow`, from `flows.commands`, which is imported late, so that no other verb waits for it."""

    def list_commands(self, ctx: Any) -> list[str]:
        self._load()
        return super().list_commands(ctx)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        self._load()
        return super().get_command(ctx, cmd_name)

    def _load(self) -> None:
        if not self.commands:
            from flows.commands import app as flows

            self.commands.update(typer.main.get_group(flows).commands)


app = typer.Typer(
    cls=Manual,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="From robot demonstrations to a policy that is allowed on a robot, with the evidence kept.",
)
verdict = typer.Typer(cls=Manual, no_args_is_help=True, help="Replay or list verdicts from their evidence.")
app.add_typer(verdict, name="verdict")
app.add_typer(keys, name="keys")
app.add_typer(registered)
app.add_typer(robot)
app.add_typer(trials, name="trials")
app.add_typer(team, name="team")
app.add_typer(working)
flow = typer.Typer(cls=Flows, no_args_is_help=True, help="Run ingest, pipeline or promotion as a flow, under Prefect.")
app.add_typer(flow, name="flow")
DRIFTED = 3  # exit code: not an error (1), not a mistake in the command (2)


@app.command()
def new(
    task: Annotated[str, typer.Argument(help="name of the new task: one word of lower case letters, digits and _")],
    path: Annotated[str, typer.Option("--from", help="folder, file or URL of its demonstrations")],
    format: Annotated[str, typer.Option(help="lerobot, replay_buffer, hdf5, npz or bag; none: as the files say")] = "",
    observation: Annotated[list[str] | None, typer.Option(help="field that is observed, repeatable")] = None,
    action: Annotated[list[str] | None, typer.Option(help="field of actions, repeatable")] = None,
    camera: Annotated[list[str] | None, typer.Option(help="field of pictures to use, repeatable; none: all")] = None,
    no_cameras: Annotated[bool, typer.Option("--no-cameras", help="use no pictures")] = False,
    hz: Annotated[float, typer.Option(min=0.0, help="control steps of one second, where the data has no times")] = 0.0,
    actions: Annotated[str, typer.Option(help="absolute or relative; none: told from the data")] = "",
    leave_out: Annotated[bool, typer.Option("--leave-out", help="leave out episodes that lack files")] = False,
    nearest: Annotated[list[str] | None, typer.Option(help="topic of a bag taken at its nearest, repeatable")] = None,
    world: Annotated[str, typer.Option(help="its simulator, an environment of Gymnasium: module:Id-v0")] = "",
    world_kwargs: Annotated[
        str, typer.Option(help="its arguments as JSON; {seed} stands for the seed of an episode")
    ] = "{}",
    success: Annotated[str, typer.Option(help="its rule of success: info.<key>, return >= x, terminated")] = "",
    largest_gap: Annotated[float, typer.Option(min=0.001, help="seconds a bag's message may be away")] = 0.5,
) -> None:
    """Look at demonstrations in a foreign format and write their task's section of params.yaml."""
    from vqbet.commands.new import run as stage
    from vqbet.commands.new.findings import Asked
    from vqbet.commands.new.simulator import arguments

    asked = Asked(
        path=path if "://" in path else str(Path(path).expanduser().resolve()),
        format=format,
        observation=tuple(observation or ()),
        action=tuple(action or ()),
        cameras=() if no_cameras else tuple(camera) if camera else None,
        control_hz=hz or None,
        actions=actions,
        leave_out=leave_out,
        nearest=tuple(nearest or ()),
        largest_gap_s=largest_gap,
        world=world,
        world_kwargs=arguments(world_kwargs),
        success=success,
        ask=console.ask if sys.stdin.isatty() else None,
    )
    found = stage.run(_root(), task, asked, console.watch())
    console.table(stage.rows(found))
    for sentence in found.checks:
        console.say(f"please check: {sentence}")
    console.say(f"params.yaml has the section {task}. Next: vqbet ingest {task}")


@app.command()
def ingest(
    task: Task,
    source: Annotated[str, typer.Argument(help="path or URL; none: as the task's section says, or its oracle")] = "",
    recordings: Annotated[
        Path | None, typer.Option("--from", help="a folder of reviewed recordings, to be added to the present data")
    ] = None,
) -> None:
    """Bring demonstrations into data/<task>.zarr, check them, version them with DVC and push them."""
    from vqbet import config
    from vqbet.commands import ingest as stage

    root, params = _project(task)
    if recordings is None:
        collected = stage.collect(root, task, params, source, console.watch())
    elif source:
        raise typer.BadParameter("expected a source or --from, got both; one of them at a time")
    else:
        from vqbet.commands import recordings as recorded

        collected = recorded.collect(root, task, params, recordings, console.watch())
    version = stage.publish(root, console.watch())
    console.say(f"{task}: {collected.episodes} episodes, {collected.steps} steps, data version {collected.digest[:12]}")
    console.say(f"data.dvc {version.md5[:12]}: {version.files} files of all tasks, pushed and audited")
    if params.source is not None and task in config.tasks(root / "params.yaml"):
        console.say("Next: dvc repro")


@app.command()
def look(
    task: Task,
    episode: Annotated[int, typer.Option(min=0, help="number of the episode in the store")] = 0,
) -> None:
    """Write a page of one episode: cameras, actions beside what was observed, and the codes of its chunks."""
    from vqbet.commands import look as stage

    console.say(f"open {stage.run(_root(), task, episode, console.watch())}")


@app.command()
def review(
    folder: Annotated[Path, typer.Argument(help="a folder of recordings, as a robot's recorder writes it")],
    accept: Annotated[str, typer.Option(help="numbers of recordings to learn from, such as 3,5 or 3-7")] = "",
    reject: Annotated[str, typer.Option(help="numbers of recordings to leave out")] = "",
    success: Annotated[str, typer.Option(help="numbers of recordings that succeeded")] = "",
    failure: Annotated[str, typer.Option(help="numbers of recordings that failed")] = "",
    note: Annotated[str, typer.Option(help="written beside these decisions")] = "",
    everything: Annotated[bool, typer.Option("--all", help="list recordings without anything unusual too")] = False,
) -> None:
    """List recordings that a person must look at before they are ingested, and write down what was decided."""
    from vqbet.commands import review as stage

    named = {"accept": accept, "reject": reject, "success": success, "failure": failure}
    if any(named.values()):
        stage.mark(folder, **{name: stage.numbers(text) for name, text in named.items()}, note=note)
    found, broken = stage.run(folder)
    console.table(stage.rows(found, broken, everything=everything))
    console.say(f"{len(found)} recordings, {sum(each.open for each in found)} without a decision")


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="validate, tokenizer, features, prior, bundle, evaluate, gate or report")],
    task: Annotated[str, typer.Argument(help="a section of params.yaml; or <stage>@<task> as one word")] = "",
    training: Annotated[int, typer.Option(min=0, max=1000, hidden=True)] = 0,
) -> None:
    """Run one stage of the graph, as dvc.yaml does with DVC's name of the stage."""
    from vqbet.stages import runner

    name, task = (name, task) if task else runner.split(name)
    root, params = _project(task)
    runner.run(root, task, name, params, console.watch(), training=training)


@app.command(hidden=True)
def code(addressed: Annotated[str, typer.Argument(help="a task; or code@<task>, as DVC calls the stage")]) -> None:
    """Write the hash of each stage's code into artifacts/<task>/code.json, as dvc.yaml does."""
    from vqbet.commands import code as stage

    found = stage.run(_root(), addressed)
    if "@" not in addressed:  # DVC's own call says nothing
        console.table(found)


@app.command()
def retrain(
    task: Task,
    times: Annotated[int, typer.Option(min=1, max=1000, help="number of trainings; existing ones are kept")] = 3,
) -> None:
    """Train and evaluate the recipe with other seeds, so that verdicts can state the seed-to-seed variance."""
    from vqbet.commands import retrain as stage

    root, params = _project(task)
    console.table(stage.run(root, task, params, times, console.watch()))


@app.command()
def plan(task: Task) -> None:
    """Show what the gate will test, on which seeds and with what power, without playing."""
    from vqbet.commands import plan as stage

    root, params = _project(task)
    console.table(stage.run(root, task, params))


@app.command()
def params(
    task: Annotated[str, typer.Argument(help="a section of params.yaml; none: list them")] = "",
) -> None:
    """Print a task's parameters as its stages see them, defaults included."""
    from vqbet.commands import params as stage

    root = _root()
    if task:
        console.say(stage.run(root, task))
    else:
        console.table(stage.tasks(root))


@app.command()
def check(task: Task) -> None:
    """Report everything that is wrong with a task before anything is trained; exit with 1 if there is anything."""
    from vqbet.commands import check as stage

    found = stage.run(_root(), task)
    for sentence in found or [stage.NOTHING]:
        console.say(f"{task}: {sentence}" if not found else f"  {sentence}")
    if found:
        raise typer.Exit(1)


@app.command()
def weights(
    source: Annotated[Path, typer.Argument(help="safetensors file of torchvision's resnet18, or a bundle's encoder")],
    out: Annotated[Path, typer.Option("-o", "--out", help="safetensors file to write")],
) -> None:
    """Convert the weights of an image network for prior.encoder.weights, and print the line for params.yaml."""
    from vqbet.commands import weights as stage

    console.table(stage.run(source, out, _root()))


@verdict.command("replay")
def replay(verdict_id: Annotated[str, typer.Argument(help="the beginning of the verdict's id")]) -> None:
    """Recompute a verdict from its evidence alone, byte for byte."""
    from vqbet.stages import verdicts

    console.table(verdicts.replay(_root(), verdict_id))


@verdict.command("list")
def verdicts() -> None:
    """List all verdicts whose evidence is here."""
    from vqbet.stages import verdicts

    console.table(verdicts.listing(_root()))


@app.command()
def drift(
    task: Task,
    against: Annotated[str, typer.Option(help="a registered policy of the task; none: its champion")] = "",
    check: Annotated[bool, typer.Option("--check", help="exit code 3 where a threshold is exceeded")] = False,
) -> None:
    """Compare data/<task>.zarr with the demonstrations that the champion was trained on."""
    from vqbet.commands import drift as stage

    root, params = _project(task)
    found = stage.run(root, task, params.drift, against, console.watch())
    console.table(found.rows)
    console.say(found.conclusion)
    if check and found.exceeded:
        raise typer.Exit(DRIFTED)


@app.command()
def status(
    task: Annotated[str, typer.Argument(help="a task; none: all that have a champion, a candidate or a verdict")] = "",
    page: Annotated[bool, typer.Option("--page", help="write a page too, and print its path")] = False,
) -> None:
    """Show each task's champion and why, what runs, what waits for whom, what drifted, what robots run, and costs."""
    from flows.runs import unfinished
    from vqbet.commands import status as stage

    root = _root()
    found = stage.run(root, task, unfinished)
    console.table(found.rows())
    if page:
        console.say(f"open {stage.write(root, found)}")


@app.command()
def rollout(
    reference: Reference,
    episodes: Annotated[int, typer.Option(min=1, help="how many episodes to play")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="the first episode's seed")] = 0,
    out: Annotated[Path, typer.Option(help="the video")] = Path("rollout.webm"),
) -> None:
    """Play a registered policy in its world and write a video."""
    from vqbet.commands import play

    console.table(play.run(_root(), reference, episodes, seed, out, console.watch()))


@app.command()
def forget(
    yes_really: Annotated[bool, typer.Option("--yes-really", help="delete it; nothing brings it back")] = False,
) -> None:
    """List registry, ledger, evidence, approvals and data remote of this project; delete them with --yes-really."""
    from vqbet.commands import forget as stage

    root = _root()
    rows = stage.listing(root)
    console.table(rows or {".vqbet": "holds nothing"})
    if not rows:
        return
    if not yes_really:
        console.say("Nothing was deleted. All of this is lost for ever by: vqbet forget --yes-really")
        raise typer.Exit(1)
    stage.forget(root)
    console.say("Deleted. data/ and DVC's cache are as they were; push data/ again: dvc push")


@app.command()
def doctor(
    vulnerabilities: Annotated[
        bool, typer.Option("--vulnerabilities", help="list known ones of locked packages")
    ] = False,
    licences: Annotated[bool, typer.Option("--licences", help="list those of locked packages")] = False,
) -> None:
    """Check this environment; exit with 1 if something is wrong, with 4 if no package index answers."""
    from vqbet.commands import doctor as stage

    root, code = _root(), 0
    if vulnerabilities:
        found, code = stage.vulnerabilities(root)
    else:
        found = stage.licences(root) if licences else stage.run(root)
        code = int(any(one.wrong for one in found))
    for one in found:
        console.say(f"  {'WRONG' if one.wrong else 'fine '}  {one.what}: {one.said}")
    if code:
        raise typer.Exit(code)


@app.command()
def ui(port: Annotated[int, typer.Option(min=1, max=65535, help="on this machine only")] = 5000) -> None:
    """Show runs and registry in MLflow's pages, with telemetry off."""
    from vqbet.commands import pages

    _root()
    pages.serve(port)


def main() -> int:
    """Run the command line and return its exit code; the same for `vqbet` and `python -m vqbet`."""
    return console.guarded(lambda: app(prog_name="vqbet", standalone_mode=True))


if __name__ == "__main__":
    sys.exit(main())
