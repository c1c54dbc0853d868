"""What who writes ext2 and who reads it both count on ("The Second Extended File System", nongnu.org/ext2-doc)."""

from __future__ import annotations


def holds_sparse_copy(group: int) -> bool:
    """Return whether *group* has a copy of the superblock: 0, 1 and powers of 3, 5 and 7 (§ sparse superblocks)."""
    if group < 2:
        return True
    for base in (3, 5, 7):
        power = base
        while power < group:
            power *= base
        if power == group:
            return True
    return False


__all__ = ["holds_sparse_copy"]
