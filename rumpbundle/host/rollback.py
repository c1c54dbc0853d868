"""Files changed in place, wholly or not at all, at whatever moment we are killed or the power fails.

What will be overwritten is first written to a journal beside the file, ``.NAME.rollback``, and is on the disk before
anything changes. While there is a journal the file is half changed: the next command that is given the file puts the
old bytes back (:func:`restore`). QEMU and others that open the file know nothing of it.

The file is locked as QEMU's file driver locks an image it writes to (block/file-posix.c: bytes from 100 for what one
does, from 200 for what one does not let others do), so that neither changes it under the other.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import HostError, RumpbundleError
from rumpbundle.host import naming, signals
from rumpbundle.host.leftovers import journal_of

_MAGIC = b"rumpbundle rollback 1\n"
_SECTOR = 512
"""Bytes that a disk writes together or not at all."""
_MOST = 1 << 30
"""Bytes of a journal that are read."""


@dataclass(frozen=True, slots=True)
class Patch:
    """Bytes of a file that give way to others at the same place; of another number only at the file's end."""

    path: Path
    offset: int
    old: bytes
    new: bytes


def changed_at(path: Path) -> Path:
    """Return the name by which the file or kit *path* is changed: its own, or where the link leads that it is."""
    return Path(os.path.realpath(path)) if path.name in ("", "..") or path.is_symlink() else path


@contextlib.contextmanager
def named(path: Path, given: Path) -> Iterator[None]:
    """Let errors that name *path*, or what is in it, call it *given*, as the user did."""
    try:
        yield
    except RumpbundleError as error:
        if error.where is not None and path != given and Path(error.where).is_relative_to(path):
            error.where = str(given / Path(error.where).relative_to(path))
        raise


@contextlib.contextmanager
def locked(path: Path) -> Iterator[int]:
    """Open the file *path* to change it, and let nobody else do so; yield its descriptor.

    Raises:
        HostError: it cannot be written, or QEMU or another run of ours has it open.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise HostError(f"cannot be changed: {error.strerror}", where=path) from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise HostError("cannot be changed: it is no file", where=path)
        if not _lock(fd):
            raise HostError("is in use: QEMU, or another command, has it open", where=path, hint="stop that first")
        yield fd
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    """Lock *fd* as QEMU would, for reading, writing and resizing alone; False if somebody is in the way."""
    try:
        import fcntl

        own = [base + number for base in (100, 200) for number in range(4)]
        for byte in own:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0))
        for byte in own:
            asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
            found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked)
            if struct.unpack("hhqqi4x", found)[0] != fcntl.F_UNLCK:
                return False
    except (ImportError, AttributeError):
        return True  # neither has QEMU such locks here
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True


def apply(output: Path, patches: Sequence[Patch], *, sync: bool = True) -> None:
    """Change the files of *output*, which its caller holds :func:`locked`, by *patches*: by all of them or by none.

    Raises:
        HostError: that is not possible; then nothing has changed.
    """
    if not patches:
        return
    with signals.held():
        try:
            _write_journal(output, patches, sync=sync)
        except OSError as error:
            raise HostError(f"cannot be written beside it: {error.strerror}", where=journal_of(output)) from None
        try:
            _overwrite([(each.path, each.offset, each.new, len(each.old)) for each in patches], sync=sync)
        except OSError as error:
            _overwrite([(each.path, each.offset, each.old, len(each.new)) for each in patches], sync=sync)
            _forget(output, sync=sync)
            raise HostError(f"cannot be changed: {error.strerror}", where=output) from None
        _forget(output, sync=sync)


def _write_journal(output: Path, patches: Sequence[Patch], *, sync: bool) -> None:
    entries = [
        {"file": os.path.relpath(p.path, output.parent), "offset": p.offset, "old": len(p.old), "new": len(p.new)}
        for p in patches
    ]
    body = json.dumps(entries).encode() + b"\n" + b"".join(p.old + p.new for p in patches)
    journal = journal_of(output)
    draft = journal.with_name(f"{journal.name}.part")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()  # the file is locked, so whoever wrote it is gone
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as out:
            out.write(_MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
            out.flush()
            if sync:
                os.fsync(fd)
        naming.rename_new(draft, journal)
        if sync:
            naming.sync_directory(output.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def _overwrite(changes: Sequence[tuple[Path, int, bytes, int]], *, sync: bool, owner: int | None = None) -> None:
    """Write all of *changes* and wait until they are on the disk; the last number is how long what was there is.

    With *owner* all files have to be that user's, else nothing is written.
    """
    with contextlib.ExitStack() as stack:
        open_files: dict[Path, int] = {}
        for path in dict.fromkeys(path for path, *_ in changes):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            stack.callback(os.close, fd)
            if owner not in (None, os.fstat(fd).st_uid):
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            open_files[path] = fd
        for path, offset, data, before in changes:
            fd, view = open_files[path], memoryview(data)
            while view:
                count = os.pwrite(fd, view, offset)
                view, offset = view[count:], offset + count
            if len(data) != before:
                os.ftruncate(fd, offset)
        for fd in open_files.values() if sync else ():
            os.fsync(fd)


def _forget(output: Path, *, sync: bool) -> None:
    journal_of(output).unlink()
    if sync:
        naming.sync_directory(output.parent)


def restore(output: Path) -> bool:
    """Put back what a killed run has left half changed in *output*; return whether there was anything.

    Raises:
        HostError: there is, and it cannot be put back: by this user, or now, or at all.
    """
    journal = journal_of(output)
    if not journal.exists():
        return False
    try:
        with locked(_main(output, _read(journal)[1])):
            if not journal.exists():
                return False  # who was at it has finished
            owner, patches = _read(journal)
            for each in patches:
                _check(each, journal)
            # Another user's journal speaks for that user's files alone, whatever it names and links lead to.
            theirs = None if owner == os.geteuid() else owner
            changes = [(each.path, each.offset, each.old, len(each.new)) for each in patches]
            with signals.held():
                _overwrite(changes, sync=True, owner=theirs)
                _forget(output, sync=True)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise HostError(f"is half changed, and cannot be restored: {error.strerror}", where=output) from None
    except HostError as error:
        hint = (
            error.hint or f"its old bytes are in {journal}; give the file to a command of somebody who may write it"
        )
        raise HostError(
            f"is half changed, by a run that was killed: {error.problem}", where=output, hint=hint
        ) from None
    return True


def settle(output: Path) -> None:
    """Put right what is half changed of *output*, in whose place a new one is about to come.

    If it is gone, what is remembered of it goes, too: it would be taken for the new one's.

    Raises:
        HostError: as :func:`restore`.
    """
    if not os.path.lexists(output):
        with contextlib.suppress(FileNotFoundError):
            journal_of(output).unlink()
    restore(output)


def _main(output: Path, patches: Sequence[Patch]) -> Path:
    """Return the file of *output* that is locked."""
    return patches[0].path if output.is_dir() else output


def _read(journal: Path) -> tuple[int, list[Patch]]:
    """Return whose *journal* it is, and the changes in it.

    Raises:
        HostError: it is damaged, or somebody else's.
    """
    fd = os.open(journal, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (os.geteuid(), os.stat(journal.parent).st_uid):
            raise HostError("its journal is another user's", hint=f"look at {journal}")
        text = file.read(_MOST)
    magic, digest, body = text[: len(_MAGIC)], text[len(_MAGIC) : len(_MAGIC) + 65], text[len(_MAGIC) + 65 :]
    if magic != _MAGIC or digest != hashlib.sha256(body).hexdigest().encode() + b"\n":
        raise HostError("its journal is damaged", hint=f"make the file anew, and remove {journal}")
    line, _, data = body.partition(b"\n")
    patches = []
    for entry in json.loads(line):
        path = _inside(journal, entry)
        old, new, data = (
            data[: entry["old"]],
            data[entry["old"] :][: entry["new"]],
            data[entry["old"] + entry["new"] :],
        )
        patches.append(Patch(path, entry["offset"], old, new))
    return status.st_uid, patches


def _inside(journal: Path, entry: Any) -> Path:
    """Return the file that *entry* is of: beside *journal*, or in a directory beside it."""
    parts = entry["file"].split("/")
    if len(parts) > 2 or any(part in ("", ".", "..") for part in parts):
        raise HostError("its journal is damaged", hint=f"make the file anew, and remove {journal}")
    path = journal.parent.joinpath(*parts)
    if len(parts) > 1 and path.parent.is_symlink():
        raise HostError(f"its journal leads to another directory, by the link {parts[0]}", hint=f"look at {journal}")
    return path


def _check(patch: Patch, journal: Path) -> None:
    """Raise :class:`HostError` if the file is neither the old nor the new one, nor between them."""
    if len(patch.old) != len(patch.new) or not patch.offset % _SECTOR == len(patch.old) % _SECTOR == 0:
        return  # a small file, written as a whole
    there = patch.path.open("rb")
    with there:
        there.seek(patch.offset)
        found = there.read(len(patch.old))
    for at in range(0, len(patch.old), _SECTOR):
        part = slice(at, at + _SECTOR)
        if found[part] not in (patch.old[part], patch.new[part]):
            raise HostError(
                f"{journal.name} is of another file than is there now",
                hint=f"if {patch.path.name} was replaced since, remove {journal}",
            )


__all__ = ["Patch", "apply", "changed_at", "journal_of", "locked", "named", "restore", "settle"]
