"""Random mutations of texts, as by faulty edits of files."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

WORDS = [
    *("", "~", "null", "true", "no", "x", '"x"', "[]", "{}", "[1]", "{a: 1}", "0", "1", "-1", "0.5", "3", "1e3"),
    *(".nan", ".inf", "-.inf", "1e30", "1e300", "1e400", "1e-300", "-0.0", "0x7f", "0o17", "0b11", "1_000", "1:30"),
    *("9" * 30, "9" * 400, "9" * 5000, "x" * 500, "x" * 5000, "2026-01-01", "2026-13-01", "2026-01-01T25:00:00"),
    *('!!float "abc"', '!!int "zz"', '!!binary "%%"', "!!set {1}", "!!omap [a: 1]", "!!timestamp x", "!!bool 7"),
    *("!!python/object:os.system x", "!a b", "*none", "&a [*a]", "'", '"', "|", ">", "? x", "- 1", "\t", "\0", "ä€😀"),
    *("[" * 30 + "]" * 30, "[" * 500 + "]" * 500, "[" * 20000, "{a: " * 300 + "1" + "}" * 300, "<<: *x", "%YAML 9.9"),
    *("--- 1", "...", "../../x", "a;id", "$(id)", "${tasks}"),
]
JSON = [
    *("", "null", "true", "[]", "{}", "[1]", '{"a": 1}', "0", "1", "-1", "0.5", "NaN", "Infinity", "-Infinity", "1e30"),
    *("1e300", "1e400", "-1e400", "9" * 30, "9" * 400, "9" * 5000, '""', '"x"', '"' + "x" * 5000 + '"', '"\\ud800"'),
    *(
        "[" * 500 + "]" * 500,
        "[" * 100000,
        '{"a": ' * 2000 + "1" + "}" * 2000,
        "'x'",
        "\\",
        "\0",
        '"ä€😀"',
        '"../../x"',
    ),
]
BOMB = "bomb0: &b0 [1, 2, 3]\n" + "".join(
    f"bomb{depth}: &b{depth} [{', '.join([f'*b{depth - 1}'] * 9)}]\n" for depth in range(1, 12)
)
Change = Callable[[random.Random, bytes], bytes]


def of_yaml(rng: random.Random, text: bytes) -> bytes:
    """Return a YAML text with one or two mistakes."""
    changes: list[Change] = [_bytes, _lines, _values, _values, _values, _aliases]
    for _ in range(rng.choice([1, 1, 1, 2])):
        text = rng.choice(changes)(rng, text)
    return text


def of_json(rng: random.Random, text: bytes) -> bytes:
    """Return a JSON text with one or two mistakes, or another text."""
    changes: list[Change] = [_bytes, _lines, _members, _members, _members, _whole]
    for _ in range(rng.choice([1, 1, 1, 2])):
        text = rng.choice(changes)(rng, text)
    return text


def of_words(rng: random.Random, word: str) -> str:
    """Return a word with a small or a large change."""
    odd = ["", "@", "/", " ", "\0", "..", "\n", "%", "'", '"', "\\", "ä", "\ud800", "9" * 5000, "x" * 5000, "-", "\t"]
    place = rng.randint(0, len(word))
    cut = rng.randint(place, len(word))
    return rng.choice([word[:place] + rng.choice(odd) + word[cut:], rng.choice(odd) * rng.randint(1, 3), word[:place]])


def _bytes(rng: random.Random, text: bytes) -> bytes:
    place, length = rng.randint(0, len(text)), rng.choice([0, 1, 1, 4])
    new = rng.choice([rng.randbytes(1), rng.randbytes(1), b"", rng.randbytes(4), b"\xff\xfe", b"\0"])
    return text[:place] + new + text[place + length :]


def _lines(rng: random.Random, text: bytes) -> bytes:
    lines = text.split(b"\n")
    one, two = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(5)
    if kind == 0:
        del lines[one]
    elif kind == 1:
        lines.insert(two, lines[one])
    elif kind == 2:
        lines[one], lines[two] = lines[two], lines[one]
    elif kind == 3:
        lines[one] = b" " * rng.randint(1, 5) + lines[one]
    else:
        lines = lines[:one]
    return b"\n".join(lines)


def _values(rng: random.Random, text: bytes) -> bytes:
    return _replaced(rng, text, rb"(?<=: )[^\s,{}#][^,}\n#]*", rng.choice(WORDS))


def _members(rng: random.Random, text: bytes) -> bytes:
    if rng.random() < 0.3:  # a key is misspelled
        return _replaced(rng, text, rb'(?<=")[a-z_]+(?=":)', rng.choice(["x", "score", "ä", ""]))
    return _replaced(rng, text, rb'(?<=:)\s*(?:"[^"]*"|[-\d.e+]+|null|true|false|\{|\[)', rng.choice(JSON))


def _replaced(rng: random.Random, text: bytes, pattern: bytes, new: str) -> bytes:
    found = list(re.finditer(pattern, text))
    if not found:
        return text + b"\0"
    chosen = rng.choice(found)
    return text[: chosen.start()] + new.encode("utf-8", "surrogatepass") + text[chosen.end() :]


def _aliases(rng: random.Random, text: bytes) -> bytes:
    """Replace a value by an alias: of a YAML bomb, of itself, of an unknown anchor, or of a harmless value."""
    head, word = rng.choice([(BOMB, "*b11"), (BOMB, "*b3"), ("", "&q [*q]"), ("", "*q"), ("q: &q 1\n", "*q")])
    return head.encode() + _replaced(rng, text, rb"(?<=: )[^\s,{}#][^,}\n#]*", word)


def _whole(rng: random.Random, text: bytes) -> bytes:
    return rng.choice([rng.choice(JSON).encode("utf-8", "surrogatepass"), b"", text[: len(text) // 2], text * 2])
