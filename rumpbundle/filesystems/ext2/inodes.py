"""The inodes of a tree: what every file, directory and link of it is, before it has blocks."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from operator import attrgetter

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.bounds import check_directories, check_directory, check_tree
from rumpbundle.disk.content import Content
from rumpbundle.disk.layout import MIB
from rumpbundle.disk.tree import Directory, File, Symlink, name_bytes, walk
from rumpbundle.errors import InputError
from rumpbundle.filesystems.ext2.geometry import BLOCK
from rumpbundle.filesystems.ext2.pointers import DIRECT, POINTERS
from rumpbundle.filesystems.ext2.records import DIRECTORY, ENTRY_TYPES, FIRST_INODE, REGULAR, ROOT_INODE, SYMLINK
from rumpbundle.filesystems.ext2.sparse import stretches

MAX_LINKS = 32000
"""What Linux lets a file have (EXT2_LINK_MAX)."""
_SPARSE_FROM = MIB
"""Files larger than this are searched for blocks of zeros, which become holes: whether the host's file has holes
there must not matter."""
_HEAD = struct.Struct("<IHBB").pack
_TYPES = {kind: ENTRY_TYPES[mode] for kind, mode in ((File, REGULAR), (Directory, DIRECTORY), (Symlink, SYMLINK))}
_LOST_FOUND = "lost+found"
_LOST_FOUND_BLOCKS = 4


@dataclass(slots=True)
class Inode:
    """A file, directory or link, before and after it has blocks."""

    number: int
    kind: int
    mode: int
    content: Content
    links: int = 1
    inline: bytes = b""
    """A short symbolic link's target, which stands in the inode itself."""
    wanted: Sequence[tuple[int, int]] = ()
    """``(logical, count)`` of every stretch that is not a hole."""
    block: bytes = b""
    """The pointers to its blocks, without zeros at the end; or what stands there instead."""
    sectors: int = 0


def inodes_of(root: Directory) -> tuple[Inode, ...]:
    """Return an inode for everything in *root*, by number: in the order of the tree; hard links share theirs.

    Raises:
        InputError: ext2 cannot express it; a file changed while it was read.
    """
    inodes: list[Inode] = []
    numbers = iter(range(FIRST_INODE, 1 << 32))
    if (found := root.child(_LOST_FOUND)) is None:
        root = Directory.of(root.name, [*root.children, Directory(_LOST_FOUND, (), 0o700)], root.mode)
    elif not isinstance(found, Directory):
        raise InputError("ext2 needs this name for a directory", where=f"/{_LOST_FOUND}")
    check_tree(root)
    number_of: dict[int, int] = {id(root): ROOT_INODE}
    by_content: dict[int, Inode] = {}
    parent_of: dict[int, Directory] = {id(root): root}
    for path, node in walk(root):
        if isinstance(node, File) and (linked := by_content.get(id(node.content))) is not None:
            linked.links += 1
            if linked.links > MAX_LINKS:
                raise InputError(f"has more than {MAX_LINKS} hard links, which ext2 cannot express", where=path)
            number_of[id(node)] = linked.number
            continue
        number = number_of[id(node)] = next(numbers)
        match node:
            case File():
                inode = _file(path, node, number)
                by_content[id(node.content)] = inode
                inodes.append(inode)
            case Symlink():
                inodes.append(_symlink(path, node, number))
    by_content.clear()
    for path, directory in _directories(root):
        parent_of |= {id(child): directory for child in directory.children if isinstance(child, Directory)}
        inodes.append(_directory(path, directory, parent_of[id(directory)], number_of))
    check_directories(sum(inode.content.size for inode in inodes if inode.kind == DIRECTORY))
    return tuple(sorted(inodes, key=attrgetter("number")))


def _directories(directory: Directory, path: str = "") -> Iterator[tuple[str, Directory]]:
    """Yield *directory*, which is at *path*, and all directories below with their paths, parents first."""
    yield path or "/", directory
    for child in directory.children:
        if isinstance(child, Directory):
            yield from _directories(child, f"{path}/{child.name}")


@lru_cache
def _whole(blocks: int) -> tuple[tuple[int, int], ...]:
    """Return the stretches of a file without holes; those of small ones are shared."""
    return ((0, blocks),) if blocks else ()


def _file(path: str, node: File, number: int) -> Inode:
    blocks = -(-node.content.size // BLOCK)
    if blocks > DIRECT + POINTERS + POINTERS**2 + POINTERS**3:
        raise InputError("is larger than ext2 can express", where=path)
    if node.content.size > _SPARSE_FROM:
        wanted: Sequence[tuple[int, int]] = tuple(stretches(node.content, BLOCK))
    else:
        wanted = _whole(blocks)
    return Inode(number, REGULAR, node.mode, node.content, wanted=wanted)


def _symlink(path: str, node: Symlink, number: int) -> Inode:
    target = name_bytes(node.target)
    if len(target) >= BLOCK:
        raise InputError(f"link target is longer than {BLOCK - 1} bytes", where=path)
    short = len(target) < 60
    return Inode(
        *(number, SYMLINK, 0o777, Content.of_bytes(target)),
        inline=target if short else b"",
        wanted=[] if short else [(0, 1)],
    )


def _directory(path: str, node: Directory, parent: Directory, number_of: dict[int, int]) -> Inode:
    entries = [(b".", number_of[id(node)], 2), (b"..", number_of[id(parent)], 2)]
    for child in node.children:
        entries.append((name_bytes(child.name), number_of[id(child)], _TYPES[type(child)]))
    links = 2 + sum(isinstance(child, Directory) for child in node.children)
    if links > MAX_LINKS:
        raise InputError(f"holds more than {MAX_LINKS - 2} directories, which ext2 cannot express", where=path)
    data = _entries(entries)
    check_directory(len(data), path)
    if node.name == _LOST_FOUND and not node.children:
        # Room for fsck, so that it need not allocate any on a damaged disk.
        data += _entries([]) * (_LOST_FOUND_BLOCKS - 1)
    wanted = [(0, len(data) // BLOCK)]
    return Inode(number_of[id(node)], DIRECTORY, node.mode, Content.of_bytes(data), links=links, wanted=wanted)


def _entries(entries: list[tuple[bytes, int, int]]) -> bytes:
    """Return directory blocks of ``(name, inode, type)``, at least one (§ Linked List Directory Entry)."""
    blocks: list[bytearray] = []
    block = bytearray()
    last = 0
    for name, inode, kind in entries:
        length = 8 + len(name) + 3 & ~3
        if len(block) + length > BLOCK:
            block[last + 4 : last + 6] = (BLOCK - last).to_bytes(2, "little")
            blocks.append(block)
            block = bytearray()
        last = len(block)
        block += (_HEAD(inode, length, len(name), kind) + name).ljust(length, b"\0")
    if not block:
        block = bytearray(8)
    block[last + 4 : last + 6] = (BLOCK - last).to_bytes(2, "little")
    blocks.append(block)
    return b"".join(bytes(block.ljust(BLOCK, b"\0")) for block in blocks)
