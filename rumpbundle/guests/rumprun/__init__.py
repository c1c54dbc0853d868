"""rumprun: a NetBSD rump kernel with one or several programs baked in.

It reads its configuration (:mod:`rumpbundle.guests.rumprun.dialect`) from its first boot module, or from a file on
its disk if it is longer than the guest takes from there; on Xen PV from the xenstore. What it would panic on at boot
is refused, with the reason.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rumpbundle.disk.content import Content
from rumpbundle.disk.layout import round_up
from rumpbundle.disk.tree import Directory, File
from rumpbundle.errors import ConfigError, UsageError
from rumpbundle.guests._contract import Delivery, Request, command_line, plain_word
from rumpbundle.guests.rumprun import disks
from rumpbundle.guests.rumprun.dialect import ROOT_CONFIG, dialect, first_program, is_xen
from rumpbundle.manifest import SLOT, Module

if TYPE_CHECKING:
    from rumpbundle.config import Config

MODULE_LIMIT = 4094
"""Bytes of configuration the guest takes from its first boot module; it panics on more."""
CMDLINE_LIMIT = 4095
"""Bytes of command line it takes."""
FILE_LIMIT = 64 << 10
"""Bytes it takes from a file on its disk."""


def deliver(request: Request) -> Delivery:
    """Return the configuration as boot module or file, and the data where this guest can mount it.

    Raises:
        ConfigError: the guest cannot be given this configuration.
        UsageError: it would ignore a module or a command line, or cannot mount what was asked for.
    """
    if request.cmdline is not None or request.modules:
        return _by_hand(request)
    if request.config is None and not request.data and not request.volumes and request.room <= MODULE_LIMIT:
        # The common case, for which importing the configuration's types would take longer than all the rest.
        return _delivered(request, first_program(_name(request)), disks.Disks())
    config = _with_a_program(request)
    complete, places = disks.place(request, config, on_file=False)
    text = dialect(complete, request.kernel)
    on_file = max(len(text), request.room) > MODULE_LIMIT and not is_xen(request.kernel)
    if on_file:
        complete, places = disks.place(request, config, on_file=True)
        text = dialect(complete, request.kernel)
    return _delivered(request, text, places, on_file=on_file)


def _delivered(request: Request, text: bytes, places: disks.Disks, *, on_file: bool = False) -> Delivery:
    """Deliver *text* as boot module or as a file; to Xen PV as what goes to the xenstore."""
    root = list(places.root)
    modules: tuple[Module, ...] = ()
    line = ""
    if len(text) > FILE_LIMIT:
        raise ConfigError(f"rumprun reads at most {FILE_LIMIT} bytes of configuration, this takes {len(text)}")
    if is_xen(request.kernel):
        return Delivery(volumes=places.volumes, mounts=places.mounts, config=text, notes=places.notes)
    if on_file:
        room = round_up(max(len(text), request.room), SLOT)
        root.append(File(os.path.basename(request.file), Content.of_bytes(text), room=room))
        line = f"{ROOT_CONFIG}/{request.file}"
    else:
        modules = (Module("config.json", Content.of_bytes(text), room=SLOT),)
    return Delivery(
        cmdline=command_line(request, line),
        modules=modules,
        root=Directory.of("", root),
        volumes=places.volumes,
        # It cannot read GPT (docs/facts/guests.md#rumprun-disks); without a partition for it GPT is better.
        table="mbr" if places.volumes else "gpt",
        bus=places.bus,
        mounts=places.mounts,
        config=text,
        notes=places.notes,
    )


def _by_hand(request: Request) -> Delivery:
    """Pass the command line and the module as they are: the user configures the guest in its own words."""
    if request.config is not None or request.data or request.volumes:
        option = "--cmdline" if request.cmdline is not None else "--module"
        raise UsageError(
            "rumprun reads its configuration from its first module and ignores command line and other modules",
            where=option,
            hint=f"say it all in the configuration (-c), or leave -c, --data and --volume out beside {option}",
        )
    if len(request.modules) > 1:
        raise UsageError("rumprun ignores all modules but the first", where=f"--module {request.modules[1].name}")
    for module in request.modules:
        if module.content.size > MODULE_LIMIT:
            raise UsageError(
                f"rumprun panics on a module of more than {MODULE_LIMIT} bytes, this has {module.content.size}",
                where=f"--module {module.name}",
                hint="give it with -c: what is longer then goes to a file the guest reads",
            )
    line = command_line(request, request.cmdline or "")
    if len(line.encode("utf-8", "surrogateescape")) > CMDLINE_LIMIT:
        raise UsageError(f"rumprun panics on a command line of more than {CMDLINE_LIMIT} bytes", where="--cmdline")
    return Delivery(cmdline=line, modules=request.modules)


def _with_a_program(request: Request) -> Config:
    """Return the configuration with a program to run: the guest insists on being told, if only of the first one."""
    from rumpbundle.config import Config, Program

    config = request.config or Config()
    if config.cmdline or config.rc:
        return config
    return config.replace(rc=(Program(bin=_name(request)),))


def _name(request: Request) -> str:
    """Return what the program is called if nobody says."""
    name = request.kernel.name
    return plain_word(os.path.splitext(name)[0] or name)
