"""Outputs that appear whole under their name or not at all.

A file is written without a name (``O_TMPFILE``) where the file system can do that, so that not even a
crash or SIGKILL leaves anything behind; elsewhere under a temporary name in the same directory. It gets
its name in one step at the end. A directory is filled under a temporary name and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import HostError, InputError, UsageError


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file being written: *fd* for us, *path* for external programs (it names the same file)."""

    fd: int
    path: str


def check_free(path: Path, *, force: bool) -> None:
    """Raise unless *path* may be written: it is new or *force* is given, in a directory that exists.

    Raises:
        UsageError: it exists and *force* is not given, or it is a device, FIFO or socket.
        InputError: its directory does not exist.
        HostError: its directory is not writable.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UsageError(
                "is no regular file; it would be replaced, not written to",
                where=path,
                hint="bundle to a file, then copy that: dd if=FILE of=DEVICE bs=4M conv=fsync",
            )
        if os.path.lexists(path) and not force:
            raise UsageError("already exists", where=path, hint="give --force to overwrite it, or -o another name")
        parent = path.parent
        if not parent.exists():
            raise InputError("no such directory", where=parent, hint="make it first, or give another name with -o")
        if not parent.is_dir():
            raise InputError("is not a directory", where=parent)
        if not os.access(parent, os.W_OK | os.X_OK):
            raise HostError("the directory is not writable", where=parent)
    except (ValueError, OSError) as error:
        raise InputError("is no usable file name", where=path) from error


@contextlib.contextmanager
def staged_file(path: Path, *, force: bool = False) -> Iterator[StagedFile]:
    """Give a new file that becomes *path* when the block ends well, and vanishes when it does not."""
    check_free(path, force=force)
    if path.is_dir() and not path.is_symlink():
        raise UsageError("is a directory, expected a file name", where=path)
    fd, name = _open_staging(path)
    try:
        yield StagedFile(fd, name if name is not None else f"/proc/{os.getpid()}/fd/{fd}")
        try:
            _publish(fd, name, path, force=force)
        except FileExistsError:
            raise UsageError("already exists (it appeared meanwhile)", where=path) from None
        except OSError as error:
            raise HostError(f"cannot write: {os.strerror(error.errno or 0)}", where=path) from None
        name = None
    finally:
        os.close(fd)
        if name is not None:
            with contextlib.suppress(OSError):
                os.unlink(name)


def _open_staging(path: Path) -> tuple[int, str | None]:
    mode = 0o666
    try:
        flag = getattr(os, "O_TMPFILE", 0)
        if flag and os.path.exists("/proc/self/fd"):
            with contextlib.suppress(OSError):
                return os.open(path.parent, os.O_RDWR | os.O_CLOEXEC | flag, mode), None
        fd, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise HostError("no space left on the output's file system", where=path) from None
        raise HostError(f"cannot write: {os.strerror(error.errno or 0)}", where=path) from None
    umask = os.umask(0)
    os.umask(umask)
    os.fchmod(fd, mode & ~umask)
    return fd, name


def _publish(fd: int, name: str | None, path: Path, *, force: bool) -> None:
    if name is None:
        if not force:
            _link(fd, path)
            return
        # A file without a name cannot replace another in one step: it needs a short-lived name for that.
        with _scratch_directory(path) as directory:
            linked = directory / "new"
            _link(fd, linked)
            os.replace(linked, path)
    elif force:
        os.replace(name, path)
    else:
        os.link(name, path)
        os.unlink(name)


def _link(fd: int, path: str | Path) -> None:
    """Give the nameless file *fd* the name *path*; fails if that exists."""
    # os.link calls linkat(AT_SYMLINK_FOLLOW) only if given a directory descriptor; the path is absolute, any will do.
    os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)


@contextlib.contextmanager
def staged_directory(path: Path, holds: tuple[str, ...] = ("*",), *, force: bool = False) -> Iterator[Path]:
    """Give a new directory that becomes *path* when the block ends well, and vanishes when it does not.

    With *force* an existing file or directory of that name is replaced, its old content removed last; but not a
    directory with anything in it that matches none of *holds*: somebody's own, and a slip of the hand.
    """
    check_free(path, force=force)
    _check_ours(path, holds)
    with _scratch_directory(path) as staging:
        new = staging / "new"
        new.mkdir()
        yield new
        if force and os.path.lexists(path):
            os.rename(path, staging / "old")
        try:
            os.rename(new, path)
        except OSError as error:
            if os.path.lexists(staging / "old"):
                os.rename(staging / "old", path)
            raise HostError(f"cannot write: {os.strerror(error.errno or 0)}", where=path) from None


def _check_ours(path: Path, holds: tuple[str, ...]) -> None:
    """Raise :class:`UsageError` if the directory *path* has an entry that is no file named like one of *holds*."""
    if not path.is_dir() or path.is_symlink():
        return
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        if not entry.is_file(follow_symlinks=False) or not any(fnmatchcase(entry.name, each) for each in holds):
            raise UsageError(
                f"holds {entry.name!r}, which is not rumpbundle's, so it is not replaced",
                where=path,
                hint="remove that directory yourself, or give another name with -o",
            )


@contextlib.contextmanager
def staged_kit(path: Path, beside: tuple[Path, ...], *, force: bool = False) -> Iterator[Path]:
    """Give a directory in which the block makes files named like *path* and *beside*; then they move there.

    All of them get their place at the end of the block, or none does.
    """
    paths = (path, *beside)
    for each in paths:
        check_free(each, force=force)
        if each.is_dir() and not each.is_symlink():
            raise UsageError("is a directory, expected a file name", where=each)
    with _scratch_directory(path) as staging:
        new = staging / "new"
        new.mkdir()
        yield new
        try:
            for each in paths:
                os.replace(new / each.name, each)
        except OSError as error:
            for each in paths:
                if not os.path.lexists(new / each.name):
                    each.unlink(missing_ok=True)
            raise HostError(f"cannot write: {os.strerror(error.errno or 0)}", where=path) from None


@contextlib.contextmanager
def _scratch_directory(path: Path) -> Iterator[Path]:
    """Give a new directory beside *path* that is gone at the end, whenever a signal comes.

    Raises:
        HostError: it cannot be made.
    """
    directory = None
    try:
        with _signals_held():
            directory = tempfile.mkdtemp(prefix=f".{path.name[:100]}.", suffix=".part", dir=path.parent)
        yield Path(directory)
    except OSError as error:
        if directory is not None:
            raise
        raise HostError(f"cannot write: {os.strerror(error.errno or 0)}", where=path) from None
    finally:
        with _signals_held():
            if directory is not None:
                shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Let the signals that stop us wait until the block is done, where there are such signals."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
