"""Ids that are derived, never drawn.

Everything a format wants to be unique (GUIDs, serial numbers, content ids) is hashed from the bundle's
digest, a purpose and nothing else: equal bundles get equal ids, different bundles different ones
(VirtualBox refuses a second disk with a known UUID: docs/facts/peers.md#rules-of-the-platforms).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import cached_property

from blake3 import blake3


class Identity:
    """The ids of one bundle. *digest* gives its hex BLAKE3; asking may wait for the payload's hashing."""

    def __init__(self, digest: Callable[[], str]) -> None:
        self._digest = digest

    @cached_property
    def digest(self) -> str:
        return self._digest()

    def octets(self, purpose: str, count: int) -> bytes:
        """Return *count* (at most 32) bytes for *purpose*."""
        return blake3(f"rumpbundle {purpose}\0{self.digest}".encode()).digest()[:count]

    def uuid(self, purpose: str) -> uuid.UUID:
        """Return a version-4-shaped UUID for *purpose*."""
        return uuid.UUID(bytes=self.octets(purpose, 16), version=4)

    def u32(self, purpose: str) -> int:
        """Return a number for *purpose* that is neither 0 nor one of the two highest, which formats reserve."""
        return int.from_bytes(self.octets(purpose, 4), "big") % 0xFFFFFFFD + 1
