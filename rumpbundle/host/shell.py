"""Commands as people paste them: every word arrives as it was, and none of its bytes acts on the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

_PLAIN = frozenset(range(0x20, 0x7F)) - frozenset(b"'%\\")
"""Bytes that stand for themselves in a single-quoted format of ``printf``."""


def quoted(word: str) -> str:
    """Return *word* for a POSIX shell; what is not printable is written as octal numbers that ``printf`` reads."""
    if word.isprintable():
        return shlex.quote(word)
    octets = word.encode("utf-8", "surrogateescape")
    text = "".join(chr(octet) if octet in _PLAIN else f"\\{octet:03o}" for octet in octets)
    # A shell drops the newlines that end what it substitutes; bash, zsh and ksh know the other form.
    return f"$'{text}'" if octets.endswith(b"\n") else f"\"$(printf '{text}')\""


def joined(words: Iterable[str]) -> str:
    """Return *words* as one command line for a POSIX shell."""
    return " ".join(map(quoted, words))
