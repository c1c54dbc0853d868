"""A file the user gave us: opened anew for each use, and always in the state in which it was first seen."""

from __future__ import annotations

import errno
import os
import stat
import struct

from rumpbundle.errors import HostError, InputError

Fingerprint = bytes
"""Packed, for there may be 200,000.

Device, inode, size, mtime; ctime; links, mode and owner: if they differ later, the file changed under us.

ctime tells also of a writer who sets mtime back, as rsync does. But a new link or mode moves it, too, and changes no
byte: so it may differ if one of these does. (Only to hash the file once more would tell better, and cost as much as
to read it.)
"""


_PACKED = struct.Struct("<5Q4I")
_ORIGIN = struct.Struct("<2Q")
_CTIME = slice(32, 40)
_NUMBER = (1 << 64) - 1


def _fingerprint(status: os.stat_result) -> Fingerprint:
    return _PACKED.pack(
        status.st_dev & _NUMBER,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns & _NUMBER,  # before 1970 or after 2554, too
        status.st_ctime_ns & _NUMBER,
        status.st_nlink & 0xFFFFFFFF,
        status.st_mode,
        status.st_uid,
        status.st_gid,
    )


def _is_same(first: Fingerprint, now: Fingerprint) -> bool:
    if first == now:
        return True
    before, after = slice(_CTIME.start), slice(_CTIME.stop, None)
    return first[before] == now[before] and first[after] != now[after]


def close(fd: int) -> None:
    """Close *fd*, which was only read: what the system complains of now (EIO) has been told while reading, or not."""
    try:  # noqa: SIM105 - contextlib.suppress costs more than the call, and there may be 200,000 files
        os.close(fd)
    except OSError:
        pass


def fill(fd: int, offset: int, view: memoryview) -> int:
    """Fill *view* from *offset* of *fd* as far as the file goes, and return how far; without POSIX by a copy."""
    done = 0
    while done < len(view):
        if hasattr(os, "preadv"):
            count = os.preadv(fd, [view[done:]], offset + done)
        else:
            data = os.pread(fd, len(view) - done, offset + done)
            count = len(data)
            view[done : done + count] = data
        if not count:
            break
        done += count
    return done


_KINDS = {
    stat.S_IFDIR: "is a directory",
    stat.S_IFIFO: "is a FIFO",
    stat.S_IFCHR: "is a character device",
    stat.S_IFBLK: "is a block device",
    stat.S_IFSOCK: "is a socket",
}


_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0)


class InputFile:
    """A regular file the user gave us, as it was when first looked at.

    It is opened anew for each use (a bundle may hold 50,000 of them), never written, and checked against
    its first state after every read: a file that changes meanwhile is an :class:`InputError`, not a
    corrupt image.
    """

    __slots__ = ("_above", "_name", "fingerprint", "size")

    def __init__(self, path: str | os.PathLike[str], status: os.stat_result | None = None, above: str = "") -> None:
        """Look at *path*; *status* spares the look to a caller that has just ``lstat``-ed it.

        With *above*, a directory's name with a separator at its end, *path* is a name in that: the files of a
        directory share it.

        Raises:
            InputError: missing, unreadable, or not a regular file.
        """
        self._above = above
        self._name = os.fspath(path)
        if status is None:
            try:
                status = os.stat(self.path)
            except (OSError, ValueError) as error:
                raise _cannot_read(self.path, error) from None
        kind = stat.S_IFMT(status.st_mode)
        if kind != stat.S_IFREG:
            raise InputError(f"{_KINDS.get(kind, 'is no file')}, expected a regular file", where=self.path)
        self.size = status.st_size
        self.fingerprint = _fingerprint(status)
        if not self.size and self._holds_something():
            raise InputError(
                "says it is empty but is not, as files of /proc do",
                where=self.path,
                hint="copy it, and give the copy",
            )

    @property
    def path(self) -> str:
        return self._above + self._name

    @property
    def origin(self) -> tuple[int, int]:
        """Its device and inode number."""
        return _ORIGIN.unpack_from(self.fingerprint)

    @property
    def state(self) -> tuple[int, int, int, int]:
        """Size, mtime, ctime and inode, as they were when it was first looked at."""
        _, inode, size, mtime, ctime, *_ = _PACKED.unpack(self.fingerprint)
        return size, mtime, ctime, inode

    def __repr__(self) -> str:
        return f"InputFile({self.path!r}, size={self.size})"

    def _holds_something(self) -> bool:
        """Whether there is a byte to read; a file that cannot be read says so when it is."""
        try:
            fd = os.open(self.path, _OPEN_FLAGS)
        except OSError:
            return False
        try:
            return bool(os.read(fd, 1))
        except OSError:
            return False
        finally:
            close(fd)

    def open(self) -> int:
        """Return a file descriptor for reading, which the caller closes.

        Raises:
            InputError: the file is gone, unreadable, or not the one first seen.
        """
        fd = self._open()
        try:
            self.check(fd)
        except BaseException:
            close(fd)
            raise
        return fd

    def _open(self) -> int:
        try:
            return os.open(self.path, _OPEN_FLAGS)
        except (OSError, ValueError) as error:
            raise _cannot_read(self.path, error) from None

    def check(self, fd: int) -> None:
        """Raise :class:`InputError` unless *fd* is this file, in the state first seen."""
        if not _is_same(self.fingerprint, _fingerprint(os.fstat(fd))):
            raise InputError("changed while it was read", where=self.path, hint="bundle it when nothing writes to it")

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly *length* bytes at *offset*.

        Raises:
            InputError: the file changed, ends before, or cannot be read.
        """
        fd = self._open()
        try:
            try:
                data = os.pread(fd, length, offset)
            except OSError:
                data = b""
            if len(data) != length:
                data = self.read_from(fd, offset, length)  # which says why, or reads on
            # One look suffices, and after reading it sees every change: 50,000 small files are common.
            if _fingerprint(os.fstat(fd)) != self.fingerprint:
                self.check(fd)
            return data
        finally:
            close(fd)

    def read_from(self, fd: int, offset: int, length: int) -> bytes:
        """Return exactly *length* bytes at *offset* of *fd*, an open descriptor of this file."""
        parts: list[bytes] = []
        while length:
            try:
                part = os.pread(fd, length, offset)
            except OSError as error:
                self.check(fd)  # what took the file's place, as a FIFO, may not be readable at all
                raise _cannot_read(self.path, error) from None
            if not part:
                raise InputError("changed while it was read (it is shorter now)", where=self.path)
            if len(part) == length and not parts:
                return part
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return b"".join(parts)


def _cannot_read(path: str, error: Exception) -> InputError | HostError:
    if not isinstance(error, OSError):
        return InputError("is no usable file name", where=path)
    if error.errno == errno.ENOENT:
        return InputError("no such file", where=path)
    if error.errno == errno.EIO:
        return HostError("input/output error while reading", where=path)
    return InputError(f"cannot be read: {os.strerror(error.errno or 0)}", where=path)
