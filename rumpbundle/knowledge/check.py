"""Will a kernel run on a platform: does it boot, see its disk, reach the network, print, and know the time?

An answer is a comparison of two rows of :mod:`rumpbundle.knowledge`, what the platform offers and what the guest can
use, with what the kernel file itself tells (protocols, linked drivers, a Solo5 manifest). Nothing is run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import field, replace
from typing import Literal as OneOf

from rumpbundle import knowledge
from rumpbundle.dataclass import dataclass
from rumpbundle.errors import KernelError, UsageError, nearest
from rumpbundle.kernels import xen
from rumpbundle.kernels.unikernel import Family, Firmware, Protocol, Unikernel
from rumpbundle.knowledge import Ability, Answer, Basis, ConsoleUse, GuestProfile, Offer, Platform
from rumpbundle.knowledge import drivers as known_drivers
from rumpbundle.knowledge.bootcode import BootCode
from rumpbundle.knowledge.verdict import Finding, Question, Verdict


class NoFirmwareError(UsageError):
    """A platform that has none of the firmwares asked for."""


_SURE: tuple[Basis, ...] = ("told", "read", "seen")


def check(
    kernel: Unikernel,
    target: str,
    *,
    firmware: Collection[str] = (),
    protocol: Protocol | None = None,
    drivers: Collection[str] = (),
    boot_code: BootCode | None = None,
) -> Verdict:
    """Return what becomes of *kernel* on the platform *target*, with the firmware that suits it best.

    *firmware* limits the choice (``bios``, ``uefi``), *protocol* how the kernel is started. *drivers* are ones it has
    though its file does not show them (in an initrd, say). *boot_code* is what the finished image it
    is in has; None for a kernel that is still to be bundled.

    Raises:
        UsageError: no such target, or there is no such driver.
        NoFirmwareError: the target has none of the firmwares.
    """
    known = sorted(known_drivers.known("disk") | known_drivers.known("nic"))
    for name in drivers:
        if name not in known:
            raise UsageError(f"no such driver: {name}", where="--driver", hint=nearest(name, known))
    platform = knowledge.platform(target)
    possible = [name for name in platform.firmwares if not firmware or name in firmware or name in ("pv", "pvh")]
    if not possible:
        raise NoFirmwareError(f"{platform.title} has no {' or '.join(firmware)} firmware")
    also = frozenset(drivers)
    verdicts = [_Comparison(kernel, platform, name, protocol, also, boot_code).verdict() for name in possible]
    # Where it boots with none, the firmware it was made for has more to tell than that it cannot start it.
    told = {trouble.firmware for trouble in kernel.troubles}
    return max(verdicts, key=lambda verdict: (verdict.merit, not verdict.boots and verdict.firmware in told))


def warnings(
    kernel: Unikernel,
    targets: Iterable[str],
    *,
    firmware: Collection[str] = (),
    protocol: Protocol | None = None,
    drivers: Collection[str] = (),
) -> tuple[str, ...]:
    """Return what will not work on the best of *targets*, as sentences for people; empty if nothing is known to.

    If there is something, none of the others suits the kernel either, and a last sentence says so.
    """
    verdicts = [check(kernel, t, firmware=firmware, protocol=protocol, drivers=drivers) for t in targets]
    best = max(verdicts, key=lambda verdict: verdict.merit, default=None)
    if best is None or not best.noes:
        return ()
    said = [
        f"on {best.title}, {kernel.name} {_FAILS[finding.question]}: {finding.why}"
        + (f"; {finding.way}" if finding.way else "")
        for finding in best.noes
    ]
    if others := [verdict for verdict in verdicts if verdict is not best]:
        titles = " or ".join(verdict.title for verdict in others)
        why = f"rumpbundle check {kernel.name} --target {others[0].target}"
        said.append(f"it will not work on {titles} either: {why} tells why")
    return tuple(said)


def disk_bus(kernel: Unikernel, targets: Iterable[str]) -> str:
    """Return the bus of *kernel*'s disk on the first of *targets* that has one it drives; empty if none has."""
    ability = knowledge.guest(str(kernel.family), kernel.target).disk
    for target in targets:
        drivers = kernel.drivers - frozenset(ability.linked_in_vain)
        offer = _usable(knowledge.platform(target).offers["disk"], drivers, ability)
        if offer is not None:
            return offer.name
    return ""


_FAILS: dict[Question, str] = {
    "boots": "does not boot",
    "disk": "will not see its disk",
    "network": "will not reach the network",
    "console": "will say nothing one can read",
    "clock": "has no clock it can use",
}


@dataclass(frozen=True, slots=True)
class _Comparison:
    """One kernel on one platform with one firmware."""

    kernel: Unikernel
    platform: Platform
    firmware: str
    wanted: Protocol | None
    also: frozenset[str]
    """Drivers the user says it has."""
    boot_code: BootCode | None
    """What a finished image has."""
    guest: GuestProfile = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "guest", knowledge.guest(str(self.kernel.family), self.kernel.target))

    def verdict(self) -> Verdict:
        notes = list(self.platform.notes)
        if self.firmware in self.guest.memory:
            notes.append(f"give it at least {self.guest.memory[self.firmware]} MiB of memory")
        boots = self._boots()
        if boots.answer != "no" and self.firmware in tuple(Firmware):
            notes += [f"it {warning}" for warning in self.kernel.warnings]
        return Verdict(
            kernel=self.kernel.name,
            target=self.platform.name,
            title=self.platform.title,
            firmware=self.firmware,
            findings=(
                boots,
                self._device("disk", self.guest.disk, "disk"),
                self._device("network", self.guest.nic, "nic"),
                self._console(),
                self._clock(),
            ),
            notes=tuple(notes),
        )

    def _offer(self) -> Offer:
        return next(offer for offer in self.platform.offers["firmware"] if offer.name == self.firmware)

    def _boots(self) -> Finding:
        answer, why, way = self._start()
        if answer != "no":
            asked = [way, self._offer().how, self._boot_disk()]
            way = "; ".join(part for part in asked if part)
        sources = (self.guest.source, self._offer().source)
        basis = min((self.guest.basis, self._offer().basis), key=_SURE.index)
        return Finding(question="boots", answer=answer, why=why, way=way, basis=basis, sources=_unique(sources))

    def _start(self) -> tuple[Answer, str, str]:
        """Return whether the kernel gets control under this firmware, why, and the way out."""
        kernel = self.kernel
        if self.firmware == "pv":
            return self._start_pv()
        if self.firmware == "pvh":
            return self._start_pvh()
        found = None if self.boot_code is None else self.boot_code.start(self.firmware, self.platform)
        if found is not None and (found[0] == "no" or not kernel.protocols):
            return found
        if not kernel.protocols:
            return "no", kernel.refusal, kernel.advice
        firmware = Firmware(self.firmware)
        try:
            protocol = kernel.protocol_for(firmware, self.wanted)
        except KernelError as error:
            return "no", str(error), ""
        if protocol is None or kernel.trouble(protocol, firmware):
            reasons = [kernel.trouble(each, firmware) for each in kernel.protocols]
            carried = f"it carries {', '.join(kernel.protocols)}, which {self.firmware.upper()} cannot start"
            other = " or ".join(
                name
                for name in self.platform.firmwares
                if name != self.firmware and kernel.protocol_for(Firmware(name), self.wanted)
            )
            return "no", next(filter(None, reasons), carried), f"use {other.upper()} firmware" if other else ""
        if fatal := self._fatal_device():
            return fatal
        rule = self.guest.boot_rule(self.firmware, protocol)
        if rule is not None:
            return rule.answer, rule.why, rule.fix
        if protocol is Protocol.EFI:
            return "yes", "firmware starts it, from EFI/BOOT/BOOTX64.EFI", ""
        return "yes", f"GRUB starts it with the {protocol} protocol", ""

    def _fatal_device(self) -> tuple[Answer, str, str] | None:
        """Return what to say of a device the machine has and the guest dies of, None if there is none."""
        if "usb" in self.kernel.drivers and self.platform.usb in self.guest.usb_fatal:
            return (
                "no",
                f"the machine has an {self.platform.usb.upper()} controller: {self.guest.usb_panic}",
                (self.platform.no_usb),
            )
        for kind in ("disk", "nic"):
            offer = self._unnamed(kind)
            if offer is not None:
                named = {"disk": "block", "nic": "net"}[kind]
                why = f"every machine there has a {offer.name}; its manifest names no {named} device, and it aborts"
                return "no", why, f"add a {named} device to its manifest"
        return None

    def _unnamed(self, kind: OneOf["disk", "nic"]) -> Offer | None:
        """Return the device every machine has that a Solo5 guest drives and its manifest does not name."""
        ability = self.guest.disk if kind == "disk" else self.guest.nic
        if self.kernel.target != "virtio" or self._named(kind):
            return None
        always = [offer for offer in self.platform.having(kind, self.firmware) if offer.always]
        return _usable(always, self.kernel.drivers, ability)

    def _named(self, kind: OneOf["disk", "nic"]) -> int:
        """Return how many devices of *kind* its manifest names."""
        wanted = {"disk": "block", "nic": "net"}[kind]
        return sum(device.kind == wanted for device in self.kernel.devices)

    def _start_pv(self) -> tuple[Answer, str, str]:
        if xen.is_pv(dict(self.kernel.xen_notes)):
            if self.kernel.pv_flaw:
                return "no", self.kernel.pv_flaw, ""
            if self.kernel.machine == "i386":
                return "unknown", "Xen starts 32-bit PV kernels if it was built with PV32; Debian 12's was not", ""
            return "yes", "it is a Xen PV kernel; xl starts the file itself", ""
        if self._hides_notes():
            return self._hidden(self.kernel.pv_flaw)
        way = self._by_disk()
        if self.kernel.family is Family.RUMPRUN:
            way = "bake it for xen_pv, or use xen-hvm"
        return "no", "it is no Xen PV kernel (no Xen notes say so)", way

    def _start_pvh(self) -> tuple[Answer, str, str]:
        if self.kernel.pvh_entry is not None and self.kernel.pvh_flaw:
            ours = self.kernel.machine in ("i386", "x86-64")
            return "no", self.kernel.pvh_flaw, "link it again" if ours else self.kernel.advice
        if self.kernel.pvh_entry is not None:
            return "yes", "it has a PVH entry point; xl starts the file itself", ""
        if self._hides_notes():
            return self._hidden(self.kernel.pvh_flaw)
        return "no", "it has no PVH entry point (no PHYS32_ENTRY note)", self._by_disk()

    def _by_disk(self) -> str:
        """Return the way out where Xen does not start the file itself."""
        boots = self.kernel.protocols or (self.boot_code is not None and self.boot_code.counted)
        return "use xen-hvm" if boots else self.kernel.advice

    def _hidden(self, flaw: str) -> tuple[Answer, str, str]:
        """Return what can be said of a Linux that Xen unpacks, or cannot for a *flaw*."""
        if flaw:
            return "no", flaw, "use xen-hvm"
        return "unknown", "a compressed Linux kernel shows its Xen notes to Xen only", "try it with xl"

    def _hides_notes(self) -> bool:
        """Whether it is a Linux that Xen unpacks; in a unified kernel image it finds none."""
        return self.kernel.family is Family.LINUX and self.kernel.protocols != (Protocol.EFI,)

    def _boot_disk(self) -> str:
        """Return what to say about the bus to boot from, if the usual one will not do."""
        barred = self.guest.disk.not_boot
        offers = {offer.name: offer for offer in reversed(self.platform.having("disk", self.firmware))}
        usual = self.platform.having("disk", self.firmware)[0].name
        if usual not in barred:
            return ""
        other = next((offers[name] for name in (*self.guest.launch.buses, *offers) if name in offers), None)
        if other is None or other.name in barred:
            return ""
        return f"boot it from {other.name} ({other.how}), not from {usual}: {self.guest.disk.why}"

    def _device(self, question: Question, ability: Ability, kind: OneOf["disk", "nic"]) -> Finding:
        offers = self.platform.having(kind, self.firmware)
        solo5_kind = {"disk": "block", "nic": "net"}[kind]
        if self.kernel.target == "virtio" and not self._named(kind):
            if offer := self._unnamed(kind):
                why = f"its manifest names none, and the machine has {offer.name}"
                return self._finding(question, "no", why, ability, offer)
            # It has all the disks it wants; of the network nothing can be said.
            answer: Answer = "yes" if kind == "disk" else "unknown"
            return self._finding(question, answer, "its manifest asks for none", ability)
        if any(device.kind == solo5_kind for device in self.kernel.undriven):
            why = f"its manifest asks for several {solo5_kind} devices, and the Solo5 it was built with drives one"
            way = "build it with a newer Solo5, or with one of each in its manifest"
            return self._finding(question, "no", why, ability, way=way)
        drives = known_drivers.of_kind(self.kernel, kind, ability, self.also)
        if drives is None:
            return self._finding(question, "unknown", ability.why, ability, way=ability.fix)
        offer = _usable(offers, drives, ability)
        if offer is not None and 0 < offer.most < self._named(kind):
            why = f"its manifest names {self._named(kind)}, and a machine has at most {offer.most} {offer.name}"
            return self._finding(question, "no", why, ability, offer)
        if offer is not None:
            why = f"it drives {offer.name}, which is there" + (" unless told otherwise" if not offer.how else "")
            return self._finding(question, "yes", why, ability, offer, way=offer.how)
        there = ", ".join(_with_layout(offer) for offer in offers)
        has = f"it drives {', '.join(sorted(drives))} only" if drives else "it drives none"
        why = f"{has}; the machine has {there}"
        return self._finding(question, "no", why, ability, offers[0], way=self._other_build(kind, offers, ability))

    def _other_build(self, kind: OneOf["disk", "nic"], offers: tuple[Offer, ...], ability: Ability) -> str:
        """Return the way out of *offers* the kernel cannot use: another build of its family, or none."""
        family = str(self.kernel.family)
        builds = [target for row, target in knowledge.guests() if row == family and target]
        fit = []
        for target in builds:
            guest = knowledge.guest(family, target)
            other = guest.disk if kind == "disk" else guest.nic
            rule = guest.boot_rule(self.firmware, "")
            offer = _usable(offers, frozenset(other.drives or ()), other)
            if offer is not None and (rule is None or rule.answer != "no"):
                fit.append((target, offer))
        if not fit:
            return "; ".join(
                filter(None, (f"no build of {family} drives any of these" if builds else "", ability.fix))
            )
        how = f" ({fit[0][1].how})" if fit[0][1].how else ""
        return f"bake {' or '.join(target for target, _ in fit)}, which drives {fit[0][1].name}{how}"

    def _console(self) -> Finding:
        ability = self.guest.console
        if self.kernel.vga_text:
            ability = replace(
                ability,
                uses=(ConsoleUse(name="vga", on="bios"),),
                why="it writes to VGA text memory at 0xb8000, which is not there under UEFI",
                fix="boot it from BIOS, on a machine with a display adapter",
                basis="read",
            )
        if ability.uses is None:
            return self._finding("console", "unknown", ability.why, ability, way=ability.fix)
        offers = {offer.name: offer for offer in self.platform.having("console", self.firmware)}
        for use in ability.uses:
            offer = offers.get(use.name)
            if (
                offer is None
                or use.on not in ("", self.firmware)
                or (use.alone and self.platform.display == "always")
            ):
                continue
            way = "; ".join(filter(None, (self.platform.no_display if use.alone else "", offer.how)))
            return self._finding("console", "yes", f"it prints on {use.name}: {ability.why}", ability, offer, way=way)
        return self._finding("console", "no", ability.why, ability, next(iter(offers.values())), way=ability.fix)

    def _clock(self) -> Finding:
        ability = self.guest.clock
        offers = self.platform.having("clock", self.firmware)
        names = {offer.name for offer in offers}
        if not ability.all and not ability.any:
            return self._finding("clock", "unknown", ability.why, ability, way=ability.fix)
        missing = [name for name in ability.all if name not in names]
        if ability.any and not names & set(ability.any):
            missing.append(" or ".join(ability.any))
        if missing:
            why = f"there is no {' and no '.join(missing)}: {ability.why}"
            return self._finding("clock", "no", why, ability, offers[0], way=ability.fix)
        return self._finding("clock", "yes", ability.why, ability, offers[0])

    def _finding(
        self,
        question: Question,
        answer: Answer,
        why: str,
        ability: Ability,
        offer: Offer | None = None,
        *,
        way: str = "",
    ) -> Finding:
        facts = (ability,) if offer is None else (ability, offer)
        basis = min((fact.basis for fact in facts), key=_SURE.index)
        sources = _unique(fact.source for fact in facts)
        return Finding(question=question, answer=answer, why=why, way=way, basis=basis, sources=sources)


def _usable(offers: Iterable[Offer], drives: frozenset[str], ability: Ability) -> Offer | None:
    """Return the first of *offers* a guest with *drives* can use."""
    for offer in offers:
        legacy_only = ability.virtio == "legacy" and offer.name.startswith("virtio")
        if offer.name in drives and not (legacy_only and offer.virtio == "modern"):
            return offer
    return None


def _with_layout(offer: Offer) -> str:
    return f"{offer.name} (modern registers only)" if offer.virtio == "modern" else offer.name


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


__all__ = ["Finding", "Question", "Verdict", "check", "disk_bus", "warnings"]
