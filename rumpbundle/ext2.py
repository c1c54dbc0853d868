"""ext2: a tree of files becomes a writable file system whose every position is known before it is written.

Revision 1 with sparse superblocks and file types in directories, nothing newer: Linux mounts it as ext2 or ext4,
NetBSD's rump kernels read and write it (facts/guests.md, Disks). No journal, no directory index, 128-byte inodes.

The writer is our own. ``mke2fs -d`` takes owners, times and the order of files from the host, so its result differs
from machine to machine, and only root can give it other owners. Here root owns everything, every date is the
bundle's epoch, and nothing is copied before the image is written: file contents stay where they are.

Source: "The Second Extended File System", Dave Poirier (nongnu.org/ext2-doc), cited by section below. Positions are
in blocks of 4096 bytes (``block``) unless the name says otherwise.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from rumpbundle.content import Content, Literal, Source
from rumpbundle.errors import InputError
from rumpbundle.identity import Identity
from rumpbundle.layout import MIB, round_up
from rumpbundle.ondisk.ext2 import (
    DIRECTORY,
    ENTRY_TYPES,
    FIRST_INODE,
    LARGE_FILE,
    REGULAR,
    ROOT_INODE,
    SPARSE_SUPER,
    SYMLINK,
    GroupDescriptor,
    InodeRecord,
    SuperBlock,
)
from rumpbundle.sparse import stretches
from rumpbundle.tree import Directory, File, Node, Symlink, walk

BLOCK = 4096
GROUP = 8 * BLOCK
"""Blocks in a group: what one block of bitmap can map."""
MAX_LINKS = 32000
"""What Linux lets a file have (EXT2_LINK_MAX)."""
MAX_BLOCKS = 1 << 32
BYTES_PER_INODE = 16384
"""One inode for so many bytes that are free, as mke2fs has it."""

_POINTERS = BLOCK // 4
_DIRECT = 12
_SPARSE_FROM = MIB
"""Files larger than this are searched for blocks of zeros, which become holes: whether the host's file has holes
there must not matter."""
_LEAST_LAST_GROUP = 50
"""Blocks beside its own structures without which a last group is not worth having, as mke2fs has it."""
_LOST_FOUND = "lost+found"
_LOST_FOUND_BLOCKS = 4


@dataclass(frozen=True, slots=True)
class Run:
    """*count* blocks of a file from *logical*, at *physical* of the disk."""

    logical: int
    physical: int
    count: int


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
    wanted: list[tuple[int, int]] = field(default_factory=list)
    """``(logical, count)`` of every stretch that is not a hole."""
    block: bytes = b""
    sectors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """How a file system of *blocks* with at least *inodes* inodes is divided."""

    blocks: int
    inodes: int

    @property
    def groups(self) -> int:
        return -(-self.blocks // GROUP)

    @property
    def descriptor_blocks(self) -> int:
        return -(-self.groups * GroupDescriptor.SIZE // BLOCK)

    @property
    def inodes_per_group(self) -> int:
        return round_up(-(-self.inodes // self.groups), BLOCK // InodeRecord.SIZE)

    @property
    def table_blocks(self) -> int:
        return self.inodes_per_group * InodeRecord.SIZE // BLOCK

    def has_superblock(self, group: int) -> bool:
        """Return whether *group* holds a copy: 0, 1 and the powers of 3, 5 and 7 (§ sparse superblocks)."""
        if group < 2:
            return True
        for base in (3, 5, 7):
            power = base
            while power < group:
                power *= base
            if power == group:
                return True
        return False

    def overhead(self, group: int) -> int:
        """Return the blocks of *group* that structures take: they stand at its beginning."""
        copies = 1 + self.descriptor_blocks if self.has_superblock(group) else 0
        return copies + 2 + self.table_blocks

    def length(self, group: int) -> int:
        """Return the blocks *group* has."""
        return min(GROUP, self.blocks - group * GROUP)

    def usable(self) -> int:
        """Return the blocks that files can have."""
        return self.blocks - sum(map(self.overhead, range(self.groups)))

    def without_stub(self) -> Geometry:
        """Return this without a last group too small to be worth its structures."""
        last = self.groups - 1
        if last and self.length(last) < self.overhead(last) + _LEAST_LAST_GROUP:
            return Geometry(blocks=last * GROUP, inodes=self.inodes)
        return self


class Volume:
    """A planned ext2 file system; ``size`` in bytes."""

    def __init__(self, root: Directory, *, label: str, epoch: int, size: int | None = None, free: int = 0) -> None:
        """Plan *root* as a file system of *size* bytes, or as large as it needs to be with *free* bytes left.

        Raises:
            InputError: it does not fit *size*, or ext2 cannot express it; a file changed while it was read.
        """
        self._root = root
        self._label = os.fsencode(label)[:16]
        self._epoch = min(epoch, 0x7FFFFFFF)
        self._inodes: list[Inode] = []
        self._placed: list[tuple[int, Source]] = []
        """Everything but the groups' own structures, with its byte offset."""
        self._gather()
        data = sum(_blocks_needed(inode) for inode in self._inodes)
        self._geometry = self._sized(data, free) if size is None else self._fitted(data, size)
        self._next = 0
        for inode in self._inodes:
            self._place(inode)
        self.size = self._geometry.blocks * BLOCK

    # -- planning ------------------------------------------------------------------------------------------

    def _gather(self) -> None:
        """Make an inode for everything, in the order of the tree; hard links share theirs."""
        numbers = iter(range(FIRST_INODE, 1 << 32))
        root = self._root
        if (found := root.child(_LOST_FOUND)) is None:
            root = Directory.of(root.name, [*root.children, Directory(_LOST_FOUND, (), 0o700)], root.mode)
        elif not isinstance(found, Directory):
            raise InputError("ext2 needs this name for a directory", where=f"/{_LOST_FOUND}")
        number_of: dict[int, int] = {id(root): ROOT_INODE}
        by_content: dict[int, Inode] = {}
        nodes: list[tuple[str, Node]] = [("/", root), *walk(root)]
        for path, node in nodes[1:]:
            if isinstance(node, File) and (linked := by_content.get(id(node.content))) is not None:
                linked.links += 1
                if linked.links > MAX_LINKS:
                    raise InputError(f"has more than {MAX_LINKS} hard links, which ext2 cannot express", where=path)
                number_of[id(node)] = linked.number
                continue
            number_of[id(node)] = next(numbers)
            match node:
                case File():
                    inode = self._file(path, node, number_of[id(node)])
                    by_content[id(node.content)] = inode
                    self._inodes.append(inode)
                case Symlink():
                    self._inodes.append(self._symlink(path, node, number_of[id(node)]))
        parents = {id(child): directory for _, directory in nodes if isinstance(directory, Directory)
                   for child in directory.children}  # fmt: skip
        for path, node in nodes:
            if isinstance(node, Directory):
                parent = parents.get(id(node), root)
                self._inodes.append(self._directory(path, node, parent, number_of))
        self._inodes.sort(key=lambda inode: inode.number)

    def _file(self, path: str, node: File, number: int) -> Inode:
        blocks = -(-node.content.size // BLOCK)
        if blocks > _DIRECT + _POINTERS + _POINTERS**2 + _POINTERS**3:
            raise InputError("is larger than ext2 can express", where=path)
        wanted = (
            list(stretches(node.content, BLOCK))
            if node.content.size > _SPARSE_FROM
            else [(0, blocks)]
            if blocks
            else []
        )
        return Inode(number, REGULAR, node.mode, node.content, wanted=wanted)

    def _symlink(self, path: str, node: Symlink, number: int) -> Inode:
        target = os.fsencode(node.target)
        if len(target) >= BLOCK:
            raise InputError(f"link target is longer than {BLOCK - 1} bytes", where=path)
        short = len(target) < 60
        return Inode(
            *(number, SYMLINK, 0o777, Content.of_bytes(target)),
            inline=target if short else b"",
            wanted=[] if short else [(0, 1)],
        )

    def _directory(self, path: str, node: Directory, parent: Directory, number_of: dict[int, int]) -> Inode:
        entries = [(b".", number_of[id(node)], 2), (b"..", number_of[id(parent)], 2)]
        kinds = {File: REGULAR, Directory: DIRECTORY, Symlink: SYMLINK}
        for child in node.children:
            entries.append((os.fsencode(child.name), number_of[id(child)], ENTRY_TYPES[kinds[type(child)]]))
        links = 2 + sum(isinstance(child, Directory) for child in node.children)
        if links > MAX_LINKS:
            raise InputError(f"holds more than {MAX_LINKS - 2} directories, which ext2 cannot express", where=path)
        data = _entries(entries)
        if node.name == _LOST_FOUND and not node.children:
            # Room for fsck, so that it need not allocate any on a damaged disk.
            data += _entries([]) * (_LOST_FOUND_BLOCKS - 1)
        wanted = [(0, len(data) // BLOCK)]
        return Inode(number_of[id(node)], DIRECTORY, node.mode, Content.of_bytes(data), links=links, wanted=wanted)

    def _last_inode(self) -> int:
        return max(FIRST_INODE, *(inode.number for inode in self._inodes))

    def _sized(self, data: int, free: int) -> Geometry:
        """Return the fewest whole MiB that hold *data* blocks and *free* bytes, with inodes for these."""
        inodes = self._last_inode() + free // BYTES_PER_INODE
        needed = data + -(-free // BLOCK)
        blocks = round_up(max(needed, 1), MIB // BLOCK)
        while True:
            if blocks >= MAX_BLOCKS:
                raise InputError("does not fit ext2's 32-bit block numbers", where=self._root.name or None)
            geometry = Geometry(blocks=blocks, inodes=inodes).without_stub()
            if geometry.blocks == blocks and geometry.usable() >= needed:
                return geometry
            blocks = round_up(max(blocks + 1, blocks + needed - geometry.usable()), MIB // BLOCK)

    def _fitted(self, data: int, size: int) -> Geometry:
        inodes = max(self._last_inode(), size // BYTES_PER_INODE)
        blocks = size // BLOCK
        if 0 < blocks < MAX_BLOCKS:
            geometry = Geometry(blocks=blocks, inodes=inodes).without_stub()
            if geometry.usable() >= data:
                return geometry
        least = self._sized(data, 0).blocks * BLOCK // MIB
        raise InputError(f"a file system of {size} bytes cannot hold these files; they need {least} MiB",
                         where=self._root.name or None)  # fmt: skip

    # -- placing -------------------------------------------------------------------------------------------

    def _allocate(self, count: int) -> Iterator[tuple[int, int]]:
        """Yield ``(block, count)`` of the next free blocks: groups fill one after the other."""
        geometry = self._geometry
        while count:
            group, within = divmod(self._next, GROUP)
            assert group < geometry.groups, "more blocks are wanted than were planned"
            within = max(within, geometry.overhead(group))
            length = min(count, geometry.length(group) - within)
            if length:
                yield group * GROUP + within, length
                count -= length
            self._next = group * GROUP + within + length if count == 0 else (group + 1) * GROUP

    def _place(self, inode: Inode) -> None:
        """Give *inode* its blocks, and the blocks of pointers that find them (§ Inode, i_block)."""
        runs: list[Run] = []
        for logical, count in inode.wanted:
            for physical, length in self._allocate(count):
                runs.append(Run(logical, physical, length))
                end = min((logical + length) * BLOCK, inode.content.size)
                offset = physical * BLOCK
                for source in inode.content.part(logical * BLOCK, end).sources:
                    self._placed.append((offset, source))
                    offset += source.length
                logical += length
        used = sum(run.count for run in runs)
        tops = array("I", bytes(12))
        start = _DIRECT
        for depth in (1, 2, 3):
            if not runs or runs[-1].logical + runs[-1].count <= start:
                break
            tops[depth - 1], taken = self._pointers(runs, start, depth)
            used += taken
            start += _POINTERS**depth
        inode.block = inode.inline or _little(_window(runs, 0, _DIRECT) + tops)
        inode.sectors = used * (BLOCK // 512)

    def _pointers(self, runs: list[Run], start: int, depth: int) -> tuple[int, int]:
        """Place the pointers to the ``1024 ** depth`` blocks from *start*; return the top one and their number."""
        span = _POINTERS**depth
        inside = [run for run in runs if run.logical < start + span and run.logical + run.count > start]
        if not inside:
            return 0, 0
        used = 1
        [(block, _)] = self._allocate(1)
        if depth == 1:
            table = _window(inside, start, _POINTERS)
        else:
            table = array("I", bytes(BLOCK))
            step = span // _POINTERS
            touched: set[int] = set()
            for run in inside:
                last = min(run.logical + run.count - 1 - start, span - 1)
                touched.update(range(max(run.logical - start, 0) // step, last // step + 1))
            for index in sorted(touched):
                table[index], taken = self._pointers(inside, start + index * step, depth - 1)
                used += taken
        self._placed.append((block * BLOCK, Literal(_little(table))))
        return block, used

    # -- rendering -----------------------------------------------------------------------------------------

    @cached_property
    def identity(self) -> Identity:
        """The file system's ids follow from everything in it; computing them reads the files."""
        digest = hashlib.sha256(b"%b\0%d\0%d" % (self._label, self._epoch, self.size))
        for inode in self._inodes:
            digest.update(b"%d %o %d %b" % (inode.number, inode.kind | inode.mode, inode.content.size, inode.block))
        for offset, source in self._placed:
            digest.update(b"%d" % offset)
            for chunk in Content((source,)).chunks():
                digest.update(chunk)
        return Identity(digest.hexdigest)

    @property
    def uuid(self) -> str:
        """The file system's UUID, in lower case."""
        return str(self.identity.uuid("ext2"))

    def content(self) -> Content:
        """Return the whole file system; files are read when that is."""
        geometry = self._geometry
        placed: list[tuple[int, Source]] = []
        descriptors = b"".join(self._descriptor(group).pack() for group in range(geometry.groups))
        for group in range(geometry.groups):
            first = block = group * GROUP
            if geometry.has_superblock(group):
                superblock = self._superblock(group).pack()
                boot = bytes(1024) if group == 0 else b""
                placed.append((block, Literal(boot + superblock)))
                placed.append((block + 1, Literal(descriptors)))
                block += 1 + geometry.descriptor_blocks
            length = geometry.length(group)
            used = self._used_blocks(group)
            placed.append((block, Literal(_bitmap(used, length))))
            placed.append((block + 1, Literal(_bitmap(self._used_inodes(group), geometry.inodes_per_group))))
            if table := self._table(group):
                placed.append((block + 2, Literal(table)))
            assert block + 2 + geometry.table_blocks == first + geometry.overhead(group)
        groups = [(block * BLOCK, source) for block, source in placed]
        return Content.spread([*self._placed, *groups], self.size)

    def _used_blocks(self, group: int) -> int:
        """Return how many blocks of *group* are in use; they are its first."""
        beyond = self._next - group * GROUP
        return min(max(beyond, self._geometry.overhead(group)), self._geometry.length(group))

    def _used_inodes(self, group: int) -> int:
        per_group = self._geometry.inodes_per_group
        return min(max(self._last_inode() - group * per_group, 0), per_group)

    def _in_group(self, group: int) -> list[Inode]:
        per_group = self._geometry.inodes_per_group
        return [inode for inode in self._inodes if (inode.number - 1) // per_group == group]

    def _table(self, group: int) -> bytes:
        """Return the used part of *group*'s inode table."""
        table = bytearray()
        for inode in self._in_group(group):
            size = inode.content.size
            record = InodeRecord(
                mode=inode.kind | inode.mode,
                size=size & 0xFFFFFFFF,
                accessed=self._epoch,
                changed=self._epoch,
                modified=self._epoch,
                links=inode.links,
                sectors=inode.sectors,
                block=inode.block,
                size_high=size >> 32 if inode.kind == REGULAR else 0,
            )
            at = (inode.number - 1) % self._geometry.inodes_per_group * InodeRecord.SIZE
            table += bytes(at - len(table)) + record.pack()
        return bytes(table)

    def _descriptor(self, group: int) -> GroupDescriptor:
        geometry = self._geometry
        block = group * GROUP + geometry.overhead(group) - geometry.table_blocks - 2
        return GroupDescriptor(
            block_bitmap=block,
            inode_bitmap=block + 1,
            inode_table=block + 2,
            free_blocks=geometry.length(group) - self._used_blocks(group),
            free_inodes=geometry.inodes_per_group - self._used_inodes(group),
            directories=sum(inode.kind == DIRECTORY for inode in self._in_group(group)),
        )

    def _superblock(self, group: int) -> SuperBlock:
        geometry = self._geometry
        groups = range(geometry.groups)
        inodes = geometry.inodes_per_group * geometry.groups
        large = any(inode.kind == REGULAR and inode.content.size >= 1 << 31 for inode in self._inodes)
        return SuperBlock(
            inodes_count=inodes,
            blocks_count=geometry.blocks,
            free_blocks=sum(geometry.length(g) - self._used_blocks(g) for g in groups),
            free_inodes=inodes - self._last_inode(),
            blocks_per_group=GROUP,
            fragments_per_group=GROUP,
            inodes_per_group=geometry.inodes_per_group,
            written_at=self._epoch,
            checked_at=self._epoch,
            made_at=self._epoch,
            block_group=group,
            read_only_compatible=SPARSE_SUPER | (LARGE_FILE if large else 0),
            uuid=self.identity.uuid("ext2").bytes,
            label=self._label,
            hash_seed=self.identity.uuid("ext2 hash seed").bytes,
        )


def _entries(entries: list[tuple[bytes, int, int]]) -> bytes:
    """Return directory blocks of ``(name, inode, type)``, at least one (§ Linked List Directory Entry)."""
    blocks: list[bytearray] = []
    block = bytearray()
    last = 0
    for name, inode, kind in entries:
        length = round_up(8 + len(name), 4)
        if len(block) + length > BLOCK:
            block[last + 4 : last + 6] = (BLOCK - last).to_bytes(2, "little")
            blocks.append(block)
            block = bytearray()
        last = len(block)
        head = inode.to_bytes(4, "little") + length.to_bytes(2, "little") + bytes((len(name), kind))
        block += (head + name).ljust(length, b"\0")
    if not block:
        block = bytearray(8)
    block[last + 4 : last + 6] = (BLOCK - last).to_bytes(2, "little")
    blocks.append(block)
    return b"".join(bytes(block.ljust(BLOCK, b"\0")) for block in blocks)


def _window(runs: list[Run], start: int, count: int) -> array[int]:
    """Return the pointers of the *count* blocks from logical block *start*; 0 is a hole."""
    table = array("I", bytes(4 * count))
    for run in runs:
        low, high = max(run.logical, start), min(run.logical + run.count, start + count)
        if low < high:
            physical = run.physical + low - run.logical
            table[low - start : high - start] = array("I", range(physical, physical + high - low))
    return table


def _little(table: array[int]) -> bytes:
    """Return *table* as little-endian 32-bit numbers on any machine."""
    if array("I", [1]).tobytes()[0] == 0:
        table = table[:]
        table.byteswap()
    return table.tobytes()


def _blocks_needed(inode: Inode) -> int:
    """Return the blocks *inode* takes, pointers included."""
    blocks = sum(count for _, count in inode.wanted)
    start = _DIRECT
    for depth in (1, 2, 3):
        if not inode.wanted or sum(inode.wanted[-1]) <= start:
            break
        blocks += sum(_tables(inode.wanted, start, depth, level) for level in range(1, depth + 1))
        start += _POINTERS**depth
    return blocks


def _tables(wanted: list[tuple[int, int]], start: int, depth: int, level: int) -> int:
    """Return how many blocks of pointers at *level* the tree of *depth* from logical block *start* needs."""
    span, step = _POINTERS**depth, _POINTERS**level
    count, last = 0, -1
    for logical, length in wanted:
        low, high = max(logical, start), min(logical + length, start + span)
        if low < high:
            first, final = (low - start) // step, (high - 1 - start) // step
            count += final - max(first, last + 1) + 1
            last = final
    return count


def _bitmap(used: int, length: int) -> bytes:
    """Return a block of bitmap: the first *used* bits, and all from *length* on, which do not exist."""
    bits = ((1 << used) - 1) | ((1 << 8 * BLOCK) - (1 << length))
    return bits.to_bytes(BLOCK, "little")
