"""Standard output and error: the only place that writes to them, and what is written is safe on any terminal.

Nothing but text and line ends goes out: a name with an escape sequence, a control character or one that turns the
direction of writing is shown by its code. Standard output carries the result, so it must take it: a full disk or a
closed descriptor is an error. Standard error carries the story, which nobody need hear.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from typing import IO, Any

from rumpbundle.errors import HostError, RumpbundleError, one_line


class ReaderGone(Exception):
    """Nobody reads our output any more. (Click would make an exit of a BrokenPipeError.)"""


def prepare() -> None:
    """Make all three streams ready: open, and with a way to show every character."""
    for fd, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            # Else the next file that is opened, perhaps the output, would take the place of what was closed. Read
            # from, or written to, it fails as if it were closed; what stderr would say goes nowhere.
            os.open(os.devnull, os.O_RDONLY if name == "stdout" else os.O_WRONLY)
            setattr(sys, name, open(fd, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def settle() -> None:
    """Write what waits; what nobody takes any more is dropped, so that Python does not complain of it at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                fd = stream.fileno()
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, fd)
                os.close(nowhere)


def safe(text: str) -> str:
    """Return *text* with everything unprintable escaped but its line ends."""
    return "\n".join(map(one_line, text.split("\n")))


def say(text: str, *, styled: bool = False) -> None:
    """Print *text* and a line end to standard output; *styled* text is safe already, and may have colours."""
    with writing() as out:
        if not styled:
            out.write(f"{safe(text)}\n")
            return
        import click

        click.echo(text, file=out)


def say_path(path: str | os.PathLike[str]) -> None:
    """Print the name of a file: for people as text, for programs its very bytes."""
    if sys.stdout.isatty() or not hasattr(sys.stdout, "buffer"):
        say(os.fspath(path))
    else:
        say_bytes(os.fsencode(path) + b"\n")


def say_json(value: Any) -> None:
    """Print *value* as JSON, in ASCII."""
    say(json_text(value, indent=1))


_HALVES = re.compile(
    r"\\\\|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|\\udc(?P<byte>[89a-f][0-9a-f])|\\u(?P<half>d[89a-f][0-9a-f]{2})"
)
"""A backslash, a pair of surrogates, or half of one, in a JSON text."""


def json_text(value: Any, indent: int | None = None) -> str:
    r"""Return *value* as JSON in ASCII. Half of a surrogate pair, which strict readers refuse, becomes its escape:
    ``\xff`` for the byte of a name that is not UTF-8 (PEP 383).
    """
    import json

    def escaped(found: re.Match[str]) -> str:
        byte, half = found["byte"], found["half"]
        return rf"\\x{byte}" if byte else rf"\\u{half}" if half else found[0]

    text = json.dumps(value, indent=indent)
    return _HALVES.sub(escaped, text) if r"\ud" in text else text


def say_bytes(data: bytes) -> None:
    """Write *data* to standard output as it is."""
    with writing() as out:
        out.buffer.write(data)


def tell(text: str) -> None:
    """Print *text* as one line to standard error, if that is still there."""
    try:
        sys.stderr.write(f"{one_line(text)}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        settle()


def tell_error(error: RumpbundleError, where: str = "") -> None:
    """Print *error*, and its hint, to standard error; *where* names what it is about."""
    tell(f"error: {where}: {error}" if where else f"error: {error}")
    if error.hint:
        tell(f"hint: {error.hint}")


@contextlib.contextmanager
def writing() -> Iterator[Any]:
    """Give standard output, and send what was written when the block ends.

    Raises:
        HostError: it cannot be written; ReaderGone: who read it has gone.
    """
    out: IO[str] = sys.stdout
    try:
        yield out
        out.flush()
    except BrokenPipeError:
        raise ReaderGone from None
    except OSError as error:
        raise unwritable(error, "standard output") from None


def unwritable(error: OSError, where: str | os.PathLike[str]) -> HostError:
    """Return what to say of *where*, which could not be written for *error*."""
    closed = error.errno == errno.EBADF
    return HostError("is closed" if closed else f"cannot be written: {os.strerror(error.errno or 0)}", where=where)
