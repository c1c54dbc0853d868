"""Which domain a bundle needs on Xen: PV, PVH or HVM by what its kernel is, and which files go with it."""

from __future__ import annotations

from collections.abc import Callable

from rumpbundle import knowledge
from rumpbundle.disk.content import Content, Source, Zeros
from rumpbundle.errors import KernelError, UsageError
from rumpbundle.images.records.kitfiles import XEN_DISK
from rumpbundle.kernels import xen
from rumpbundle.kernels.unikernel import Family, Firmware, Protocol, Unikernel
from rumpbundle.manifest import Bundle, Volume
from rumpbundle.xen import xl
from rumpbundle.xen.xl import DomainKind


def is_pv(kernel: Unikernel) -> bool:
    """Whether *kernel* says that Xen's PV domain builder can start it."""
    return xen.is_pv(dict(kernel.xen_notes))


def kind_of(kernel: Unikernel, wanted: str = "auto") -> DomainKind:
    """Return how Xen is to run *kernel*: as *wanted*, else as what it was built for.

    A kernel that boots from a disk does so in an HVM domain, unless it was built for Xen; one that does not is
    entered by Xen itself, as PVH before PV where it can do both.

    *wanted* is one of them, or ``auto``.

    Raises:
        KernelError: Xen cannot start it, or not as *wanted*.
    """
    able = {
        DomainKind.PVH: kernel.pvh_entry is not None and not kernel.pvh_flaw,
        DomainKind.PV: is_pv(kernel) and not kernel.pv_flaw,
        DomainKind.HVM: bool(kernel.protocols),
    }
    if kernel.family is Family.LINUX and Protocol.LINUX in kernel.protocols:
        # A bzImage holds its notes compressed; one without them is refused by xl create, not misunderstood.
        able |= {DomainKind.PV: not kernel.pv_flaw, DomainKind.PVH: not kernel.pvh_flaw}
    if wanted != "auto":
        if not able[DomainKind(wanted)]:
            can = ", ".join(each for each in DomainKind if able[each]) or "none of Xen's"
            flaw = {"pv": kernel.pv_flaw, "pvh": kernel.pvh_flaw}.get(wanted)
            why = f"cannot start as {wanted}: {flaw}" if flaw else f"is no {wanted} kernel"
            raise KernelError(f"{why} (it can be {can})", where=kernel.name)
        return DomainKind(wanted)
    if able[DomainKind.HVM] and not kernel.target.startswith("xen"):
        return DomainKind.HVM
    for each in (DomainKind.PVH, DomainKind.PV):
        if able[each]:
            return each
    raise KernelError(kernel.refusal or "is no kernel Xen can start", where=kernel.name, hint=kernel.advice or None)


def ramdisk_of(bundle: Bundle) -> Content:
    """Return the boot modules of *bundle* as the one ramdisk xl passes.

    A Linux takes several initrds as one, each padded to 4 bytes (its documentation, initramfs buffer format).

    Raises:
        UsageError: there is more than one for another kernel, or one has a command line of its own.
    """
    modules = bundle.modules
    for module in modules:
        if module.text:
            raise UsageError("xl gives a ramdisk no command line", where=f"--module {module.name}:{module.text}")
    if len(modules) > 1 and bundle.kernel.family is not Family.LINUX:
        raise UsageError("xl passes one module to a kernel", where=f"--module {modules[1].name}")
    sources: list[Source] = []
    for module in modules:
        sources += module.content.sources
        if module is not modules[-1] and module.content.size % 4:
            sources.append(Zeros(-module.content.size % 4))
    return Content(tuple(sources))


def own_disks(bundle: Bundle) -> tuple[Volume, ...]:
    """Return the volumes the guest expects as disks of their own, not as partitions."""
    return tuple(volume for volume in bundle.volumes if volume.device)


def domain_of(
    bundle: Bundle,
    path: Callable[[str], str],
    *,
    name: str,
    kind: DomainKind,
    memory: int = 0,
    restarts: bool = False,
) -> xl.Domain:
    """Return the domain for *bundle*.

    *path* tells where the toolstack finds ``kernel``, ``initrd``, ``disk.raw`` and ``xvda.raw``, …; it is asked only
    for what the domain needs. *memory* is in MiB; 0 means what the guest is known to need, with room for its files.

    Raises:
        RumpbundleError: as :class:`~rumpbundle.xen.xl.Domain`, :func:`ramdisk_of` and
        :func:`~rumpbundle.xen.xl.check_config`.
    """
    if bundle.choices and kind is not DomainKind.HVM:
        raise UsageError(
            f"a {kind} domain has no firmware that would tell which machine it is",
            where="--config-for",
            hint="make a kit for each, with -c; rumpbundle reconfig makes one of another",
        )
    xl.check_config(bundle.config.decode())
    disks = [xl.DomainDisk(path=path(f"{volume.device}.raw"), vdev=volume.device) for volume in own_disks(bundle)]
    if kind is DomainKind.HVM or bundle.root.children or len(disks) < len(bundle.volumes):
        disks.append(xl.DomainDisk(path=path(XEN_DISK), vdev="xvda"))
    if kind is DomainKind.HVM:
        firmware = Firmware.BIOS if Firmware.BIOS in bundle.boot else Firmware.UEFI
        return xl.Domain(
            name=name,
            kind=kind,
            memory=memory or _memory(bundle, firmware),
            disks=tuple(disks),
            firmware=firmware,
            restarts=restarts,
        )
    size = ramdisk_of(bundle).size
    return xl.Domain(
        name=name,
        kind=kind,
        memory=memory or _memory(bundle),
        kernel=path("kernel"),
        ramdisk=path("initrd") if size else None,
        cmdline=bundle.cmdline,
        disks=tuple(disks),
        restarts=restarts,
    )


def _memory(bundle: Bundle, firmware: Firmware | None = None) -> int:
    """Return the memory to give it, in MiB."""
    guest = knowledge.guest(str(bundle.kernel.family), bundle.kernel.target)
    return guest.memory_for("" if firmware is None else str(firmware), bundle.footprint)
