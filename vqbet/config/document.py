"""params.yaml as plain mappings, lists and scalars, read like DVC does (YAML 1.2), with size limits.

A merge key, `<<: *prior`, inserts the entries of the mapping it names, except keys that the mapping itself has.

A few lines of YAML can expand to an astronomical number of values, since every alias repeats its anchor. Sizes are
therefore counted on the parsed nodes, where a repetition is free, before any value is built.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import YAMLError, YAMLWarning

from vqbet.contract import ConfigError
from vqbet.files import reading

MOST_BYTES = 256 * 2**10  # the shipped file has 15 KiB
MOST_VALUES = 100_000  # with aliases expanded; the shipped file has about 1,400
MOST_CHARACTERS = 1_000  # per scalar
DEEPEST = 32  # the shipped file: 6
MERGE = "tag:yaml.org,2002:merge"  # tag of the key <<


def read(path: Path) -> Mapping[str, Any]:
    """Return the file's top-level mapping with text keys. Raises ConfigError for other content or beyond the limits."""
    text = reading.load(path, ConfigError, most=MOST_BYTES)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", YAMLWarning)
            value = _yaml().load(text)
    except (YAMLError, YAMLWarning) as error:
        raise ConfigError(f"{path}: is not YAML: {reading.cut(str(error), 400)}") from error
    except reading.ODD as error:  # a malformed number, date or tag
        raise ConfigError(f"{path}: holds a value that YAML cannot read: {reading.cut(str(error), 160)}") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        found = reading.short(value) if isinstance(value, dict) else type(value).__name__
        raise ConfigError(f"{path}: expected a mapping, got {found}")
    return value


class _Bounded(Composer):  # type: ignore[misc]  # it has no types
    """Composer that checks the size limits on the nodes of a document."""

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None:
            _counted(node)
        return node


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = DEEPEST
    yaml.Composer = _Bounded
    return yaml


def _counted(root: Any) -> int:
    """Return the number of values of a node, aliases expanded. Raises YAMLError for too many or too long values."""
    found: dict[int, int] = {}  # by id of the node; 0 while its parts are being counted

    def count(node: Any) -> int:
        if id(node) in found:
            if not found[id(node)]:
                raise YAMLError(f"an alias stands for what holds it, line {node.start_mark.line + 1}")
            return found[id(node)]
        found[id(node)] = 0
        total = 1
        if isinstance(node.value, list):
            _expect_once(node)
            for part in node.value:
                total += sum(map(count, part)) if isinstance(part, tuple) else count(part)
        elif len(node.value) > MOST_CHARACTERS:
            where = f"line {node.start_mark.line + 1}"
            raise YAMLError(f"a value of {len(node.value)} characters, at most {MOST_CHARACTERS}, {where}")
        if total > MOST_VALUES:
            raise YAMLError(f"more than {MOST_VALUES} values, aliases repeated, line {node.start_mark.line + 1}")
        found[id(node)] = total
        return total

    return count(root)


def _expect_once(node: Any) -> None:
    """Raise YAMLError for a duplicate key (ruamel misses it beside <<) or a merge of something other than mappings."""
    seen = set()
    for key, value in (part for part in node.value if isinstance(part, tuple)):
        where, name = f"line {key.start_mark.line + 1}", (key.tag, str(key.value))
        if name in seen:
            raise YAMLError(f"the key {reading.short(key.value)} is there twice in one mapping, {where}")
        seen.add(name)
        sources = value.value if value.id == "sequence" else [value]
        if key.tag == MERGE and (not sources or any(source.id != "mapping" for source in sources)):
            raise YAMLError(f"<<: expected a mapping of defaults such as *prior, or a list of them, {where}")
