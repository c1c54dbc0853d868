"""What this machine and its user say: the only reader of the environment.

Nothing here may reach an output, except ``SOURCE_DATE_EPOCH``, which is there for that.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rumpbundle.errors import HostError, UsageError, address_space

DEFAULT_EPOCH = 315532800
"""1980-01-01T00:00:00Z, the first second FAT can express: every date in an image, unless the user says."""


LAST_EPOCH = 4354819199
"""2107-12-31T23:59:59Z, the last."""


_COMPRESSOR = 4 << 20
"""Bytes: a compressor of level 9, and a piece of 256 KiB as it becomes."""


@contextlib.contextmanager
def threads_needed() -> Iterator[None]:
    """Turn Python's word for a thread that cannot be started inside the block into an error of the machine."""
    try:
        yield
    except RuntimeError as error:
        if "can't start new thread" not in str(error):
            raise
        raise HostError("no thread can be started: too many processes, or too little memory") from None


def check_memory() -> None:
    """Raise :class:`MemoryError` where a limit leaves less than libdeflate may want, which crashes without it."""
    if address_space() < sys.maxsize:
        bytearray(_COMPRESSOR)


def epoch() -> int:
    """Return the time stamp for everything dated in an image, in seconds since 1970 (UTC).

    ``SOURCE_DATE_EPOCH`` if set (https://reproducible-builds.org/specs/source-date-epoch/), raised to 1980.

    Raises:
        UsageError: it is not a number a file system can hold (1980 to 2107).
    """
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return DEFAULT_EPOCH
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > LAST_EPOCH:
        raise UsageError(
            f"expected seconds since 1970, at most {LAST_EPOCH} (the end of 2107), got {text!r}",
            where="SOURCE_DATE_EPOCH",
        )
    return max(int(text), DEFAULT_EPOCH)


def cache_directory() -> Path:
    """Return where this user's caches live (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if base.startswith("/") else Path(os.path.expanduser("~")) / ".cache"
    return root / "rumpbundle"


def find_program(name: str) -> str | None:
    """Return the path of *name* on PATH, or in the sbin directories a user's PATH often lacks."""
    path = os.environ.get("PATH", os.defpath)
    # Not shutil.which: that module takes as long to import as a small bundle to plan.
    directories = (
        [name]
        if os.path.dirname(name)
        else [
            os.path.join(directory, name)
            for directory in (*path.split(os.pathsep), "/usr/local/sbin", "/usr/sbin", "/sbin")
        ]
    )
    return next((each for each in directories if os.path.isfile(each) and os.access(each, os.X_OK)), None)


@contextlib.contextmanager
def scratch_directory() -> Iterator[Path]:
    """Give a new directory that is ours whatever the umask, and removed in the end."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="rumpbundle-") as directory:
        os.chmod(directory, 0o700)
        yield Path(directory)


def monotonic() -> float:
    """Return seconds from an arbitrary start: for deadlines, never for an output."""
    return time.monotonic()


def boot_id() -> str:
    """Return what tells one start of this machine from the next (Linux); empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def start_in_utf8() -> None:
    """Start anew in Python's UTF-8 mode where the locale has another encoding.

    Names and words are bytes, the same ones in an image whatever the locale calls them. What is printed stays in the
    terminal's encoding.
    """
    if sys.getfilesystemencoding() == "utf-8" or sys.flags.ignore_environment or not sys.executable:
        return
    encoding = sys.stdout.encoding if sys.stdout is not None else "ascii"
    changed = os.environ | {"PYTHONUTF8": "1", "PYTHONIOENCODING": f"{encoding}:backslashreplace"}
    os.execve(sys.executable, sys.orig_argv, changed)
