"""Mutants of a source: one small change each, and a name for it that survives edits elsewhere.

The usual operators (arithmetic, comparisons, constants, conditions) and those of real mistakes: a copy, cast or context
removed, a statement deleted, a check ignored or moved behind what it guards, truth asked for `is not None`, one element
of a key dropped, two arguments swapped, `all` for `any`, a loop that stops early, an `except` widened.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
}  # fmt: skip
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip

SYMMETRIC = ("transpose", "max", "min", "isinstance", "issubclass", "getattr", "setattr", "hasattr", "TypeVar", "cast")
"""Functions that do not mind the order of two arguments, or fail at once with any other order."""

UNARY = (
    "clone", "contiguous", "detach", "double", "float", "to", "cpu", "clamp", "copy", "encode", "resolve", "strip",
    "expand", "values", "items", "keys", "requires_grad_",
)  # fmt: skip
"""Methods that give their object back, otherwise written, or that Python's own checks would find missing."""

COPIES = (
    "list",
    "tuple",
    "dict",
    "set",
    "frozenset",
    "sorted",
    "float",
    "int",
    "bool",
    "str",
    "abs",
    "copy",
    "deepcopy",
)
"""Functions of one argument that give it back, otherwise written."""

REWRITTEN = ("statement deleted", "context removed", "moved before its check")
"""Kinds that replace more than an expression, which may make no Python."""

_TYPE = re.compile(r"(tuple|list|dict|set|Callable|Sequence|Mapping)\[|\w+ \| ")

ENDLESS = ("count", "repeat", "cycle", "iter")
LONGEST_NAME = 160

Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        name: function, what stood there and what stands there now, numbered where that happens twice.
        kind: the operator that made it.
        source: the whole mutated source.
        lines: the lines of the original that a test must run to meet it, first and last; none where it is run when the
            module is imported.
    """

    name: str
    kind: str
    source: str
    lines: tuple[int, int] | None = None


@dataclass(frozen=True)
class _Change:
    """Text from `start` to `end` becomes `text`; `before` and `after` are what the name says."""

    kind: str
    start: int
    end: int
    text: str
    before: str
    after: str


def mutants(source: str) -> list[Mutant]:
    """Every mutant of a source, in order; one that is no Python is none."""
    return list(_Walk(source).mutants())


class _Walk:
    """Goes through a source; positions are in bytes, as those of `ast` are."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._bytes = source.encode()
        self._starts = [0]
        for line in self._bytes.split(b"\n"):
            self._starts.append(self._starts[-1] + len(line) + 1)

    def mutants(self) -> Iterator[Mutant]:
        seen: Counter[str] = Counter()
        for scope, lines, change in self._statements(ast.parse(self._source).body, "", None, frozenset()):
            words = _short(f"{scope or 'module'}: {change.before} -> {change.after}")
            made = (self._bytes[: change.start] + change.text.encode() + self._bytes[change.end :]).decode()
            if change.before == change.after or (change.kind in REWRITTEN and not _is_python(made)):
                continue
            seen[words] += 1
            name = words if seen[words] == 1 else f"{words} ({seen[words]})"
            yield Mutant(name, change.kind, made, lines)

    def _statements(
        self, body: list[ast.stmt], scope: str, function: tuple[int, int] | None, known: frozenset[str]
    ) -> Iterator[tuple[str, tuple[int, int] | None, _Change]]:
        """Every change of a body; `function` is the range of the innermost function's body."""
        names = set(known)
        for place, statement in enumerate(body):
            if _is_text(statement) or _is_for_types_alone(statement) or _is_of_names_or_types(statement):
                continue
            following = body[place + 1] if place + 1 < len(body) else None
            header = _header(statement)
            lines = header if function else None
            if isinstance(statement, Scope):
                yield from self._of_scope(statement, scope, function)
            else:
                for change in [*self._of_statement(statement, following, names), *self._of_expressions(statement)]:
                    yield scope, lines, change
                for inner in _bodies(statement):
                    yield from self._statements(inner, scope, function, frozenset(names))
            names |= {node.id for node in ast.walk(statement) if _is_stored(node)}

    def _of_scope(
        self, node: Scope, scope: str, function: tuple[int, int] | None
    ) -> Iterator[tuple[str, tuple[int, int] | None, _Change]]:
        inner = f"{scope}.{node.name}".lstrip(".")
        if isinstance(node, ast.ClassDef):
            yield from self._statements(node.body, inner, None, frozenset())
            return
        body = (node.body[0].lineno, node.end_lineno or node.lineno)
        defaults = [*node.args.defaults, *(default for default in node.args.kw_defaults if default is not None)]
        for default in defaults:
            for change in self._of_expression(default):
                yield inner, body, change
        known = frozenset(a.arg for a in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs])
        yield from self._statements(node.body, inner, body, known)

    # Changes of statements.

    def _of_statement(self, node: ast.stmt, following: ast.stmt | None, known: set[str]) -> Iterator[_Change]:
        if _can_be_left_out(node, known):
            yield self._replaced("statement deleted", node, "pass", ast.unparse(node), "nothing")
        if isinstance(node, ast.If):
            test = ast.unparse(node.test)
            yield self._replaced("condition negated", node.test, f"(not ({test}))", f"if {test}", f"if not ({test})")
        if isinstance(node, ast.With) and all(item.optional_vars is None for item in node.items):
            start, end = self._at(node.lineno, node.col_offset), self._span(node.items[-1].context_expr)[1]
            end = self._bytes.index(b":", end)
            yield _Change("context removed", start, end, "if True", _with(node), "no with")
        if isinstance(node, ast.Try):
            yield from self._of_handlers(node)
        if isinstance(node, ast.For):
            yield from self._of_loop(node.iter)
        if following is not None and _guards(node) and _keeps_state(following):
            yield self._swapped(node, following)

    def _of_handlers(self, node: ast.Try) -> Iterator[_Change]:
        for handler in node.handlers:
            if handler.type is not None and ast.unparse(handler.type) not in ("Exception", "BaseException"):
                before = f"except {ast.unparse(handler.type)}"
                yield self._replaced("except widened", handler.type, "Exception", before, "except Exception")

    def _of_loop(self, over: ast.expr) -> Iterator[_Change]:
        name = ast.unparse(over)
        if isinstance(over, ast.Call) and ast.unparse(over.func).rsplit(".", 1)[-1] in ENDLESS:
            return
        after = f"list({name})[:-1]"
        yield self._replaced("loop stops early", over, after, f"for in {name}", f"for in {after}")

    def _swapped(self, first: ast.stmt, second: ast.stmt) -> _Change:
        (a, b), (c, d) = self._span(first), self._span(second)
        between = self._bytes[b:c].decode()
        text = self._bytes[c:d].decode() + between + self._bytes[a:b].decode()
        before, after = ast.unparse(_head(first)), ast.unparse(second)
        return _Change("moved before its check", a, d, text, f"{before}; {after}", f"{after}; {before}")

    # Changes of expressions.

    def _of_expressions(self, statement: ast.stmt) -> Iterator[_Change]:
        for expression in _own_expressions(statement):
            yield from self._of_expression(expression)

    def _of_expression(self, node: ast.expr) -> Iterator[_Change]:
        for each in _computed(node):
            for kind, changed in _changes(each):
                yield self._replaced(kind, each, f"({ast.unparse(changed)})", ast.unparse(each), ast.unparse(changed))
            for generator in getattr(each, "generators", []):
                yield from self._of_loop(generator.iter)

    def _replaced(self, kind: str, node: ast.AST, text: str, before: str, after: str) -> _Change:
        start, end = self._span(node)
        return _Change(kind, start, end, text, before, after)

    def _span(self, node: ast.AST) -> tuple[int, int]:
        return (
            self._at(node.lineno, node.col_offset),  # type: ignore[attr-defined]
            self._at(node.end_lineno, node.end_col_offset),  # type: ignore[attr-defined]
        )

    def _at(self, line: int, column: int) -> int:
        return self._starts[line - 1] + column


def _is_python(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def _short(words: str) -> str:
    """The words on one line, a long one cut and marked with its digest."""
    words = " ".join(words.split())
    if len(words) <= LONGEST_NAME:
        return words
    return f"{words[:LONGEST_NAME]}… {hashlib.sha256(words.encode()).hexdigest()[:8]}"


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_for_types_alone(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _is_of_names_or_types(node: ast.stmt) -> bool:
    """Whether it lists what a module exports, or names a type."""
    if not isinstance(node, ast.Assign):
        return False
    return ast.unparse(node.targets[0]) == "__all__" or bool(_TYPE.match(ast.unparse(node.value)))


def _is_stored(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def _bodies(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        if getattr(node, name, None):
            yield getattr(node, name)
    for handler in getattr(node, "handlers", []):
        yield handler.body
    for case in getattr(node, "cases", []):
        yield case.body


def _header(node: ast.stmt) -> tuple[int, int]:
    """The lines of a statement without those of the statements within it."""
    inner = next(_bodies(node), None)
    if inner is None:
        return node.lineno, node.end_lineno or node.lineno
    return node.lineno, max(node.lineno, inner[0].lineno - 1)


def _own_expressions(statement: ast.stmt) -> Iterator[ast.expr]:
    """A statement's expressions, without those of the statements within it: no annotation and no import."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return
    for name, value in ast.iter_fields(statement):
        if name in ("annotation", "type_comment"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.expr):
                yield child
            elif isinstance(child, ast.withitem):
                yield child.context_expr
            elif isinstance(child, ast.match_case) and child.guard is not None:
                yield child.guard


def _computed(node: ast.expr) -> Iterator[ast.expr]:
    """An expression and those within it; nothing within an f-string."""
    yield node
    if isinstance(node, ast.JoinedStr):
        return
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield from _computed(child)
        elif isinstance(child, ast.keyword):
            yield from _computed(child.value)
        elif isinstance(child, ast.comprehension):
            for inner in [child.iter, *child.ifs]:
                yield from _computed(inner)


def _changes(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if not isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
        return
    for kind, of in _OPERATORS:
        for changed in of(node):
            yield kind, changed


def _arithmetic(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC and not _is_of_texts(node):
        yield ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand


def _comparisons(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Compare):
        for place, op in enumerate(node.ops):
            ops = [*node.ops[:place], COMPARISONS[type(op)](), *node.ops[place + 1 :]]
            yield ast.Compare(node.left, ops, node.comparators)


def _truth(node: ast.expr) -> Iterator[ast.expr]:
    """`is not None` becomes a question of truth."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and ast.unparse(node.comparators[0]) == "None":
        if "find_spec(" in ast.unparse(node.left):
            return  # a module's specification is true
        asked = ast.Call(ast.Name("bool", ast.Load()), [node.left], [])
        if isinstance(node.ops[0], ast.IsNot):
            yield asked
        elif isinstance(node.ops[0], ast.Is):
            yield ast.UnaryOp(ast.Not(), asked)


def _conditions(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
    elif isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse


def _ignored(node: ast.expr) -> Iterator[ast.expr]:
    """One of several conditions is not asked."""
    if isinstance(node, ast.BoolOp):
        for place in range(len(node.values)):
            rest = [*node.values[:place], *node.values[place + 1 :]]
            yield ast.BoolOp(node.op, rest) if len(rest) > 1 else rest[0]


def _constants(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield ast.Constant(not node.value)
        elif isinstance(node.value, int | float):
            yield ast.Constant(node.value + 1)


def _lowered(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Constant) and isinstance(node.value, int) and node.value > 1:
        yield ast.Constant(node.value - 1)


def _removed(node: ast.expr) -> Iterator[ast.expr]:
    """A copy, a cast or another method is not called."""
    if not isinstance(node, ast.Call):
        return
    if isinstance(node.func, ast.Attribute) and _is_of_a_value(node.func):
        yield node.func.value
    if ast.unparse(node.func).rsplit(".", 1)[-1] in COPIES and len(node.args) == 1 and not node.keywords:
        yield node.args[0]


def _swapped(node: ast.expr) -> Iterator[ast.expr]:
    """Two neighbouring arguments that are written alike change places, by position or by name."""
    if not isinstance(node, ast.Call) or not _has_an_order(node):
        return
    for i in range(len(node.args) - 1):
        if type(node.args[i]) is not type(node.args[i + 1]):
            continue
        args = [*node.args[:i], node.args[i + 1], node.args[i], *node.args[i + 2 :]]
        yield ast.Call(node.func, args, node.keywords)
    for i in range(len(node.keywords) - 1):
        a, b = node.keywords[i : i + 2]
        if a.arg and b.arg and type(a.value) is type(b.value) and not isinstance(a.value, ast.Constant):
            pair = [ast.keyword(a.arg, b.value), ast.keyword(b.arg, a.value)]
            yield ast.Call(node.func, node.args, [*node.keywords[:i], *pair, *node.keywords[i + 2 :]])


def _unnamed(node: ast.expr) -> Iterator[ast.expr]:
    """An argument by name is left out; `strict` of `zip` is not, which says nothing where lengths are equal."""
    if isinstance(node, ast.Call):
        for place, keyword in enumerate(node.keywords):
            if keyword.arg is not None and keyword.arg != "strict":
                yield ast.Call(node.func, node.args, [*node.keywords[:place], *node.keywords[place + 1 :]])


def _slices(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice):
        yield node.value


def _quantifiers(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Call):
        other = {"all": "any", "any": "all"}
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in other:
            changed = other[name]
            function = (
                ast.Name(changed, ast.Load())
                if isinstance(node.func, ast.Name)
                else ast.Attribute(node.func.value, changed, ast.Load())  # type: ignore[attr-defined]
            )
            yield ast.Call(function, node.args, node.keywords)


def _elements(node: ast.expr) -> Iterator[ast.expr]:
    """One element of a key, a list or a table is dropped."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set) and len(node.elts) > 1:
        for place in range(len(node.elts)):
            rest = [*node.elts[:place], *node.elts[place + 1 :]]
            yield ast.Set(rest) if isinstance(node, ast.Set) else type(node)(rest, ast.Load())
    elif isinstance(node, ast.Dict) and len(node.keys) > 1:
        for place in range(len(node.keys)):
            keys = [*node.keys[:place], *node.keys[place + 1 :]]
            yield ast.Dict(keys, [*node.values[:place], *node.values[place + 1 :]])


_OPERATORS: list[tuple[str, Callable[[ast.expr], Iterator[ast.expr]]]] = [
    ("arithmetic", _arithmetic),
    ("comparison", _comparisons),
    ("truth for is not None", _truth),
    ("condition", _conditions),
    ("check ignored", _ignored),
    ("constant", _constants),
    ("constant lowered", _lowered),
    ("copy or cast removed", _removed),
    ("arguments swapped", _swapped),
    ("argument left out", _unnamed),
    ("slice removed", _slices),
    ("all for any", _quantifiers),
    ("element dropped", _elements),
]


def _is_of_texts(node: ast.BinOp) -> bool:
    """Whether it builds a text, which only addition and % do."""
    return any(isinstance(each, ast.JoinedStr) or _is_string(each) for each in (node.left, node.right))


def _is_string(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _has_an_order(node: ast.Call) -> bool:
    """Whether it says something else with two arguments swapped."""
    name = ast.unparse(node.func).rsplit(".", 1)[-1]
    return name not in SYMMETRIC and not any(isinstance(argument, ast.Starred) for argument in node.args)


def _is_of_a_value(function: ast.Attribute) -> bool:
    """Whether it is a method of something computed, and not a module's function."""
    return not isinstance(function.value, ast.Name | ast.Attribute) or function.attr in UNARY


def _can_be_left_out(node: ast.stmt, known: set[str]) -> bool:
    """Whether the program goes on without it: no first assignment of a local name, no return, no import."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call | ast.Await | ast.Yield | ast.YieldFrom)
    if isinstance(node, ast.Assign):
        return all(_is_changed(target, known) for target in node.targets)
    return isinstance(node, ast.AugAssign | ast.Raise | ast.Continue | ast.Break | ast.Delete)


def _is_changed(target: ast.expr, known: set[str]) -> bool:
    if isinstance(target, ast.Name):
        return target.id in known
    if isinstance(target, ast.Tuple):
        return all(_is_changed(each, known) for each in target.elts)
    return isinstance(target, ast.Attribute | ast.Subscript)


def _guards(node: ast.stmt) -> bool:
    """Whether it may refuse: it raises under a condition, or calls something for its effect."""
    if isinstance(node, ast.If):
        return not node.orelse and isinstance(node.body[-1], ast.Raise)
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)


def _keeps_state(node: ast.stmt) -> bool:
    """Whether it keeps something beyond the function."""
    if isinstance(node, ast.Assign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        parts = [each for target in targets for each in (target.elts if isinstance(target, ast.Tuple) else [target])]
        return any(isinstance(each, ast.Attribute | ast.Subscript) for each in parts)
    return False


def _head(node: ast.stmt) -> ast.AST:
    return ast.Expr(node.test) if isinstance(node, ast.If) else node


def _with(node: ast.With) -> str:
    return "with " + ", ".join(ast.unparse(item.context_expr) for item in node.items)
