"""What guests say on their console when they end: how each family tells its exit status, a panic, a halt."""

from __future__ import annotations

import re
from collections.abc import Mapping

from rumpbundle.dataclass import dataclass
from rumpbundle.kernels.unikernel import Family
from rumpbundle.launcher.backend import Ending, Reason
from rumpbundle.launcher.console import Console

_PROMPT = r"\ngrub(?: rescue)?> "
"""GRUB has nothing it can start, and waits."""
_GAVE_UP = r"rumpbundle: (?:the kernel did not start|this kernel cannot start).*\n"
"""What our grub.cfg says before it halts (rumpbundle.grub)."""

# Each begins with a literal: the search then runs at the speed of memory.
_SIGNS: Mapping[Family, Mapping[str, str]] = {
    # docs/facts/guests.md#rumprun-console: it never powers off.
    Family.RUMPRUN: {
        "status": r"\n=== (?:main\(\) of \".*\" returned -?\d+|ERROR: _exit\(-?\d+\) called) ===",
        "panic": r"\npanic: .*\n",
        "halt": r"\nhalted\n",
    },
    # docs/facts/guests.md#solo5; ABORT is what solo5_abort() and every failed assertion print.
    Family.SOLO5: {
        "status": r"solo5_exit\(\d+\) called",
        "panic": r"solo5_abort\(\) called\n|Solo5: ABORT: .*\n",
    },
    Family.UNIKRAFT: {"panic": r"Unhandled (?:page fault|trap).*\n"},
    # kernel/panic.c
    Family.LINUX: {"panic": r"Kernel panic - not syncing: .*\n"},
    # xen/drivers/char/console.c, panic()
    Family.XEN: {"panic": r"Panic on CPU \d+:\n"},
    Family.PLAIN: {},
}


@dataclass
class Signs:
    """Reads a console for the ending it announces."""

    family: Family
    status: int | None = None
    """The exit status the guest told, the first that is not 0 if it told several."""
    ending: Ending | None = None
    """How it ended, if it said so (and may sit there halted for ever)."""

    def watch(self, console: Console) -> None:
        """Look for the family's signs in all that comes."""
        console.watch(_PROMPT, self._not_started)
        console.watch(_GAVE_UP, self._not_started)
        for sign, pattern in _SIGNS[self.family].items():
            console.watch(pattern, getattr(self, f"_{sign}"))

    def _not_started(self, match: re.Match[str]) -> None:
        said = match[0].strip()
        self.ending = self.ending or Ending(
            Reason.NOT_STARTED, None, "GRUB waits at its prompt" if said.startswith("grub") else said
        )

    def _status(self, match: re.Match[str]) -> None:
        self.status = self.status or int(re.findall(r"-?\d+", match[0])[-1])

    def _panic(self, match: re.Match[str]) -> None:
        self.ending = self.ending or Ending(Reason.PANICKED, None, match[0].strip())

    def _halt(self, match: re.Match[str]) -> None:
        self.ending = self.ending or Ending(Reason.HALTED, self.status)
