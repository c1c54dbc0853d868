"""What ISO 9660 makes of names: identifiers of files and directories, and the volume's."""

from __future__ import annotations

from rumpbundle.disk.tree import Directory, Node
from rumpbundle.errors import InputError

_D_CHARACTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
_MANGLE = bytes(c if c in _D_CHARACTERS + b"." else ord("_") for c in bytes(range(256)).upper())
"""Maps every byte to a d-character (ECMA-119 §7.4.1) or a dot."""


MAX_LABEL = 32


def volume_id(name: str) -> str:
    """Return the volume identifier of an image called *name*: up to 32 of A-Z, 0-9 and _ (ECMA-119 §8.4.6)."""
    return _mangled(name).replace(".", "_")[:MAX_LABEL]


def check_label(label: str) -> None:
    """Raise :class:`InputError` if *label* cannot stand in a volume exactly as it is.

    ECMA-119 has capitals, digits and _ only. Readers take all of ASCII, and some look for what is none of these:
    cloud-init for ``config-2`` and ``cidata``.
    """
    if len(label) > MAX_LABEL or not label.isascii() or not label.isprintable() or label != label.strip():
        raise InputError(
            f"{label!r} is no label for ISO 9660",
            hint=f"it has at most {MAX_LABEL} printable characters of ASCII, no blank first or last",
        )


def _mangled(name: str) -> str:
    return name.encode("ascii", "replace").translate(_MANGLE).decode("ascii")


def identifier_for(node: Node, taken: dict[bytes, int]) -> bytes:
    """Return an identifier (level 2: 31 characters) for *node* that is not in *taken*, and enter it there."""
    mangled = node.name.encode("ascii", "replace").translate(_MANGLE)
    stem, extension, end = mangled, b"", b""
    if not isinstance(node, Directory):
        base, dot, extension = mangled.rpartition(b".")
        stem, extension = (base, extension[:8]) if dot else (mangled, b"")
        end = b"." + extension + b";1"
    if b"." in stem:
        stem = stem.replace(b".", b"_")
    room = 28 - len(extension)
    first = identifier = stem[:room] + end
    while identifier in taken:
        taken[first] += 1
        tail = b"_%X" % taken[first]
        identifier = stem[: room - len(tail)] + tail + end
    taken[identifier] = 0
    return identifier
