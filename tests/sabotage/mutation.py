"""Mutants of a source: one small change of one expression each, and a name for it that survives edits elsewhere."""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
}  # fmt: skip
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip


SYMMETRIC = ("transpose", "max", "min")
"""Functions that do not mind the order of two arguments."""

UNARY = ("contiguous", "double", "float", "clamp", "encode")
"""Methods that give their object back, otherwise written."""


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        name: function, what stood there and what stands there now, numbered where that happens twice.
        source: the whole mutated source.
    """

    name: str
    source: str


def mutants(source: str) -> list[Mutant]:
    """Every mutant of a source, in order."""
    tree = ast.parse(source)
    seen: Counter[str] = Counter()
    made = []
    for scope, node in _expressions(tree, ""):
        for changed in _changes(node):
            words = f"{scope or 'module'}: {ast.unparse(node)} -> {ast.unparse(changed)}"
            seen[words] += 1
            name = words if seen[words] == 1 else f"{words} ({seen[words]})"
            made.append(Mutant(name, _with(tree, node, changed)))
    return made


def _expressions(node: ast.AST, scope: str) -> Iterator[tuple[str, ast.expr]]:
    """Every expression that is computed, with the function it is in: no annotation, docstring, decorator or text."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_comment") or isinstance(node, ast.JoinedStr):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.Import | ast.ImportFrom):
                continue
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                continue
            inner = f"{scope}.{child.name}".lstrip(".") if isinstance(child, ast.FunctionDef | ast.ClassDef) else scope
            if isinstance(child, ast.expr):
                yield inner, child
            yield from _expressions(child, inner)


def _changes(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        yield ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.Compare):
        for place, op in enumerate(node.ops):
            ops = [*node.ops[:place], COMPARISONS[type(op)](), *node.ops[place + 1 :]]
            yield ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
    elif isinstance(node, ast.Constant):
        yield from _constants(node.value)
    elif isinstance(node, ast.Call):
        yield from _calls(node)
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
        yield node.value


def _constants(value: object) -> Iterator[ast.expr]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int | float):
        yield ast.Constant(value + 1)


def _calls(node: ast.Call) -> Iterator[ast.expr]:
    """A method that is not called, two arguments swapped, an argument by name left out."""
    if isinstance(node.func, ast.Attribute) and _is_of_a_value(node.func):
        yield node.func.value
    if len(node.args) == 2 and _has_an_order(node):
        yield ast.Call(node.func, node.args[::-1], node.keywords)
    for place in range(len(node.keywords)):
        yield ast.Call(node.func, node.args, [*node.keywords[:place], *node.keywords[place + 1 :]])


def _has_an_order(node: ast.Call) -> bool:
    """Whether it says something else with its two arguments swapped."""
    name = ast.unparse(node.func).rsplit(".", 1)[-1]
    return name not in SYMMETRIC and not any(isinstance(argument, ast.Starred) for argument in node.args)


def _is_of_a_value(function: ast.Attribute) -> bool:
    """Whether it is a method of something computed, and not a module's function."""
    return not isinstance(function.value, ast.Name | ast.Attribute) or function.attr in UNARY


def _with(tree: ast.Module, node: ast.expr, changed: ast.expr) -> str:
    """The source of `tree` with `changed` in the place of `node`."""
    node._mutated = True  # type: ignore[attr-defined]
    copied = copy.deepcopy(tree)
    del node._mutated  # type: ignore[attr-defined]
    return ast.unparse(ast.fix_missing_locations(_Replace(changed).visit(copied)))


class _Replace(ast.NodeTransformer):
    def __init__(self, changed: ast.expr) -> None:
        self.changed = changed

    def visit(self, node: ast.AST) -> ast.AST:
        return self.changed if getattr(node, "_mutated", False) else super().visit(node)
