"""Sizes as people read them."""

from __future__ import annotations

_UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def shown_size(count: int) -> str:
    """Return *count* bytes in the largest unit they fill: exactly where that is short, else to a tenth."""
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count // unit} {name}" if count % unit == 0 else f"{count / unit:.1f} {name}"
    return f"{count} bytes"
