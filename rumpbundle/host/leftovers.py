"""Names for what is not finished, and how the next run puts right what a killed one has left under them.

Such a file or directory stands beside the output as ``.NAME.HOST-BOOT.PID-NUMBER.part``, and who works on it holds a
lock on it, which the kernel lets go however the process ends. Whoever writes into that directory next removes what
nobody holds, if it was made on this machine: a lock says nothing about other machines.

Files of a kit that stand beside each other cannot all take their names at once. So the old ones are linked into the
directory ``old`` of the unfinished one, and a journal there says which files come: by it a run that was killed in
between is undone, unless all of them had come.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rumpbundle.host import environment, signals

JOURNAL = "journal.json"
_LONGEST = 100
_NAME = re.compile(r"\..*\.(?P<host>\w*)-(?P<boot>\w*)\.\d+-\d+\.part", re.DOTALL)
_NUMBERS = itertools.count()


def _place() -> tuple[str, str]:
    """Return what tells this machine from others, and this start of it from the one before."""
    return re.sub(r"\W", "_", os.uname().nodename, flags=re.ASCII)[:24], environment.boot_id()[:8]


def make(path: Path, maker: Callable[[str], int]) -> tuple[str, int]:
    """Make something unfinished for *path* by *maker*; return its name and the descriptor *maker* gives, locked."""
    host, boot = _place()
    stem = os.fsdecode(os.fsencode(path.name)[:_LONGEST])
    while True:
        name = str(path.parent / f".{stem}.{host}-{boot}.{os.getpid()}-{next(_NUMBERS)}.part")
        try:
            fd = maker(name)
        except FileExistsError:
            continue
        with contextlib.suppress(OSError):  # a file system without locks
            _lock(fd)
        if _is_still(name, fd):
            return name, fd
        os.close(fd)  # swept before it was locked


def _lock(fd: int, *, wait: bool = True) -> None:
    """Lock *fd* until it is closed.

    Raises:
        OSError: somebody holds it and we shall not *wait*, or there are no locks here.
    """
    try:
        import fcntl
    except ImportError:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK)) from None
    fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


def make_file(name: str) -> int:
    """Make the file *name*; as every file, it gets the mode the user's umask leaves."""
    return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def make_directory(name: str) -> int:
    """Make the directory *name*, into which nobody else may look."""
    os.mkdir(name, 0o700)
    try:
        return os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise FileExistsError from None  # swept before it was opened: another one, please
    except BaseException:
        os.rmdir(name)
        raise


def journal_of(path: Path) -> Path:
    """Return the name of the journal of *path*, a file or kit that is changed in place."""
    name = os.fsencode(path.name)
    if len(name) > 200:
        import hashlib

        name = name[:100] + hashlib.sha256(name).hexdigest().encode()
    return path.parent / f".{os.fsdecode(name)}.rollback"


def put_right(directory: Path, name: str | None = None) -> None:
    """Restore what killed runs of ours have left half done in *directory*, and remove the rest of theirs.

    With *name* only what concerns the output of that name. What cannot be put right is left for somebody who can.
    """
    try:
        found = sorted(each for each in os.listdir(directory) if each.endswith(".part") and _is_ours(each))
    except OSError:
        return
    for each in found:
        with contextlib.suppress(OSError), _nobodys(directory / each):
            if name is None or name in _journal(directory / each):
                discard(directory / each)


def _is_ours(name: str) -> bool:
    match = _NAME.fullmatch(name)
    host, boot = _place()
    return match is not None and (match["host"] == host or match["boot"] == boot != "")


@contextlib.contextmanager
def _nobodys(path: Path) -> Iterator[None]:
    """Hold the lock of *path*, something unfinished of this user's.

    Raises:
        OSError: somebody else holds it, it is another user's, or it is gone.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        _lock(fd, wait=False)
        if not _is_still(str(path), fd) or os.fstat(fd).st_uid != os.geteuid():
            raise PermissionError
        yield
    finally:
        os.close(fd)


def _is_still(name: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.lstat(name), os.fstat(fd))
    except FileNotFoundError:
        return False


def discard(path: Path) -> None:
    """Undo what the unfinished *path* has begun, and remove it.

    Raises:
        OSError: that is not possible; then it stays.
    """
    if path.is_dir():
        undo(path)
        import shutil

        shutil.rmtree(path)
    else:
        path.unlink()


_PATIENCE = 5.0
"""Seconds to wait for another run to give its names: whoever may read a directory may hold it for ever."""


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Let no other run of ours give names to a kit's files in *directory* meanwhile, where there are locks."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            deadline = environment.monotonic() + _PATIENCE
            while not _is_locked(fd) and environment.monotonic() < deadline:
                signals.check()
                time.sleep(0.01)
        yield


def _is_locked(fd: int) -> bool:
    """Lock *fd*, and return whether that was possible; another's lock is in the way else."""
    try:
        _lock(fd, wait=False)
    except BlockingIOError:
        return False
    return True


# -- the journal -----------------------------------------------------------------------------------------

Mark = list[int]
"""What tells a file from others that had its name: inode and, but for a directory, mtime."""


def mark(path: Path) -> Mark | None:
    """Return the mark of what *path* names now, None if that is nothing."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return [status.st_ino] if stat.S_ISDIR(status.st_mode) else [status.st_ino, status.st_mtime_ns]


def write_journal(directory: Path, names: Sequence[str]) -> None:
    """Note in the unfinished *directory* that the files *names* are about to leave its ``new`` for their places."""
    draft = directory / "draft.json"
    with draft.open("x", encoding="ascii") as file:
        json.dump({name: mark(directory / "new" / name) for name in names}, file)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(directory / JOURNAL)


def _journal(directory: Path) -> dict[str, Mark]:
    """Return the marks of the files that come, by name; none if there is no journal."""
    try:
        found = json.loads((directory / JOURNAL).read_text("ascii"))
    except (OSError, ValueError):
        return {}
    names = found.keys() if isinstance(found, dict) else ()
    return {name: found[name] for name in names if re.fullmatch(r"(?!\.{0,2}$)[^/\0]+", name)}


def undo(directory: Path, *, complete: bool = False) -> None:
    """Give the names in the journal of the unfinished *directory* back to the old files, unless all new have come.

    With *complete* they go back also then. A file somebody else has put there meanwhile stays.

    Raises:
        OSError: that is not possible.
    """
    coming = _journal(directory)
    there = {name: mark(directory.parent / name) for name in coming}
    if coming and (complete or there != coming):
        for name, new in coming.items():
            old = directory / "old" / name
            if there[name] not in (None, new):
                continue
            if os.path.lexists(old):
                os.rename(old, directory.parent / name)
            elif there[name] is not None:
                os.unlink(directory.parent / name)
    with contextlib.suppress(FileNotFoundError):
        (directory / JOURNAL).unlink()
