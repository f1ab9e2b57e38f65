"""Pages of `--help`: verbs in sections, in the order of the data flow, with an example for each verb."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typer.core import TyperGroup

SECTIONS: Mapping[str, Sequence[str]] = {
    "Demonstrations": ("new", "ingest", "look", "review", "drift"),
    "Parameters": ("params", "check", "weights"),
    "Training": ("stage", "retrain"),
    "Evaluation and gate": ("plan", "rollout", "verdict"),
    "Registry": ("register", "approve", "promote", "rollback", "publish", "show", "history", "audit", "keys"),
    "Robot": ("export", "serve", "canary", "fetch", "share", "simrobot", "trials"),
    "All of it, on a schedule": ("flow", "team", "worker", "status"),
    "This project": ("ui", "doctor", "forget"),
}
OTHER = "Other"  # section of verbs that no other section names

EXAMPLES: Mapping[str, Sequence[str]] = {  # by the words after `vqbet`
    "new": (
        "vqbet new door --from ~/data/door",
        "vqbet new door --from demo.hdf5 --hz 20 --actions relative --no-cameras",
    ),
    "ingest": (
        "vqbet ingest blockpush",
        "vqbet ingest pusht ~/downloads/pusht.zip",
        "vqbet ingest blockpush --from recordings",
    ),
    "look": ("vqbet look door", "vqbet look door --episode 3"),
    "review": ("vqbet review recordings", "vqbet review recordings --accept 3,5 --reject 4 --success 3"),
    "drift": ("vqbet drift blockpush", "vqbet drift blockpush --against blockpush/3 --check"),
    "params": ("vqbet params", "vqbet params blockpush"),
    "check": ("vqbet check blockpush",),
    "weights": ("vqbet weights resnet18.safetensors -o weights/resnet18.safetensors",),
    "stage": ("vqbet stage tokenizer blockpush",),
    "retrain": ("vqbet retrain blockpush --times 2",),
    "plan": ("vqbet plan blockpush",),
    "status": ("vqbet status", "vqbet status blockpush --page"),
    "rollout": ("vqbet rollout blockpush@champion --episodes 2 --out two.webm",),
    "verdict list": ("vqbet verdict list",),
    "verdict replay": ("vqbet verdict replay 3f1cc1",),
    "register": ("vqbet register blockpush",),
    "approve": ("vqbet approve blockpush --why 'looked at the films'",),
    "promote": ("vqbet promote blockpush", "vqbet promote blockpush --candidate 3 --force --why 'no simulator here'"),
    "rollback": ("vqbet rollback blockpush --why 'hit the table on robot 3'",),
    "publish": ("vqbet publish blockpush",),
    "show": ("vqbet show blockpush@champion", "vqbet show blockpush/3"),
    "history": ("vqbet history blockpush --at 2026-05-01T14:30",),
    "audit": ("vqbet audit blockpush", "vqbet audit blockpush --repair"),
    "export": (
        "vqbet export blockpush@champion --onnx blockpush-onnx",
        "vqbet export door --lerobot ~/data/door-lerobot",
    ),
    "keys make": ("vqbet keys make", "vqbet keys make /secure/judge.pem"),
    "keys show": ("VQBET_KEY=~/.config/vqbet/key.pem vqbet keys show",),
    "keys trust": (
        "vqbet keys trust ann --role approve --role promote",
        "vqbet keys trust judge-1 --role judge --public-key <base64>",
    ),
    "keys adopt": ("vqbet keys adopt blockpush",),
    "keys list": ("vqbet keys list",),
    "simrobot": (
        "vqbet simrobot blockpush --episodes 20 --record recordings",
        "vqbet simrobot blockpush --realtime --fault latency=0.05 --fault drop=0.02 --fault person=0.5",
    ),
    "serve": (
        "vqbet serve blockpush@champion",
        "VQBET_TOKEN=... vqbet serve robots/blockpush --host 0.0.0.0",
        "vqbet serve blockpush@champion --canary --port 8001",
    ),
    "canary": (
        "vqbet canary blockpush --robot arm-3 --recordings recordings",
        "vqbet canary blockpush --robot arm-3 --recordings recordings --follow",
    ),
    "trials plan": ("vqbet trials plan blockpush", "vqbet trials plan blockpush --robot arm-3"),
    "trials judge": ("vqbet trials judge blockpush", "vqbet trials judge blockpush --recordings recordings"),
    "trials status": ("vqbet trials status blockpush",),
    "trials serve": (
        "VQBET_DESK_TOKEN=... vqbet trials serve blockpush",
        "VQBET_DESK_TOKEN=... vqbet trials serve blockpush --plan plan.json --arm one --arm two --server-key key.pem",
    ),
    "trials run": (
        "vqbet trials run blockpush --operator ada",
        "vqbet trials run blockpush --server wss://arms:8000 --host 0.0.0.0 --certificate desk.pem --key desk-key.pem",
        "vqbet trials run blockpush --simulated --scripted",
    ),
    "fetch": (
        "vqbet fetch blockpush@champion robots/blockpush",
        "vqbet fetch 'https://s3.lab/...' robots/blockpush --digest 1f0c...",
    ),
    "share": (
        "vqbet share blockpush@champion",
        "vqbet share blockpush@champion --hours 2 --endpoint https://s3.lab",
    ),
    "flow demo": ("vqbet flow demo",),
    "flow ingest": ("vqbet flow ingest pusht ~/downloads/pusht.zip",),
    "flow pipeline": ("vqbet flow pipeline pusht",),
    "flow promote": ("vqbet flow promote blockpush --candidate 3 --why 'Monday, all hands present'",),
    "flow resume": ("vqbet flow resume",),
    "flow deploy": ("vqbet flow deploy", "vqbet flow deploy --gpus 8"),
    "flow screen": ("vqbet flow screen blockpush",),
    "flow ui": ("vqbet flow ui --port 4201",),
    "team up": ("vqbet team up",),
    "team status": ("vqbet team status",),
    "team down": ("vqbet team down",),
    "team init": (
        "vqbet team init --registry https://mlflow.lab --data s3://lab-data/dvc --ledger postgresql://ann@db.lab/ledger",
    ),
    "worker": ("vqbet worker --pool gpu", "vqbet worker --pool gpu --limit 8"),
    "ui": ("vqbet ui --port 5001",),
    "doctor": ("vqbet doctor", "vqbet doctor --vulnerabilities"),
    "forget": ("vqbet forget", "vqbet forget --yes-really"),
}


class Manual(TyperGroup):
    """Group of verbs. Its help lists the verbs by section; the help of each verb ends with examples.

    ctx is Any, since its class is click's or that of typer's own copy of click, depending on typer's version.
    """

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the verb of this name with its examples; None where there is no such verb."""
        command = super().get_command(ctx, cmd_name)
        lines = EXAMPLES.get(" ".join([*_words(ctx), cmd_name]), ())
        if command is not None and lines:
            title = "Example:" if len(lines) == 1 else "Examples:"
            command.epilog = "\n".join(["\b", title, *(f"  {line}" for line in lines)])  # \b: not to be wrapped
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one list of visible verbs per section."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        shown = {name: command for name, command in commands.items() if not command.hidden}
        sections = SECTIONS if not _words(ctx) else {"Commands": tuple(shown)}
        named = {name for names in sections.values() for name in names}
        rest = tuple(name for name in shown if name not in named)
        for title, names in {**sections, OTHER: rest}.items():
            rows = [(name, shown[name].get_short_help_str(limit=200)) for name in names if name in shown]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _words(ctx: Any) -> list[str]:
    """Return the words between the program's name and the group's verbs."""
    words: list[str] = []
    while ctx.parent is not None:
        words.insert(0, ctx.info_name)
        ctx = ctx.parent
    return words
