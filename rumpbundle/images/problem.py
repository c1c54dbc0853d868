"""What is wrong with an image: one finding, wherever in it."""

from __future__ import annotations

from typing import Literal as OneOf

from rumpbundle.dataclass import dataclass

Severity = OneOf["damage", "remark"]
"""``damage``: bytes are not what they have to be. ``remark``: worth knowing, and the image is whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One finding. Readers give all they find (``problems()``) where a listing would stop at the first."""

    where: str
    """What is looked at, for people: ``GPT``, ``ext2, partition 2``, ``/boot/kernel/app.bin``."""
    offset: int | None
    """The first byte it is about, of the disk (of the file where a container is at fault); None: no single place."""
    what: str
    """What is there, and what should be."""
    consequence: str
    """What comes of it: who cannot boot, read or mount what."""
    severity: Severity = "damage"

    def __str__(self) -> str:
        place = "" if self.offset is None else f" at byte {self.offset}"
        return f"{self.where}{place}: {self.what}; {self.consequence}"
