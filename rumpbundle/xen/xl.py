"""Xen's toolstack ``xl``: the domain it is asked for and the commands that start one, as values; nothing runs here.

xl is forgiving where it should not be: it ignores a misspelt key, cuts a long command line, drops the comma that ends
a path, and all with status 0. So whatever would not arrive as it is written is refused here, before there is a
domain. References: xl.cfg(5), xl-disk-configuration(5), xl(1) of Xen 4.17; ``docs/facts/xen.md#xl-cfg``;
``tests/test_xen.py`` shows each statement to a real Xen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

from rumpbundle.dataclass import dataclass
from rumpbundle.errors import ConfigError, InputError, UsageError, nearest
from rumpbundle.host import shell
from rumpbundle.images.records.kitfiles import XL_CFG
from rumpbundle.kernels.unikernel import Firmware

PV_CMDLINE_MAX = 1023
"""Bytes of a PV command line (``MAX_GUEST_CMDLINE`` less its NUL); Xen cuts the rest without a word."""

CONFIG_MAX = 4096 - len("/local/domain/32751/rumprun/cfg") - 1
"""Bytes a xenstore value may have, next to its path and a NUL in one 4096-byte message.

Counted for the longest domain number there is, so that what was accepted once is accepted on every host.
"""

KEYS = frozenset(
    """
    acpi acpi_firmware acpi_laptop_slate acpi_s3 acpi_s4 altp2m altp2mhvm apic bios bios_path_override
    blkdev_start boot bootloader bootloader_args builder cap channel cmdline cpu_weight cpuid cpus cpus_soft
    device_model_args device_model_args_hvm device_model_args_pv device_model_override
    device_model_stubdomain_override device_model_stubdomain_seclabel device_model_user device_model_version
    device_tree disk display dm_restrict driver_domain dtdev e820_host extra extratime firmware firmware_override
    gfx_passthru gic_version hap hdtype hpet init_seclabel iomem ioports irqs kernel keymap latency localtime
    max_event_channels max_grant_frames max_grant_version max_maptrack_frames maxmem maxvcpus mca_caps memory
    mmio_hole ms_vm_genid msr_relaxed name nestedhvm nodes nographic nomigrate nx on_crash on_poweroff on_reboot
    on_soft_reset on_watchdog oos opengl p9 pae passthrough pci pci_msitranslate pci_permissive pci_power_mgmt
    pci_seize period pool pvcalls pvh pvshim pvshim_cmdline pvshim_extra pvshim_path ramdisk rdm rdm_mem_boundary
    root rtc_timeoffset sdl seclabel serial shadow_memory slice smbios_firmware soundhw spice
    spice_clipboard_sharing spice_image_compression spice_streaming_video spiceagent_mouse spicedisable_ticketing
    spicehost spicepasswd spiceport spicetls_port spiceusbredirection spicevdagent stdvga stubdomain_cmdline
    stubdomain_kernel stubdomain_memory stubdomain_ramdisk tee timer_mode tsc_mode type usb usbctrl usbdev
    usbdevice usbversion uuid vcpus vdispl vendor_device vfb vga videoram vif viridian vkb vkb_device
    vmtrace_buf_kb vnc vncdisplay vnclisten vncpasswd vncunused vncviewer vnuma vpmu vpt_align vsnd vtpm vuart
    xauthority xen_platform_pci xend_suspend_evtchn_compat
    """.split()  # noqa: SIM905 (150 quoted words read worse)
)
"""Every key ``xl create`` of Xen 4.17 asks its configuration for."""


NAME_MAX = 64
NAME_PATTERN = r"(?!\d+$)[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}"
NAME_RULE = (
    "at most 64 of letters, digits and _ . + -, the first a letter, digit or _, and not digits alone: "
    "xl would take that for a domain's number"
)
"""Stricter than xl, which takes all but ``/`` and then cannot find some of them again."""


def fitting_name(text: str) -> str:
    """Return a name for a domain made from *text*, which nobody chose."""
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", text)
    for candidate in (name, f"vm-{name}"):
        if re.fullmatch(NAME_PATTERN, candidate[:NAME_MAX]):
            return candidate[:NAME_MAX]
    raise AssertionError(text)


class DomainKind(StrEnum):
    """How Xen runs a domain; the value is what ``type`` takes, in exactly this spelling."""

    PV = "pv"
    PVH = "pvh"
    HVM = "hvm"


DISK_FORMATS = ("raw", "qcow2", "vhd")
"""The formats of a disk that xl takes and we write (xl-disk-configuration(5)); dom0's QEMU reads all but raw."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainDisk:
    """A file as a block device of the domain."""

    path: str
    """As the toolstack finds it: absolute, or relative to where ``xl create`` runs."""
    vdev: str
    """``xvda``, ``hda``, ``sda``… (``vda`` parses and then fails)."""
    writable: bool = True
    """A rumprun refuses a read-only one (``etfs register for "xvda" failed: 1``)."""
    format: str = "raw"
    """One of :data:`DISK_FORMATS`."""

    def __post_init__(self) -> None:
        if self.format not in DISK_FORMATS:
            raise UsageError(f"xl takes {', '.join(DISK_FORMATS)} disks, this is {self.format}", where=self.path)
        _check_text(self.path, "disk")
        if not self.path:
            raise InputError("the path of a disk is empty")
        if any(c.isspace() for c in self.path):
            # Xen 4.17 keeps them after target=, but the scripts that set disks up differ from host to host.
            raise InputError(
                "a disk's path may not survive xl with blanks", where=self.path, hint="put it where the path has none"
            )
        if self.path.endswith(","):
            raise InputError("xl drops the comma at the end of a disk's path", where=self.path, hint="rename it")
        if not re.fullmatch(r"(xvd|hd|sd)[a-z]", self.vdev):
            raise UsageError(
                f"xl cannot create a device called {self.vdev}", hint="it knows xvda to xvdz, hda to hdd, sda to sdz"
            )

    def spec(self) -> str:
        """Return it as xl's disk specification; ``target=`` comes last because it swallows all that follows."""
        return f"format={self.format}, vdev={self.vdev}, access={'rw' if self.writable else 'ro'}, target={self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """What ``xl create`` is asked for."""

    name: str
    kind: DomainKind
    memory: int
    """MiB."""
    kernel: str | None = None
    """Path of the kernel; PV and PVH only. An HVM domain boots its first disk."""
    ramdisk: str | None = None
    cmdline: str = ""
    disks: tuple[DomainDisk, ...] = ()
    firmware: Firmware = Firmware.BIOS
    """What an HVM domain starts with."""
    restarts: bool = True
    """Whether a reboot of the guest makes a new domain (else it destroys this one, as power-off and crash do)."""

    def __post_init__(self) -> None:
        if not re.fullmatch(NAME_PATTERN, self.name):
            raise UsageError("is no name for a domain", where=self.name, hint=f"it has {NAME_RULE}")
        if self.memory < 1:
            raise UsageError(f"a domain needs at least 1 MiB of memory, got {self.memory}")
        for text, what in ((self.kernel, "kernel"), (self.ramdisk, "ramdisk"), (self.cmdline, "command line")):
            _check_text(text or "", what)
        if self.kind is DomainKind.HVM:
            if self.kernel is not None or self.ramdisk is not None or self.cmdline:
                raise UsageError("an HVM domain boots its disk: it takes no kernel, ramdisk or command line")
            if not self.disks:
                raise UsageError("an HVM domain needs a disk to boot from")
        elif self.kernel is None:
            raise UsageError(f"a {self.kind} domain needs a kernel")
        if self.kind is DomainKind.PV and len(self.cmdline.encode()) > PV_CMDLINE_MAX:
            raise ConfigError(
                f"the command line has {len(self.cmdline.encode())} bytes, "
                f"and Xen cuts that of a PV domain after {PV_CMDLINE_MAX}",
                hint="a rumprun takes its configuration from xenstore: give it with -c",
            )
        vdevs = [disk.vdev for disk in self.disks]
        if len(set(vdevs)) < len(vdevs):
            raise UsageError(f"two disks want the same device name (of {', '.join(vdevs)})")

    def settings(self) -> dict[str, str]:
        """Return the keys of its ``xl.cfg`` and their values, in xl's syntax and in order."""
        found = {"name": quoted(self.name), "type": quoted(self.kind), "memory": str(self.memory)}
        for key, value in (("kernel", self.kernel), ("ramdisk", self.ramdisk), ("cmdline", self.cmdline)):
            if value:
                found[key] = quoted(value)
        if self.disks:
            found["disk"] = f"[{', '.join(quoted(disk.spec()) for disk in self.disks)}]"
        if self.kind is DomainKind.HVM:
            # Without a serial port `xl console` has nothing to show; PV and PVH ignore the key.
            found |= {"firmware": quoted(self.firmware), "serial": quoted("pty")}
        found |= {"on_poweroff": quoted("destroy"), "on_crash": quoted("destroy")}
        return found | {"on_reboot": quoted("restart" if self.restarts else "destroy")}

    def text(self) -> str:
        """Return the domain as the text of an ``xl.cfg``."""
        return "".join(f"{key} = {value}\n" for key, value in self.settings().items())


def quoted(text: str) -> str:
    r"""Return *text* as a string of xl.cfg, where ``\"`` and ``\\`` are the escapes that matter."""
    _check_text(text, XL_CFG)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _check_text(text: str, what: str) -> None:
    bad = next((c for c in text if ord(c) < 32 or ord(c) == 127 or "\ud800" <= c <= "\udfff"), None)
    if bad is not None:
        raise InputError(f"{what}: {text!r} holds a character that xl.cfg cannot carry ({bad!r})")


def check_config(text: str) -> None:
    """Raise :class:`ConfigError` unless *text* fits ``rumprun/cfg`` in xenstore, on any host."""
    size = len(text.encode())
    if size > CONFIG_MAX:
        raise ConfigError(
            f"the configuration has {size} bytes, and xenstore takes {CONFIG_MAX}",
            hint="put what is long into a file of the guest's",
        )
    if "\0" in text:
        raise ConfigError("the configuration holds a NUL, which no argument of xenstore-write can")


def check_arguments(arguments: Sequence[str]) -> None:
    """Look at what the user passes through to ``xl create``: options, and ``key=value`` in xl.cfg's syntax.

    Raises:
        UsageError: a key xl does not know and would ignore, or one that is ours to set.
    """
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        if argument.startswith("-") or not equals:
            continue
        key = key.strip()
        if "\n" in argument or "\r" in argument:
            raise UsageError(f"{argument!r} is more than one line")
        _check_text(argument, "--set")
        if key == "name":
            raise UsageError("the domain's name is given with --name", where=argument)
        if key not in KEYS:
            raise UsageError(
                f"xl would ignore {key!r}, which is no key of xl.cfg",
                where=argument,
                hint=nearest(key, KEYS, "the keys are in xl.cfg(5)"),
            )


Command = tuple[str, ...]


def create(cfg: str, arguments: Sequence[str] = ()) -> Command:
    """Make the domain and leave it paused."""
    return ("xl", "create", "-p", cfg, *arguments)


def domain_id(name: str) -> Command:
    """Print the domain's number."""
    return ("xl", "domid", name)


def write_config(domid: int, text: str) -> Command:
    """Give a rumprun its configuration, which it reads once, when it starts.

    ``xenstore-write`` decodes backslash escapes in the value: each backslash is doubled, or the JSON is corrupted.
    """
    check_config(text)
    return ("xenstore-write", f"/local/domain/{domid}/rumprun/cfg", text.replace("\\", "\\\\"))


def unpause(domid: int) -> Command:
    return ("xl", "unpause", str(domid))


def console(domid: int) -> Command:
    """Show the console until the domain ends."""
    return ("xl", "console", str(domid))


def destroy(domain: int | str) -> Command:
    """End the domain of this number or name at once; ``xl shutdown`` waits a minute for guests that do not listen."""
    return ("xl", "destroy", str(domain))


def script(name: str, cfg: str, config: str | None, arguments: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the same commands for a person's POSIX shell; *cfg* and *config* name files, *config* the JSON.

    The console is attached before the domain runs: what a domain says is lost when it ends with nobody listening.
    """
    lines = [shell.joined(create(cfg, arguments))]
    if config is not None:
        # The substitution drops newlines at the end, which JSON does not mind.
        value = rf'''"$(sed 's/\\/\\\\/g' {shell.quoted(config)})"'''
        lines.append(f'xenstore-write "/local/domain/$({shell.joined(domain_id(name))})/rumprun/cfg" {value}')
    return (*lines, f"(sleep 1; {shell.joined(('xl', 'unpause', name))}) & {shell.joined(('xl', 'console', name))}")
