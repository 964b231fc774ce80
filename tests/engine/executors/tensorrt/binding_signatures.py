"""The signatures that an installed TensorRT binding documents, and calls held to them.

The binding's methods cannot be inspected, but pybind11 writes every overload's signature into the docstring.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from harness.engine.aot import bindings
from harness.engine.errors import PackageMissing

_SIGNATURE = r"^(?:\d+\. )?{name}\(self: [^,)]+(?:, (?P<parameters>.*))?\) -> (?P<returns>.+)$"
_COMMA = re.compile(r", (?![^\[<(]*[\]>)])")

Check = Callable[[Any], bool]
_PLAIN: dict[str, Check] = {
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "SupportsInt": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, float),
    "SupportsFloat": lambda value: isinstance(value, float | int),
    "tuple": lambda value: isinstance(value, tuple),
    "list": lambda value: isinstance(value, list),
    "None": lambda value: value is None,
}


def installed() -> Any:
    """The installed binding's module, or None."""
    try:
        return bindings.binding().module
    except PackageMissing:
        return None


@dataclass(frozen=True)
class Overload:
    """One way to call a method: its parameters (name, type, whether it has a default), and what it returns."""

    parameters: tuple[tuple[str, str, bool], ...]
    returns: str

    def takes(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        names = [name for name, _, _ in self.parameters]
        if len(args) > len(names) or not kwargs.keys() <= set(names[len(args) :]):
            return False
        given = dict(zip(names, args, strict=False)) | kwargs
        return all(fits(given[name], kind) if name in given else default for name, kind, default in self.parameters)


def fits(value: Any, kind: str) -> bool:
    """Whether a value is of a type that a docstring names; a fake says what it stands for."""
    inner = re.fullmatch(r"(?:typing\.)?[Ll]ist\[(.*)\]", kind)
    if inner:
        return isinstance(value, list) and all(fits(item, inner[1]) for item in value)
    last = kind.rsplit(".", 1)[-1]
    if last in _PLAIN:
        return _PLAIN[last](value)
    return last in (type(value).__name__, getattr(value, "stands_for", None))


def returned(value: Any, kind: str) -> bool:
    """The same of what a method returns: an object may be None, for want of memory."""
    return fits(value, kind) or (value is None and kind.rsplit(".", 1)[-1].startswith("I"))


def overloads(owner: type, name: str) -> list[Overload]:
    """Every way to call a method of the binding, as its docstring has it."""
    pattern = re.compile(_SIGNATURE.format(name=re.escape(name)), re.MULTILINE)
    return [
        Overload(tuple(_parameters(found["parameters"] or "")), found["returns"].strip())
        for found in pattern.finditer(getattr(owner, name).__doc__ or "")
    ]


def _parameters(text: str) -> Iterator[tuple[str, str, bool]]:
    for parameter in filter(None, _COMMA.split(text)):
        name, _, kind = parameter.partition(": ")
        kind, equals, _ = kind.partition(" = ")
        yield name, kind, bool(equals)


class Held:
    """A fake whose public methods and properties are those of a class of the binding, call by call.

    Without an installed binding nothing holds it.
    """

    stands_for: str

    def __init_subclass__(cls) -> None:
        module = installed()
        if module is None:
            return
        owner = getattr(module, cls.stands_for)
        for name, value in list(vars(cls).items()):
            if name.startswith("_") or name == "stands_for":
                continue
            real = owner.__dict__[name]
            if isinstance(value, property):
                assert isinstance(real, property), f"{cls.stands_for}.{name} is no property of the binding"
                assert (value.fset is None) or real.fset is not None, f"{cls.stands_for}.{name} cannot be set"
            else:
                setattr(cls, name, _held(value, overloads(owner, name), f"{cls.stands_for}.{name}"))


def _held(method: Callable[..., Any], ways: list[Overload], name: str) -> Callable[..., Any]:
    assert ways, f"the binding documents no signature of {name}"

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        fitting = [way for way in ways if way.takes(args, kwargs)]
        if not fitting:
            raise TypeError(f"{name}(): incompatible function arguments: {args} {kwargs}")
        value = method(self, *args, **kwargs)
        assert any(returned(value, way.returns) for way in fitting), f"{name} returned {value!r}"
        return value

    return call
