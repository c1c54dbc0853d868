"""Fixed-size on-disk structures as classes: one line a field.

::

    class Footer(Record, order=">", size=512):
        cookie: Annotated[bytes, "8s"] = b"conectix"
        features: Annotated[int, "I"] = 2
        …

The byte order and the total size are mandatory and checked when the class is made, so a missing ``<``
(native padding) or a forgotten field cannot go unnoticed. Formats are those of :mod:`struct`; a ``bytes``
field shorter than its format is padded with NUL, a longer one is an error.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Self, get_args, get_type_hints

from rumpbundle.errors import ImageError


class Record:
    """A structure of fixed size; subclass it with ``order`` (``"<"`` or ``">"``) and ``size`` in bytes."""

    __slots__ = ("__dict__",)
    SIZE: ClassVar[int]
    _struct: ClassVar[struct.Struct]
    _fields: ClassVar[tuple[tuple[str, int], ...]]

    def __init_subclass__(cls, *, order: str, size: int) -> None:
        if order not in ("<", ">"):
            raise TypeError(f"{cls.__name__}: order must be '<' or '>'")
        layout = order
        fields: list[tuple[str, int]] = []
        hints = get_type_hints(cls, include_extras=True)
        for name in cls.__annotations__:
            kind, code = get_args(hints[name])
            layout += code
            fields.append((name, int(code[:-1]) if kind is bytes else 0))
        cls._struct = struct.Struct(layout)
        cls._fields = tuple(fields)
        cls.SIZE = size
        if cls._struct.size != size:
            raise TypeError(f"{cls.__name__}: fields take {cls._struct.size} bytes, not {size}")

    def __init__(self, **values: Any) -> None:
        for name, width in self._fields:
            value = values.pop(name, getattr(type(self), name, b"" if width else 0))
            if width and len(value) > width:
                raise ValueError(f"{type(self).__name__}.{name}: {len(value)} bytes do not fit {width}")
            object.__setattr__(self, name, value)
        if values:
            raise TypeError(f"{type(self).__name__}: no field {next(iter(values))!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable")

    def _values(self) -> Iterator[Any]:
        return (getattr(self, name) for name, _ in self._fields)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and tuple(self._values()) == tuple(other._values())

    def __hash__(self) -> int:
        return hash(tuple(self._values()))

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={getattr(self, name)!r}" for name, _ in self._fields)
        return f"{type(self).__name__}({inner})"

    def replace(self, **changes: Any) -> Self:
        """Return a copy with *changes*."""
        return type(self)(**(dict(zip((n for n, _ in self._fields), self._values(), strict=True)) | changes))

    def pack(self) -> bytes:
        """Return the ``SIZE`` bytes of this structure."""
        return self._struct.pack(*self._values())

    @classmethod
    def packer(cls, *names: str) -> Callable[..., bytes]:
        """Return what packs the values of the fields *names*, in the record's order, with zeros for the others.

        It is for thousands of them.
        """
        hints = get_type_hints(cls, include_extras=True)
        codes = {name: get_args(hints[name])[1] for name, _ in cls._fields}
        layout = (code if name in names else f"{struct.calcsize(f'<{code}')}x" for name, code in codes.items())
        return struct.Struct(cls._struct.format[0] + "".join(layout)).pack

    @classmethod
    def unpack(cls, data: bytes, offset: int = 0) -> Self:
        """Read a structure at *offset* of *data*.

        Raises:
            ImageError: fewer than ``SIZE`` bytes are left there.
        """
        if offset < 0 or len(data) - offset < cls.SIZE:
            there = max(len(data) - max(offset, 0), 0)
            raise ImageError(f"is cut off: of {cls.SIZE} bytes of a header there are {there}")
        return cls(**dict(zip((n for n, _ in cls._fields), cls._struct.unpack_from(data, offset), strict=True)))
