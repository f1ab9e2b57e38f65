"""Which edits of a file are edits of what it does."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from vqbet.stages import canonical_source

ROOT = Path(__file__).resolve().parents[2]


def text(source: str) -> str:
    return canonical_source.text(ast.parse(source))


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("x = 1  # so", "x = (\n    1\n)"),
        ('def f():\n    "doc"', "def f():\n    pass"),
        ('def f():\n    "doc"\n    return 1', 'def f():\n    """Another.\n\n    Longer."""\n    return 1'),
        ('class A:\n    "doc"\n    x: int = 1\n    "of x"', "class A:\n    x: int = 1"),
        ("class A(Protocol):\n    def f(self): ...", 'class A(Protocol):\n    def f(self):\n        "doc"'),
        ('"doc"\nimport os', "import os"),
        ("async def f():\n    'doc'", "async def f():\n    ..."),
        ("if TYPE_CHECKING:\n    from a import b\nx = 1", "x = 1"),
        ("if typing.TYPE_CHECKING:\n    from a import b\nelse:\n    b = 2", "b = 2"),
        ("if x:\n    y = 1\nelse:\n    pass", "if x:\n    y = 1"),
        ("x = f'{a}' 'b' f'c'", "x = f'{a}bc'"),
        ("x = u'a'", "x = 'a'"),
        ("x = 0x10", "x = 16"),
        ("x = 'a' 'b'", "x = 'ab'"),
    ],
)
def test_the_same_to_whoever_runs_it(one: str, two: str) -> None:
    assert text(one) == text(two)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("x = 1", "x = 2"),
        ("x = 1", "x = 1.0"),
        ("x = 1", "x = True"),
        ("x = 'a'", "x = b'a'"),
        ("x = ''", "x = None"),
        ("x = ()", "x = None"),
        ("x = a[:]", "x = a[::1]"),
        ("x = a[1:]", "x = a[:1]"),
        ("x = {**a}", "x = {None: a}"),
        ("x: int = 1", "x: float = 1"),
        ("def f(a, /): pass", "def f(a): pass"),
        ("def f(*, a): pass", "def f(a): pass"),
        ("def f(*, a, b=1): pass", "def f(*, a=1, b): pass"),
        ("def f(): return", "def f(): pass"),
        ("def f(): pass", "async def f(): pass"),
        ("x = f'{a!r}'", "x = f'{a}'"),
        ("x = f'{a}'", "x = a"),
        ("x = [a, b]", "x = [b, a]"),
        ("x = a < b < c", "x = a < b and b < c"),
        ("from a import b", "from .a import b"),
        ("import a as b", "import a"),
        ("x = '[a,b]'", "x = ['a', 'b']"),
        ("if x: pass", "if not x: pass"),
        ("if TYPE_CHECKED:\n    a = 1", ""),
        ("f('doc')", "f()"),
        ("x = 'é'", "x = 'e'"),
    ],
)
def test_another_to_whoever_runs_it(one: str, two: str) -> None:
    assert text(one) != text(two)


def test_the_text_does_not_depend_on_what_later_versions_of_python_add() -> None:
    """A node with fields that this Python does not know, and empty, as Python 3.12 and 3.13 add to what they parse."""
    tree = ast.parse("class A:\n    def f(self): return 1")
    before = canonical_source.text(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            node._fields = (*node._fields, "type_params", "another")
            node.type_params, node.another = [], None
    assert canonical_source.text(tree) == before


def test_it_is_ascii_whatever_python_would_print() -> None:
    assert text("x = 'é😀\\u0378'").isascii()


def test_every_file_of_the_project_without_its_comments_is_the_same() -> None:
    """`ast.unparse` knows no comments and no layout."""
    for path in sorted((ROOT / "vqbet").rglob("*.py"))[::5]:
        tree = ast.parse(path.read_bytes())
        assert canonical_source.text(tree) == text(ast.unparse(tree)), path


def test_a_known_text() -> None:
    """Written down, so that a change of the form is seen: it makes every policy train again."""
    assert text("def f(a: int = 1) -> str:\n    return g(a)") == (
        "Module(body=[FunctionDef(name='f',args=arguments(args=[arg(arg='a',annotation=Name(id='int'))],"
        "defaults=[int 0x1]),body=[Return(value=Call(func=Name(id='g'),args=[Name(id='a')]))],returns=Name(id='str'))])"
    )
