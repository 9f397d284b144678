"""Small wrong versions of Python source, each of which a test ought to notice.

A mutation changes one place: a comparison, an operator, a constant, a call's arguments, an element of a list,
or a statement that is left out. Docstrings, messages, logging and type hints stay as they are.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
}
_TYPING = {"Annotated", "Literal", "Callable", "dict", "list", "tuple", "type"}
_HINTS = {"annotation", "returns", "decorator_list", "exc", "bases"}


@dataclass(frozen=True)
class Mutation:
    """One change of a source: `before`, which begins on `line`, becomes `after`."""

    operator: str
    line: int
    before: str
    after: str
    source: str
    """The whole source with the change."""

    def __str__(self) -> str:
        return f"{self.line}: {self.operator}: {_one_line(self.before)}  ->  {_one_line(self.after)}"


def mutations(source: str, functions: Collection[str] = ()) -> list[Mutation]:
    """Every mutation of a source, or of its top-level functions of these names, in the order of the text.

    Each can be compiled, and no two are the same.
    """
    tree = ast.parse(source)
    parts = [node for node in tree.body if not functions or getattr(node, "name", None) in functions]
    found: dict[str, Mutation] = {}
    for part in parts:
        for node, operator, changed in _changes(part, bound=set()):
            made = _mutation(source, node, operator, changed)
            if made.source != source and made.source not in found and _compiles(made.source):
                found[made.source] = made
    return sorted(found.values(), key=lambda each: each.line)


_Change = tuple[ast.AST, str, ast.AST]


def _changes(node: ast.AST, bound: set[str]) -> Iterator[_Change]:
    """Of a node and all in it: what is replaced, by which operator, and by what.

    `bound` are the names that have a value before the node: an assignment to any other is never dropped,
    since the next use of the name would fail at once.
    """
    if _is_only_said(node):
        return
    if isinstance(node, ast.FunctionDef):
        bound = {each.arg for each in (*node.args.args, *node.args.kwonlyargs)}
    for change in _OPERATORS:
        yield from change(node)
    if isinstance(node, ast.stmt):
        yield from _dropped(node, bound)
        bound |= _targets(node)
    for child in _said_to_the_machine(node):
        yield from _changes(child, bound)


def _is_only_said(node: ast.AST) -> bool:
    if isinstance(node, ast.JoinedStr | ast.Assert | ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) or _name_of(node.value).split(".")[0] in {"log", "logger"}
    if isinstance(node, ast.Subscript):
        return isinstance(node.value, ast.Name) and node.value.id in _TYPING
    return False


def _said_to_the_machine(node: ast.AST) -> Iterator[ast.AST]:
    """The children of a node but for type hints, decorators and what is raised.

    Of a tuple that is returned, or assigned to names, only the elements: one fewer would fail to unpack.
    """
    for name, value in ast.iter_fields(node):
        children = value if isinstance(value, list) else [value]
        if isinstance(node, ast.Return | ast.Assign) and isinstance(value, ast.Tuple):
            children = value.elts
        if name not in _HINTS:
            yield from (each for each in children if isinstance(each, ast.AST))


def _comparison(node: ast.AST) -> Iterator[_Change]:
    if isinstance(node, ast.Compare):
        for place, old in enumerate(node.ops):
            for new in _COMPARISONS[type(old)]:
                changed = copy.deepcopy(node)
                changed.ops[place] = new()
                yield node, "comparison", changed


def _arithmetic(node: ast.AST) -> Iterator[_Change]:
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _ARITHMETIC and not _joins_text(node):
        changed = copy.deepcopy(node)
        changed.op = _ARITHMETIC[type(node.op)]()
        yield node, "arithmetic", changed


def _joins_text(node: ast.BinOp | ast.AugAssign) -> bool:
    parts = (node.value,) if isinstance(node, ast.AugAssign) else (node.left, node.right)
    return any(
        isinstance(part, ast.JoinedStr | ast.List | ast.Tuple)
        or (isinstance(part, ast.Constant) and isinstance(part.value, str | bytes))
        for part in parts
    )


def _logic(node: ast.AST) -> Iterator[_Change]:
    if isinstance(node, ast.BoolOp):
        changed = copy.deepcopy(node)
        changed.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
        yield node, "and/or", changed
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node, "not removed", node.operand


def _constant(node: ast.AST) -> Iterator[_Change]:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield node, "constant", ast.Constant(not node.value)
        elif isinstance(node.value, int | float):
            yield node, "constant", ast.Constant(node.value + 1)
            yield node, "constant", ast.Constant(node.value - 1)


def _arguments(node: ast.AST) -> Iterator[_Change]:
    if not isinstance(node, ast.Call) or _name_of(node) in {"isinstance", "cast"}:
        return
    plain = not any(isinstance(each, ast.Starred) for each in node.args)
    for first in range(len(node.args) - 1 if plain else 0):
        changed = copy.deepcopy(node)
        changed.args[first : first + 2] = reversed(changed.args[first : first + 2])
        yield node, "arguments swapped", changed


def _elements(node: ast.AST) -> Iterator[_Change]:
    if isinstance(node, ast.Dict) and len(node.keys) > 1:
        for place in range(len(node.keys)):
            changed = copy.deepcopy(node)
            del changed.keys[place], changed.values[place]
            yield node, "element removed", changed
    if isinstance(node, ast.List | ast.Tuple | ast.Set) and len(node.elts) > 1:
        if isinstance(getattr(node, "ctx", None), ast.Store):
            return
        for place in range(len(node.elts)):
            shorter: Any = copy.deepcopy(node)
            del shorter.elts[place]
            yield node, "element removed", shorter


_OPERATORS: tuple[Callable[[ast.AST], Iterator[_Change]], ...] = (
    _comparison,
    _arithmetic,
    _logic,
    _constant,
    _arguments,
    _elements,
)


def _dropped(node: ast.stmt, bound: set[str]) -> Iterator[_Change]:
    drops = isinstance(node, ast.Raise | ast.Continue | ast.AugAssign) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    )
    if isinstance(node, ast.Assign):
        names = _targets(node)
        drops = not names or names <= bound
    if drops:
        yield node, "statement dropped", ast.Pass()


def _targets(node: ast.stmt) -> set[str]:
    """The plain names that a statement binds."""
    if not isinstance(node, ast.Assign | ast.AnnAssign | ast.For):
        return set()
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {
        each.id
        for target in targets
        for each in ast.walk(target)
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
    }


def _name_of(node: ast.AST) -> str:
    """The name of what a call calls, with the dots."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def _mutation(source: str, node: Any, operator: str, changed: ast.AST) -> Mutation:
    start = _offset(source, node.lineno, node.col_offset)
    end = _offset(source, node.end_lineno, node.end_col_offset)
    after = ast.unparse(ast.fix_missing_locations(changed))
    if isinstance(changed, ast.expr) and not isinstance(changed, ast.Constant | ast.Call):
        after = f"({after})"
    text = source.encode()
    whole = text[:start] + after.encode() + text[end:]
    return Mutation(operator, node.lineno, text[start:end].decode(), after, whole.decode())


def _offset(source: str, line: int, column: int) -> int:
    """In bytes, which `ast` counts columns in."""
    return sum(len(each.encode()) for each in source.splitlines(keepends=True)[: line - 1]) + column


def _compiles(source: str) -> bool:
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def _one_line(text: str) -> str:
    return " ".join(text.split())
