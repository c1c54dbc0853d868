"""What is wrong with a kernel file, as values: what cannot be helped, and what is mended in the bundled copy."""

from __future__ import annotations

from rumpbundle.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Flaw:
    """Why a loader refuses a file, as a phrase after its name, and what its owner can do."""

    problem: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Repair:
    """Bytes of the file that are others in the copy, and why, as a phrase for people."""

    at: int
    data: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Padding:
    """Zeros that follow the file in the copy."""

    length: int
    reason: str
