"""Names in a FAT directory: eight and three characters, or parts of a long name in entries before that one."""

from __future__ import annotations

_LAST = 0x40
_DELETED_LOOKALIKE = 0x05
"""Stands for a first byte of 0xE5, which would mark the entry as deleted."""


def short_name(raw: bytes) -> str:
    """Return the name that the entry *raw* itself has."""
    base = (b"\xe5" + raw[1:8]) if raw[0] == _DELETED_LOOKALIKE else raw[:8]
    stem, extension = (part.decode("cp437").rstrip() for part in (base, raw[8:11]))
    stem = stem.lower() if raw[12] & 8 else stem
    extension = extension.lower() if raw[12] & 16 else extension
    return f"{stem}.{extension}" if extension else stem


class LongName:
    """Collects the parts of a long name until the entry that they belong to."""

    def __init__(self) -> None:
        self._parts: dict[int, bytes] = {}
        self._count = 0
        self._checksum = -1

    def forget(self) -> None:
        self.__init__()  # type: ignore[misc]

    def add(self, raw: bytes) -> None:
        """Take one part; whatever order they come in, the one with the highest number says how many there are."""
        number = raw[0] & 0x3F
        if self._parts and raw[13] != self._checksum:
            self.forget()
        if raw[0] & _LAST:
            self._count = number
        self._checksum = raw[13]
        self._parts[number] = raw[1:11] + raw[14:26] + raw[28:32]

    def of(self, raw: bytes) -> str:
        """Return the long name of the entry *raw*, empty if the parts are not all there or are another one's."""
        parts, count, checksum = self._parts, self._count, self._checksum
        if not parts:
            return ""
        self.forget()
        if sorted(parts) != list(range(1, count + 1)) or _checksum(raw[:11]) != checksum:
            return ""
        text = b"".join(parts[number] for number in sorted(parts)).decode("utf-16-le", "replace")
        return text.split("\0")[0]


def _checksum(short: bytes) -> int:
    total = 0
    for byte in short:
        total = ((total >> 1 | total << 7) + byte) & 0xFF
    return total
