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
class DirectoryRecord:
    """One child of a directory."""

    identifier: bytes
    """Its ISO name."""
    node: Node
    length: int
    """Bytes of its record, an even number."""
    use: SystemUse | None = None
    """None where what every node has fits into the record: most are such, and it is made when the record is."""
    directory: IsoDirectory | None = None


@dataclass(slots=True)
class SystemUse:
    """The system use entries of a record that do not depend on positions."""

    inside: bytes
    continuation: bytes
    """What has no room in the record and goes to a continuation area."""
    continued_at: tuple[int, int] = (0, 0)
    """Block and offset of that."""


@dataclass(slots=True)
class IsoDirectory:
    node: Directory
    parent: IsoDirectory | None
    identifier: bytes
    entries: list[DirectoryRecord] = field(default_factory=list)
    block: int = 0
    size: int = 0
    number: int = 0
    """Its number in the path table."""

    @property
    def path(self) -> str:
        return f"{self.parent.path}/{self.node.name}" if self.parent else ""


def blocks_of(size: int) -> int:
    return -(-size // BLOCK)


def record_order(entry: DirectoryRecord) -> bytes:
    """Order of records (ECMA-119 §9.3): names compare as if padded with blanks, then extension."""
    name, _, extension = entry.identifier.partition(b".")
    return name.ljust(32) + extension


def count_links(directory: Directory, counts: dict[int, int]) -> None:
    """Enter the links of all directories, by the node's id, and of files with more than one, by the content's."""
    _count_links(directory, counts, set())


def _count_links(directory: Directory, counts: dict[int, int], seen: set[int]) -> None:
    links = 2
    for node in directory.children:
        if isinstance(node, File):
            content = id(node.content)
            if content not in seen:
                seen.add(content)
            elif node.content.size:
                # What is empty shares nothing: nobody could find out again with what.
                counts[content] = counts.get(content, 1) + 1
        elif isinstance(node, Directory):
            links += 1
            _count_links(node, counts, seen)
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


def plain_length(node: Node, identifier: bytes) -> int:
    """Return the length of a record that only has the entries every node has: PX, TF and NM."""
    return record_base(identifier) + rockridge.PX_BYTES + rockridge.TF_BYTES + 5 + len(name_bytes(node.name))
