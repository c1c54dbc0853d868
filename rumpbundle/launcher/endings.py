"""How guests end: what each family says on its console when it exits, crashes, panics or halts."""

from __future__ import annotations

import re
from collections.abc import Mapping

from rumpbundle.dataclass import dataclass
from rumpbundle.kernels.unikernel import Family
from rumpbundle.launcher import lastwords
from rumpbundle.launcher.backend import Ending, Reason
from rumpbundle.launcher.console import Console

_PROMPT = r"\ngrub(?: rescue)?> "
"""GRUB has nothing it can start, and waits."""
_ABORTED = r"\n[^\n]*\nAborted\. Press any key to exit\."
"""What GRUB says when it cannot go on itself, after the reason (grub-core/kern/misc.c, grub_abort)."""
_GAVE_UP = r"rumpbundle: (?:the kernel did not start|this kernel cannot start).*\n"
"""What our grub.cfg says before it halts (rumpbundle.grub)."""
_FIRMWARE_STARTS = r'BdsDxe: starting Boot[0-9A-F]{4} "(.*)" from (.*)\n'
"""What UEFI says before it starts something: from a disk, or from itself (``Fv``), when nothing on a disk is left
(edk2, BdsEntry.c and UefiBootManagerLib's BmBoot.c)."""
_FIRMWARE_FAILED = r'BdsDxe: failed to (load|start) Boot[0-9A-F]{4} ".*" from .*: (.*)\n'
_UEFI_EXCEPTION = r"!!!! X64 Exception Type - .*\n"
"""What UEFI says of an application that crashed, before it stops (edk2, ArchExceptionHandler.c)."""

# Each begins with a literal: the search then runs at the speed of memory. A crash may stand behind half a line.
_SAID: Mapping[Family, Mapping[str, tuple[str, ...]]] = {
    # docs/facts/guests.md#rumprun-console: it never powers off. PANIC and halted: platform/hw/kernel.c.
    Family.RUMPRUN: {
        "status": (r"\n=== main\(\) of \".*\" returned -?\d+ ===", r"\n=== (?:ERROR: )?_exit\(-?\d+\) called ==="),
        "begun": (r'\n=== calling ".*" main\(\) ===',),
        "panic": (r"\npanic: .*\n", r"PANIC: .*\n"),
        "crash": (r"FATAL TRAP.*\n", r"=== bootstrap failed.*\n"),
        "halt": (r"\nhalted(?: \(well, spinning \.\.\.\))?\n",),
    },
    # docs/facts/guests.md#solo5; ABORT is what traps and failed assertions print (bindings/abort.c).
    Family.SOLO5: {
        "status": (r"solo5_exit\(-?\d+\) called",),
        "crash": (r"solo5_abort\(\) called\n", r"Solo5: ABORT: .*\n"),
        "halt": (r"Solo5: Halted\n",),
    },
    # lib/ukboot/boot.c, lib/ukdebug/crash.c and what stood in their place before
    Family.UNIKRAFT: {
        "status": (r"main returned -?\d+(?:, halting system|\n)",),
        "crash": (
            r"Unhandled (?:page fault|[Tt]rap|[Ee]xception).*\n",
            r"Unikraft [Cc]rash - .*\n",
            r"Init function at \S+ returned error .*\n",  # and no program is started
        ),
        "panic": (r"Assertion failure: .*\n", r"CRIT: .*\n"),
    },
    # kernel/panic.c, kernel/reboot.c, arch/x86/mm/extable.c
    Family.LINUX: {
        "panic": (r"Kernel panic(?: - not syncing)?: .*\n", r"PANIC: (?:early|double) .*\n"),
        "halt": (r"reboot: (?:System halted|Power off not available: System halted instead)\n",),
    },
    # panic() of xen/drivers/char/console.c, xen/common/shutdown.c, and the Linux in its first domain
    Family.XEN: {
        "panic": (r"Panic on CPU \d+:\n", r"Kernel panic - not syncing: .*\n"),
        "crash": (r"Hardware Dom\d+ (?:crashed: |shutdown: watchdog ).*\n", r"Domain 0 crashed: .*\n"),
    },
    # docs/facts/guests.md#hermitos; src/syscalls/mod.rs of the kernel, the panics: src/lib.rs
    Family.HERMIT: {
        # The digits may come one by one.
        "status": (r"exit status -?\d+\n", r"hutting down with code -?\d+\D"),
        "panic": (r"\[(?:!!!)?PANIC(?:!!!)?\] .*\n",),
    },
    # A foreign image may hold a Linux.
    Family.PLAIN: {"panic": (r"Kernel panic - not syncing: .*\n",)},
}

_LAST_WORDS: Mapping[Family, str] = {Family.SOLO5: lastwords.OCAML, Family.LINUX: lastwords.UNPACKING}
"""Lines of a family's own that say a guest has died, if it ends with no other word soon after them: they alone are no
end, because it may quote them, or a program on it may have said them and been started anew."""
_ANYBODYS = (Family.PLAIN, Family.UNIKRAFT, Family.SOLO5)
"""Families that may die with the words of anybody. Unikraft tells its status only where it was built to say much,
Solo5 unless it was told to be quiet; their programs are of any language."""
_SOON = 100
"""Lines that a dump of registers and a backtrace may take."""

_TELLS_ITS_STATUS = (Family.RUMPRUN, Family.HERMIT)
"""Families that say a status before they halt when all is well, so that halting without a word is none."""


@dataclass
class Endings:
    """Reads a console for the ending it announces."""

    family: Family
    status: int | None = None
    """The exit status the guest told, the first that is not 0 if it told several."""
    ending: Ending | None = None
    """How it ended, if it said so (and may sit there halted for ever)."""
    _console: Console | None = None
    _started: bool = False
    """Whether UEFI has started something from a disk."""
    _refused: str = ""
    """What UEFI said of the last thing that it could not load, or that returned an error."""
    _boot_loader: bool = False
    """Whether GRUB was seen."""
    _running: int = 0
    """Programs that were called and have told no status."""

    def watch(self, console: Console) -> None:
        """Look for the family's words in all that comes."""
        self._console = console
        console.watch(_PROMPT, self._not_started)
        console.watch(_ABORTED, self._not_started)
        console.watch(_GAVE_UP, self._not_started)
        console.watch(_UEFI_EXCEPTION, self._crash)
        console.watch(r"Welcome to GRUB!", self._greeted)
        console.watch(_FIRMWARE_FAILED, self._failed)
        console.watch(_FIRMWARE_STARTS, self._starts)
        for kind, patterns in _SAID[self.family].items():
            for pattern in patterns:
                console.watch(pattern, getattr(self, f"_{kind}"))

    def explained(self, ending: Ending) -> Ending:
        """Return *ending*, which the backend noticed, with what the console told about it."""
        told = self.ending
        if told is not None and told.reason in (Reason.PANICKED, Reason.CRASHED):
            return told
        if ending.reason is Reason.HALTED and not self.status and self._running > 0:
            return Ending(Reason.CRASHED, None, "it halted, and a program on it had told no exit status")
        if self.status is not None:
            return Ending(ending.reason, self.status, ending.detail)
        if ending.reason is Reason.HALTED and self.family in _TELLS_ITS_STATUS:
            return Ending(Reason.CRASHED, None, "it halted, and told no exit status before")
        if ending.reason not in (Reason.HALTED, Reason.RESET, Reason.POWERED_OFF):
            return ending
        lines = self._console.tail(_SOON) if self._console is not None else []
        if words := self._last_words(lines):
            return Ending(Reason.CRASHED, None, words)
        status, words = lastwords.result(lines) if self.family in _ANYBODYS else (0, "")
        return Ending(ending.reason, status, f"it said: {words}") if status else ending

    def _last_words(self, lines: list[str]) -> str:
        """Return the line among the last, *lines*, that says the guest has died; empty if there is none."""
        if (own := _LAST_WORDS.get(self.family)) and (said := lastwords.matching(lines, own)):
            return said
        return lastwords.of_anybody(lines) if self.family in _ANYBODYS else ""

    def _not_started(self, match: re.Match[str]) -> None:
        said = _once(match[0].strip())
        self.ending = self.ending or Ending(
            Reason.NOT_STARTED, None, "GRUB waits at its prompt" if said.startswith("grub") else said
        )

    def _greeted(self, _: re.Match[str]) -> None:
        self._boot_loader = True

    def _failed(self, match: re.Match[str]) -> None:
        self._refused = "" if match[2] == "Not Found" else match[2].strip()

    def _starts(self, match: re.Match[str]) -> None:
        if not match[2].startswith("Fv("):
            self._started, self._refused = True, ""
        elif self._started or "Shell" in match[1]:
            # Who presses a key at the start gets the firmware's menu, too.
            self.ending = self.ending or self._left_to_the_firmware()

    def _left_to_the_firmware(self) -> Ending:
        """Return how a guest ended after which UEFI goes on by itself: it has returned, or never was."""
        if not self._started:
            why = f"its firmware does not load it: {self._refused}" if self._refused else ""
            return Ending(Reason.NOT_STARTED, None, why or "its firmware found nothing to boot")
        if self._boot_loader:
            return Ending(Reason.NOT_STARTED, None, "the boot loader returned to the firmware")
        said = f"{self._refused} " if self._refused else ""
        return Ending(Reason.EXITED, int(bool(self._refused)), f"it returned {said}to the firmware")

    def _begun(self, _: re.Match[str]) -> None:
        self._running += 1

    def _status(self, match: re.Match[str]) -> None:
        self._running -= 1
        self.status = self.status or int(re.findall(r"-?\d+", match[0])[-1])

    def _panic(self, match: re.Match[str]) -> None:
        self._died(Reason.PANICKED, match)

    def _crash(self, match: re.Match[str]) -> None:
        self._died(Reason.CRASHED, match)

    def _died(self, reason: Reason, match: re.Match[str]) -> None:
        # The first word of a death counts; that the guest halts, or told success before, is no answer to it.
        if self.ending is None or self.ending.reason is Reason.HALTED:
            self.ending = Ending(reason, None, match[0].strip())

    def _halt(self, match: re.Match[str]) -> None:
        self.ending = self.ending or self.explained(Ending(Reason.HALTED))


def _once(line: str) -> str:
    """Return a *line* of GRUB once: it writes one to each of its terminals, and two may be the same serial port."""
    half = line[: len(line) // 2]
    return half if half * 2 == line else line
