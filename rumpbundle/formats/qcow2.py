"""qcow2: QEMU's own disk, for libvirt, Proxmox, OpenStack.

Laid out as qemu-img does it, which the two agree on to the byte as long as one block of reference counts will do
(2 GiB of file): header, table and block of reference counts, first-level table, then each second-level table in front
of the first cluster it leads to. Further blocks of counts stand where what they count begins.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Iterable, Sequence

from rumpbundle.disk.flat import disk_errors, write_all
from rumpbundle.disk.layout import MIB, DiskLayout
from rumpbundle.errors import InputError
from rumpbundle.formats._blocks import StoredRun, fits_surely, used_blocks, write_blocks
from rumpbundle.formats._contract import Format, Job, OneFile, Subformat
from rumpbundle.host.staging import StagedFile
from rumpbundle.images.records import qcow2

_CLUSTER = 64 << 10
_ENTRIES = _CLUSTER // 8
"""Of a table: each leads to a cluster."""
_COUNTS = _CLUSTER // 2
"""Clusters that a block of reference counts tells of."""
_COUNT_TABLE, _FIRST_COUNTS, _FIRST_LEVEL = 1, 2, 3
"""The numbers of the clusters at which they stand, or begin."""
_LARGEST = 1 << 51
"""Bytes; the first-level table is 32 MiB then, the most that QEMU takes."""
_LARGEST_FILE = _ENTRIES * _COUNTS * _CLUSTER
"""Bytes: 16 TiB, whose reference counts fit one cluster of their table."""


def _write(job: Job, out: StagedFile) -> None:
    layout, fd = job.layout, out.fd
    clusters, runs, second_level = _placed(layout)
    tables = _tables_of(layout)
    header = qcow2.Header(
        disk_size=layout.size,
        l1_size=tables,
        l1_offset=_FIRST_LEVEL * _CLUSTER,
        refcount_table_offset=_COUNT_TABLE * _CLUSTER,
        refcount_table_clusters=1,
        header_length=qcow2.LENGTH_WITH_COMPRESSION,
    )
    first_level = [0] * tables
    for table, place in second_level.items():
        first_level[table] = qcow2.COPIED | place
    with disk_errors():
        os.ftruncate(fd, clusters.total * _CLUSTER)
        write_all(fd, header.pack().ljust(header.header_length, b"\0") + qcow2.feature_names(), 0)
        write_all(fd, _numbers(first_level), header.l1_offset)
        _write_counts(fd, clusters.total)
        _write_second_level(fd, runs, second_level)
    write_blocks(job, fd, runs)


def _tables_of(layout: DiskLayout) -> int:
    """Return the number of second-level tables that *layout* can have."""
    return -(-layout.size // (_ENTRIES * _CLUSTER))


def _placed(layout: DiskLayout) -> tuple[_Clusters, list[StoredRun], dict[int, int]]:
    """Return the file's clusters, and where in them the used ones of *layout* and its second-level tables stand.

    Raises:
        InputError: they are more than we make reference counts for.
    """
    clusters = _Clusters(_FIRST_LEVEL + -(-_tables_of(layout) // _ENTRIES))
    runs, second_level = _place(used_blocks(layout, _CLUSTER), clusters)
    if clusters.total * _CLUSTER > _LARGEST_FILE:
        raise InputError("the payload is too large for a qcow2 image", hint="use raw")
    return clusters, runs, second_level


def _check(job: Job) -> None:
    # Tables and counts take a little more: a file half as large has room for those of any disk.
    if not fits_surely(job.layout, _CLUSTER, _LARGEST_FILE // 2):
        _placed(job.layout)


class _Clusters:
    """Hands out the file's clusters in order, and keeps the first of each block of counts for that block."""

    def __init__(self, total: int) -> None:
        self.total = total
        """Clusters taken."""

    def take(self, count: int) -> tuple[int, int]:
        """Return the place, in bytes, of as many of *count* clusters as there are in a row, and their number."""
        if self.total % _COUNTS == 0:
            self.total += 1
        first = self.total
        count = min(count, _COUNTS - first % _COUNTS)
        self.total += count
        return first * _CLUSTER, count


def _place(used: Iterable[range], clusters: _Clusters) -> tuple[list[StoredRun], dict[int, int]]:
    """Return where the disk's *used* clusters stand, and by its number where each second-level table does."""
    runs: list[StoredRun] = []
    tables: dict[int, int] = {}
    for indices in used:
        index = indices.start
        while index < indices.stop:
            table = index // _ENTRIES
            if table not in tables:
                tables[table], _ = clusters.take(1)
            place, count = clusters.take(min(indices.stop, (table + 1) * _ENTRIES) - index)
            runs.append(StoredRun(index * _CLUSTER, count * _CLUSTER, place))
            index += count
    return runs, tables


def _write_counts(fd: int, total: int) -> None:
    """Write the reference counts of *total* clusters, each of which is used once."""
    first = range(0, total, _COUNTS)
    blocks = [each * _CLUSTER or _FIRST_COUNTS * _CLUSTER for each in first]
    write_all(fd, _numbers(blocks), _COUNT_TABLE * _CLUSTER)
    for each, place in zip(first, blocks, strict=True):
        write_all(fd, b"\0\1" * min(_COUNTS, total - each), place)


def _write_second_level(fd: int, runs: Sequence[StoredRun], tables: dict[int, int]) -> None:
    span = _ENTRIES * _CLUSTER
    for table, group in itertools.groupby(runs, lambda run: run.offset // span):
        entries = [0] * _ENTRIES
        for run in group:
            first, places = run.offset % span // _CLUSTER, range(run.place, run.place + run.length, _CLUSTER)
            entries[first : first + len(places)] = [qcow2.COPIED | place for place in places]
        write_all(fd, _numbers(entries), tables[table])


def _numbers(values: Sequence[int]) -> bytes:
    return struct.pack(f">{len(values)}Q", *values)


FORMAT = Format(
    name="qcow2",
    suffix=".qcow2",
    summary="QEMU's own disk: QEMU, libvirt, Proxmox, OpenStack",
    product=OneFile(_write),
    align=MIB,
    subformats=(Subformat(largest=_LARGEST),),
    check=_check,
)
