"""The standard library's ``dataclass``, made in a third of the time; type checkers see the original.

A class costs it half a millisecond, because it writes each of the six methods as text and compiles that. A start of
rumpbundle makes some eighty, a tenth of what the quick iteration takes. Here classes share those that nobody can tell
apart: comparison, hash and representation. All options, ``field`` and the module's functions are the original's.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls: type | None = None, /, **options: Any) -> Any:
        """Make *cls* a data class, as :func:`dataclasses.dataclass` does."""
        if cls is None:
            return lambda cls: dataclass(cls, **options)
        shared = {"__repr__": _represented}
        if options.get("eq", True):
            shared |= {"__eq__": _equal, "__hash__": _hashed if options.get("frozen") else None}
        own = {name: method for name, method in shared.items() if name not in vars(cls)}
        cls = dataclasses.dataclass(cls, **(options | {"repr": False, "eq": False}))
        for name, method in own.items():
            setattr(cls, name, method)
        return cls


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
