"""The directories of an ISO 9660 volume: their records' names, lengths and order, before anything has a place.

Section numbers are ECMA-119's (4th edition).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.tree import Directory, File, Node, name_bytes
from rumpbundle.filesystems import rockridge

BLOCK = 2048


@dataclass(slots=True)
class Entry:
    """One child of a directory: its ISO name, and the system use entries that do not depend on positions."""

    identifier: bytes
    node: Node
    system_use: bytes = b""
    """Empty where they fit and follow from the node: most are such, and they are made when the record is."""
    continuation: bytes = b""
    continued_at: tuple[int, int] = (0, 0)
    """Block and offset of the continuation area."""
    directory: IsoDirectory | None = None


@dataclass(slots=True)
class IsoDirectory:
    node: Directory
    parent: IsoDirectory | None
    identifier: bytes
    entries: list[Entry] = field(default_factory=list)
    block: int = 0
    size: int = 0
    number: int = 0
    """Its number in the path table."""

    @property
    def path(self) -> str:
        return f"{self.parent.path}/{self.node.name}" if self.parent else ""


def blocks_of(size: int) -> int:
    return -(-size // BLOCK)


def record_order(entry: Entry) -> bytes:
    """Order of records (ECMA-119 §9.3): names compare as if padded with blanks, then extension."""
    name, _, extension = entry.identifier.partition(b".")
    return name.ljust(32) + extension


def count_links(directory: Directory, counts: dict[int, int]) -> None:
    """Enter the links of all directories, by the node's id, and of all files, by the content's, into *counts*."""
    links = 2
    for node in directory.children:
        if isinstance(node, File):
            # What is empty shares nothing: nobody could find out again with what.
            counts[id(node.content)] = counts.get(id(node.content), 0) + 1 if node.content.size else 1
        elif isinstance(node, Directory):
            links += 1
            count_links(node, counts)
    counts[id(directory)] = links


def files_below(directory: Directory, path: str) -> Iterator[tuple[str, File]]:
    """Yield path and node of all files in the order of their places: a directory's own before those below it."""
    for node in directory.children:
        if isinstance(node, File):
            yield f"{path}/{node.name}", node
    for node in directory.children:
        if isinstance(node, Directory):
            yield from files_below(node, f"{path}/{node.name}")


def path_table_order(root: IsoDirectory) -> list[IsoDirectory]:
    """Return all directories level by level, within a level by parent, then by name (ECMA-119 §6.9.1)."""
    ordered, level = [root], [root]
    while level:
        level = [entry.directory for directory in level for entry in directory.entries if entry.directory]
        ordered += level
    return ordered


def record_base(identifier: bytes) -> int:
    """Bytes of a record before its system use field."""
    return 33 + len(identifier) + (len(identifier) + 1) % 2


def record_length(entry: Entry) -> int:
    if not entry.system_use:
        return plain_length(entry.node, entry.identifier)
    length = record_base(entry.identifier) + len(entry.system_use)
    return length + (rockridge.CE_BYTES if entry.continuation else 0)


def plain_length(node: Node, identifier: bytes) -> int:
    """Return the length of a record that only has the entries every node has: PX, TF and NM."""
    return record_base(identifier) + rockridge.PX_BYTES + rockridge.TF_BYTES + 5 + len(name_bytes(node.name))
