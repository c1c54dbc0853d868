"""What our writers put around a disk, against what stands there: ids, headers, and nothing in what is free.

Another program may have put a disk of ours into a container of its own; then only its own rules hold. Ours is known
by its name in the file or by an id that follows from the bundle, so that damage to one of them does not hide it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from rumpbundle.disk.content import CHUNK, Zeros
from rumpbundle.disk.identity import Identity
from rumpbundle.disk.layout import SECTOR
from rumpbundle.errors import ImageError
from rumpbundle.finished.origin import Origin
from rumpbundle.images.containers.claims import Claims
from rumpbundle.images.containers.qcow2 import Qcow2
from rumpbundle.images.containers.vdi import Vdi
from rumpbundle.images.containers.vhd import DynamicVhd, FixedVhd
from rumpbundle.images.containers.vhdx import Vhdx
from rumpbundle.images.containers.vmdk import SparseVmdk, StreamVmdk
from rumpbundle.images.containers.vmdk_descriptor import parse
from rumpbundle.images.disk import Disk
from rumpbundle.images.medium import Medium
from rumpbundle.images.problem import Problem
from rumpbundle.images.records import qcow2, vdi, vhd, vhdx, vmdk

_LEFT = "another program has written to it"
_IDS = "it is not what bundling writes: another id, or a field nobody here sets"


def problems(disk: Disk, ours: Origin) -> Iterator[Problem]:
    """Yield where the container of *disk* is not as our writers make it; nothing if another program made it."""
    for kind, check in _CHECKS.items():
        if type(disk) is kind:
            yield from check(disk, ours)
    if disk.around == ("gzip", "tar"):
        yield from _gce(disk)


def _problem(where: str, offset: int, what: str, consequence: str = _IDS) -> Problem:
    return Problem(where=where, offset=offset, what=what, consequence=consequence)


def _same(medium: Medium, at: int, wanted: bytes, where: str, what: str) -> Iterator[Problem]:
    """Compare what stands at byte *at* of the file with what is *wanted* there."""
    found = medium.read(at, min(len(wanted), max(medium.size - at, 0)))
    if found != wanted:
        first = next((n for n in range(len(found)) if found[n] != wanted[n]), len(found))
        yield _problem(where, at + first, f"{what} is {found[first:][:8].hex()}, expected {wanted[first:][:8].hex()}")


def _used(where: str, at: int, what: str) -> Problem:
    """Return what to say of a container that is whole, and was opened to write since."""
    return Problem(where=where, offset=at, what=what, consequence=_LEFT, severity="remark")


def _is_new(found: bytes | str, wanted: bytes | str) -> bool:
    """Whether the id *found* was drawn anew: most of it is another than *wanted*, and not a number's bytes."""
    return 2 * sum(one != other for one, other in zip(found, wanted, strict=True)) > len(wanted)


def _empty(medium: Medium, claims: Claims, unit: int = 0) -> Iterator[Problem]:
    """Check that what nothing claims is zero; but not whole clusters of *unit* bytes, which another may have used."""
    for start, end in claims.free() if not unit else _beside(claims.free(), unit):
        for run in medium.runs(start, end - start):
            if isinstance(run.source, Zeros):
                continue
            for at in range(run.offset, run.offset + run.length, CHUNK):
                data = medium.read(at, min(CHUNK, run.offset + run.length - at))
                if data.count(0) != len(data):
                    place = at + len(data) - len(data.lstrip(b"\0"))
                    what = "what no part of the container takes is not zero"
                    yield _problem(claims.where, place, what, "nobody reads it, but it was not written here")
                    return


def _beside(free: Iterator[tuple[int, int]], unit: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of what is *free* that share a cluster of *unit* bytes with what is not."""
    for start, end in free:
        low, high = -(-start // unit) * unit, end // unit * unit
        if low >= high:
            yield start, end
        else:
            yield from ((a, b) for a, b in ((start, low), (high, end)) if a < b)


def _vdi(disk: Vdi, ours: Origin) -> Iterator[Problem]:
    identity, header = ours.bundle.identity, disk.header
    create, modify = identity.uuid("vdi-create").bytes_le, identity.uuid("vdi-modify").bytes_le
    text = vdi.Header.text.ljust(64, b"\0")
    if header.text != text and create != header.uuid_create and modify != header.uuid_modify:
        return
    wanted = vdi.Header(
        data_offset=header.data_offset,
        disk_size=disk.size,
        blocks=-(-disk.size // vdi.BLOCK),
        blocks_allocated=header.blocks_allocated,
        uuid_create=create,
        uuid_modify=modify,
    )
    if header.uuid_create == create and _is_new(header.uuid_modify, modify):  # as VirtualBox does
        yield _used("VDI", 0, "it has another id of its last change")
        wanted = wanted.replace(uuid_modify=header.uuid_modify)
    yield from _same(disk.medium, 0, wanted.pack(), "VDI", "the header")
    yield from _empty(disk.medium, disk.claims())


def _vhd(disk: DynamicVhd | FixedVhd, ours: Origin) -> Iterator[Problem]:
    identity, footer = ours.bundle.identity, disk.footer
    dynamic = isinstance(disk, DynamicVhd)
    changes = {"data_offset": SECTOR, "disk_type": vhd.DYNAMIC} if dynamic else {}
    unique = identity.uuid("vhd-dynamic" if dynamic else "vhd-fixed").bytes
    if footer.creator_application != vhd.Footer.creator_application and footer.unique_id != unique:
        return
    wanted = vhd.footer(disk.size, unique, ours.bundle.epoch, **changes).pack()
    yield from _same(disk.medium, disk.medium.size - SECTOR, wanted, "VHD", "the footer")
    if isinstance(disk, DynamicVhd):
        yield from _same(disk.medium, 0, wanted, "VHD", "the copy of the footer")
        table = disk.header.table_offset + 4 * disk.header.blocks
        yield from _same(disk.medium, table, b"\xff" * (-table % SECTOR), "VHD", "what fills the block table")
        yield from disk.bitmaps()
        yield from _empty(disk.medium, disk.claims())
    elif disk.medium.size != disk.size + SECTOR:
        yield _problem("VHD", disk.size, "something stands between the disk and the footer")


def _vhdx(disk: Vhdx, ours: Origin) -> Iterator[Problem]:
    identity = ours.bundle.identity
    page = identity.uuid("vhdx-disk")
    guids = {"file_write_guid": identity.uuid("vhdx-file-write").bytes_le}
    guids["data_write_guid"] = identity.uuid("vhdx-data-write").bytes_le
    found = disk.medium.read(disk.items[vhdx.PAGE_83], 16) if vhdx.PAGE_83 in disk.items else b""
    is_ours = page.bytes_le == found or guids["file_write_guid"] == disk.header.file_write_guid
    if disk.creator != "rumpbundle" and not is_ours:
        return
    medium = disk.medium
    identifier = vhdx.FileIdentifier(creator="rumpbundle".encode("utf-16-le")).pack()
    yield from _same(medium, 0, identifier, "VHDX", "the identifier")
    # Who opens it to write changes these, and the checksum with them; damage to them that leaves out.
    used = disk.header.sequence > 2 and disk.header.file_write_guid != guids["file_write_guid"]
    if used:
        yield _used(
            "VHDX", disk.header_offset, f"it was opened to write, its header is of version {disk.header.sequence}"
        )
    for sequence, offset in enumerate(vhdx.HEADERS, 1):
        there = vhdx.Header.unpack(medium.read(offset, vhdx.Header.SIZE))
        kept = (
            {name: getattr(there, name) for name in ("sequence", *guids)} if used else guids | {"sequence": sequence}
        )
        yield from _same(medium, offset, disk.header.replace(**kept).sealed().pack(), "VHDX", "a header")
    start, _ = disk.regions[vhdx.METADATA]
    for at, data in vhdx.metadata(disk.block, disk.size, page):
        yield from _same(medium, start + at, data, "VHDX", "the metadata")
    log = medium.read(disk.header.log_offset, min(disk.header.log_length, 1 << 20))
    if log.count(0) != len(log) and not used:
        yield _problem("VHDX", disk.header.log_offset, "the log is not empty")
    yield from disk.unused_entries()
    yield from _empty(medium, disk.claims())


def _vmdk(disk: SparseVmdk, ours: Origin) -> Iterator[Problem]:
    identity, header = ours.bundle.identity, disk.header
    kind, adapter = ("streamOptimized", "lsilogic") if type(disk) is StreamVmdk else ("monolithicSparse", "ide")
    if not _is_ours(disk.descriptor, kind, identity):
        return
    named = re.search(r'^RW \d+ SPARSE "(.*)"$', disk.descriptor, re.MULTILINE)
    extent = named[1] if named else ""
    text = vmdk.descriptor(create_type=kind, size=disk.size, extent=extent, adapter=adapter, identity=identity)
    # Where we write it, and as much as we do: what the header says of that may be anything.
    start, room = vmdk.SparseHeader.descriptor_offset, vmdk.SparseHeader.descriptor_size
    wanted = text.ljust(room * SECTOR, b"\0")
    found = disk.medium.read(start * SECTOR, min(room * SECTOR, max(disk.medium.size - start * SECTOR, 0)))
    used = _written_since(found.rstrip(b"\0"), text)
    if used:
        yield _used("VMDK", start * SECTOR, used)
        wanted = found
    yield from _same(disk.medium, start * SECTOR, wanted, "VMDK", "the descriptor")
    if type(disk) is StreamVmdk:
        flags = vmdk.FLAG_NEWLINES | vmdk.FLAG_COMPRESSED | vmdk.FLAG_MARKERS
        known = vmdk.SparseHeader(
            version=3, flags=flags, capacity=disk.size // SECTOR, gd_offset=vmdk.GD_AT_END,
            compression=vmdk.COMPRESS_DEFLATE,
        )  # fmt: skip
        front = known.pack() + wanted
        yield from _same(disk.medium, 0, front.ljust(known.overhead * SECTOR, b"\0"), "VMDK", "the header")
        return
    first = min((position for _, position, _ in Claims("VMDK", 0).mapped(disk)), default=header.overhead * SECTOR)
    known = vmdk.SparseHeader(
        capacity=disk.size // SECTOR,
        rgd_offset=start + room,
        gd_offset=header.gd_offset,
        overhead=first // SECTOR,
    )
    yield from _same(disk.medium, 0, known.pack(), "VMDK", "the header")
    yield from _empty(disk.medium, disk.claims())


def _written_since(found: bytes, made: bytes) -> str:
    """Return by what the descriptor *found* tells that a program has written it since we *made* it; empty if nothing.

    VMware writes all of it anew when the disk's id changes, in its own order, with entries of its own
    (https://famz.github.io/blog/2011/06/15/more-about-vmdk-descriptor-file); VirtualBox draws the id of the last
    change, and QEMU writes ids without leading zeros. All else that we wrote has to be there: damage draws no ids.
    """
    texts = [each.decode("utf-8", "surrogateescape") for each in (found, made)]
    if not all(map(_DESCRIPTOR_LINE.fullmatch, texts[0].splitlines())):
        return ""
    try:
        there, ours = map(parse, texts)
    except ImageError:
        return ""
    kept = {key: value for key, value in ours.values.items() if key not in _REWRITTEN}
    if there.extents != ours.extents or any(there.values.get(key) != value for key, value in kept.items()):
        return ""
    for key, digits, what in _NEW_IDS:
        now, was = (each.values.get(key, "") for each in (there, ours))
        if re.fullmatch(digits, now) and not was.startswith(now) and _is_new(now.zfill(len(was)), was):
            return f"{what} ({now})"
    return ""


_DESCRIPTOR_LINE = re.compile(
    r"(# Disk DescriptorFile|# Extent description|# Change Tracking File|# The [Dd]isk Data Base|#DDB)? *"
    r'|[A-Za-z.]+ *= *"[^"]*"|[A-Za-z]+=\w+|RW .*'
)
"""What stands in the descriptors of VMware, VirtualBox and QEMU."""
_REWRITTEN = {"CID", "encoding", "ddb.virtualHWVersion", "ddb.uuid.modification"}
"""What a program may change of our descriptor."""
_NEW_IDS = (
    ("CID", "[0-9a-f]{1,8}", "its content has another id"),
    ("ddb.uuid.modification", "[0-9a-f-]{36}", "it has another id of its last change"),
)


def _is_ours(descriptor: str, kind: str, identity: Identity) -> bool:
    ids = (f"CID={identity.u32(f'{kind}-cid'):08x}", str(identity.uuid(f"{kind}-image")))
    return any(each in descriptor for each in (*ids, str(identity.uuid(f"{kind}-modification"))))


def _qcow2(disk: Qcow2, ours: Origin) -> Iterator[Problem]:
    header = disk.header
    claims = disk.claims()
    lazy = header.compatible == qcow2.COMPATIBLE_LAZY
    if lazy:
        what = "it keeps its reference counts lazily"
        yield replace(_problem("qcow2", 80, what, "another program has set that"), severity="remark")
    others = header.version != 3 or header.snapshots or disk.cluster != 65536 or header.refcount_order != 4
    if others or header.incompatible or claims.packed or disk.has_bitmaps:
        return
    odd = (header.compatible and not lazy, header.autoclear, header.backing_file_size, header.snapshots_offset)
    if any(odd) or header.l1_size != disk.least_l1_size or not _has_usual_end(disk):
        yield _problem("qcow2", 0, "the header has values that nothing here writes")
    # Who discards or rewrites a cluster leaves its old bytes where they were.
    yield from _empty(disk.medium, claims, disk.cluster)


def _has_usual_end(disk: Qcow2) -> bool:
    """Whether the header ends as ours do, also after QEMU has written to them: with names of features."""
    padding = disk.medium.read(qcow2.Header.SIZE, max(disk.header.header_length - qcow2.Header.SIZE, 0))
    usual = disk.header.header_length in (qcow2.Header.SIZE, qcow2.LENGTH_WITH_COMPRESSION) and not any(padding)
    names = [len(data) for kind, data in disk.extensions if kind == qcow2.EXTENSION_FEATURE_NAMES]
    return usual and len(names) == len(disk.extensions) == 1 and not names[0] % qcow2.FEATURE_NAME_SIZE


def _gce(disk: Disk) -> Iterator[Problem]:
    """Check the header of the compression: the data behind it has a checksum, this has not."""
    from rumpbundle.formats._gzip_member import HEADER

    head = disk.outermost.read(0, len(HEADER)) if disk.outermost is not None else HEADER
    if head != HEADER and head[4:8] == bytes(4):
        yield _problem("gzip", 0, "its header is not what bundling writes")


_CHECKS: dict[type[Disk], Callable[[Any, Origin], Iterator[Problem]]] = {
    Vdi: _vdi,
    DynamicVhd: _vhd,
    FixedVhd: _vhd,
    Vhdx: _vhdx,
    SparseVmdk: _vmdk,
    StreamVmdk: _vmdk,
    Qcow2: _qcow2,
}
