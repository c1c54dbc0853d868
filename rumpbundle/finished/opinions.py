"""What readers say that are not ours: pycdlib of the ISO tree, qemu-img of the container, where it is installed."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator

from rumpbundle.errors import MissingToolError, RumpbundleError, ToolError
from rumpbundle.events import Report
from rumpbundle.images.containers.qcow2 import Qcow2
from rumpbundle.images.detect import file_system
from rumpbundle.images.disk import Disk
from rumpbundle.images.filesystem import Entry
from rumpbundle.images.filesystems.iso9660 import Iso9660
from rumpbundle.images.node import node_of
from rumpbundle.images.problem import Problem

_MOST_FILES = 20_000
"""Files of a tree that pycdlib reads: it takes a tenth of a millisecond for each."""
_CHECKED = {"qcow2", "vdi", "vhdx", "vmdk"}
"""QEMU's drivers that can check."""


def iso(disk: Disk) -> Iterator[Problem]:
    """Yield where pycdlib sees another tree on *disk* than we do."""
    files = file_system(disk)
    if not isinstance(files, Iso9660) or files.facts:
        return  # it reads names of Rock Ridge as we do
    wanted: dict[str, Entry] = {}
    for entry in files.entries():
        wanted[entry.path] = entry
        if len(wanted) > _MOST_FILES or _is_bytes(entry.path):
            return  # it takes no name that is not UTF-8
    try:
        found = dict(_read(disk))
    except RumpbundleError:
        raise  # the disk under it
    except Exception as error:  # somebody else's code, on what may be damaged in a new way
        what = f"pycdlib cannot read the tree: {_reason(error)}"
        yield Problem(where="ISO 9660", offset=None, what=what, consequence="other readers may fail as well")
        return
    for path in sorted({*wanted, *found}):
        size = wanted[path].size if path in wanted and wanted[path].kind == "file" else None
        if path not in wanted or path not in found or (size is not None and found[path] != size):
            seen = f"{found[path]} bytes" if path in found else "nothing"
            what = f"pycdlib finds {seen}, we find {'nothing' if path not in wanted else f'{size} bytes'}"
            yield Problem(where=path, offset=None, what=what, consequence="readers disagree about this file")


def _is_bytes(name: str) -> bool:
    """Return whether *name* holds bytes that are no UTF-8 (PEP 383)."""
    return not name.isascii() and any("\udc80" <= character <= "\udcff" for character in name)


def _reason(error: Exception) -> str:
    """Return why pycdlib gave up: its own words, or that it broke, which it does on what it was not written for."""
    from pycdlib.pycdlibexception import PyCdlibException

    return str(error) if isinstance(error, PyCdlibException) else "it breaks at something it does not know"


def _read(disk: Disk) -> Iterator[tuple[str, int]]:
    """Yield path and size of everything pycdlib finds."""
    import pycdlib

    volume = pycdlib.PyCdlib()
    volume.open_fp(io.BufferedReader(_File(disk)))  # type: ignore[type-var]
    try:
        for top, directories, names in volume.walk(rr_path="/"):
            top = top.rstrip("/")
            for name in directories:
                yield f"{top}/{name}", 0
            for name in names:
                record = volume.get_record(rr_path=f"{top}/{name}")
                yield f"{top}/{name}", record.get_data_length()
    finally:
        volume.close()


class _File(io.RawIOBase):
    """A disk as a file."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._disk.size}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        count = max(min(len(buffer), self._disk.size - self._at), 0)
        buffer[:count] = self._disk.read(self._at, count)
        self._at += count
        return count


def container(path: str | os.PathLike[str], disk: Disk, report: Report) -> Iterator[Problem]:
    """Yield what ``qemu-img check`` says against the container of *disk*, if it is installed and knows it."""
    if disk.qemu not in _CHECKED or disk.around or disk.container == "vmdk (stream)":
        return
    try:
        from rumpbundle.host import programs
    except ImportError:  # a Python that starts no programs, as in a web page
        return
    node = node_of(disk)
    name = os.path.abspath(path)
    if node is None or (disk.qemu == "vmdk" and _is_bytes(name)):
        return  # the command that is told is JSON, which cannot hold the name
    # At the name another file may stand by then, which leads it to any of this machine's.
    argv = _check(disk.qemu, f"/dev/fd/{node.fd}", alone=True)
    try:
        programs.run(argv, report=report, pass_fds=[node.fd], told=_check(disk.qemu, name, alone=disk.qemu == "vmdk"))
    except MissingToolError:
        return
    except ToolError as error:
        # 2: damage; 3: room is lost; 63: the format has no check.
        if "status 63" not in error.problem:
            mends = isinstance(disk, Qcow2) and disk.is_unfinished
            severity = "remark" if mends or "status 3:" in error.problem else "damage"
            consequence = "QEMU mends that when it opens the image to write" if mends else "QEMU may refuse it"
            yield Problem(
                where=disk.qemu, offset=None, what=error.problem.replace(argv[-1], name), consequence=consequence,
                severity=severity,  # type: ignore[arg-type]
            )  # fmt: skip


def _check(driver: str, name: str, *, alone: bool) -> list[str]:
    """Return the command that checks the file *name*; *alone*, it opens no other, whatever that one says.

    For a VMDK all that is a parent's name to it that it finds, also in a comment: another file, an address.
    """
    argv = ["qemu-img", "check", "-q"]
    if not alone:
        return [*argv, "-f", driver, name]
    backing = {"backing": None} if driver in ("qcow2", "vmdk") else {}
    node = {"driver": driver, **backing, "file": {"driver": "file", "filename": name}}
    return [*argv, f"json:{json.dumps(node)}"]


__all__ = ["container", "iso"]
