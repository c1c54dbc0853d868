"""The standard library's ``dataclass``, made in a third of the time; type checkers see the original.

A class costs it half a millisecond, because it writes each of its methods as text and compiles that. A start of
rumpbundle makes some seventy. Here only ``__init__`` is compiled, and that when the first instance is made, for many
classes see none in a short run; comparison, hash, representation and the refusal to change what is frozen are shared,
for nobody can tell them apart. ``field``, ``replace`` and ``fields`` are the original's. It has not ``order``,
``unsafe_hash``, ``weakref_slot``, ``InitVar`` nor ``match_args=False``.

msgspec's ``Struct`` makes its classes faster still, but takes longer to import than is left to gain.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(
        cls: type | None = None,
        /,
        *,
        frozen: bool = False,
        slots: bool = False,
        kw_only: bool = False,
        eq: bool = True,
    ) -> Any:
        """Make *cls* a data class, as :func:`dataclasses.dataclass` does."""
        if cls is None:
            return lambda cls: dataclass(cls, frozen=frozen, slots=slots, kw_only=kw_only, eq=eq)
        shared = {"__repr__": _represented}
        if eq:
            shared |= {"__eq__": _equal, "__hash__": _hashed if frozen else None}
        if frozen:
            shared |= {"__setattr__": _refused, "__delattr__": _refused}
            if slots:
                shared |= {"__getstate__": _state, "__setstate__": _restored}
        own = {name: method for name, method in shared.items() if name not in vars(cls)}
        has_init = "__init__" in vars(cls)
        if cls.__doc__ is None:
            cls.__doc__ = cls.__name__  # the original would write its signature there, at the cost of all the rest
        cls = dataclasses.dataclass(cls, init=False, repr=False, eq=False, slots=slots, kw_only=kw_only)
        if not has_init:
            own["__init__"] = _Initialiser(cls, frozen)
        for name, method in own.items():
            setattr(cls, name, method)
        return cls


class _Initialiser:
    """Stands for the ``__init__`` of *cls* until somebody asks for that."""

    def __init__(self, cls: Any, frozen: bool) -> None:
        self._cls = cls
        self._frozen = frozen

    def __get__(self, instance: object, owner: type) -> Any:
        made = self._cls.__init__ = _initialiser(self._cls, self._frozen)
        return made if instance is None else made.__get__(instance)


def _initialiser(cls: type, frozen: bool) -> Any:
    """Return ``__init__`` for the fields of *cls*."""
    known: dict[str, Any] = {"_factory": _Factory}
    positional: list[str] = []
    keywords: list[str] = []
    body: list[str] = []
    for each in dataclasses.fields(cls):
        name = each.name
        value = name
        if each.default is not dataclasses.MISSING:
            known[f"_default_{name}"] = each.default
            value_of = f"{name}=_default_{name}"
        elif each.default_factory is not dataclasses.MISSING:
            known[f"_make_{name}"] = each.default_factory
            value_of = f"{name}=_factory"
            value = f"_make_{name}() if {name} is _factory else {name}" if each.init else f"_make_{name}()"
        else:
            value_of = name
        if each.init:
            (keywords if each.kw_only else positional).append(value_of)
        elif each.default_factory is dataclasses.MISSING:
            continue
        if frozen and name in getattr(cls, "__slots__", ()):
            known[f"_set_{name}"] = getattr(
                cls, name
            ).__set__  # as object.__setattr__ does it, in two thirds of the time
            body.append(f"_set_{name}(self, {value})")
        else:
            body.append(f"_set(self, {name!r}, {value})" if frozen else f"self.{name} = {value}")
    known["_set"] = object.__setattr__
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    arguments = ", ".join(["self", *positional, *(["*", *keywords] if keywords else [])])
    exec(f"def __init__({arguments}):\n " + "\n ".join(body or ["pass"]), known)
    made = known["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made


class _Factory:
    """Stands for a default that is made for each instance."""


def _refused(self: Any, name: str, *_: Any) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot change field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in dataclasses.fields(self)]


def _restored(self: Any, state: list[Any]) -> None:
    for each, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, each.name, value)


def _represented(self: Any) -> str:
    shown = (f"{each.name}={getattr(self, each.name)!r}" for each in dataclasses.fields(self) if each.repr)
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _equal(self: Any, other: object) -> bool:
    return _compared(self) == _compared(other) if type(other) is type(self) else NotImplemented


def _hashed(self: Any) -> int:
    return hash(_compared(self))


def _compared(value: Any) -> tuple[Any, ...]:
    return tuple([getattr(value, each.name) for each in dataclasses.fields(value) if each.compare])


__all__ = ["dataclass"]
