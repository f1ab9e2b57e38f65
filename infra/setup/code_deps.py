"""Write into dvc.yaml, for every stage, the files of its import closure (DVC itself does not know Python's imports)."""

from __future__ import annotations

import sys
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from vqbet.stages import code_version  # noqa: E402  # the project is not installed, only next door


def main() -> None:
    path = ROOT / "dvc.yaml"
    yaml = YAML()  # keeps comments; builds mappings, lists and scalars only
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    graph = yaml.load(path.read_text(encoding="utf-8"))
    for name, stage in graph["stages"].items():
        kept = [dep for dep in stage["do"]["deps"] if not dep.endswith(".py")]
        code = [file.relative_to(ROOT).as_posix() for file in code_version.closure(f"vqbet.stages.{name}")]
        stage["do"]["deps"] = [*kept, *code]
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(graph, file)


if __name__ == "__main__":
    main()
