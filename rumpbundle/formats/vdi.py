"""vdi: VirtualBox's own dynamic disk; QEMU reads it too.

Blocks of 1 MiB stand in the order of the disk, aligned to 1 MiB as VirtualBox aligns them.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rumpbundle.disk.content import Content
from rumpbundle.disk.flat import disk_errors, write_all, write_extents
from rumpbundle.disk.layout import MIB, Extent, LayoutReader, content_extents, held, round_up
from rumpbundle.formats._contract import Format, Job, OneFile, Subformat
from rumpbundle.formats._late import fill_late
from rumpbundle.host.staging import StagedFile
from rumpbundle.images.medium import FdMedium
from rumpbundle.images.records import vdi

_LARGEST = 1 << 48
"""Bytes: a map of 1 GiB. VirtualBox's own limit is not far above."""


def _write(job: Job, out: StagedFile) -> None:
    from rumpbundle.images.containers.vdi import Vdi

    layout = job.layout
    blocks = -(-layout.size // vdi.BLOCK)
    data_offset = round_up(vdi.Header.blocks_offset + 4 * blocks, vdi.BLOCK)
    with disk_errors():
        with LayoutReader(held(layout)) as reader:
            used = tuple(reader.used(vdi.BLOCK))
        os.ftruncate(out.fd, data_offset + len(used) * vdi.BLOCK)
        table = bytearray(vdi.FREE.to_bytes(4, "little")) * blocks
        for place, index in enumerate(used):
            table[4 * index : 4 * index + 4] = place.to_bytes(4, "little")
        write_all(out.fd, table, vdi.Header.blocks_offset)
        places = {index: data_offset + place * vdi.BLOCK for place, index in enumerate(used)}

        def locate(offset: int) -> tuple[int | None, int]:
            index, within = divmod(offset, vdi.BLOCK)
            return places[index] + within if index in places else None, vdi.BLOCK - within

        moved = _moved(held(layout).extents, used, data_offset)
        write_extents(moved, out.fd, job.report, job.label, layout.named, locate)
    header = vdi.Header(
        data_offset=data_offset,
        disk_size=layout.size,
        blocks=blocks,
        blocks_allocated=len(used),
        uuid_create=layout.identity.uuid("vdi-create").bytes_le,
        uuid_modify=layout.identity.uuid("vdi-modify").bytes_le,
    )
    with disk_errors():
        write_all(out.fd, header.pack(), 0)
        fill_late(layout, Vdi(FdMedium(out.fd)), out.fd)


def _moved(extents: Iterable[Extent], used: Iterable[int], data_offset: int) -> Iterator[Extent]:
    """Yield *extents*, sorted, where they stand in the file: cut where the disk has unused blocks."""
    runs = list(_runs(used))
    begin = 0
    for extent in extents:
        while begin < len(runs) and runs[begin].end <= extent.offset:
            begin += 1
        for run in itertools.islice(runs, begin, None):
            low, high = max(run.start, extent.offset), min(run.end, extent.end)
            if low >= high:
                break
            part = Content((extent.source,)).part(low - extent.offset, high - extent.offset)
            yield from content_extents(part, data_offset + run.place + low - run.start, extent.label)


class _Run(NamedTuple):
    """Used blocks that follow each other: bytes of the disk, and the place of the first behind the file's tables."""

    start: int
    end: int
    place: int


def _runs(used: Iterable[int]) -> Iterator[_Run]:
    for _, group in itertools.groupby(enumerate(used), lambda pair: pair[1] - pair[0]):
        run = list(group)
        (place, first), (_, last) = run[0], run[-1]
        yield _Run(first * vdi.BLOCK, (last + 1) * vdi.BLOCK, place * vdi.BLOCK)


FORMAT = Format(
    name="vdi",
    suffix=".vdi",
    summary="VirtualBox disk, dynamic",
    targets=("virtualbox",),
    product=OneFile(_write),
    align=MIB,
    subformats=(Subformat(largest=_LARGEST),),
)
