"""Boot what was bundled, or a finished image, on this machine: the artifact that ships, in half a second.

::

    import rumpbundle

    with rumpbundle.launch("app.bin", publish=["8080:80"]) as guest:
        guest.expect("listening", timeout=10)
        ...

:func:`launch` bundles to a disk that has no name and boots it, :func:`run` boots an image of any format. Both give
a :class:`~rumpbundle.launcher.session.Guest` and leave nothing behind, no process and no file, however they end.
:func:`launch_plan` and :func:`run_plan` tell the commands instead.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from rumpbundle import formats, knowledge
from rumpbundle.arguments import choice, flag, instance, refused, reporter, sequence, size, text, words
from rumpbundle.bootloader.smbios import Key
from rumpbundle.bundling import planning, writing
from rumpbundle.bundling.recipe import Recipe, RecipeFields
from rumpbundle.dataclass import dataclass
from rumpbundle.disk.flat import write_flat
from rumpbundle.disk.layout import MIB
from rumpbundle.errors import GuestError, Interrupted, UsageError, nearest
from rumpbundle.events import Note, Report, Warned, silent
from rumpbundle.formats import Folder, Format
from rumpbundle.guests import Data, Writable
from rumpbundle.host import environment, programs, signals
from rumpbundle.images.records import kitfiles
from rumpbundle.kernels.unikernel import Firmware
from rumpbundle.launcher import backend, registry, requests
from rumpbundle.launcher.backend import Drive, Ending, Forward, LaunchPlan, LaunchRequest, Reason

if TYPE_CHECKING:
    from rumpbundle.launcher.session import Guest, Sink


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to boot; None leaves a choice to what the guest can drive."""

    backend: str = "qemu"
    memory: int | None = None
    """Bytes."""
    accel: str = "auto"
    firmware: Firmware | None = None
    bus: str | None = None
    publish: tuple[Forward, ...] = ()
    gdb: int | None = None
    """A port on loopback where a debugger may attach; the guest waits for it."""
    persist: bool = False
    """Let the guest write to a finished image."""
    identity: str = ""
    """What firmware says of the machine, as a key of a configuration has it (:mod:`rumpbundle.bootloader.smbios`)."""
    args: tuple[str, ...] = ()
    """To the backend, untouched."""

    def __post_init__(self) -> None:
        """Take what was given for what it means: ports as text, sizes as ``64M``, sequences of any kind.

        Raises:
            UsageError: a field has a value that says nothing; ``where`` names it.
        """
        registry.find(self.backend)
        choice("--accel", self.accel, backend.ACCELERATORS)
        if self.bus is not None:
            choice("--bus", self.bus, backend.BUSES)
        memory = None if self.memory is None else size("--memory", self.memory)
        if memory is not None and memory < MIB:
            raise UsageError(f"expected at least 1M, got {memory} bytes", where="--memory")
        firmware = None if self.firmware is None else Firmware(choice("--firmware", self.firmware, tuple(Firmware)))
        if text("--as", self.identity):
            Key.parse(self.identity, "--as")
        ports = backend.forwards(sequence("--publish", self.publish))
        gdb = None if self.gdb is None else backend.port(self.gdb, "--gdb")
        given: Any = self.args
        args = () if isinstance(given, str) else words("args", given)
        if isinstance(given, str) or "\0" in "".join(args):
            raise refused("args", "a list of words", given)
        flag("--persist", self.persist)
        values = {"memory": memory, "firmware": firmware, "publish": ports, "gdb": gdb, "args": args}
        for name, value in values.items():
            object.__setattr__(self, name, value)


class BootFields(TypedDict, total=False):
    """The fields of :class:`Options`, as a caller may write them."""

    backend: str
    memory: int | str | None
    accel: str
    firmware: Firmware | str | None
    bus: str | None
    publish: Sequence[Forward | str]
    gdb: int | None
    persist: bool
    identity: str
    args: Sequence[str]


class LaunchFields(RecipeFields, total=False):
    """What :func:`launch` takes: what to bundle, and how to boot; ``firmware`` is the one to boot with."""

    backend: str
    memory: int | str | None
    accel: str
    bus: str | None
    publish: Sequence[Forward | str]
    gdb: int | None
    identity: str
    args: Sequence[str]


def _options(options: Options | None, given: Mapping[str, Any]) -> Options:
    """Return *options*, or those that the fields *given* make; not both."""
    known = [field.name for field in fields(Options)]
    for name in given:
        if name not in known:
            raise UsageError(f"there is no option {name!r}", hint=nearest(name, known))
    if options is None:
        return Options(**given)
    if given:
        raise UsageError(f"give {next(iter(given))!r} in options, or leave options out")
    return instance("options", options, Options)


def launch(
    app: str | os.PathLike[str] | Recipe,
    *,
    options: Options | None = None,
    sinks: tuple[Sink, ...] = (),
    report: Report = silent,
    **more: Unpack[LaunchFields],
) -> Guest:
    """Bundle the kernel *app*, boot the image, and return the running guest.

    Further keywords are the fields of :class:`Options` (``memory``, ``publish``, ``gdb``, …), or of
    :class:`rumpbundle.Recipe` (``cmdline``, ``modules``, ``config``, …). ``options`` gives the former whole, and
    a recipe in the place of *app* the latter. Every byte of the console goes to each of *sinks*.

    Raises:
        RumpbundleError: see :mod:`rumpbundle.errors`; then nothing runs.
    """
    known = {field.name for field in fields(Options)}
    options = _options(options, {name: value for name, value in more.items() if name in known})
    sinks = _sinks(sinks)
    others: Any = {name: value for name, value in more.items() if name not in known}
    planned = planning.plan(Recipe.of(app, **others), formats=[format_for(options)], bus=_bus(options), report=report)
    return launch_planned(planned, options, sinks=sinks, report=report)


def launch_planned(
    planned: planning.Plan,
    options: Options,
    *,
    disks: Sequence[Data | Writable] = (),
    sinks: tuple[Sink, ...] = (),
    report: Report = silent,
) -> Guest:
    """Boot what *planned* would write, with *disks* as :func:`run` has them, and return the running guest.

    Raises:
        RumpbundleError: see :mod:`rumpbundle.errors`; then nothing runs.
    """
    format = format_for(options)
    with contextlib.ExitStack() as stack:
        if isinstance(format.product, Folder):
            kit = _temporary_directory(stack) / "kit"
            writing.write(planned, format, kit, sync=False, report=report)
            request = _bundled(planned, options, kit=str(kit))
        else:
            # A file without a name: it vanishes with the last process that has it open, however that ends.
            fd = stack.enter_context(tempfile.TemporaryFile(prefix="rumpbundle-")).fileno()
            write_flat(planned.disk_for(format), fd, report, "disk")
            request = _bundled(planned, options, disk=Drive(path=f"/dev/fd/{fd}", fd=fd, persist=True))
        return _started(_with(disks, request, options, stack), options, sinks, report, stack)


def launch_plan(recipe: Recipe, options: Options, *, report: Report = silent) -> LaunchPlan:
    """Return what :func:`launch` would do, with a named image instead of the nameless one. Nothing is started."""
    format = format_for(options)
    planned = planning.plan(recipe, formats=[format], bus=_bus(options), report=report)
    image = str(writing.default_output(recipe.app, format))
    if isinstance(format.product, Folder):
        return _planned(_bundled(planned, options, kit=image), options, report)
    return _planned(_bundled(planned, options, disk=Drive(path=image, persist=True)), options, report)


def run(
    image: str | os.PathLike[str],
    *,
    options: Options | None = None,
    disks: Sequence[Data | Writable] = (),
    sinks: tuple[Sink, ...] = (),
    report: Report = silent,
    **more: Unpack[BootFields],
) -> Guest:
    """Boot the finished *image*, of any format, and return the running guest; the image is not written to.

    *disks* are directories that become disks of their own: :class:`rumpbundle.guests.Data` read-only,
    :class:`rumpbundle.guests.Writable` as ext2 whose changes are forgotten.
    Further keywords are the fields of :class:`Options`.

    Raises:
        RumpbundleError: see :mod:`rumpbundle.errors`; then nothing runs.
    """
    options, sinks = _options(options, more), _sinks(sinks)
    reporter(report)
    trees = sequence("disks", disks)
    for each in trees:
        if not isinstance(each, Data | Writable):
            raise refused("disks", "values of rumpbundle.guests.Data or Writable", each)
    with contextlib.ExitStack() as stack:
        request = _finished(image, options, stack, report, copied=options.backend in registry.KITS)
        return _started(_with(trees, request, options, stack), options, sinks, report, stack)


def run_plan(
    image: str | os.PathLike[str],
    options: Options,
    *,
    disks: Sequence[Data | Writable] = (),
    report: Report = silent,
) -> LaunchPlan:
    """Return what :func:`run` would do, with names for the *disks*. Nothing is started."""
    with contextlib.ExitStack() as stack:
        request = _finished(image, options, stack, report)
        if request.disk is not None and request.disk.nameless:
            raise UsageError(
                "has to be unpacked first, to a file that QEMU can open; the real run does",
                where=image,
                hint="rumpbundle convert -f raw makes one that can be named",
            )
        if disks:
            from rumpbundle.launcher.attached import named

            request = replace(request, further=named(disks))
        if options.backend not in registry.KITS or options.persist or request.disk is None:
            # Of a kit, what is shown names itself, not a copy that will be gone.
            return _planned(request, options, report)
        from rumpbundle.launcher.qemu import unpacking

        copy = f"{request.name}.copy"
        plan = _planned(replace(request, disk=Drive(path=copy, persist=True)), options, report)
        make, remove = unpacking(request.disk, copy), ("rm", copy)
        return replace(plan, commands=(programs.shown(make), *plan.commands, programs.shown(remove)))


def follow(guest: Guest, *, expect: str | None = None, timeout: float | None = None) -> Ending | None:
    """Wait until *guest* has done what it should: said *expect* (then it is ended), or ended well.

    Returns how it ended, None if it was ended because it said what it should. *timeout* is in seconds.

    Raises:
        GuestError: it did not, or not in time; ``console`` holds its last lines.
        Interrupted: the user stopped it.
        ToolError: the backend failed.
    """
    if expect is not None:
        try:
            guest.expect(expect, timeout)
        except GuestError:
            if guest.ending is not None and guest.ending.reason is Reason.INTERRUPTED:
                raise Interrupted from None
            raise
        guest.kill()
        return None
    ending = guest.wait(timeout)
    if ending.reason is Reason.INTERRUPTED:
        raise Interrupted
    if not ending.good and ending.reason is not Reason.STOPPED:
        raise GuestError(str(ending), console=tuple(guest.console.tail()))
    return ending


def _sinks(sinks: Any) -> tuple[Sink, ...]:
    """Return *sinks*, which are to be called with what the guest says."""
    for each in (found := tuple(sequence("sinks", sinks))):
        if not callable(each):
            raise refused("sinks", "functions that take bytes", each)
    return found


def format_for(options: Options) -> Format:
    """Return the format that is bundled for a backend to boot."""
    registry.find(options.backend)
    return formats.find(registry.KITS.get(options.backend, "raw"))


def _bus(options: Options) -> str:
    """Return the bus the user asks for by the name the tables and guests use; empty if none, or no such."""
    if options.bus is None:
        return ""
    return next((name for name, bus in knowledge.qemu().buses.items() if bus.option == options.bus), "")


def _with(
    disks: Sequence[Data | Writable], request: LaunchRequest, options: Options, stack: contextlib.ExitStack
) -> LaunchRequest:
    """Return *request* with the further *disks*, which are there as long as *stack*."""
    if not disks:
        return request
    from rumpbundle.launcher.attached import attached

    directory = str(_temporary_directory(stack)) if options.backend in registry.KITS else None
    return replace(request, further=attached(disks, stack, directory))


def _temporary_directory(stack: contextlib.ExitStack) -> Path:
    """Return a directory that is removed with *stack*, and also when we are killed."""
    directory = stack.enter_context(environment.scratch_directory())
    stack.enter_context(programs.if_killed(("rm", "-rf", str(directory)), stdin=os.devnull))
    return directory


def _bundled(
    planned: planning.Plan, options: Options, *, disk: Drive | None = None, kit: str | None = None
) -> LaunchRequest:
    """Return the request to boot what was bundled, from *disk* or as *kit*."""
    config = planned.delivery.config if kit is None else planned.bundle.config
    return _as_wanted(requests.of_bundle(planned.bundle, config, disk=disk, kit=kit), options)


def _finished(
    path: str | os.PathLike[str],
    options: Options,
    stack: contextlib.ExitStack,
    report: Report,
    *,
    copied: bool = False,
) -> LaunchRequest:
    """Return the request to boot the finished image or kit at *path*, or (if *copied*) to boot a copy.

    No copy is made if the guest may write to it.
    """
    copy = _temporary_directory(stack) if copied and not options.persist else None
    if options.backend in registry.KITS and kitfiles.is_xen(path):
        return _as_wanted(requests.of_kit(path, copy=copy), options)
    request = requests.of_image(path, stack, report, persist=options.persist, copy=copy)
    return _as_wanted(request if options.backend == "qemu" else replace(request, bus=None), options)


def _as_wanted(request: LaunchRequest, options: Options) -> LaunchRequest:
    """Return *request* with what the user chose."""
    chosen = {
        name: getattr(options, name) for name in ("memory", "accel", "bus", "publish", "gdb", "identity", "args")
    }
    chosen["bus"] = options.bus or request.bus
    return replace(request, firmware=options.firmware or request.firmware, **chosen)


def _planned(request: LaunchRequest, options: Options, report: Report) -> LaunchPlan:
    chosen = registry.find(options.backend)
    if request.identity and options.backend != "qemu":
        raise UsageError(
            f"rumpbundle gives no identity to a machine of {options.backend}", where="--as", hint="use --boot qemu"
        )
    if options.backend == "qemu" and request.accel == "auto":
        from rumpbundle.launcher import accel, qemu

        choice = accel.choose(qemu.PROGRAM)
        report(Note(f"accelerator: {choice.name} ({choice.why})"))
        request = replace(request, accel=choice.name)
    plan = chosen.plan(request)
    if not plan.tested:
        report(Warned(f"{options.backend}: nobody has seen these commands work yet; please tell us whether they do"))
    for note in plan.notes:
        report(Note(note))
    return plan


def _started(
    request: LaunchRequest, options: Options, sinks: tuple[Sink, ...], report: Report, stack: contextlib.ExitStack
) -> Guest:
    plan = _planned(request, options, report)
    with contextlib.ExitStack() as undone:
        owned = stack.pop_all()
        undone.callback(owned.close)
        # A guest that nobody holds yet would outlive an interruption.
        with signals.held():
            running = registry.find(options.backend).start(plan, report)
            undone.callback(running.stop)
            # Imported while the hypervisor starts, which takes longer.
            from rumpbundle.launcher.session import Guest

            guest = Guest(running, family=request.family, sinks=sinks, cleanup=owned.close)
            undone.pop_all()
            undone.callback(guest.kill)
        undone.pop_all()
    return guest
