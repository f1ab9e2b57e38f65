"""Branches of a file that a call never takes, found by tracing its instructions: both ways of every conditional jump.

Stricter than the usual branch coverage of lines, since the parts of `a and b` are jumps, too.
"""

from __future__ import annotations

import dis
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")
Ways = set[tuple[CodeType, int, int]]  # (code, offset of a jump, offset of the instruction after it)


def untaken(module: ModuleType, call: Callable[[], object]) -> list[str]:
    """Return "function:line -> line" for each branch of the module's functions that `call` does not take.

    The failing branch of an assert is not counted, nor whether a `with` swallows an exception. Not for generators that
    outlive the call.
    """
    path = str(module.__file__)
    seen: Ways = set()
    before = dict[FrameType, int]()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename != path:
            return None
        if event == "call":
            frame.f_trace_opcodes = True
            before[frame] = -1
        elif event == "opcode":
            seen.add((frame.f_code, before[frame], frame.f_lasti))
            before[frame] = frame.f_lasti
        elif event == "return":
            before.pop(frame, None)
        return trace

    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(previous)
    whole = compile(Path(path).read_text(encoding="utf-8"), path, "exec")
    wanted = {way: name for code in _codes(whole) for way, name in _jumps(code)}
    return sorted(name for way, name in wanted.items() if way not in seen)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of all functions inside; what the module and its classes run was run by the import."""
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            imported = code.co_name == "<module>" and inner.co_name in COMPREHENSIONS
            if inner.co_flags & inspect.CO_NEWLOCALS and not imported:
                yield inner
            yield from _codes(inner)


def _jumps(code: CodeType) -> Iterator[tuple[tuple[CodeType, int, int], str]]:
    instructions, line = list(dis.get_instructions(code)), code.co_firstlineno
    lines = dict[int, int]()
    starts = dict(dis.findlinestarts(code))
    for each in instructions:
        line = starts.get(each.offset) or line
        lines[each.offset] = line
    for before, each, following in zip(instructions, instructions[1:], instructions[2:], strict=False):
        if each.opcode not in (*dis.hasjrel, *dis.hasjabs) or before.opname == "WITH_EXCEPT_START":
            continue
        if not ("_IF_" in each.opname or each.opname == "FOR_ITER"):
            continue
        failing = "LOAD_ASSERTION_ERROR" in following.opname
        ends = [each.argval] if failing else [each.argval, following.offset]
        for end in ends:
            yield (code, each.offset, end), f"{code.co_qualname}:{lines[each.offset]} -> {lines[end]}"
