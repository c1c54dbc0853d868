"""Rock Ridge: the system use entries that give ISO 9660 its names, modes and links.

Sources: IEEE P1281 (SUSP 1.09) §5 for the frame, IEEE P1282 (Rock Ridge 1.09) §4 for the entries. NetBSD, Linux,
GRUB, libarchive and xorriso read them all.
"""

from __future__ import annotations

from functools import lru_cache

_ER_ID = b"RRIP_1991A"
_ER_DESCRIPTION = b"THE ROCK RIDGE INTERCHANGE PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS"
_ER_SOURCE = (
    b"PLEASE CONTACT DISC PUBLISHER FOR SPECIFICATION SOURCE.  SEE PUBLISHER IDENTIFIER IN PRIMARY VOLUME"
    b" DESCRIPTOR FOR CONTACT INFORMATION."
)
_ER_BODY = bytes([len(_ER_ID), len(_ER_DESCRIPTION), len(_ER_SOURCE), 1]) + _ER_ID + _ER_DESCRIPTION + _ER_SOURCE

SP = b"SP\x07\x01\xbe\xef\0"
"""Says, in the root's own record, that system use entries are there (SUSP §5.3)."""
ER = b"ER" + bytes([4 + len(_ER_BODY), 1]) + _ER_BODY
"""Says that they are Rock Ridge (SUSP §5.5)."""
PX_BYTES, TF_BYTES, CE_BYTES = 36, 26, 28


def both16(value: int) -> bytes:
    """Encode in both byte orders, as ECMA-119 §7.2.3."""
    return value.to_bytes(2, "little") + value.to_bytes(2, "big")


def both32(value: int) -> bytes:
    """Encode in both byte orders, as ECMA-119 §7.3.3."""
    return value.to_bytes(4, "little") + value.to_bytes(4, "big")


@lru_cache(256)
def px(mode: int, links: int) -> bytes:
    """Return the entry for a POSIX *mode* (type bits included) and number of *links*, owned by root (§4.1.1)."""
    return b"PX\x24\x01" + both32(mode) + both32(links) + bytes(16)


def tf(date: bytes) -> bytes:
    """Return the entry that gives modification, access and attribute change the same 7-byte *date* (§4.1.6)."""
    return b"TF\x1a\x01\x0e" + date * 3


def nm(name: bytes) -> list[bytes]:
    """Return the entries for *name*: one, or more for a name over 250 bytes (§4.1.4)."""
    return [
        b"NM" + bytes([5 + len(name[at : at + 250]), 1, 1 if at + 250 < len(name) else 0]) + name[at : at + 250]
        for at in range(0, len(name), 250)
    ]


def ce(block: int, offset: int, length: int) -> bytes:
    """Return the entry that says where a record's system use field goes on (SUSP §5.1)."""
    return b"CE\x1c\x01" + both32(block) + both32(offset) + both32(length)


def sl(target: bytes) -> list[bytes]:
    """Return the entries for a link's *target* (§4.1.3): one record a component, split where one is long."""
    components: list[bytes] = []
    names = target.split(b"/")
    for index, name in enumerate(names):
        if name == b"" and index == 0 and len(target) > 0:
            components.append(b"\x08\0")
        elif name == b"":
            continue
        elif name in (b".", b".."):
            components.append(bytes([2 * len(name), 0]))
        else:
            pieces = [name[at : at + 240] for at in range(0, len(name), 240)]
            components += [
                bytes([1 if number + 1 < len(pieces) else 0, len(piece)]) + piece
                for number, piece in enumerate(pieces)
            ]
    entries: list[bytes] = []
    area = b""
    for component in components:
        if len(area) + len(component) > 250:
            entries.append(b"SL" + bytes([5 + len(area), 1, 1]) + area)
            area = b""
        area += component
    entries.append(b"SL" + bytes([5 + len(area), 1, 0]) + area)
    return entries
