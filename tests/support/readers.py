"""Readers of disk containers that are not ours: each gives the disk's bytes, or says that the container is wrong."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from rumpbundle.disk.flat import write_extents
from rumpbundle.disk.layout import MIB, SECTOR, DiskLayout, LayoutReader, settled
from support.tools import output_of, require

Read = Callable[[int, int], bytes]

QEMU_DRIVERS = {"vmdk": "vmdk", "vdi": "vdi", "qcow2": "qcow2", "vhd": "vpc", "vhdx": "vhdx", "raw": "raw",
                "ova": "vmdk"}  # fmt: skip


def qemu_agrees(image: Path, name: str, raw: Path) -> None:
    """Assert that ``qemu-img`` finds no fault with *image* and the same bytes as in *raw*."""
    driver = QEMU_DRIVERS[name]
    if name not in ("vhd", "raw"):  # qemu-img 7.2 has no check for VHD
        assert "No errors were found" in output_of("qemu-img", "check", "-f", driver, str(image))
    said = output_of("qemu-img", "compare", "-f", driver, "-F", "raw", str(image), str(raw))
    assert said.strip() == "Images are identical."


@contextlib.contextmanager
def dissect(image: Path, name: str) -> Iterator[Read]:
    """Read *image* with dissect.hypervisor."""
    from dissect.hypervisor.disk import qcow2, vdi, vhd, vhdx, vmdk

    with image.open("rb") as file:
        stream = {
            "vmdk": lambda: vmdk.VMDK(file),
            "ova": lambda: vmdk.VMDK(file),
            "vdi": lambda: vdi.VDI(file).open(),
            "qcow2": lambda: qcow2.QCow2(file).open(),
            "vhd": lambda: vhd.VHD(file),
            "vhdx": lambda: vhdx.VHDX(file),
        }[name]()

        def read(offset: int, length: int) -> bytes:
            parts = []
            while length:
                # Its VDI stream mixes up reads of several blocks (docs/facts/formats.md#readers).
                count = min(length, MIB - offset % MIB)
                # Its buffer reads past the end of a disk that is not a multiple of 8 KiB: go below it.
                parts.append(stream._read(offset, count))
                offset += count
                length -= count
            return b"".join(parts)

        yield read


@contextlib.contextmanager
def libyal(image: Path, name: str) -> Iterator[Read]:
    """Read *image* with libvmdk, libvhdi or libqcow."""
    import pyqcow
    import pyvhdi
    import pyvmdk

    with image.open("rb") as file, image.open("rb") as extent:
        handle = {
            "vmdk": pyvmdk.handle,
            "ova": pyvmdk.handle,
            "vhd": pyvhdi.file,
            "vhdx": pyvhdi.file,
            "qcow2": pyqcow.file,
        }[name]()
        handle.open_file_object(file)
        if name in ("vmdk", "ova"):
            handle.open_extent_data_files_as_file_objects([extent])
        yield lambda offset, length: handle.read_buffer_at_offset(length, offset)
        handle.close()


FOREIGN: dict[str, tuple[Callable[[Path, str], contextlib.AbstractContextManager[Read]], ...]] = {
    "vmdk": (dissect, libyal),
    "ova": (dissect, libyal),
    "vdi": (dissect,),
    "qcow2": (dissect, libyal),
    "vhd": (dissect, libyal),
    "vhdx": (dissect, libyal),
}
"""Besides qemu-img, who can read what."""


def disk_of_ova(ova: Path) -> Path:
    """Unpack an OVA beside it and return its disk."""
    with tarfile.open(ova) as archive:
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            with (ova.parent / member.name).open("wb") as copy:
                shutil.copyfileobj(file, copy)
        return ova.parent / archive.getnames()[2]


def windows(layout: DiskLayout) -> list[tuple[int, int]]:
    """Return the parts of the disk to compare: all of it, or of a large one what surrounds its extents' ends."""
    if layout.size <= 64 * MIB:
        return [(at, min(MIB, layout.size - at)) for at in range(0, layout.size, MIB)]
    edges = {0, layout.size, *(e.offset for e in layout.extents), *(e.end for e in layout.extents)}
    around = [
        (max(e - 65536, 0) // SECTOR * SECTOR, min(e // SECTOR * SECTOR + 65536, layout.size)) for e in sorted(edges)
    ]
    return [(start, end - start) for start, end in around]


def sha256_of(read: Read, layout: DiskLayout) -> str:
    """Return the SHA-256 of the disk (:func:`windows` of it) as *read* gives it."""
    digest = hashlib.sha256()
    for offset, length in windows(layout):
        data = read(offset, length)
        assert len(data) == length
        digest.update(data)
    return digest.hexdigest()


def expected_sha256(layout: DiskLayout) -> str:
    with LayoutReader(layout) as reader:
        return sha256_of(reader.read, layout)


def write_raw(layout: DiskLayout, path: Path) -> Path:
    """Write *layout* as a sparse raw file."""
    with path.open("w+b") as file:
        file.truncate(layout.size)
        write_extents(settled(layout), file.fileno())
    return path


def virt_v2v_source(ova: Path) -> str:
    """Return what ``virt-v2v --print-source`` says of an OVA; no machine is started."""
    require("virt-v2v")
    done = subprocess.run(
        ["virt-v2v", "--print-source", "-i", "ova", str(ova)],
        env={"LIBGUESTFS_BACKEND": "direct", "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert not done.returncode, done.stderr
    return done.stdout
