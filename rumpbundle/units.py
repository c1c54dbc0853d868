"""Sizes as people read and write them."""

from __future__ import annotations

import re

_UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
LARGEST = 1 << 53


def shown_size(count: int) -> str:
    """Return *count* bytes in the largest unit they fill: exactly where that is short, else to a tenth."""
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count // unit} {name}" if count % unit == 0 else f"{count / unit:.1f} {name}"
    return f"{count} bytes"


class NoSize(ValueError):
    """A text that is no size; *hint* is what may have been meant."""

    def __init__(self, problem: str, hint: str | None = None) -> None:
        super().__init__(problem)
        self.hint = hint


def parsed_size(text: str) -> int:
    """Return the bytes that *text* says: ``512M``, ``1.5G``, or a plain number of them.

    A plain number below a megabyte is not taken: who writes ``128`` means 128M.

    Raises:
        NoSize: it says none.
    """
    match = re.fullmatch(r"(\d{1,18})(\.\d{1,9})?\s?([KMGT]?)(?:i?B)?", text.strip(), re.ASCII | re.IGNORECASE)
    fraction = (match[2] or ".0")[1:] if match else ""
    scaled = int(match[1] + fraction) * _FACTORS[match[3].upper()] if match else -1
    size, rest = divmod(scaled, int("1" + "0" * len(fraction)))
    if not match or rest:
        raise NoSize(f"expected a size such as 512M, 2G or 1.5G, got {text!r}")
    if size > LARGEST:
        raise NoSize(f"expected at most {LARGEST >> 40}T, got {text!r}")
    if not match[3] and 0 < size < 1 << 20:
        bytes_meant = f" or {size >> 10}K" if size % (1 << 10) == 0 else ""
        raise NoSize(f"{size} is a number of bytes, and too small", f"did you mean {size}M{bytes_meant}?")
    return size
