"""What a bundle holds besides its kernel: boot modules and volumes."""

from __future__ import annotations

from rumpbundle.content import Content
from rumpbundle.dataclass import dataclass

HEAD_ROOM = 16 << 20
"""Bytes left free in a writable volume whose size the user does not give."""


@dataclass(frozen=True, slots=True)
class Module:
    """A boot module, in the order the kernel gets them (Linux: its initrds). *text* is its command line."""

    name: str
    content: Content
    text: str = ""


@dataclass(frozen=True, slots=True)
class Volume:
    """A finished file system that becomes a partition of its own."""

    label: str
    filesystem: str
    content: Content
    device: str = ""
    """The name of the disk it is, where a guest wants it as one of its own (Xen's xvda); empty for a partition."""
