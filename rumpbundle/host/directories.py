"""Directories for outputs: made where they are missing, and gone again if nothing came of it."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from rumpbundle.errors import HostError, InputError

_MACHINES = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""What a machine says of a name that is none of the caller's mistakes."""


def make_directory(path: Path, *, parents: bool = False) -> bool:
    """Make the directory *path* for outputs unless it is there, and return whether it was made.

    Raises:
        InputError: something else has that name or that of a parent, or it is no usable name.
        HostError: this machine does not let us make it.
    """
    try:
        if path.is_dir():
            return False
        path.mkdir(parents=parents)
    except FileExistsError:
        if path.is_dir():  # another made it meanwhile
            return False
        raise InputError(
            "is a symbolic link that leads nowhere" if path.is_symlink() else "is there, and is no directory",
            where=path,
            hint="that is the directory for all that is written",
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is no usable name"
        kind = HostError if getattr(error, "errno", None) in _MACHINES else InputError
        hint = f"make {path.parent} first" if isinstance(error, FileNotFoundError) else None
        raise kind(f"cannot be made a directory: {reason}", where=path, hint=hint) from None
    return True


@contextlib.contextmanager
def filled_directory(path: Path) -> Iterator[None]:
    """Make the directory *path* if it is missing, and remove it at the end if nobody has put anything into it."""
    made = make_directory(path)
    try:
        yield
    finally:
        if made:
            with contextlib.suppress(OSError):
                path.rmdir()
