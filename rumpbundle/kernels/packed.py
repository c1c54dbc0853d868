"""gzip-compressed kernels, as GRUB's gzio module takes them (RFC 1952)."""

from __future__ import annotations

import contextlib
import zlib

from rumpbundle.disk.content import CHUNK
from rumpbundle.errors import KernelError
from rumpbundle.kernels.view import View

GZIP = b"\x1f\x8b"
LIMIT = 48 << 20
"""A kernel that is larger unpacked is not looked into: memory stays bounded whatever the file claims."""
_UNSUPPORTED_FLAGS = 0xE2
"""Reserved bits, and the header checksum, whose bit GRUB reads as "continued in another file"."""


def is_gzip(view: View) -> bool:
    return view.read(0, 2) == GZIP


def unpack(view: View) -> bytearray:
    """Return what the gzip file *view* holds.

    Raises:
        KernelError: it is damaged, larger than ``LIMIT``, or of a kind GRUB does not take.
    """
    header = view.read(0, 10)
    if len(header) < 10 or view.size < 18:
        raise KernelError("is a truncated gzip file")
    if header[2] != 8 or header[3] & _UNSUPPORTED_FLAGS:
        raise KernelError(
            "is a gzip file of a kind GRUB cannot read", hint="unpack it with gunzip and bundle the result"
        )
    # GRUB takes the size from the last four bytes, and so do we, but believe it only once it came true.
    size = int.from_bytes(view.read(view.size - 4, 4), "little")
    unpacked = bytearray(min(size, LIMIT))
    filled = 0
    inflate = zlib.decompressobj(wbits=31)
    try:
        for chunk in view.chunks(0, view.size, 0):
            while chunk and not inflate.eof:
                part = inflate.decompress(chunk, CHUNK)
                if filled + len(part) > len(unpacked):
                    raise _too_large() if size > LIMIT else _several("is damaged, or a gzip file of several parts")
                unpacked[filled : filled + len(part)] = part
                filled += len(part)
                chunk = inflate.unconsumed_tail
    except zlib.error:
        raise KernelError("is a damaged gzip file") from None
    if not inflate.eof:
        raise KernelError("is a truncated gzip file")
    if filled != size:
        raise _several("is a gzip file with more behind its first part")
    return unpacked


def head(view: View) -> bytes:
    """Return what the gzip file *view* begins with once it is unpacked: nothing if that cannot be told."""
    with contextlib.suppress(zlib.error):
        return zlib.decompressobj(wbits=31).decompress(view.read(0, CHUNK), CHUNK)
    return b""


def _several(what: str) -> KernelError:
    return KernelError(f"{what}, which GRUB cannot read", hint="unpack it with gunzip and bundle the result")


def _too_large() -> KernelError:
    return KernelError(
        f"is a gzip file that unpacks to more than {LIMIT >> 20} MiB, which we do not look into",
        hint="unpack it with gunzip and bundle the result",
    )
