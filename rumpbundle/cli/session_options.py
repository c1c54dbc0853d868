"""What the two commands that boot share: their options, and being the guest's console."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rumpbundle import dev_launch
from rumpbundle.arguments import pattern
from rumpbundle.cli.command import Command, completed, group, options
from rumpbundle.cli.progress import Terminal
from rumpbundle.cli.streams import say, tell, unwritable
from rumpbundle.cli.values import Seconds, Size, end_of_options, without_kernel_option
from rumpbundle.dev_launch import Options
from rumpbundle.errors import GuestError
from rumpbundle.events import Note
from rumpbundle.kernels.unikernel import Firmware
from rumpbundle.launcher import registry
from rumpbundle.launcher.backend import ACCELERATORS, BUSES, Forward, LaunchPlan, port

if TYPE_CHECKING:
    from rumpbundle.launcher.session import Guest, Sink


class BackendCommand(Command):
    """A command whose words after ``--`` are not its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = end_of_options(self, args)
        own, theirs = without_kernel_option(self, args[:at]), args[at + 1 :]
        ctx.meta["own"], ctx.meta["theirs"] = tuple(own), tuple(theirs)
        return super().parse_args(ctx, own)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- BACKEND ARGS]"]


_BOOT_OPTIONS = group(
    "Booting", "--memory 128M --publish 8080:80 --expect '^listening' --timeout 30",
    click.option("--boot", "backend_name", metavar="BACKEND", default="qemu", show_default=True,
                 shell_complete=completed(lambda: registry.NAMES),
                 help=f"What runs the guest: {', '.join(registry.NAMES)}."),
    click.option("--memory", type=Size(), metavar="SIZE", help="The guest's memory: 64M.  [default: what it needs]"),
    click.option("--accel", type=click.Choice(ACCELERATORS), default="auto", show_default=True,
                 help="What runs the guest's code; auto takes KVM or HVF where they truly work."),
    click.option("--bus", type=click.Choice(BUSES), help="Where the disk is.  [default: what the guest can drive]"),
    click.option("--publish", metavar="HOST:GUEST[/udp]", multiple=True,
                 help="Lead a port of 127.0.0.1 to one of the guest; repeatable."),
    click.option("--as", "identity", default="", metavar="KEY",
                 help="What firmware says of the machine: serial:web7, uuid:…, or web7 (the serial number)."),
    click.option("--gdb", metavar="PORT", help="Wait for a debugger on this port of 127.0.0.1."),
    click.option("--expect", metavar="REGEX", help="Succeed when the console matches, fail if the guest ends first."),
    click.option("--timeout", type=Seconds(), metavar="SECONDS",
                 help="Fail if that, or the guest's end, takes longer."),
    click.option("--log", type=click.Path(dir_okay=False), metavar="FILE", help="Write the console to FILE as well."),
    click.option("--dry-run", is_flag=True, help="Print the commands, ready to paste, and run nothing."),
)  # fmt: skip


def boot_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of :class:`Session`."""
    return options(_BOOT_OPTIONS)(function)


def written(ctx: click.Context, names: Collection[str]) -> list[str]:
    """Return the options called *names* among the words of the command line, as they were written."""
    values, _, _ = ctx.command.make_parser(ctx).parse_args(list(ctx.meta["own"]))
    words: list[str] = []
    for option in ctx.command.params:
        if option.name in names:
            value = values.get(str(option.name))
            for each in value if isinstance(value, list) else [] if value is None else [value]:
                words += [option.opts[0]] if each is True else [option.opts[0], each]
    return words


class Session:
    """What both commands do: take their options, start a guest, be its console, tell its end."""

    def __init__(
        self, arguments: dict[str, Any], firmware: Firmware | None, theirs: Sequence[str], persist: bool = False
    ) -> None:
        gdb = arguments.pop("gdb")
        self.options = Options(
            backend=arguments.pop("backend_name"),
            memory=arguments.pop("memory"),
            accel=arguments.pop("accel"),
            firmware=firmware,
            bus=arguments.pop("bus"),
            publish=tuple(Forward.parse(text) for text in arguments.pop("publish")),
            gdb=None if gdb is None else port(gdb, "--gdb"),
            persist=persist,
            identity=arguments.pop("identity"),
            args=tuple(theirs),
        )
        registry.find(self.options.backend)
        expect = arguments.pop("expect")
        self._expect = None if expect is None else pattern("--expect", expect)
        self._timeout = arguments.pop("timeout")
        log = arguments.pop("log")
        self.log: tuple[Path, ...] = () if log is None else (Path(log),)
        """The file the console is written to as well, if there is one."""
        self.dry_run = arguments.pop("dry_run")
        for path in self.log if self.dry_run else ():
            _check_log(path)

    def follow(self, start: Callable[[tuple[Sink, ...]], Guest], terminal: Terminal) -> None:
        """Start a guest and follow it to the end that is wanted."""
        with contextlib.ExitStack() as stack:
            output = _Output()
            sinks: tuple[Sink, ...] = (output,)
            for log in self.log:
                sinks = (_log_file(log, stack), *sinks)
            guest = stack.enter_context(start(sinks))
            # Imported while the hypervisor starts, which takes longer.
            from rumpbundle.launcher.terminal import typed

            def leave(meant: str) -> None:
                guest.interrupt() if meant == "interrupt" else guest.kill()

            try:
                with typed(sys.stdin.fileno(), guest.send, leave) if _has_stdin() else contextlib.nullcontext():
                    try:
                        ending = dev_launch.follow(guest, expect=self._expect, timeout=self._timeout)
                    finally:
                        output.end_line()
            except GuestError as error:
                if not sys.stdout.isatty():
                    for line in error.console:
                        tell(f"console: {line}")
                raise
            terminal(Note(str(ending) if ending is not None else "the guest said what was expected"))


def _has_stdin() -> bool:
    try:
        return sys.stdin is not None and sys.stdin.fileno() >= 0
    except (OSError, ValueError):
        return False


class _Output:
    """Writes the console to standard output, as it comes."""

    def __init__(self) -> None:
        self._is_half = False

    def __call__(self, data: bytes) -> None:
        self._is_half = not data.endswith(b"\n")
        _write(1, data, "standard output")

    def end_line(self) -> None:
        """Begin a new line, if the guest left one unfinished and what we say goes to the same place."""
        with contextlib.suppress(OSError):
            if self._is_half and os.path.sameopenfile(1, 2):
                self._is_half = False
                os.write(2, b"\n")


def _check_log(path: Path) -> None:
    """Raise what :func:`_log_file` would, as far as that can be told without opening the file."""
    place = path if path.exists() else path.parent
    number = errno.ENOENT if not place.exists() else errno.EACCES if not os.access(place, os.W_OK) else 0
    if number:
        raise unwritable(OSError(number, os.strerror(number)), path)


def _log_file(path: Path, stack: contextlib.ExitStack) -> Sink:
    try:
        log = stack.enter_context(path.open("wb", buffering=0))
    except OSError as error:
        raise unwritable(error, path) from None
    return lambda data: _write(log.fileno(), data, path)


def _write(fd: int, data: bytes, name: str | Path) -> None:
    """Write *data* to *fd*, which people call *name*.

    Raises:
        BrokenPipeError: nobody reads it any more.
        HostError: it does not take it.
    """
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # as whoever shares it with us may have set it
            select.select([], [fd], [])
        except BrokenPipeError:
            raise
        except OSError as error:
            raise unwritable(error, name) from None


def show(plan: LaunchPlan) -> None:
    """Print what would be run, ready to paste."""
    for path, content in plan.files.items():
        say(f"# {path}:\n{content.decode('utf-8', 'surrogateescape')}")
    for line in plan.commands:
        say(line)
