"""What a check finds: an answer to each question, and all of them for one platform and firmware."""

from __future__ import annotations

from typing import Literal as OneOf

from rumpbundle.dataclass import dataclass
from rumpbundle.knowledge import Answer, Basis

Question = OneOf["boots", "disk", "network", "console", "clock"]

_RANK: dict[Answer, int] = {"no": 0, "unknown": 1, "yes": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The answer to one question. *way* says how to get there: for a yes what to ask for, for a no the way out."""

    question: Question
    answer: Answer
    why: str
    way: str = ""
    basis: Basis = "seen"
    """How well the weaker of the facts behind it is known: seen by us, read in a source, or told."""
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of a kernel on a platform with one firmware."""

    kernel: str
    target: str
    title: str
    firmware: str
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def noes(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.answer == "no")

    @property
    def boots(self) -> bool:
        """Whether nothing speaks against that it boots."""
        return self.findings[0].answer != "no"

    @property
    def merit(self) -> tuple[int, ...]:
        """By which verdicts of one platform compare: does it boot, how little is refused, how much is sure."""
        return _RANK[self.findings[0].answer], -len(self.noes), sum(_RANK[f.answer] for f in self.findings)
