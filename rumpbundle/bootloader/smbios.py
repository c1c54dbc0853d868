"""What firmware says of a machine (SMBIOS), and the keys by which a configuration is for some machines only.

A KEY is ``serial:web7``, ``uuid:…``, ``asset:…``, ``product:…`` or ``oem:…``; a bare one is compared with all of
these, in the order of :data:`IDENTITIES`. Who gives a machine its identity, and how: docs/configs.md.
"""

from __future__ import annotations

import re
from typing import Self

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import UsageError


@dataclass(frozen=True, slots=True)
class Field:
    """Where one identity stands in the tables (DMTF DSP0134), and how QEMU is told."""

    structure: int
    offset: int
    """Of its number, or of the UUID, in that structure."""
    qemu: str


IDENTITIES = {
    "uuid": Field(1, 8, "uuid"),
    "serial": Field(1, 7, "serial"),
    "asset": Field(3, 8, "asset"),
    "product": Field(1, 5, "product"),
    "oem": Field(11, 4, "value"),
}
"""The kinds of identity in the order in which they are compared."""

ANY = "any"
"""Stands for the kind of a bare KEY."""
MAX_KEY = 200
"""Bytes of a KEY: with what belongs to it, a file name."""
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Key:
    """Which machines: those whose identity of this *kind* is *value*."""

    kind: str
    value: str

    @classmethod
    def parse(cls, text: str, where: str = "--config-for") -> Self:
        """Read a KEY.

        Raises:
            UsageError: it is none; *where* says who gave it.
        """
        if not re.fullmatch(rf"[ -~]{{1,{MAX_KEY}}}", text):
            raise UsageError(f"a KEY has 1 to {MAX_KEY} printable ASCII characters, got {text!r}", where=where)
        kind, colon, value = text.partition(":")
        if not colon or kind not in IDENTITIES:
            _check_kind(kind if colon else "", value, where)
            kind, value = ANY, text
        if not value or value != value.strip(" ") or re.search("[/'\"]", value):
            raise UsageError(f"a KEY has no slash, no quotes and no blank at its ends, got {text!r}", where=where)
        # Firmware's UUID is shown in lower case; people paste it as they find it.
        if _UUID.fullmatch(value.lower()) and kind in ("uuid", ANY):
            value = value.lower()
        elif kind == "uuid":
            raise UsageError(f"expected a UUID such as 8c4f1e2a-…, 36 characters, got {value!r}", where=where)
        return cls(kind, value)

    def __str__(self) -> str:
        return self.value if self.kind == ANY else f"{self.kind}:{self.value}"

    @property
    def stem(self) -> str:
        """The name of its file: the kind stands before it, so that no identity a machine may have is a path."""
        return f"{self.kind}:{self.value}"

    @property
    def identity(self) -> tuple[str, str]:
        """Kind and value of an identity that this key fits."""
        if self.kind != ANY:
            return self.kind, self.value
        return ("uuid" if _UUID.fullmatch(self.value) else "serial"), self.value


def _check_kind(word: str, value: str, where: str) -> None:
    """Raise :class:`UsageError` if *word* is a kind, spelled otherwise: as a bare KEY it would fit no machine."""
    kind = word.strip().lower()
    if kind in IDENTITIES:
        raise UsageError(f"a KEY's kind is in small letters, got {word!r}", where=where, hint=f"write {kind}:{value}")
