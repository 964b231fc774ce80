"""Calls of a target that a caller names: each is made inside a context of the counter's, and counted.

A target is an object that can be called, a bound method, or a pair of an owner and an attribute's name. A function
alone is no target, because whoever holds it calls it without asking its module.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import wraps
from inspect import getattr_static
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from harness.engine.errors import InvalidInput

CALLS = "calls "
"""Prefix of a target's name, in the name of its count."""

Around = Callable[[], AbstractContextManager[None]]

_HEAP, _IMMUTABLE = 1 << 9, 1 << 8
"""Flags of a type: made at run time, and closed to new attributes all the same."""
_MISSING = object()
_EXPECTED = "a callable object, a bound method, or a pair of an owner and the name of its function"


class Calls:
    """Counter of the calls of named targets, in every thread.

    Attributes:
        numbers: number of calls by name; 0 for a target that was not called.
    """

    def __init__(self) -> None:
        self.numbers: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def of(self, name: str, target: object, around: Around) -> Iterator[None]:
        """Count the calls of a target inside a `with` block, each made inside the context `around`.

        A call that raises is counted too. At the end of the block, and also if it raises, the target is as before.

        Args:
            name: the target's name in `numbers`.
            target: see the module.
            around: makes the context in which a call runs.

        Raises:
            InvalidInput: the target cannot be called, its owner has no such attribute, or nothing can be put in its
                place.
        """
        self.numbers[name] += 0

        def counting(call: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
            with self._lock:
                self.numbers[name] += 1
            with around():
                return call(*args, **kwargs)

        with _Seam(name, target).replaced(counting):
            yield


Counting = Callable[[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], Any]


class _Seam:
    """Place where the calls of a target can be met: an attribute of an owner.

    Where the attribute is one of a class, `only` is the object whose calls are met; None meets those of every object.
    """

    def __init__(self, name: str, target: object) -> None:
        self._name, self._only = name, _MISSING
        owner, attribute = self._pair(target)
        value = target if owner is None else getattr(owner, attribute, _MISSING)
        if not callable(value) or isinstance(value, type):
            raise InvalidInput(name, repr(target)[:200], _EXPECTED)
        by_type = owner is None or not isinstance(value, FunctionType | MethodType | BuiltinFunctionType)
        if by_type and _open(type(value)):
            owner, attribute, self._only = type(value), "__call__", value
        elif owner is None:
            raise InvalidInput(name, repr(target)[:200], _EXPECTED)
        elif not isinstance(owner, type | ModuleType) and attribute.startswith("__"):
            owner, self._only = type(owner), owner
        self._owner, self._attribute = owner, attribute

    def _pair(self, target: object) -> tuple[Any, str]:
        if isinstance(target, MethodType):
            return target.__self__, target.__name__
        if not isinstance(target, tuple):
            return None, ""
        if len(target) != 2 or not isinstance(target[1], str):
            raise InvalidInput(self._name, repr(target)[:200], _EXPECTED)
        return target

    @contextmanager
    def replaced(self, counting: Counting) -> Iterator[None]:
        """Let `counting` make every call inside a `with` block."""
        with ExitStack() as undo:
            if isinstance(self._owner, type):
                self._in_class(self._owner, counting, undo)
            else:
                self._in_object(counting, undo)
            yield

    def _in_object(self, counting: Counting, undo: ExitStack) -> None:
        owner, attribute, original = self._owner, self._attribute, getattr(self._owner, self._attribute)
        slot = hasattr(getattr_static(type(owner), attribute, None), "__set__")
        own = slot or attribute in getattr(owner, "__dict__", {})

        @wraps(original)
        def instead(*args: Any, **kwargs: Any) -> Any:
            return counting(original, args, kwargs)

        try:
            setattr(owner, attribute, instead)
        except (AttributeError, TypeError):
            # A frozen object, or one without a dictionary, such as an extension's.
            self._only = owner
            self._in_class(type(owner), counting, undo)
            return
        if own:
            undo.callback(setattr, owner, attribute, original)
        else:
            undo.callback(delattr, owner, attribute)

    def _in_class(self, owner: type, counting: Counting, undo: ExitStack) -> None:
        raw, only, attribute = getattr_static(owner, self._attribute), self._only, self._attribute
        if not _open(owner):
            raise InvalidInput(self._name, f"{owner.__name__}.{attribute}, which nothing can replace", _EXPECTED)
        # Called without an object where an owner's static or class method is met.
        free = only is _MISSING and isinstance(raw, staticmethod | classmethod)

        def instead(*args: Any, **kwargs: Any) -> Any:
            if free:
                return counting(raw.__func__, args, kwargs)
            bound, rest = raw.__get__(args[0], type(args[0])), args[1:]
            if only is not _MISSING and args[0] is not only:
                return bound(*rest, **kwargs)
            return counting(bound, rest, kwargs)

        before = vars(owner).get(attribute, _MISSING)
        setattr(owner, attribute, type(raw)(instead) if free else wraps(getattr(owner, attribute))(instead))
        if before is _MISSING:
            undo.callback(delattr, owner, attribute)
        else:
            undo.callback(setattr, owner, attribute, before)


def _open(kind: type) -> bool:
    """Say whether attributes of a type can be set."""
    return bool(kind.__flags__ & _HEAP) and not kind.__flags__ & _IMMUTABLE
