"""From what the user asked for to the bundle and its disk, before a byte is written."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from rumpbundle import formats as registry
from rumpbundle import guests, hybrid
from rumpbundle.arguments import choice, instance, reporter, sequence, text
from rumpbundle.bootloader.bootimages import BootImages, boot_images
from rumpbundle.bundling.recipe import ModuleFile, Recipe
from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import Content
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.disk.layout import DiskLayout, round_up
from rumpbundle.disk.tree import Directory
from rumpbundle.errors import ConfigError, FinishedImageError, KernelError, UsageError
from rumpbundle.events import Finished, Note, Report, Started, Warned, silent
from rumpbundle.formats import Format
from rumpbundle.host import environment
from rumpbundle.host.shell import quoted
from rumpbundle.kernels.grubelf import HIGHEST
from rumpbundle.kernels.unikernel import Firmware, Protocol, Unikernel
from rumpbundle.manifest import SLOT, Asked, Bundle, Choice, Module, stem
from rumpbundle.units import shown_size

MAX_NAME = 100
"""Longest machine name in characters; it becomes part of file names and volume labels."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A bundle and its disk, before a byte is written."""

    recipe: Recipe
    bundle: Bundle
    disk: DiskLayout
    delivery: guests.Delivery
    """What the guest was compiled for; launchers hand parts of it over themselves."""

    def disk_for(self, format: Format) -> DiskLayout:
        """Return the disk padded to *format*'s rules and to the size asked for."""
        return self.disk.padded(align=format.align, least=max(format.least, self.recipe.size))


def read_kernel(recipe: Recipe, formats: Sequence[Format] = ()) -> Unikernel:
    """Read the recipe's kernel, which is to be written in *formats*."""
    try:
        return Unikernel.read(recipe.app, disk=not formats or any(format.needs_disk for format in formats))
    except FinishedImageError as error:
        if not formats:
            raise
        names = ",".join(format.name for format in formats)
        hint = f"rumpbundle convert {quoted(os.fspath(recipe.app))} -f {names}"
        raise FinishedImageError(error.problem, where=error.where, hint=hint) from None


def plan(
    recipe: Recipe,
    *,
    formats: Sequence[Format | str] = (),
    bus: str = "",
    kernel: Unikernel | None = None,
    images: BootImages | None = None,
    report: Report = silent,
) -> Plan:
    """Read the kernel, compile the configuration, and plan the disk.

    *formats* are what will be written. If none of them needs a disk to boot, the kernel may be one that no disk image
    can boot; its disk then only holds the guest's data. *bus* is where the disk will be, where somebody knows that
    better than the platforms the formats are for. Who plans many bundles has read their *kernel*, the recipe's, and
    the boot *images* before.

    Nothing has been copied: the input files must stay as they are until all is written.

    Raises:
        RumpbundleError: see :mod:`rumpbundle.errors`.
    """
    reporter(report)(Started("planning", 0))
    recipe, wanted = (
        instance("recipe", recipe, Recipe),
        [registry.find(each) for each in sequence("formats", formats)],
    )
    kernel = read_kernel(recipe, wanted) if kernel is None else instance("kernel", kernel, Unikernel)
    known = None if images is None else instance("images", images, BootImages)
    _tell_repairs(kernel, report)
    name = machine_name(recipe, kernel)
    firmware, boot = _boot(recipe, kernel, report) if kernel.protocols else ((), {})
    esp = _esp(recipe, boot)
    request = _request(recipe, kernel, boot, _bus(bus) or bus_for(kernel, wanted))
    delivery, choices = _delivered(recipe, request, report)
    images = (known or boot_images(report)) if firmware else None
    bundle = Bundle(
        name=name,
        kernel=kernel,
        firmware=firmware,
        boot=boot,
        cmdline=delivery.cmdline,
        modules=delivery.modules,
        root=delivery.root,
        esp=esp,
        volumes=delivery.volumes,
        table=delivery.table,
        bus=delivery.bus,
        console=recipe.console,
        config=b"" if firmware else delivery.config,
        epoch=request.epoch,
        grub=images.facts if images else {},
        asked=_asked(recipe, request, delivery),
        choices=choices,
    )
    _tell_labels(recipe, bundle, report)
    planned = Plan(recipe=recipe, bundle=bundle, disk=hybrid.plan(bundle, images), delivery=delivery)
    report(Finished("planning"))
    return planned


def _request(recipe: Recipe, kernel: Unikernel, boot: Mapping[Firmware, Protocol], bus: str) -> guests.Request:
    """Return what the guest's family is asked for."""
    return guests.Request(
        kernel=kernel,
        boot=boot,
        cmdline=recipe.cmdline,
        argv0=recipe.argv0,
        modules=tuple(_module(module) for module in recipe.modules),
        config=recipe.config,
        data=recipe.data,
        volumes=recipe.volumes,
        has_esp_files=recipe.esp is not None,
        bus=bus,
        epoch=environment.epoch() if recipe.epoch is None else recipe.epoch,
        room=round_up(recipe.config_room, SLOT),
    )


def _tell_repairs(kernel: Unikernel, report: Report) -> None:
    for repair in kernel.repairs:
        report(Note(f"{kernel.name}: repaired in the bundled copy: {repair}"))
    for warning in kernel.warnings:
        report(Warned(f"{kernel.name} {warning}"))


def _tell_labels(recipe: Recipe, bundle: Bundle, report: Report) -> None:
    """Report what becomes of a name that was asked for."""
    changed = [f"{label} ({of})" for of, label in hybrid.labels(bundle).items() if label != bundle.name.upper()]
    if recipe.name is not None and changed:
        report(Note(f"the name {bundle.name} becomes these labels: {', '.join(changed)}"))


def _delivered(recipe: Recipe, request: guests.Request, report: Report) -> tuple[guests.Delivery, tuple[Choice, ...]]:
    """Return what the guest gets, and further choices; errors in a configuration name the file."""
    try:
        delivery, choices = guests.deliver_several(request, recipe.configs)
    except ConfigError as error:
        error.where = error.where or recipe.config_name
        raise
    for note in delivery.notes:
        report(Note(note))
    size = sum(module.content.size for module in delivery.modules)
    if request.boot and size > HIGHEST:
        # No refusal: it may be meant for a loader that is not on the disk, or for nobody to boot.
        memory = f"{HIGHEST >> 30} GiB of memory"
        report(Warned(f"boot modules of {shown_size(size)}: GRUB loads them below 4 GiB, where a PC has {memory}"))
    return delivery, choices


def _asked(recipe: Recipe, request: guests.Request, delivery: guests.Delivery) -> Asked:
    config = None
    if recipe.config is not None:
        from rumpbundle.config import builtins

        config = builtins(recipe.config)
    return Asked(
        cmdline=recipe.cmdline,
        argv0=recipe.argv0,
        protocol=recipe.protocol,
        config=config,
        modules=len(request.modules),
        mounts=delivery.mounts,
        size=recipe.size,
        room=request.room,
        default=recipe.config is not None or not recipe.configs,
    )


def machine_name(recipe: Recipe, kernel: Unikernel) -> str:
    name = stem(kernel.name) if recipe.name is None else recipe.name
    if not name or len(name) > MAX_NAME or not name.isprintable() or "/" in name:
        if recipe.name is None:
            return "app"
        raise UsageError(f"expected 1 to {MAX_NAME} printable characters without '/', got {name!r}", where="--name")
    return name


def _boot(recipe: Recipe, kernel: Unikernel, report: Report) -> tuple[tuple[Firmware, ...], dict[Firmware, Protocol]]:
    """Return the firmwares the image carries boot code for, and how the kernel starts under each."""
    wanted = None if recipe.protocol == "auto" else Protocol(recipe.protocol)
    firmware = tuple(Firmware) if recipe.firmware == "both" else (Firmware(recipe.firmware),)
    found = {each: kernel.protocol_for(each, wanted) for each in firmware}
    boot = {each: protocol for each, protocol in found.items() if protocol is not None}
    if not boot:
        where = " or ".join(each.upper() for each in firmware)
        others = [f"bundle it with --firmware {each}" for each in Firmware if kernel.protocol_for(each, wanted)]
        others += [f"--protocol {each.protocol} insists" for each in kernel.troubles if each.firmware in firmware]
        raise KernelError(
            f"cannot start under {where} firmware ({kernel.why_not(firmware[-1])})",
            where=kernel.name,
            hint=others[0] if others else None,
        )
    for each in firmware:
        if each not in boot:
            why = kernel.why_not(each)
            report(Note(f"{kernel.name} cannot start under {each.upper()} firmware ({why}); there the image says so"))
        elif trouble := kernel.trouble(boot[each], each):
            report(Warned(f"{kernel.name}: {trouble}"))
    return firmware, boot


def _esp(recipe: Recipe, boot: Mapping[Firmware, Protocol]) -> Directory:
    """Return the files for an EFI application that stand beside it."""
    if recipe.esp is None:
        return Directory("")
    protocol = boot.get(Firmware.UEFI)
    if protocol is not Protocol.EFI:
        how = "does not start under UEFI" if protocol is None else f"starts with the {protocol} protocol under UEFI"
        raise UsageError(
            f"only an EFI application reads files from its EFI system partition; this kernel {how}",
            where="--esp",
            hint="pass files with --module" if protocol else None,
        )
    return recipe.esp


def _bus(name: str) -> str:
    """Return *name*, that of a bus on which some platform has disks; empty if nobody says."""
    if not text("bus", name):
        return ""
    from rumpbundle.knowledge import platforms

    known = {offer.name for platform in platforms() for offer in platform.offers["disk"]}
    return str(choice("bus", name, sorted(known)))


def bus_for(kernel: Unikernel, formats: Sequence[Format]) -> str:
    """Return where the guest will find its disk on the platforms *formats* are for; empty if they do not say."""
    targets = [target for format in formats for target in format.targets]
    if not targets:
        return ""
    from rumpbundle.knowledge.check import disk_bus

    return disk_bus(kernel, targets)


def _module(module: ModuleFile) -> Module:
    file = InputFile(module.path)
    return Module(os.path.basename(file.path), Content.of_file(file), module.text)


__all__ = ["Plan", "bus_for", "machine_name", "plan", "read_kernel"]
