"""Records that are made quickly: what ``@dataclass(slots=True)`` is, at a fifth of its price.

A dataclass costs half a millisecond to define, because several methods are generated for it one by one. The modules
that define hundreds of small ones (syntax tree, operations, actions, events) are imported before anything else can
happen, so they use this: only ``__init__`` is generated, when the first instance is made, and one serves all records
whose fields have the same names.

    @record
    class Add:
        left: int
        right: int = 0

    Add(1)  ->  Add(left=1, right=0); frozen, equal and hashed by value, matched by position

``dataclasses.fields()`` and ``replace()`` take them as well. Defaults are plain values, or ``fresh(list)`` and the
like, which are made anew for each instance. ``@mutable_record`` is for state: its fields can be assigned, and an
instance equals only itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, field, make_dataclass
from operator import attrgetter
from types import CodeType, FunctionType
from typing import Any, TypeVar, dataclass_transform

__all__ = ("fresh", "mutable_record", "record", "replaced")

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True)
def record(cls: type[_T]) -> type[_T]:
    """Return the class with ``__slots__`` and the methods of a frozen dataclass. Its base may only be ``object``."""
    return _made(cls, _FROZEN)


@dataclass_transform(eq_default=False)
def mutable_record(cls: type[_T]) -> type[_T]:
    """Return the class with ``__slots__`` and the ``__init__`` of a dataclass. Its base may only be ``object``."""
    return _made(cls, {})


def fresh(factory: Callable[[], _T]) -> _T:
    """Make a default that is made anew for each instance."""
    return _Fresh(factory)  # type: ignore[return-value]


class _Fresh:
    """The default of a field that has a factory."""

    __slots__ = ("factory",)

    def __init__(self, factory: Callable[[], Any]) -> None:
        self.factory = factory


def _made(cls: type[_T], methods: dict[str, Any]) -> type[_T]:
    names = tuple(cls.__annotations__)
    body = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    defaults = tuple(body.pop(name) for name in names if name in body)
    body |= methods
    body["__slots__"] = body["__match_args__"] = names
    body["__dataclass_fields__"] = _Fields(defaults)
    made: Any = type(cls.__name__, (), body)
    made.__init__ = _first_init(made, names, defaults)
    made._values = _values(names)
    return made  # type: ignore[no-any-return]


def replaced(instance: _T, **changes: Any) -> _T:
    """Return the same record with some of its fields changed."""
    names: tuple[str, ...] = instance.__match_args__  # type: ignore[attr-defined]
    return type(instance)(**{name: getattr(instance, name) for name in names} | changes)


def _first_init(made: Any, names: tuple[str, ...], defaults: tuple[Any, ...]) -> Any:
    """Return the ``__init__`` until the first instance is made: a run needs only a few of all records."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        setters = {f"_{name}": getattr(made, name).__set__ for name in names}
        for name, default in zip(names[len(names) - len(defaults) :], defaults, strict=True):
            if isinstance(default, _Fresh):
                setters[f"_{name}"] = _making(setters[f"_{name}"])
        made.__init__ = FunctionType(_init_code(names), setters, "__init__", defaults)
        made.__init__(self, *args, **kwargs)

    return __init__


def _making(setter: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Return the setter of a field that has a factory."""

    def set_made(instance: Any, value: Any) -> None:
        setter(instance, value.factory() if value.__class__ is _Fresh else value)

    return set_made


_CODE: dict[tuple[str, ...], CodeType] = {}


def _init_code(names: tuple[str, ...]) -> CodeType:
    code = _CODE.get(names)
    if code is None:
        lines = [f"def __init__({', '.join(('self', *names))}):"]
        lines += [f"    _{name}(self, {name})" for name in names] or ["    pass"]
        module = compile("\n".join(lines), "<record>", "exec")
        code = _CODE[names] = next(const for const in module.co_consts if isinstance(const, CodeType))
    return code


def _values(names: tuple[str, ...]) -> Any:
    """Return a function from a record to the tuple of its values."""
    if len(names) > 1:
        return staticmethod(attrgetter(*names))
    return staticmethod((lambda one: (getattr(one, names[0]),)) if names else (lambda one: ()))


class _Fields:
    """``__dataclass_fields__``, made when somebody asks."""

    def __init__(self, defaults: tuple[Any, ...]) -> None:
        self._defaults = defaults

    def __get__(self, instance: object, owner: Any) -> Any:
        names = owner.__match_args__
        plain = len(names) - len(self._defaults)
        specs: list[Any] = [(name, Any) for name in names[:plain]]
        specs += [(n, Any, _default(value)) for n, value in zip(names[plain:], self._defaults, strict=True)]
        owner.__dataclass_fields__ = fields = vars(make_dataclass(owner.__name__, specs))["__dataclass_fields__"]
        return fields


def _default(value: Any) -> Any:
    """Return a default as ``make_dataclass`` takes it, which refuses one that cannot be hashed."""
    if isinstance(value, _Fresh):
        return field(default_factory=value.factory)
    return field(default_factory=lambda: value) if type(value).__hash__ is None else value


# What all frozen records share.


def _eq(self: Any, other: Any) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    return self._values(self) == self._values(other)


def _hash(self: Any) -> int:
    return hash(self._values(self))


def _repr(self: Any) -> str:
    shown = (f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _frozen(self: Any, name: str, *_value: Any) -> None:
    raise FrozenInstanceError(f"cannot change field {name!r}")


def _getstate(self: Any) -> tuple[Any, ...]:
    return tuple(self._values(self))


def _setstate(self: Any, state: tuple[Any, ...]) -> None:
    for name, value in zip(self.__match_args__, state, strict=True):
        object.__setattr__(self, name, value)


_FROZEN: dict[str, Any] = {
    "__eq__": _eq,
    "__hash__": _hash,
    "__repr__": _repr,
    "__setattr__": _frozen,
    "__delattr__": _frozen,
    "__getstate__": _getstate,
    "__setstate__": _setstate,
}
