"""What is inside a compressed file, at any offset: gzip, xz, bzip2 or zstd."""

from __future__ import annotations

import bz2
import functools
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from rumpbundle.disk import signatures
from rumpbundle.disk.flat import write_all
from rumpbundle.errors import HostError, ImageError
from rumpbundle.events import Advanced, Finished, Report, Started
from rumpbundle.images.medium import Medium, Run, check_bounds

ENDLESS = 1 << 62
"""The size of what is not unpacked to its end yet."""
_FURTHEST = 64 << 30
"""Bytes unpacked at most. Who has more unpacks the file."""
_EXPANDS = 10_000
_FREE = 1 << 30
"""A file may hold this much, and this many times its size: no disk that somebody ships expands more, a bomb does."""
_STEP = 256 << 10
_FIRST = 4 << 10
"""Bytes of a stream that are read first, then twice as many: what is read too far is copied behind each stream."""
_WINDOW_LOG = 27
_MEMORY = 1 << _WINDOW_LOG
"""What `zstd --long` and `xz -9` need, and no more."""
_BLOCK = 64 << 10
"""Zeros as long and aligned so are left out of the temporary file."""

_MAGICS = {
    "gzip": (b"\x1f\x8b",),
    "xz": (b"\xfd7zXZ\0",),
    "bzip2": (b"BZh",),
    "zstd": (b"\x28\xb5\x2f\xfd", *signatures.ZSTD_SKIPPABLE),
}
"""How a stream begins. A frame that zstd is to skip is one without content."""
UNPACKERS = {"gzip": "gunzip", "xz": "unxz", "bzip2": "bunzip2", "zstd": "unzstd"}


class Decoder(Protocol):
    """What the standard library's decompressors have in common; one reads one stream."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gunzip:
    """zlib's decompressor, made alike to the others: it keeps the input that it could not use yet."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._inflater.eof

    @property
    def needs_input(self) -> bool:
        return not self._inflater.unconsumed_tail and not self.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflater.unused_data

    def decompress(self, data: bytes, max_length: int = 0) -> bytes:
        return self._inflater.decompress(self._inflater.unconsumed_tail + data, max_length)


@functools.cache
def _library() -> Any:
    """Return the module that reads zstd: a file may hold a frame every ten bytes, and to look for it takes time."""
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]  # Python 3.14 and later
    except ImportError:
        from backports import zstd
    return zstd


def _zstd() -> Decoder:
    try:
        zstd = _library()
    except ImportError:
        raise ImageError(
            "is compressed with zstd, which this Python cannot read",
            hint="pip install 'rumpbundle[zstd]', or unpack it",
        ) from None
    made: Any = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})
    return _Guarded(made, zstd.ZstdError)


class _Guarded:
    """A decompressor whose own error is a :class:`zlib.error`, the one that readers know."""

    def __init__(self, decoder: Any, error: type[Exception]) -> None:
        self._decoder = decoder
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        try:
            unpacked: bytes = self._decoder.decompress(data, max_length)
        except (self._error, EOFError, OSError, MemoryError) as error:
            raise zlib.error(str(error) or "it needs too much memory") from None
        return unpacked


_DECODERS: dict[str, Callable[[], Any]] = {
    "gzip": _Gunzip,
    "xz": lambda: _Guarded(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY), lzma.LZMAError),
    "bzip2": lambda: _Guarded(bz2.BZ2Decompressor(), OSError),
    "zstd": _zstd,
}


def decoder(kind: str) -> Decoder:
    """Return what unpacks one stream of *kind*, with :class:`zlib.error` for damage.

    Raises:
        ImageError: no library for it is here.
    """
    made: Decoder = _DECODERS[kind]()
    return made


class Unpacked:
    """What *medium*, compressed as *kind*, holds.

    It is unpacked once, in order and no further than somebody reads, into *fd*, an empty file that the caller keeps
    open. What is zero takes no room there. *report* hears how far it is, in bytes of *medium*.
    """

    def __init__(self, medium: Medium, kind: str, fd: int, report: Report, label: str) -> None:
        self.kind = kind
        self.size = ENDLESS
        self._medium = medium
        self._fd = fd
        self._report = report
        self._label = f"unpacking {label}"
        self.used = 0
        """Bytes of *medium* that were compressed data, once all is unpacked."""
        self._told = 0
        self._position = 0
        self._most = min(_FURTHEST, max(_FREE, _EXPANDS * medium.size))
        self._pieces = self._unpack()
        self._damage: ImageError | None = None

    def finish(self) -> int:
        """Unpack all that is left and return the size of the whole."""
        self.reach(ENDLESS)
        return self.size

    def read(self, offset: int, length: int) -> bytes:
        if offset + length > self._most and self.size == ENDLESS:
            raise self._too_much(f"byte {offset} lies too deep in a compressed image")
        self.reach(offset + length)
        check_bounds(self, offset, length)
        # What ends in zeros ends before in the file.
        parts = os.pread(self._fd, length, offset)
        while len(parts) < length:
            more = os.pread(self._fd, length - len(parts), offset + len(parts))
            parts += more or bytes(length - len(parts))
        return parts

    def runs(self, offset: int = 0, length: int | None = None) -> Iterator[Run]:
        length = self.finish() - offset if length is None else length
        if length:
            yield Run(offset, length, None)

    def reach(self, end: int) -> None:
        """Unpack up to byte *end*, or to where it ends."""
        while self._position < min(end, self.size):
            if self._damage is not None:
                raise self._damage
            try:
                data = next(self._pieces, None)
            except ImageError as error:
                self._damage = error  # a generator that has failed only seems to be at its end
                raise
            if data is None:
                self.size = self._position
                self._report(Finished(self._label))
                return
            if self._position + len(data) > self._most:
                raise self._too_much(f"expands to more than {self._most} bytes")
            self._keep(data)

    def _too_much(self, problem: str) -> ImageError:
        return ImageError(problem, hint=f"unpack it with {UNPACKERS[self.kind]} and look into that")

    def _undecodable(self, error: str) -> ImageError:
        if "memory" in error.lower():  # as liblzma and libzstd say it
            return self._too_much(f"needs more than {_MEMORY >> 20} MiB of memory to be unpacked")
        return ImageError(f"does not decompress: {error}")

    def _keep(self, data: bytes) -> None:
        try:
            for at in range(0, len(data), _BLOCK):
                block = data[at : at + _BLOCK]
                if block.count(0) != len(block):
                    write_all(self._fd, block, self._position + at)
        except OSError as error:
            raise HostError(
                f"cannot be unpacked into a temporary file: {os.strerror(error.errno or 0)}",
                hint="set TMPDIR to a directory with room for it",
            ) from None
        self._position += len(data)

    def _unpack(self) -> Iterator[bytes]:
        """Yield what all streams of the file hold, one after the other; what follows them is not looked at."""
        at = 0
        rest = b""
        while True:
            stream = decoder(self.kind)
            step = _FIRST
            while not stream.eof:
                if stream.needs_input and not rest:
                    rest = self._medium.read(at, min(step, self._medium.size - at))
                    step = min(2 * step, _STEP)
                    if not rest:
                        raise ImageError("is cut off: its compressed data ends too soon")
                    at += len(rest)
                    self._tell(at)
                try:
                    data = stream.decompress(rest, _STEP)
                except zlib.error as error:
                    raise self._undecodable(str(error)) from None
                rest = b""
                if data:
                    yield data
            at, rest = self._following(at, stream.unused_data)
            if not rest:
                return

    def _following(self, at: int, rest: bytes) -> tuple[int, bytes]:
        """Return how far the file was read and *rest* of it, now from where the next stream begins; none at the end.

        Zeros pad xz, in fours and also between streams, and gzip at its end (GNU gzip on tapes).
        """
        end = at - len(rest)
        while True:
            if self.kind in ("xz", "gzip"):
                rest = rest.lstrip(b"\0")
            more = b"" if len(rest) >= 8 else self._medium.read(at, min(_FIRST, self._medium.size - at))
            if not more:
                break
            at += len(more)
            rest += more
        padding = at - len(rest) - end
        if rest.startswith(_MAGICS[self.kind]) and (self.kind == "xz" or not padding):
            return at, rest
        self.used = end if rest or (self.kind == "xz" and padding % 4) else at
        return at, b""

    def _tell(self, done: int) -> None:
        if not self._told:
            self._report(Started(self._label, self._medium.size))
        self._report(Advanced(self._label, done - self._told))
        self._told = done
