"""vmdk: the disk of VMware's products, in two forms.

``sparse`` (monolithicSparse) is a disk to attach and write to: Workstation, Fusion, Player, VirtualBox, QEMU. ESXi
and EC2 take ``stream`` (streamOptimized, version 3), which is meant for import: every grain is compressed, tables
follow what they describe, a footer names the directory and an end-of-stream marker closes it. qemu-img's own
streamOptimized lacks that end (docs/facts/formats.md#vmdk), so this one is written here.

The embedded descriptor names the extent after the output file, so that these bytes depend on its name.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence

from rumpbundle.disk.flat import disk_errors, write_all
from rumpbundle.disk.layout import MIB, SECTOR, DiskLayout, LayoutReader, round_up
from rumpbundle.errors import InputError
from rumpbundle.events import Advanced
from rumpbundle.formats._blocks import StoredRun, fits_surely, in_a_row, used_blocks, write_blocks
from rumpbundle.formats._contract import Format, Job, OneFile, Subformat
from rumpbundle.host.environment import check_memory
from rumpbundle.host.parallel import ordered_map
from rumpbundle.host.staging import StagedFile
from rumpbundle.images.records import vmdk

LEVEL = 4
"""libdeflate's: kernel code becomes 1.02 times as large as by zlib's 6, which qemu-img uses, five times as fast."""
_STORED = 0
_BATCH = 16
"""Grains a thread compresses at once: 1 MiB."""
LARGEST = 62 << 40
"""Bytes of a disk: VMware's own limit."""
_LARGEST_STREAM = 1 << 40
"""Grain tables count sectors in 32 bits, which bounds the file; its payload, half of that to be safe."""
_LARGEST_SPARSE = SECTOR << 32
"""Bytes of a file, for the same reason."""


def check_stream(job: Job) -> None:
    """Raise :class:`InputError` if the payload does not fit a stream-optimised VMDK."""
    if job.layout.payload > _LARGEST_STREAM:
        raise InputError("the payload is too large for a stream-optimised VMDK", hint="use vmdk:sparse")


def write_stream(job: Job, extent: str, write: Callable[[bytes], object], label: str) -> None:
    """Give *write* the whole stream-optimised VMDK of the job's disk, in order.

    Grains are compressed on ``job.jobs`` threads; the bytes do not depend on how many.
    """
    layout = job.layout
    header = vmdk.SparseHeader(
        version=3,
        flags=vmdk.FLAG_NEWLINES | vmdk.FLAG_COMPRESSED | vmdk.FLAG_MARKERS,
        capacity=layout.size // SECTOR,
        gd_offset=vmdk.GD_AT_END,
        compression=vmdk.COMPRESS_DEFLATE,
    )
    text = vmdk.descriptor(
        create_type="streamOptimized", size=layout.size, extent=extent, adapter="lsilogic", identity=layout.identity
    )
    write((header.pack() + text.ljust(header.descriptor_size * SECTOR, b"\0")).ljust(header.overhead * SECTOR, b"\0"))
    position = header.overhead
    span = vmdk.TABLE_ENTRIES
    directory = [0] * -(-layout.size // (vmdk.GRAIN * span))
    with LayoutReader(layout) as reader:
        grains = ordered_map(_compressed, _batches(reader.blocks(vmdk.GRAIN)), job.jobs)
        for number, group in itertools.groupby(itertools.chain.from_iterable(grains), lambda grain: grain[0] // span):
            table = [0] * span
            for index, data in group:
                write(data)
                table[index % span] = position
                position += len(data) // SECTOR
                job.report(Advanced(label, vmdk.GRAIN))
            write(_metadata(vmdk.MARKER_TABLE, _numbers(table)))
            directory[number] = position + 1
            position += 1 + 4 * span // SECTOR
    write(_metadata(vmdk.MARKER_DIRECTORY, _numbers(directory)))
    write(_metadata(vmdk.MARKER_FOOTER, header.replace(gd_offset=position + 1).pack()))
    write(vmdk.Marker(type=vmdk.MARKER_END).pack())


def _batches(grains: Iterable[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    iterator = iter(grains)
    while batch := list(itertools.islice(iterator, _BATCH)):
        yield batch


def _compressed(batch: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Return each grain as it stands in the file: header, zlib data, whole sectors."""
    from deflate import zlib_compress

    result = []
    for index, grain in batch:
        check_memory()
        data = zlib_compress(grain, LEVEL if _compressible(grain) else _STORED)
        head = vmdk.GrainHeader(lba=index * (vmdk.GRAIN // SECTOR), size=len(data)).pack()
        result.append((index, (head + data).ljust(round_up(len(head) + len(data), SECTOR), b"\0")))
    return result


def _compressible(grain: bytes) -> bool:
    """Tell from 4 KiB of it whether a grain is worth the time; what is compressed already becomes no smaller."""
    from deflate import deflate_compress

    sample = b"".join(grain[at : at + 1024] for at in range(0, vmdk.GRAIN, vmdk.GRAIN // 4))
    return len(deflate_compress(sample, 1)) < len(sample)


def _numbers(values: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def _metadata(kind: int, data: bytes) -> bytes:
    padded = data.ljust(round_up(len(data), SECTOR), b"\0")
    return vmdk.Marker(sectors=len(padded) // SECTOR, type=kind).pack() + padded


def _write_sparse(job: Job, fd: int) -> None:
    """Write the job's disk as a monolithicSparse VMDK: both sets of tables, whole, then the grains in their order."""
    layout = job.layout
    table_sectors, directory_sectors, sets, overhead = _tables_of(layout.size)
    set_sectors = sets[1] - sets[0]
    runs = _placed(layout, overhead * SECTOR)
    size = overhead * SECTOR + sum(run.length for run in runs)
    header = vmdk.SparseHeader(
        capacity=layout.size // SECTOR, rgd_offset=sets[0], gd_offset=sets[1], overhead=overhead
    )
    with disk_errors():
        os.ftruncate(fd, size)
        write_all(fd, header.pack(), 0)
        for start in sets:
            first = start + directory_sectors
            write_all(fd, _numbers(range(first, start + set_sectors, table_sectors)), start * SECTOR)
        for number, table in _tables(runs):
            for start in sets:
                write_all(fd, table, (start + directory_sectors + number * table_sectors) * SECTOR)
    write_blocks(job, fd, runs)
    text = vmdk.descriptor(
        create_type="monolithicSparse",
        size=layout.size,
        extent=job.output.name,
        adapter="ide",
        identity=layout.identity,
    )
    with disk_errors():
        write_all(fd, text, header.descriptor_offset * SECTOR)


def _tables_of(size: int) -> tuple[int, int, tuple[int, int], int]:
    """Return the sectors of a table and of a directory, where the two sets of them begin, and where the grains do."""
    tables = -(-size // (vmdk.GRAIN * vmdk.TABLE_ENTRIES))
    table_sectors, directory_sectors = vmdk.TABLE_SIZE // SECTOR, -(-4 * tables // SECTOR)
    set_sectors = directory_sectors + tables * table_sectors
    redundant = vmdk.SparseHeader.descriptor_offset + vmdk.SparseHeader.descriptor_size
    sets = (redundant, redundant + set_sectors)
    return table_sectors, directory_sectors, sets, round_up(sets[1] + set_sectors, vmdk.GRAIN // SECTOR)


def _placed(layout: DiskLayout, start: int) -> list[StoredRun]:
    """Return where the grains of *layout* stand in a sparse VMDK, from byte *start* on.

    Raises:
        InputError: they are more than its tables can tell the places of.
    """
    runs = in_a_row(used_blocks(layout, vmdk.GRAIN), vmdk.GRAIN, start)
    if start + sum(run.length for run in runs) > _LARGEST_SPARSE:
        raise InputError("the payload is too large for a VMDK", hint="use raw")
    return runs


def _tables(runs: Iterable[StoredRun]) -> Iterator[tuple[int, bytes]]:
    """Yield every grain table that leads to a grain, with its number."""
    grains = (
        (run.offset + at, (run.place + at) // SECTOR) for run in runs for at in range(0, run.length, vmdk.GRAIN)
    )
    span = vmdk.GRAIN * vmdk.TABLE_ENTRIES
    for number, group in itertools.groupby(grains, lambda grain: grain[0] // span):
        table = [0] * vmdk.TABLE_ENTRIES
        for offset, sector in group:
            table[offset % span // vmdk.GRAIN] = sector
        yield number, _numbers(table)


def check(job: Job) -> None:
    if job.subformat == "stream":
        check_stream(job)
        return
    start = _tables_of(job.layout.size)[-1] * SECTOR
    if not fits_surely(job.layout, vmdk.GRAIN, _LARGEST_SPARSE - start):
        _placed(job.layout, start)


def _write(job: Job, out: StagedFile) -> None:
    if job.subformat == "stream":
        with disk_errors(), open(out.fd, "wb", closefd=False) as file:
            write_stream(job, job.output.name, file.write, job.label)
        return
    _write_sparse(job, out.fd)


FORMAT = Format(
    name="vmdk",
    suffix=".vmdk",
    summary="VMware disk: Workstation, Fusion, Player, VirtualBox, QEMU; stream for ESXi and EC2 import",
    product=OneFile(_write),
    align=MIB,
    subformats=(
        Subformat(name="sparse", largest=LARGEST),
        Subformat(name="stream", largest=LARGEST),
    ),
    check=check,
    targets=("vmware", "virtualbox"),
)
