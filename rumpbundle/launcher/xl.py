"""Xen: a domain made by the commands of :mod:`rumpbundle.xen.xl`, of a kit or of a disk.

The domain is made paused, gets its configuration and a console, and then runs. When it ends it is kept
(``preserve``), so that its last words are read and its reason is known; it is we who destroy it, then, at a timeout
and at our own end.
"""

from __future__ import annotations

import contextlib
import os
import re

from rumpbundle import knowledge
from rumpbundle.dataclass import dataclass
from rumpbundle.disk.layout import MIB
from rumpbundle.errors import ToolError, UsageError
from rumpbundle.events import Report, Warned
from rumpbundle.host import programs
from rumpbundle.images.records.kitfiles import XEN_CONFIG, XEN_DISK, XL_CFG
from rumpbundle.kernels.unikernel import Firmware
from rumpbundle.launcher.backend import Backend, Drive, Ending, LaunchPlan, LaunchRequest, Reason
from rumpbundle.launcher.qemu import unpacking
from rumpbundle.xen import xl as toolstack

NO_CFG = "/dev/null"
"""A configuration file xl knows as none: all stands in the arguments (xl_vmcontrol.c, ``create_domain``)."""
ATTACH = 5.0
"""Seconds a console gets to attach before the domain runs anyway."""
LOOK = 1.0
"""Seconds of silence after which we ask whether the domain still runs; asking takes xl 50 ms."""

_PRESERVED = tuple(f'on_{event}="preserve"' for event in ("poweroff", "reboot", "crash", "watchdog"))
_FORMATS = {"raw": "raw", "qcow2": "qcow2", "vpc": "vhd"}
"""xl's names of the formats it takes (:data:`rumpbundle.xen.xl.DISK_FORMATS`) by QEMU's."""
_REASONS = {0: Reason.POWERED_OFF, 1: Reason.RESET, 3: Reason.PANICKED, 4: Reason.PANICKED}
"""SHUTDOWN_* of xen/include/public/sched.h; 4 is the watchdog's."""


@dataclass(frozen=True, kw_only=True)
class XlPlan(LaunchPlan):
    """The domain to make, and of what."""

    cfg: str
    """The configuration file of :attr:`kit`."""
    kit: str | None
    """The directory to make it in; None is the current one."""
    name: str
    config: str | None
    """What goes to xenstore."""
    arguments: tuple[str, ...]
    """For ``xl create``, after the configuration file."""


class RunningXl:
    """A domain of ours: its console, and how it ended."""

    booted = True
    """Xen starts the kernel of most domains itself."""

    def __init__(self, plan: XlPlan, report: Report) -> None:
        self._report = report
        self._looked = 0.0
        self._complaint = ""
        self._keys = -1
        self._stack = contextlib.ExitStack()
        programs.run(toolstack.create(plan.cfg, plan.arguments), cwd=plan.kit, report=report)
        destroy = toolstack.destroy(plan.name)
        self._stack.callback(self._destroy, destroy)
        try:
            self._stack.enter_context(programs.if_killed(destroy, stdin=os.devnull))
            self._domid = _number(programs.run(toolstack.domain_id(plan.name), report=report))
            if plan.config is not None:
                programs.run(toolstack.write_config(self._domid, plan.config), report=report)
            self._console = programs.spawn(toolstack.console(self._domid), report=report)
            self._stack.callback(self._console.end)
            # What a domain says before anybody listens is lost if it ends before that, too.
            self._console.wait_until_open("/dev/pts/", ATTACH)
            programs.run(toolstack.unpause(self._domid), report=report)
        except BaseException:
            self.stop()
            raise
        self.output = self._console.output

    def send(self, data: bytes) -> int:
        # xl console reads from a terminal only, so what is typed goes to the console's own.
        if self._keys < 0:
            try:
                self._keys = os.open(self._terminal(), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
            except (OSError, ToolError):
                return len(data)
            self._stack.callback(os.close, self._keys)
        try:
            return os.write(self._keys, data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)

    def _terminal(self) -> str:
        """Return the terminal behind the console: of an HVM domain its serial port's."""
        base = f"/local/domain/{self._domid}"
        try:
            return programs.run(("xenstore-read", f"{base}/serial/0/tty")).decode().strip()
        except ToolError:
            return programs.run(("xenstore-read", f"{base}/console/tty")).decode().strip()

    def poll(self, quiet: float) -> Ending | None:
        for line in self._console.complaints():
            self._report(Warned(line))
            self._complaint = line
        closed = self._console.poll() is not None
        if quiet < self._looked:
            self._looked = 0.0
        if not closed and quiet - self._looked < LOOK:
            return None
        self._looked = quiet
        if ending := self._ending():
            return ending
        if closed:
            raise self._console.failure(self._complaint or "the console closed while the domain runs")
        return None

    def _ending(self) -> Ending | None:
        """Return how the domain ended, None while it runs."""
        try:
            listed = programs.run(("xl", "list", "-v", str(self._domid))).decode("utf-8", "replace")
        except ToolError:
            return Ending(Reason.STOPPED, None, "its domain is gone")
        code = shutdown_reason(listed, self._domid)
        if code is None:
            return None
        return Ending(_REASONS.get(code, Reason.STOPPED), None, f"Xen says: shutdown reason {code}")

    def _destroy(self, command: toolstack.Command) -> None:
        with contextlib.suppress(ToolError):
            programs.run(command, report=self._report)

    def stop(self) -> None:
        self._stack.close()


def shutdown_reason(listed: str, domid: int) -> int | None:
    """Return why the domain shut down, as ``xl list -v`` tells it; None if it did not."""
    for line in listed.splitlines():
        # Name, ID, Mem, VCPUs, State, Time(s), UUID, Reason-Code (in hexadecimal, or "-"), Security Label.
        fields = line.split()
        if len(fields) >= 8 and fields[1] == str(domid) and re.fullmatch("[0-9a-f]+", fields[7]):
            return int(fields[7], 16)
    return None


def _number(printed: bytes) -> int:
    try:
        return int(printed)
    except ValueError:
        raise ToolError(f"xl domid printed {printed[:80]!r}, expected a number") from None


class _Xl:
    name = "xl"

    def plan(self, request: LaunchRequest) -> XlPlan:
        given = {
            "--publish": bool(request.publish),
            "--gdb": request.gdb is not None,
            "--bus": request.bus is not None,
            "--accel": request.accel != "auto",
        }
        for option in (option for option, is_given in given.items() if is_given):
            raise UsageError(
                "means nothing to Xen", where=option, hint="say it in xl.cfg's words after --: vif=['bridge=xenbr0']"
            )
        toolstack.check_arguments(request.args)
        config = request.config.decode() if request.config else None
        if config is not None:
            toolstack.check_config(config)
        name = toolstack.fitting_name(request.name)
        own = _of_disk(request, name) if request.kit is None else _of_kit(request, name)
        cfg = NO_CFG if request.kit is None else XL_CFG
        arguments = (*own, *_PRESERVED, *request.args)
        script = toolstack.script(name, cfg, XEN_CONFIG if config is not None else None, arguments)
        enter = () if request.kit is None else (programs.shown(("cd", request.kit)),)
        return XlPlan(
            commands=(*enter, *script, programs.shown(toolstack.destroy(name))),
            cfg=cfg,
            kit=request.kit,
            name=name,
            config=config,
            arguments=arguments,
        )

    def start(self, plan: LaunchPlan, report: Report) -> RunningXl:
        assert isinstance(plan, XlPlan)
        return RunningXl(plan, report)


def _of_kit(request: LaunchRequest, name: str) -> list[str]:
    """Return what is to differ from the ``xl.cfg`` of a kit."""
    if request.further:
        raise UsageError("a kit has its own disks", where="--data or --volume", hint="give them to rumpbundle xen")
    settings = [f"name={toolstack.quoted(name)}"]
    if request.memory is not None:
        settings.append(f"memory={max(request.memory // MIB, 1)}")
    return settings


def _of_disk(request: LaunchRequest, name: str) -> list[str]:
    """Return all there is to say of an HVM domain that boots from a disk."""
    assert request.disk is not None
    firmware = request.firmware or Firmware.BIOS
    guest = knowledge.guest(str(request.family), request.target)
    needed = guest.memory_for(str(firmware), request.footprint)
    domain = toolstack.Domain(
        name=name,
        kind=toolstack.DomainKind.HVM,
        memory=needed if request.memory is None else max(request.memory // MIB, 1),
        disks=tuple(
            _disk(disk, f"xvd{chr(ord('a') + number)}")
            for number, disk in enumerate((request.disk, *request.further))
        ),
        firmware=firmware,
    )
    return [f"{key}={value}" for key, value in domain.settings().items() if not key.startswith("on_")]


def _disk(disk: Drive, vdev: str) -> toolstack.DomainDisk:
    """Return *disk* as xl's."""
    format = _FORMATS.get(disk.format)
    if format is None or disk.offset or disk.length is not None:
        raise UsageError(
            "xl cannot let a guest write to an image of this format",
            where=disk.path,
            hint=f"leave out --persist, or convert it: {programs.shown(unpacking(disk, XEN_DISK))}",
        )
    # All are writable: as an IDE disk, which an HVM domain has besides, a read-only one is refused.
    return toolstack.DomainDisk(path=disk.path, vdev=vdev, format=format)


BACKEND: Backend = _Xl()
