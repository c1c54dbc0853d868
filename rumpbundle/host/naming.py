"""How files get their names for good: in one step where the system can, and on the disk before they are relied on.

References: rename(2), ``RENAME_EXCHANGE`` and ``RENAME_NOREPLACE``; fsync(2), whose notes say that a file's name
needs an fsync of its directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

_NOREPLACE, _EXCHANGE = 1, 2
_AT_FDCWD = -100
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EXDEV)


def exchange(one: Path, two: Path) -> bool:
    """Let two files or directories exchange their names in one step; False where the system cannot."""
    return _rename(one, two, _EXCHANGE)


def rename_new(old: Path, new: Path) -> None:
    """Rename *old* to *new*.

    Raises:
        FileExistsError: there is a *new*.
    """
    if _rename(old, new, _NOREPLACE):
        return
    if os.path.lexists(new):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new))
    if stat.S_ISREG(os.lstat(old).st_mode):
        with contextlib.suppress(PermissionError):  # as a file system without hard links says it
            link(old, new)
            os.unlink(old)
            return
    os.rename(old, new)


def link(old: Path, new: Path) -> None:
    """Give the file *old* the further name *new*.

    Raises:
        PermissionError: neither the system nor the file system has such names, or nobody may give one here.
        OSError: there is a *new*, or it cannot be given.
    """
    if not hasattr(os, "link"):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(new))
    os.link(old, new, follow_symlinks=False)


def _rename(old: Path, new: Path, how: int) -> bool:
    """Call renameat2; False where the system or the file system has no such thing."""
    call = _linux_call("renameat2")
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), how) == 0:
        return True
    number = _errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(new))


def _linux_call(name: str) -> Callable[..., int] | None:
    """Return a function of Linux's C libraries that Python does not offer; None where there is none.

    Nobody else has them, and where programs are WebAssembly the search takes milliseconds.
    """
    if sys.platform != "linux":
        return None
    try:
        import ctypes
    except ImportError:
        return None
    found: Callable[..., int] | None = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    return found


def _errno() -> int:
    import ctypes

    return ctypes.get_errno()


def sync_file(fd: int) -> None:
    """Wait until the content of *fd* is on the disk."""
    getattr(os, "fdatasync", os.fsync)(fd)


def sync_below(path: Path) -> None:
    """Wait until the file *path*, or the directory and the files in it, are on the disk."""
    if path.is_dir():
        for each in sorted(path.iterdir()):
            sync_below(each)
        sync_directory(path)
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync_file(fd)
    finally:
        os.close(fd)


def sync_file_system(path: Path) -> None:
    """Wait until everything in the file system of the directory *path* is on the disk, or at least what is below it.

    For many files that is one wait in the place of many.
    """
    call = _linux_call("syncfs")
    if call is None:
        sync_below(path)
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if call(fd) != 0:
            number = _errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(fd)


def sync_directory(path: Path) -> None:
    """Wait until the names in the directory *path* are on the disk, where a directory can be told so."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        return  # who may write into it need not be allowed to list it
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(fd)
