"""Small files around disks that claim a lot: shared tables, endless lists, bombs. Each maker writes one."""

from __future__ import annotations

import bz2
import io
import lzma
import struct
import tarfile
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from rumpbundle.disk.gpt import ESP_GUID
from rumpbundle.disk.layout import MIB
from rumpbundle.images.records import qcow2, vdi, vhd, vmdk
from support import disks
from support.hostile import Pieces, ext2, iso, iso_record, names, write

MBR = bytes(446) + bytes.fromhex("0000000083000000 0008000000f00000") + bytes(48) + b"\x55\xaa"
"""A first sector with one partition: else nobody takes the disk for one."""


# -- tables that are used again and again -------------------------------------------------------------------------


def _qcow2(directory: Path, entries: bytes, bits: int = 16) -> Path:
    """A qcow2 of clusters of 2^*bits* bytes, whose level 1 table of 8 MiB leads to one table of *entries* only."""
    cluster = 1 << bits
    l1_size = 1 << 20
    l1, l2 = cluster, cluster + 8 * l1_size
    data = l2 + cluster
    size = l1_size * (cluster // 8) * cluster
    header = qcow2.Header(cluster_bits=bits, disk_size=min(size, 1 << 60), l1_size=l1_size, l1_offset=l1)
    table = struct.pack(">Q", l2 | 1 << 63) * l1_size
    pieces = {0: header.pack(), l1: table, l2: entries, data: MBR.ljust(cluster, b"x")}
    return write(directory / "image", pieces, data + cluster)


def qcow2_one_cluster(directory: Path) -> Path:
    """Petabytes that are all the same cluster."""
    return _qcow2(directory, struct.pack(">Q", 65536 + (8 << 20) + 65536 | 1 << 63) * 8192)


def qcow2_marked_zero(directory: Path) -> Path:
    """Petabytes that are marked as zero, cluster by cluster."""
    return _qcow2(directory, struct.pack(">Q", qcow2.L2_ZERO) * 8192)


def qcow2_every_second(directory: Path) -> Path:
    """Every second cluster is the same, and the rest is not there."""
    data = 512 + (8 << 20) + 512
    return _qcow2(directory, struct.pack(">QQ", data | 1 << 63, 0) * 32, bits=9)


def qcow2_snapshots(directory: Path) -> Path:
    """As many internal snapshots as the field can say, whose list is the image's first bytes."""
    header = qcow2.Header(
        cluster_bits=16, disk_size=1 << 30, l1_size=2, l1_offset=65536, snapshots=0xFFFFFFFF, snapshots_offset=0
    )
    return write(directory / "image", {0: header.pack(), 65536: bytes(16)}, 3 * 65536)


def qcow2_references(directory: Path) -> Path:
    """A table of reference counts that is as large as its field allows, in a hole of the file."""
    header = qcow2.Header(
        cluster_bits=21, disk_size=1 << 40, l1_size=2, l1_offset=1 << 21,
        refcount_table_offset=1 << 22, refcount_table_clusters=0xFFFFFFFF,
    )  # fmt: skip
    return write(directory / "image", {0: header.pack()}, 1 << 40)


def _vmdk(directory: Path, grain: int, tables: int, **changes) -> Path:
    """A sparse VMDK whose directory leads to one table of grains at *grain* only, *tables* times."""
    directory_at = 64
    table_at = directory_at + -(-4 * tables // 512)
    grain_at = table_at + 4
    text = vmdk.descriptor(
        create_type="monolithicSparse", size=tables * 32 * MIB, extent="image", adapter="ide", identity=disks.IDENTITY
    )
    header = vmdk.SparseHeader(
        capacity=tables * 65536, descriptor_offset=1, descriptor_size=20, rgd_offset=directory_at,
        gd_offset=directory_at, overhead=grain_at, **changes,
    )  # fmt: skip
    packed = zlib.compress(MBR.ljust(65536, b"x"))
    lead = struct.pack("<QI", 0, len(packed)) + packed if changes else MBR.ljust(65536, b"x")
    pieces: Pieces = {
        0: header.pack(), 512: text, 512 * directory_at: struct.pack("<I", table_at) * tables,
        512 * table_at: struct.pack("<I", grain_at if grain else 1) * 512, 512 * grain_at: lead,
    }  # fmt: skip
    return write(directory / "image", pieces, 512 * grain_at + 65536)


def vmdk_one_grain(directory: Path) -> Path:
    """Terabytes that are all the same grain."""
    return _vmdk(directory, 1, 1 << 18)


def vmdk_marked_zero(directory: Path) -> Path:
    """Terabytes that are marked as zero, grain by grain."""
    return _vmdk(directory, 0, 1 << 16)


def stream_one_grain(directory: Path) -> Path:
    """Terabytes that are all the same compressed grain, without markers that could tell it."""
    flags = vmdk.FLAG_NEWLINES | vmdk.FLAG_COMPRESSED
    return _vmdk(directory, 1, 1 << 18, version=3, flags=flags, compression=vmdk.COMPRESS_DEFLATE)


def vdi_one_block(directory: Path) -> Path:
    """Petabytes whose map is a hole of the file: all its blocks are the first."""
    blocks = 1 << 29
    start = 512 + 4 * blocks
    header = vdi.Header(data_offset=start, disk_size=blocks * MIB, blocks=blocks, blocks_allocated=1)
    return write(directory / "image", {0: header.pack(), start: MBR}, start + MIB)


def vhd_one_block(directory: Path) -> Path:
    """Terabytes whose table is a hole of the file: all blocks stand at its beginning."""
    blocks = 1 << 20
    footer = vhd.Footer(
        data_offset=512, disk_type=vhd.DYNAMIC, original_size=blocks << 21, current_size=blocks << 21
    ).sealed()
    header = vhd.DynamicHeader(table_offset=1536, blocks=blocks, block_size=1 << 21).sealed()
    size = 1536 + 4 * blocks + (4 << 20)
    return write(directory / "image", {0: footer.pack(), 512: header.pack(), size - 512: footer.pack()}, size)


def vhd_cleared_block(directory: Path) -> Path:
    """The same, and the bitmap of that block leaves out all of its sectors, which are zero."""
    blocks = 1 << 18
    place = 3 + 4 * blocks // 512
    footer = vhd.Footer(
        data_offset=512, disk_type=vhd.DYNAMIC, original_size=blocks << 21, current_size=blocks << 21
    ).sealed()
    header = vhd.DynamicHeader(table_offset=1536, blocks=blocks, block_size=1 << 21).sealed()
    size = 512 * place + 512 + (2 << 20) + 512
    table = struct.pack(">I", place) * blocks
    return write(
        directory / "image", {0: footer.pack(), 512: header.pack(), 1536: table, size - 512: footer.pack()}, size
    )


# -- several files ------------------------------------------------------------------------------------------------


def _split(directory: Path, lines: list[str]) -> Path:
    text = '# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="twoGbMaxExtentFlat"\n'
    (directory / "image").write_text(text + "\n".join(lines) + '\nddb.adapterType = "ide"\n')
    write(directory / "p", {0: MBR}, 64 * MIB)
    return directory / "image"


def split_one_file(directory: Path) -> Path:
    """Thirty thousand parts that are the same file."""
    return _split(directory, ['RW 131072 FLAT "p" 0'] * 30_000)


def split_many_files(directory: Path) -> Path:
    """Three thousand files of a sector."""
    for number in range(3000):
        (directory / f"p{number}").write_bytes(MBR if not number else bytes(511) + b"x")
    return _split(directory, [f'RW 1 FLAT "p{number}" 0' for number in range(3000)])


def split_zeros(directory: Path) -> Path:
    """Thirty thousand parts of nothing, with as many sectors as a number can say."""
    return _split(directory, ['RW 131072 FLAT "p" 0', *["RW 9223372036854775 ZERO"] * 30_000])


def split_empty_lines(directory: Path) -> Path:
    """A megabyte of lines without a word in front of the parts."""
    return _split(directory, ["\n" * MIB, 'RW 131072 FLAT "p" 0'])


# -- bombs --------------------------------------------------------------------------------------------------------


def gzip_bomb(directory: Path) -> Path:
    """As many zeros as gzip can say in few bytes: nothing forbids it, and it is no disk."""
    member = io.BytesIO()
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    for _ in range(64):
        member.write(packer.compress(bytes(MIB)))
    member.write(packer.flush())
    return write(directory / "image", {0: member.getvalue() * 6}, 0)


def xz_bomb(directory: Path) -> Path:
    return write(directory / "image", {0: lzma.compress(MBR + bytes(256 * MIB), preset=0)}, 0)


def bzip2_bomb(directory: Path) -> Path:
    """Zeros in 45 MiB to the kilobyte."""
    return write(directory / "image", {0: bz2.compress(MBR) + bz2.compress(bytes(45 * MIB)) * 6}, 0)


def zstd_bomb(directory: Path) -> Path:
    """Blocks of 128 KiB in four bytes each: more than a file of this size may expand to."""
    block = struct.pack("<I", 0 | 1 << 1 | (128 << 10) << 3)[:3] + b"\0"
    frame = b"\x28\xb5\x2f\xfd\x00\x38" + block * 4095 + b"\x01\x00\x00"
    return write(directory / "image", {0: frame * 4}, 0)


def ova_bomb(directory: Path) -> Path:
    """An archive whose disk is a stream of one grain again and again."""
    disk = stream_one_grain(directory).read_bytes()
    text = b"""<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"><References>
<File xmlns:o="http://schemas.dmtf.org/ovf/envelope/1" o:id="f" o:href="d.vmdk"/></References><DiskSection>
<Disk xmlns:o="http://schemas.dmtf.org/ovf/envelope/1" o:diskId="d" o:fileRef="f"/></DiskSection></Envelope>"""
    with tarfile.open(directory / "image.ova", "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in (("m.ovf", text), ("d.vmdk", disk)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return directory / "image.ova"


def _tar_header(name: str, size: int, kind: bytes = b"0") -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.USTAR_FORMAT)


def _pax(key: bytes, value: bytes) -> bytes:
    record = b" " + key + b"=" + value + b"\n"
    length = len(record) + 1
    while length != len(record) + len(str(length)):
        length += 1
    return str(length).encode() + record


def _filled(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // 512) * 512, b"\0")


def ova_of_many_disks(directory: Path) -> Path:
    """A description of four megabytes: a machine with as many disks and controllers as fit, all in one file."""
    disks_ = "".join(f'<Disk o:diskId="{number}" o:fileRef="f"/>' for number in range(40_000))
    items = "".join(
        f"<Item><InstanceID>{number}</InstanceID><ResourceType>6</ResourceType></Item><Item><Parent>{number}</Parent>"
        f"<ResourceType>17</ResourceType><HostResource>/disk/{number}</HostResource></Item>"
        for number in range(13_000)
    )
    text = f"""<Envelope xmlns="x" xmlns:o="y"><References><File o:id="f" o:href="d.img"/></References><DiskSection>
{disks_}</DiskSection><VirtualSystem><VirtualHardwareSection>{items}</VirtualHardwareSection></VirtualSystem></Envelope>"""
    data = _filled(text.encode())
    pieces = [_tar_header("m.ovf", len(text)), data, _tar_header("d.img", MIB), MBR.ljust(MIB, b"\0"), bytes(1024)]
    return write(directory / "image.ova", {0: b"".join(pieces)}, 0)


def tar_of_words(directory: Path) -> Path:
    """Ten thousand files, and three megabytes of words that are said of all of them."""
    pieces = []
    for part in range(3):
        words = b"".join(_pax(b"%d%d" % (part, number), b"") for number in range(90_000))
        pieces += [_tar_header("words", len(words), b"g"), _filled(words)]
    pieces += [_tar_header(str(number), 0) for number in range(9_000)]
    pieces += [_tar_header("disk.raw", MIB), MBR.ljust(MIB, b"\0"), bytes(1024)]
    return write(directory / "image", {0: b"".join(pieces)}, 0)


def tar_of_pieces(directory: Path) -> Path:
    """Files of half a million pieces of a byte each, before the disk."""
    count = 500_000
    numbers = _filled(b"%d\n" % count + b"".join(b"%d\n1\n" % (2 * number) for number in range(count)))
    words = {"major": b"1", "minor": b"0", "name": b"file", "realsize": b"%d" % (2 * count)}
    pax = b"".join(_pax(b"GNU.sparse." + key.encode(), value) for key, value in words.items())
    member = [_tar_header("words", len(pax), b"x"), _filled(pax)]
    pieces = []
    for each in range(8):
        member[1] = _filled(pax.replace(b"=file", b"=fil%d" % each))
        pieces += [*member, _tar_header("file", len(numbers) + count), numbers, _filled(b"x" * count)]
    pieces += [_tar_header("disk.raw", MIB), MBR.ljust(MIB, b"\0"), bytes(1024)]
    return write(directory / "image", {0: b"".join(pieces)}, 0)


def tar_of_nothing(directory: Path) -> Path:
    """A hundred thousand members, and none is a disk."""
    head = tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT)
    return write(directory / "image", {0: head * 100_000}, 100_002 * 512)


# -- file systems that lead into themselves -----------------------------------------------------------------------


def _extents(depth: int, leaf: int) -> bytes:
    """The root of an extent tree: one index to block *leaf*."""
    return struct.pack("<HHHHI", 0xF30A, 1, 4, depth, 0) + struct.pack("<IIHH", 0, leaf, 0, 0)


def ext4_loop(directory: Path) -> Path:
    """Files whose extent trees have nodes that lead to themselves, of the depth that each of them says."""
    block = 4096
    index = struct.pack("<HHHHI", 0xF30A, 340, 340, 4, 0)
    node = index + b"".join(struct.pack("<IIHH", number, 17, 0, 0) for number in range(340))
    root = (0o040755, block, [16, *[0] * 14])
    pieces, size = (
        ext2(block, {2: root}, {16: names(block, iter([(12, b"file"), (13, b"other")])), 17: node}),
        64 * block,
    )
    for number in (12, 13):
        at = 3 * block + (number - 1) * 128
        inode = bytearray(128)
        struct.pack_into("<HxxI", inode, 0, 0o100644, 1 << 30)
        struct.pack_into("<I", inode, 32, 0x80000)
        inode[40:100] = _extents(5, 17).ljust(60, b"\0")
        pieces[at] = bytes(inode)
    head = bytearray(pieces[1024])
    struct.pack_into("<I", head, 96, 0x40 | struct.unpack_from("<I", head, 96)[0])
    pieces[1024] = bytes(head)
    return write(directory / "image", pieces, size)


def iso_in_itself(directory: Path) -> Path:
    """A directory that holds the root, which holds it."""
    records = b"".join(iso_record(b"D%02d" % number, 32, 4096, 2) for number in range(30))
    return write(directory / "image", *iso(records, {}))


def iso_chain(directory: Path) -> Path:
    """Directories a thousand deep, each with the next."""
    extra: Pieces = {}
    for depth in range(1000):
        dots = iso_record(b"\0", 100 + depth, 2048, 2) + iso_record(b"\1", 99 + depth, 2048, 2)
        extra[(100 + depth) * 2048] = (dots + iso_record(b"D" * 200, 101 + depth, 2048, 2)).ljust(2048, b"\0")
    return write(directory / "image", *iso(iso_record(b"D", 100, 2048, 2), extra))


def gpt_all_over(directory: Path) -> Path:
    """A GPT whose 128 partitions are all the whole disk, on which an ISO 9660 of many files stands."""
    from rumpbundle.disk.gpt import GptEntry, GptHeader

    pieces, size = iso(b"".join(iso_record(b"%03d" % number, 40, 2048) for number in range(40)), {})
    last = size // 512 - 1
    entry = GptEntry(
        type_guid=b"\1" * 16, unique_guid=b"\2" * 16, first_lba=64, last_lba=last - 34, attributes=0, name=b""
    ).pack()
    entries = b"".join(entry[:32] + struct.pack("<QQ", 64 + number, last - 34) + entry[48:] for number in range(128))
    header = GptHeader(
        my_lba=1, alternate_lba=last, first_usable_lba=34, last_usable_lba=last - 34, disk_guid=b"\3" * 16,
        entries_lba=2, entries_crc32=zlib.crc32(entries),
    )  # fmt: skip
    header = header.replace(header_crc32=zlib.crc32(header.replace(header_crc32=0).pack()))
    pieces |= {0: MBR[:450] + b"\xee" + MBR[451:], 512: header.pack(), 1024: entries}
    return write(directory / "image", pieces, size)


def gpt_of_many_partitions(directory: Path) -> Path:
    """As many partitions as a table of two megabytes can hold, each of a sector."""
    places = (struct.pack("<QQ", 8192 + 2 * number, 8192 + 2 * number) for number in range(16384))
    return write(directory / "image", *_gpt_of(places, b"\1" * 16))


def gpt_of_many_esps(directory: Path) -> Path:
    """As many ESPs, whose FATs share one table and one root directory of 65,520 files that are no loader."""
    first, table, size = 8192, 8192 + 16384 + 8, 64 * MIB
    places = (struct.pack("<QQ", first + number, size // 512 - 8193) for number in range(16384))
    pieces, size = _gpt_of(places, uuid.UUID(ESP_GUID).bytes_le)
    for number in range(16384):
        boot = bytearray(512)
        sectors = size // 512 - 8192 - first - number
        struct.pack_into("<HBHBHHBH8xI", boot, 11, 512, 8, table - first - number, 1, 65520, 0, 0xF8, 64, sectors)
        boot[54:62], boot[510:512] = b"FAT16   ", b"\x55\xaa"
        pieces[512 * (first + number)] = bytes(boot)
    pieces[512 * table] = b"\xf8\xff\xff\xff"
    pieces[512 * (table + 64)] = b"".join(b"A%07dTXT\x20" % number + bytes(20) for number in range(65520))
    return write(directory / "image", pieces, size)


def _gpt_of(places: Iterator[bytes], kind: bytes) -> tuple[Pieces, int]:
    """Return a disk with 16384 partitions of *kind* at *places*, first and last sector."""
    from rumpbundle.disk.gpt import GptEntry, GptHeader

    count, size = 16384, 64 * MIB
    last = size // 512 - 1
    entry = GptEntry(type_guid=kind, unique_guid=b"\2" * 16).pack()
    entries = b"".join(entry[:32] + place + entry[48:] for place in places)
    pieces: Pieces = {0: MBR[:450] + b"\xee" + MBR[451:]}
    for at, other, lba in ((1, last, 2), (last, 1, last - 4096)):
        header = GptHeader(
            my_lba=at, alternate_lba=other, first_usable_lba=4098, last_usable_lba=last - 4097, disk_guid=b"\3" * 16,
            entries_lba=lba, entry_count=count, entries_crc32=zlib.crc32(entries),
        )  # fmt: skip
        pieces[512 * at] = header.replace(header_crc32=zlib.crc32(header.pack())).pack()
        pieces[512 * lba] = entries
    return pieces, size


MAKERS: dict[str, Callable[[Path], Path]] = {
    maker.__name__: maker
    for maker in (
        qcow2_one_cluster, qcow2_marked_zero, qcow2_every_second, qcow2_snapshots, qcow2_references,
        vmdk_one_grain, vmdk_marked_zero, stream_one_grain, vdi_one_block, vhd_one_block, vhd_cleared_block,
        split_one_file, split_many_files, split_zeros, split_empty_lines, ova_of_many_disks, tar_of_words,
        tar_of_pieces, gzip_bomb, xz_bomb, bzip2_bomb, zstd_bomb, ova_bomb, tar_of_nothing, ext4_loop,
        iso_in_itself, iso_chain, gpt_all_over, gpt_of_many_partitions, gpt_of_many_esps,
    )
}  # fmt: skip
