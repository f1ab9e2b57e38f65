"""Generator of docs/params.md: a row per parameter, from the descriptions in vqbet/config and params.yaml's defaults.

python infra/setup/params_page.py            writes the page
python infra/setup/params_page.py --check    fails if the page is out of date
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from vqbet.config import TaskParams  # noqa: E402  # the project is not installed where set-up has not run yet
from vqbet.config.document import read  # noqa: E402

PAGE = ROOT / "docs" / "params.md"
HEAD = """# Parameters

`params.yaml` holds every number a person may choose; `vqbet/config/` their types, bounds and the sentences below, from
which `infra/setup/params_page.py` writes this page. A misspelled key, a wrong type or a value out of bounds is refused
with the path of the key. To vary one: edit the file, or `dvc exp run -S blockpush.prior.width=128`.

The section `defaults` is no task: a section of a task begins with `<<: *<name>`, takes all values of that default, and
adds what is special about the task. `vqbet params <task>` prints the values of a task with its defaults, and
`vqbet check <task>` tells everything that is wrong with them before anything is trained. Where no default stands below,
each task says the value itself.
"""
TAIL = (Path(__file__).with_name("params_tail.md")).read_text(encoding="utf-8")


def fields(kind: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Yield every parameter of a section and of its inner sections, with its path; `*` stands for a free name."""
    for name, field in kind.model_fields.items():
        here = (*path, field.alias or name)
        inner = section(field.annotation)
        if inner is None or field.description:
            yield here, field
        if inner is not None:
            yield from fields(inner, (*here, "*") if inner is not field.annotation else here)


def section(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a field holds, directly or as the values of a mapping."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def default(path: tuple[str, ...], defaults: Mapping[str, Any]) -> str:
    """Return the default as a cell of the table; empty where each task sets the value itself."""
    value: Any = defaults
    for name in path:
        if not isinstance(value, Mapping) or name not in value:
            return ""
        value = value[name]
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def page() -> str:
    """Return the text of docs/params.md."""
    defaults = read(ROOT / "params.yaml")["defaults"]
    lines = [HEAD, "| key (under a task) | default | what it is |", "|---|---|---|"]
    for path, field in fields(TaskParams):
        text = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{'.'.join(path)}` | {default(path, defaults)} | {text} |")
    return "\n".join(lines) + "\n\n" + TAIL


def main() -> int:
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == page():
        return 0
    sys.stderr.write(f"{PAGE}: is not what vqbet/config and params.yaml say; run python infra/setup/params_page.py\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
