"""The contract between the launcher and what runs guests: values in, a running guest out.

A backend is a module with a ``BACKEND`` of type :class:`Backend`. Its ``plan`` runs nothing and changes nothing, so a
plan is tested as a value and ``--dry-run`` shows exactly what would happen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from enum import StrEnum
from typing import Protocol

from rumpbundle.arguments import refused
from rumpbundle.dataclass import dataclass
from rumpbundle.disk.layout import SECTOR
from rumpbundle.errors import UsageError
from rumpbundle.events import Report
from rumpbundle.kernels.unikernel import Device, Family, Firmware

BUSES = ("virtio", "ide", "sata", "scsi", "nvme", "usb", "cd")
"""How the disk may be attached."""
ACCELERATORS = ("auto", "tcg", "kvm", "hvf")


@dataclass(frozen=True, slots=True)
class Forward:
    """A port of the host's loopback that leads to one of the guest."""

    host: int
    guest: int
    protocol: str = "tcp"

    @classmethod
    def of(cls, value: object) -> Forward:
        """Return *value*, a forward already or the text of one."""
        if isinstance(value, Forward):
            return value
        if isinstance(value, str):
            return cls.parse(value)
        raise refused("--publish", "HOST:GUEST[/udp]", value, "such as '8080:80'")

    @classmethod
    def parse(cls, text: str) -> Forward:
        """Read ``HOST:GUEST[/udp]``.

        Raises:
            UsageError: it is malformed, or a port is not 1 to 65535.
        """
        ports, slash, protocol = text.partition("/")
        host, colon, guest = ports.partition(":")
        if not colon or (slash and protocol not in ("tcp", "udp")):
            raise refused("--publish", "HOST:GUEST[/udp]", text, "such as '8080:80'")
        return cls(port(host, "--publish"), port(guest, "--publish"), protocol or "tcp")


def forwards(values: Iterable[object]) -> tuple[Forward, ...]:
    """Return the forwards that *values* are.

    Raises:
        UsageError: one is malformed, or a port of the host leads to two.
    """
    found: dict[tuple[int, str], Forward] = {}
    for each in map(Forward.of, values):
        if found.setdefault((each.host, each.protocol), each) != each:
            raise UsageError(f"the port {each.host}/{each.protocol} leads to two", where="--publish")
    return tuple(found.values())


def port(value: str | int, where: str) -> int:
    """Return the port number that *value* is or says, or raise :class:`UsageError`."""
    said = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 5
    number = int(value) if said else value
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= 65535:
        raise refused(where, "a port from 1 to 65535", value)
    return number


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """A disk as the hypervisor opens it."""

    path: str
    """Its name, for people and for commands they paste."""
    format: str = "raw"
    """QEMU's name of the format: raw, qcow2, vmdk, vdi, vpc, vhdx."""
    offset: int = 0
    """Where the image begins in the file, in bytes (an OVA holds its disk in the middle)."""
    length: int | None = None
    """Its bytes from there; None: to the end of the file."""
    persist: bool = False
    """Whether the guest's writes reach the file; if not, they are forgotten."""
    sector: int = SECTOR
    """Bytes of the sectors in which its partition table counts."""
    fd: int | None = None
    """The open file, which a hypervisor of ours inherits and opens, whatever stands at *path* by then."""

    @property
    def inherited(self) -> str:
        """The name under which whoever inherits :attr:`fd` opens it; *path* if there is none."""
        return self.path if self.fd is None else f"/dev/fd/{self.fd}"

    @property
    def nameless(self) -> bool:
        """Whether nobody but us can open it."""
        return self.fd is not None and self.path == self.inherited


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRequest:
    """What is to boot and how, as far as the user said: None leaves it to the guest's and the backend's needs."""

    name: str
    """For people and for the hypervisor; no blanks, no slashes."""
    family: Family = Family.PLAIN
    target: str = ""
    """The build, as :attr:`rumpbundle.kernels.unikernel.Unikernel.target` names it."""
    drivers: frozenset[str] = frozenset()
    """Drivers known to be in the kernel (:attr:`rumpbundle.kernels.unikernel.Unikernel.drivers`)."""
    devices: tuple[Device, ...] | None = None
    """The virtio devices a Solo5 unikernel's manifest asks for, in its order; None for other guests."""
    cmdline: str = ""
    """What the kernel is told."""
    screen: str = ""
    """What it draws on (:attr:`rumpbundle.kernels.unikernel.Unikernel.screen`)."""
    footprint: int = 0
    """Bytes of memory its kernel and modules take, as far as that is known."""
    config: bytes = b""
    """The configuration in the guest's own format, for a backend that hands it over itself."""
    kit: str | None = None
    """The directory of a finished kit, for a backend that boots one instead of a disk."""
    disk: Drive | None = None
    """The disk to boot from; None for a backend that starts the bundle's kernel itself."""
    further: tuple[Drive, ...] = ()
    """Disks besides it, on the same bus where that takes several."""
    firmware: Firmware | None = None
    memory: int | None = None
    """Bytes."""
    accel: str = "auto"
    bus: str | None = None
    publish: tuple[Forward, ...] = ()
    gdb: int | None = None
    """A port on loopback for a debugger; the guest waits for it."""
    identity: str = ""
    """What firmware is to say of the machine, as a KEY (:mod:`rumpbundle.bootloader.smbios`)."""
    args: tuple[str, ...] = ()
    """What the user wrote after ``--``: to the backend, untouched and last."""


@dataclass(frozen=True, kw_only=True)
class LaunchPlan:
    """What a backend is going to do. Backends extend it with what their ``start`` needs."""

    commands: tuple[str, ...]
    """Shell lines in the order they run, ready to paste: what ``--dry-run`` prints."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Files the commands name, by path: written before they run."""
    notes: tuple[str, ...] = ()
    """What people should know about it, one line each."""
    tested: bool = True
    """False: nobody has seen these commands work yet, and the output says so."""


class Reason(StrEnum):
    """Why a guest is no longer running."""

    EXITED = "exited"
    """It gave an exit status."""
    POWERED_OFF = "powered off"
    RESET = "reset the machine"
    PANICKED = "panicked"
    CRASHED = "crashed"
    """By a fault of the processor, or before its program could start."""
    HALTED = "halted"
    NOT_STARTED = "was not started"
    TIMED_OUT = "did not end in time"
    STOPPED = "was stopped"
    """By us, or from outside."""
    INTERRUPTED = "was interrupted"
    """By its user, at the terminal."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a guest ended. *status* is its own exit status where it told one; *detail* says where we know it from."""

    reason: Reason
    status: int | None = None
    detail: str = ""

    @property
    def good(self) -> bool:
        """Whether the guest ended as one that has done its work."""
        if self.status is not None:
            return self.status == 0
        return self.reason in (Reason.EXITED, Reason.POWERED_OFF, Reason.HALTED)

    def __str__(self) -> str:
        status = "" if self.status is None else f" with status {self.status}"
        return f"the guest {self.reason}{status}" + (f" ({self.detail})" if self.detail else "")


class Running(Protocol):
    """A started guest."""

    output: int
    """A file descriptor to read its console from; it ends when the guest (or its hypervisor) does."""

    @property
    def booted(self) -> bool | None:
        """Whether the firmware started something from its disks; None if it does not say."""

    def send(self, data: bytes) -> int:
        """Type *data* on its console as far as it takes it now; return how many bytes that were."""

    def poll(self, quiet: float) -> Ending | None:
        """Return how it ended, or None while it runs; *quiet* is the seconds since its console last spoke.

        Called a few times a second, and once more when ``output`` has ended.

        Raises:
            ToolError: the hypervisor failed.
        """

    def stop(self) -> None:
        """End it now and remove all it left; may be called again, and after it ended by itself."""


class Backend(Protocol):
    """Something that runs guests."""

    name: str

    def plan(self, request: LaunchRequest) -> LaunchPlan:
        """Return what it would do; runs nothing.

        Raises:
            UsageError: it cannot do what is asked.
        """

    def start(self, plan: LaunchPlan, report: Report) -> Running:
        """Start the guest of a *plan* this backend made.

        Raises:
            MissingToolError: its program is not installed.
            ToolError: its program failed.
        """
