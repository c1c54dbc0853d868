"""Outputs that appear whole under their name or not at all, and last when they have it.

A file is written without a name (``O_TMPFILE``) where the file system can do that, so that not even a
crash or SIGKILL leaves anything behind; elsewhere under a temporary name in the same directory. A kit is made in a
directory of such a name. Before a name is given the content is on the disk (unless *sync* says no), and the signals
that stop us wait while it is: what could be killed in between is put right by the next run
(:mod:`rumpbundle.host.leftovers`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import HostError, InputError, UsageError, no_room
from rumpbundle.host import leftovers, naming, signals

_MOST_LINKS = 40


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file being written: *fd* for us, *path* for external programs (it names the same file)."""

    fd: int
    path: str


def check_free(path: Path, *, force: bool, tidy: bool = True) -> None:
    """Raise unless *path* may be written: it is new or *force* is given, in a directory that exists.

    With *tidy*, what killed runs have left in that directory is put right first.

    Raises:
        UsageError: it exists and *force* is not given, or it is a device, FIFO, socket or ``/dev/stdout``.
        InputError: its directory does not exist.
        HostError: its directory is not writable.
    """
    if tidy:
        leftovers.put_right(path.parent)
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UsageError(
                "is no regular file; it would be replaced, not written to",
                where=path,
                hint="write to a file, then copy that: dd if=FILE of=DEVICE bs=4M conv=fsync",
            )
        if _is_open_file(path):
            raise UsageError(
                "is an open file of a process, and no place for one", where=path, hint="give a file name"
            )
        if os.path.lexists(path) and not force:
            raise UsageError("already exists", where=path, hint="give --force to overwrite it, or another name")
        parent = path.parent
        if not parent.exists():
            raise InputError("no such directory", where=parent, hint="make it first, or give another name")
        if not parent.is_dir():
            raise InputError("is not a directory", where=parent)
        if not os.access(parent, os.W_OK | os.X_OK):
            raise HostError("the directory is not writable", where=parent)
    except PermissionError as error:
        raise HostError(f"cannot be looked at: {os.strerror(error.errno or 0)}", where=path) from None
    except (ValueError, OSError) as error:
        raise InputError("is no usable file name", where=path) from error


def check_output(path: Path, holds: tuple[str, ...] | None = None, *, force: bool, tidy: bool = True) -> None:
    """Raise unless a file may be made at *path*, or a directory whose files have names like *holds*.

    With *force* a file takes the place of a file, a directory that of a file or of a directory with nothing else in
    it. *tidy* as :func:`check_free` has it.

    Raises:
        UsageError, InputError, HostError: as :func:`check_free`.
    """
    check_free(path, force=force, tidy=tidy)
    if holds is None:
        if path.is_dir() and not path.is_symlink():
            raise UsageError("is a directory, expected a file name", where=path)
        return
    if path.name in ("", ".."):
        raise UsageError(
            "is no name that could be replaced",
            where=path,
            hint=f"give the directory's own: {os.path.realpath(path)}",
        )
    _check_ours(path, holds)


def _is_open_file(path: Path) -> bool:
    """Return whether *path* is, or leads to, what ``/proc`` has for an open file: ``/dev/stdout`` does."""
    for _ in range(_MOST_LINKS):
        parent = os.path.realpath(path.parent)
        if parent.startswith("/proc/") and os.path.basename(parent) == "fd":
            return True
        if not path.is_symlink():
            return False
        path = Path(parent, os.readlink(path))
    return False


@contextlib.contextmanager
def staged_file(path: Path, *, force: bool = False, sync: bool = True) -> Iterator[StagedFile]:
    """Give a new file that becomes *path* when the block ends well, and vanishes when it does not."""
    check_output(path, force=force)
    place = _place(path)
    fd, name, published = -1, None, False
    try:
        with writing(path), signals.held():
            fd, name = _open_staging(path)
        try:
            yield StagedFile(fd, name if name is not None else f"/proc/{os.getpid()}/fd/{fd}")
        except HostError as error:  # of who writes to the number
            error.where = error.where or str(path)
            raise
        with writing(path):
            if sync:
                naming.sync_file(fd)
            with signals.held() as hold:
                _check_place(path, place)
                _settle(path)
                _publish(fd, name, path, force=force, sync=sync)
                name, published, hold.done = None, True, True
    finally:
        with signals.held() as hold:
            hold.done = published
            if name is not None:
                with contextlib.suppress(OSError):
                    os.unlink(_name_now(name, fd))
            if fd >= 0:
                os.close(fd)


def _place(path: Path) -> tuple[int, int]:
    """Return what tells the directory of *path* from one that takes its place, as a symbolic link, while we work."""
    with writing(path):
        status = os.stat(path.parent)
    return status.st_dev, status.st_ino


def _check_place(path: Path, was: tuple[int, int]) -> None:
    """Raise :class:`HostError` unless *path* is still in the directory it *was* in when it was checked."""
    if _place(path) != was:
        raise HostError("another directory took its place meanwhile; nothing was put there", where=path.parent)


def _settle(path: Path) -> None:
    """Put right what a killed run has left half changed of *path*, in whose place another is about to come."""
    if os.path.lexists(leftovers.journal_of(path)):
        from rumpbundle.host import rollback

        rollback.settle(path)


def _name_now(name: str, fd: int) -> str:
    """Return where *name*, our open *fd*, is now: its directory may have been moved away."""
    with contextlib.suppress(OSError):
        if not os.path.lexists(name):
            moved = os.readlink(f"/proc/self/fd/{fd}")
            if os.path.samestat(os.lstat(moved), os.fstat(fd)):
                return moved
    return name


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong inside the block while *path* is made or gets its name into an error that says so."""
    try:
        yield
    except FileExistsError:
        raise UsageError("already exists (it appeared meanwhile)", where=path) from None
    except OSError as error:
        what = no_room(error) or f"cannot write: {os.strerror(error.errno or 0)}"
        raise HostError(what, where=path) from None


def _open_staging(path: Path) -> tuple[int, str | None]:
    flag = getattr(os, "O_TMPFILE", 0)
    if flag and os.path.exists("/proc/self/fd"):
        with contextlib.suppress(OSError):
            return os.open(path.parent, os.O_RDWR | os.O_CLOEXEC | flag, 0o666), None
    name, fd = leftovers.make(path, leftovers.make_file)
    return fd, name


def _publish(fd: int, name: str | None, path: Path, *, force: bool, sync: bool) -> None:
    """Give the file *fd*, which has no *name* or a temporary one, the name *path*."""
    if name is None and not force:
        _link(fd, path)
    elif name is None:
        # A file without a name cannot replace another in one step: it needs a short-lived name for that.
        with scratch_directory(path) as directory:
            linked = directory / "new"
            _link(fd, linked)
            if sync:
                os.fsync(fd)  # btrfs keeps no record of a file that has no name
            os.replace(linked, path)
    elif force:
        os.replace(name, path)
    else:
        naming.rename_new(Path(name), path)
    if not sync:
        return
    try:
        os.fsync(fd)
        naming.sync_directory(path.parent)
    except BaseException:
        if not force:
            os.unlink(path)
        raise


def _link(fd: int, path: str | Path) -> None:
    """Give the nameless file *fd* the name *path*; fails if that exists."""
    # os.link calls linkat(AT_SYMLINK_FOLLOW) only if given a directory descriptor; the path is absolute, any will do.
    os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)


@contextlib.contextmanager
def staged_directory(
    path: Path, holds: tuple[str, ...] = ("*",), *, force: bool = False, sync: bool = True
) -> Iterator[Path]:
    """Give a new directory that becomes *path* when the block ends well, and vanishes when it does not.

    With *force* an existing file or directory of that name is replaced, its old content removed last; but not a
    directory with anything in it that matches none of *holds*: somebody's own, and a slip of the hand.
    """
    check_output(path, holds, force=force)
    place = _place(path)
    with scratch_directory(path) as scratch:
        new = scratch / "new" / path.name
        with writing(path):
            new.mkdir(parents=True)
        yield new
        with writing(path):
            _check_place(path, place)
            _settle(path)
            if sync:
                naming.sync_below(scratch)
            with signals.held() as hold:
                # Looked at again: what was put into it meanwhile is not ours to remove.
                _check_ours(path, holds)
                _publish_directory(scratch, path, force=force, sync=sync)
                hold.done = True
                _discard(scratch)


def _publish_directory(scratch: Path, path: Path, *, force: bool, sync: bool) -> None:
    """Move the directory in ``new`` of *scratch* to *path*, or leave all as it is."""
    new = scratch / "new" / path.name
    if force and os.path.lexists(path):
        if not naming.exchange(new, path):
            _publish_files(scratch, [path], force=True, sync=sync)
            return
    else:
        naming.rename_new(new, path)
    try:
        if sync:
            naming.sync_directory(path.parent)
    except BaseException:
        if os.path.lexists(new):
            naming.exchange(new, path)
        else:
            os.rename(path, new)
        raise


def _check_ours(path: Path, holds: tuple[str, ...]) -> None:
    """Raise :class:`UsageError` if the directory *path* has an entry that is no file named like one of *holds*."""
    if not path.is_dir() or path.is_symlink():
        return
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        if not entry.is_file(follow_symlinks=False) or not any(fnmatchcase(entry.name, each) for each in holds):
            raise UsageError(
                f"holds {entry.name!r}, which is not rumpbundle's, so it is not replaced",
                where=path,
                hint="remove that directory yourself, or give another name",
            )


@contextlib.contextmanager
def staged_kit(path: Path, beside: tuple[Path, ...], *, force: bool = False, sync: bool = True) -> Iterator[Path]:
    """Give a directory in which the block makes files named like *path* and *beside*; then they move there.

    All of them get their place at the end of the block, or none does.
    """
    paths = (path, *beside)
    for each in paths:
        check_output(each, force=force)
    place = _place(path)
    with scratch_directory(path) as scratch:
        new = scratch / "new"
        with writing(path):
            new.mkdir()
        yield new
        with writing(path):
            _check_place(path, place)
            _settle(path)
            if sync:
                naming.sync_below(new)
            with signals.held() as hold, leftovers.alone(path.parent):
                _publish_files(scratch, paths, force=force, sync=sync)
                hold.done = True
                _discard(scratch)


@contextlib.contextmanager
def staged_batch(directory: Path, *, sync: bool = True) -> Iterator[Path]:
    """Give a directory in which the block makes many files and directories; then they move to *directory*.

    They replace what has their names there: all of them, or none if it comes to grief. They are waited for once.
    """
    leftovers.put_right(directory)
    place = _place(directory / "batch")
    with scratch_directory(directory / "batch") as scratch:
        new = scratch / "new"
        with writing(directory):
            new.mkdir()
        yield new
        with writing(directory):
            _check_place(directory / "batch", place)
            paths = [directory / name for name in sorted(os.listdir(new))]
            for each in paths:
                _settle(each)
            if paths and sync:
                naming.sync_file_system(new)
            with signals.held() as hold:
                if paths:
                    _publish_files(scratch, paths, force=True, sync=sync)
                hold.done = True
                _discard(scratch)


def _publish_files(scratch: Path, paths: Sequence[Path], *, force: bool, sync: bool) -> None:
    """Move the files in ``new`` of *scratch* to *paths*: all, or none (:mod:`rumpbundle.host.leftovers`)."""
    old = scratch / "old"
    old.mkdir()
    for each in paths:
        os.stat(scratch / "new" / each.name)
        if force and os.path.lexists(each):
            with contextlib.suppress(OSError):  # a file system without hard links, or one nobody may link: see below
                naming.link(each, old / each.name)
    leftovers.write_journal(scratch, [each.name for each in paths])
    if sync:
        for directory in (old, scratch, scratch.parent):
            naming.sync_directory(directory)
    try:
        for each in paths:
            if force and os.path.lexists(each) and not os.path.lexists(old / each.name):
                os.rename(each, old / each.name)
        for each in paths:
            if force:
                os.rename(scratch / "new" / each.name, each)
            else:
                naming.rename_new(scratch / "new" / each.name, each)
        if sync:
            naming.sync_directory(scratch.parent)
    except BaseException:
        leftovers.undo(scratch, complete=True)
        raise


def _discard(scratch: Path) -> None:
    """Remove *scratch*, if it is there; what cannot be done now the next run does."""
    with contextlib.suppress(OSError):
        leftovers.discard(scratch)


@contextlib.contextmanager
def scratch_directory(path: Path) -> Iterator[Path]:
    """Give a new directory beside *path* that is gone at the end, whenever a signal comes.

    It stays only if what its journal tells cannot be undone now: then the old files are in it.

    Raises:
        HostError: it cannot be made.
    """
    name, fd = "", -1
    try:
        with writing(path), signals.held():
            name, fd = leftovers.make(path, leftovers.make_directory)
        yield Path(name)
    finally:
        with signals.held() as hold:
            # Gone already: what was made has its place.
            name = name and _name_now(name, fd)
            hold.done = bool(name) and not os.path.lexists(name)
            if name and not hold.done:
                _discard(Path(name))
            if fd >= 0:
                os.close(fd)
