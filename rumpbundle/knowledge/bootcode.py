"""What a finished image has for firmware to start, and whether the firmware of a platform finds it."""

from __future__ import annotations

from collections.abc import Mapping

from rumpbundle.dataclass import dataclass
from rumpbundle.knowledge import Answer, Platform

_USUAL = (0, 512)


@dataclass(frozen=True, slots=True)
class BootCode:
    """The firmwares that have something to start, by name."""

    counted: Mapping[str, int]
    """For each the bytes of the sectors in which the partition table counts that leads there, 0 if none does."""
    sectors: int = 0
    """The bytes of a sector as the image's container says, 0 if it does not."""
    from_cd: bool = False
    """Whether a BIOS starts it from a CD drive, and from nothing else."""

    def start(self, firmware: str, platform: Platform) -> tuple[Answer, str, str]:
        """Return whether *firmware* of *platform* finds it, why, and the way out, or to it."""
        if firmware == "bios" and self.from_cd:
            drives = [each for each in platform.offers["disk"] if each.name == "cd" and each.on in ("", firmware)]
            if not drives:
                why = "the image starts only from a CD drive, and there is none"
                return "no", why, "install what is on it to a disk elsewhere, and take that"
            return "yes", "the image starts from a CD drive", "attach it as a CD, as rumpbundle run does"
        if firmware not in self.counted:
            return "no", f"the image has no boot code for {firmware.upper()}", ""
        counted, there = self.counted[firmware], platform.sectors
        if self.sectors in there:
            there = (self.sectors,)
        if counted and there and counted not in there:
            has = " or ".join(map(str, there))
            why = f"its GPT counts in sectors of {counted} bytes, and a disk has those of {has}"
            return "no", f"{why}: firmware finds no partition", f"partition it anew, in sectors of {there[0]} bytes"
        usual = counted in _USUAL or there
        way = "" if usual else f"attach it with logical_block_size={counted}, as rumpbundle run does"
        return "yes", f"the image has boot code for {firmware.upper()}", way


__all__ = ["BootCode"]
