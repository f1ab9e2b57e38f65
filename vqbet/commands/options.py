"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Task = Annotated[str, typer.Argument(help="a section of params.yaml, such as blockpush")]
Reference = Annotated[str, typer.Argument(help="<task>@champion, <task>@candidate or <task>/<version>")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0: any free one")]
Certificate = Annotated[Path | None, typer.Option(help="TLS: certificate chain in PEM")]
CertificateKey = Annotated[Path | None, typer.Option("--key", help="TLS: its key in PEM")]
Grace = Annotated[float, typer.Option(min=0.0, help="seconds for what runs after Ctrl-C")]
Idle = Annotated[float, typer.Option(min=1.0, help="seconds after which a silent robot is let go")]
ChosenPlan = Annotated[str, typer.Option(help="the plan's file, or the first letters of its sha256; none: the newest")]
