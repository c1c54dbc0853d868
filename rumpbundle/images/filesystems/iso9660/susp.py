"""Rock Ridge: what stands behind the names in an ISO 9660 directory.

Sources: IEEE P1281 (SUSP 1.12) §5, P1282 (RRIP 1.12) §4; zisofs: libisofs, doc/zisofs_format.txt (entry ``ZF``).
"""

from __future__ import annotations

import struct

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import ImageError
from rumpbundle.images.budget import Budget
from rumpbundle.images.medium import Medium

_SECTOR = 2048
_XA_MARK, _XA_LENGTH = 6, 14
_MAX_CONTINUATIONS = 64
_MAX_NAME = 255
_MAX_TARGET = 4096
_CONTINUATION_COST = 4
"""Bytes of directory that a byte of continuation costs: it may hold five hundred entries in a block."""


@dataclass(slots=True)
class Attributes:
    """What the entries behind a record say; nothing where there are none."""

    name: bytes = b""
    mode: int = 0
    target: bytes = b""
    moved_here: bool = False
    """It is a directory that stands here only because it was nested too deep elsewhere."""
    moved_to: int = 0
    """The block of the directory that belongs here."""
    packed: bytes = b""
    """How it is compressed: ``pz`` for zisofs, another word for what followed it."""
    unpacked_size: int = 0


class SystemUse:
    """Reads the system use entries of records, and where they continue."""

    def __init__(self, medium: Medium, block: int) -> None:
        """*block*: bytes of a logical block."""
        self._medium = medium
        self._block = block
        self._skip = 0
        """Bytes before the entries of each record, as the root's SP entry says."""
        self._budget = Budget()

    def start(self, budget: Budget) -> None:
        """Let a new listing's *budget* pay from now on."""
        self._budget = budget

    def announced(self, use: bytes) -> bool:
        """Return whether *use*, of the root's own record, says that the entries are there."""
        # On a CD-ROM XA they begin behind what that keeps of each file (SUSP 5.3).
        for entry in (use, use[_XA_LENGTH:]) if use[_XA_MARK : _XA_MARK + 2] == b"XA" else (use,):
            if entry[:2] == b"SP" and len(entry) >= 7 and entry[4:6] == b"\xbe\xef":
                self._skip = entry[6]
                return True
        return False

    def attributes(self, use: bytes) -> Attributes:
        """Return what the entries in *use*, and where they continue, say.

        Raises:
            ImageError: they have no end, or a name is longer than any.
        """
        found, target = Attributes(), LinkTarget()
        area = use[self._skip :]
        for _ in range(_MAX_CONTINUATIONS):
            following = _take(area, found, target)
            if len(found.name) > _MAX_NAME or len(target.text) > _MAX_TARGET:
                raise ImageError(f"ISO 9660: {found.name[:50]!r} has a name or a link target that is too long")
            if following is None:
                found.target = target.text
                return found
            block, offset, length = following
            self._budget.directory(_CONTINUATION_COST * length)
            if not 0 < length <= _SECTOR:
                raise ImageError(f"ISO 9660: system use entries continue with {length} bytes")
            area = self._medium.read(block * self._block + offset, length)
        raise ImageError("ISO 9660: system use entries continue without end")


def _take(area: bytes, found: Attributes, target: LinkTarget) -> tuple[int, int, int] | None:
    """Enter what the entries in *area* say into *found* and *target*; return block, offset and length of more."""
    following: tuple[int, int, int] | None = None
    at, end = 0, len(area)
    while at + 4 <= end and (length := area[at + 2]) >= 4:
        kind, entry = area[at : at + 2], area[at : at + length]
        at += length
        match kind:
            case b"NM" if len(entry) > 4 and not entry[4] & 6:
                found.name += entry[5:]
            case b"PX" if len(entry) >= 8:
                found.mode = int.from_bytes(entry[4:8], "little")
            case b"SL":
                target.add(entry[5:])
            case b"CE" if len(entry) >= 28:
                following = struct.unpack_from("<I4xI4xI", entry, 4)
            case b"RE":
                found.moved_here = True
            case b"CL" if len(entry) >= 8:
                found.moved_to = int.from_bytes(entry[4:8], "little")
            case b"ZF" if len(entry) >= 16:
                found.packed = entry[4:6]
                found.unpacked_size = int.from_bytes(entry[8:12], "little")
            case b"ST":
                break
    return following


class LinkTarget:
    """Puts a link's target together from its components (RRIP §4.1.3.1)."""

    def __init__(self) -> None:
        self.text = b""
        self._joined = True

    def add(self, components: bytes) -> None:
        while len(components) >= 2:
            flags, length = components[0], components[1]
            part, components = components[2 : 2 + length], components[2 + length :]
            if flags & 8:
                self.text, self._joined = b"/", True
                continue
            part = b"." if flags & 2 else b".." if flags & 4 else part
            self.text += part if self._joined else b"/" + part
            self._joined = bool(flags & 1)
