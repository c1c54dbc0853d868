"""Every error rumpbundle raises on purpose, as one tree.

::

    RumpbundleError            exit status
    ├── InputError             2   the caller's input is wrong
    │   ├── UsageError         2   options that contradict each other or name nothing
    │   ├── KernelError        2   a kernel that is none, or cannot boot this way
    │   │   └── FinishedImageError 2   a disk image where a kernel is expected
    │   ├── ConfigError        2   a configuration the guest cannot be given
    │   └── ImageError         2   a finished image that is damaged or not one
    ├── HostError              3   something this machine lacks
    │   └── MissingToolError   3   a program that is not installed
    ├── ToolError              4   a program that failed
    ├── GuestError             5   the guest, or a check, says no
    └── Interrupted            130 a signal asked us to stop

The command line prints ``error: <error>`` and, where there is one, ``hint: <hint>``, and leaves with
``exit_code``. A library caller reads the same facts from ``where``, ``problem`` and ``hint``.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Mapping
from typing import ClassVar


def one_line(text: str) -> str:
    """Return *text* with everything unprintable escaped, so that it stays one line on a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    """Return the code of *character*; one that stands for a byte of a name that is not UTF-8 (PEP 383) as that."""
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def nearest(
    name: str, known: Iterable[str], otherwise: str = "", *, also: Mapping[str, str] | None = None
) -> str | None:
    """Return the hint for a *name* that is none of *known*: the one it looks like, else *otherwise*, if any.

    *also* has what people say for some of them, and what they mean. Capitals make no difference.
    """
    if meant := (also or {}).get(name.lower()):
        return f"did you mean {meant}?"
    # Only who gets an error pays for this import.
    from difflib import get_close_matches

    written = {each.lower(): each for each in known}
    near = get_close_matches(name.lower(), written, 1)
    return f"did you mean {written[near[0]]}?" if near else otherwise or None


class RumpbundleError(Exception):
    """Something went wrong in a way the user can understand.

    *where* names the file, option or JSON path; *problem* says what is wrong there; *hint* what to do.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, problem: str, *, where: str | os.PathLike[str] | None = None, hint: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = None if where is None else os.fspath(where)
        self.hint = hint

    def __str__(self) -> str:
        if self.where is None:
            return one_line(self.problem)
        where = self.where or "''"  # an unset variable of the shell's
        return one_line(f"{where}: {self.problem}")


def no_room(error: OSError) -> str:
    """Return what to say where *error* is for want of room to write to; empty for any other."""
    if error.errno == errno.ENOSPC:
        return "no space left on the output's file system"
    if error.errno == errno.EDQUOT:
        return "the disk quota on the output's file system is used up"
    return ""


NO_MEMORY = "not enough memory"
"""What to say then."""


def is_want_of_memory(error: BaseException) -> bool:
    """Return whether *error* is Python's word for memory it could not get, be it for a module's code.

    Where a part of Python forgets to say so, it complains of itself.
    """
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, ImportError) and ("map segment" in text or "allocate memory" in text))
        or (isinstance(error, SystemError) and "without exception set" in text)
        or (isinstance(error, SyntaxError) and address_space() < sys.maxsize)  # of code that does not fit
    )


def address_space() -> int:
    """Return how many bytes of memory this process may have at most: a very large number if nobody has set one."""
    try:
        import resource
    except ImportError:  # Windows, browsers
        return sys.maxsize
    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    return min((limit for limit in limits if limit != resource.RLIM_INFINITY), default=sys.maxsize)


class InputError(RumpbundleError):
    """The caller's input is wrong."""


class UsageError(InputError):
    """Options that contradict each other, or name something that does not exist."""


class KernelError(InputError):
    """A file that is no kernel, or a kernel that cannot boot in the way asked for."""


class FinishedImageError(KernelError):
    """A finished disk image where a kernel is expected."""


class ConfigError(InputError):
    """A configuration that is malformed, or that the guest cannot be given."""


class ImageError(InputError):
    """A finished image that is damaged, hostile, or not an image."""


class HostError(RumpbundleError):
    """This machine lacks something: space, a permission, a program."""

    exit_code = 3


class MissingToolError(HostError):
    """A program that is needed here is not installed; the hint names its package."""


class ToolError(RumpbundleError):
    """An external program failed."""

    exit_code = 4


class GuestError(RumpbundleError):
    """The guest did not do what was expected, or a check says no; *console* holds the last lines it said, if any."""

    exit_code = 5

    def __init__(
        self,
        problem: str,
        *,
        where: str | os.PathLike[str] | None = None,
        hint: str | None = None,
        console: tuple[str, ...] = (),
    ) -> None:
        super().__init__(problem, where=where, hint=hint)
        self.console = console


class Interrupted(RumpbundleError):
    """A signal asked us to stop."""

    exit_code = 130

    def __init__(self) -> None:
        super().__init__("interrupted")
