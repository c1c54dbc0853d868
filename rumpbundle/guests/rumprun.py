"""rumprun: a NetBSD rump kernel with one or several programs baked in.

It reads a JSON dialect of its own (facts/guests.md, Its JSON dialect): every leaf a string, entries as repeated
keys, no escapes. The text is its first boot module, or a file on the disk if it is longer than that channel takes.
What it would panic on at boot is refused here, with the reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rumpbundle.content import Content
from rumpbundle.errors import ConfigError, UsageError
from rumpbundle.guests import Delivery, Request, command_line
from rumpbundle.payload import Module
from rumpbundle.tree import Directory, File
from rumpbundle.unikernel import Unikernel

if TYPE_CHECKING:
    from rumpbundle.config import Block, Config, Network, Program

MODULE_LIMIT = 4094
"""Bytes of configuration the guest takes from its first boot module; it panics on more."""
FILE_LIMIT = 64 << 10
"""Bytes it takes from a file on its disk."""
FILE_NAME = "json.cfg"

_DISKS = {"ld": "virtio-blk", "sd": "virtio-scsi", "cd": "virtio-scsi"}
_LETTERS = {"ld": "a-e", "sd": "a-h", "cd": "a-h"}
_INTERFACES = {"vioif": "virtio-net", "wm": "e1000"}


def deliver(request: Request, scratch: Path) -> Delivery:
    """Return the configuration as boot module or file, and the data where this guest can mount it.

    Raises:
        ConfigError: the guest cannot be given this configuration.
        UsageError: it would ignore a module or a command line, or cannot mount what was asked for.
    """
    if request.cmdline is not None or request.modules:
        return _by_hand(request)
    config = request.config or _nothing()
    if not config.cmdline and not config.rc:
        config = config.replace(rc=(_only_program(request.kernel),))
    text = dialect(config, request.kernel)
    if request.kernel.target == "xen":
        return Delivery(config=text)
    if len(text) <= MODULE_LIMIT:
        module = Module("config.json", Content.of_bytes(text))
        return Delivery(cmdline=command_line(request, ""), modules=(module,), config=text)
    return _as_file(request, text)


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
    return Delivery(cmdline=command_line(request, request.cmdline or ""), modules=request.modules)


def _as_file(request: Request, text: bytes) -> Delivery:
    """Deliver a configuration that is too long for a module as a file at the root of the disk."""
    if len(text) > FILE_LIMIT:
        raise ConfigError(f"rumprun reads at most {FILE_LIMIT} bytes of configuration, this one takes {len(text)}")
    drivers = request.kernel.drivers
    if drivers and drivers.isdisjoint(_DISKS.values()):
        raise ConfigError(
            f"takes {len(text)} bytes; above {MODULE_LIMIT} it must be read from disk, and {request.kernel.name} has "
            "no disk driver linked in",
            hint="bake it with hw_virtio, or shorten the configuration",
        )
    root = Directory.of("", [File(FILE_NAME, Content.of_bytes(text))])
    return Delivery(cmdline=command_line(request, f"_RUMPRUN_ROOTFSCFG=/{FILE_NAME}"), root=root, config=text)


def _nothing() -> Config:
    from rumpbundle.config import Config

    return Config()


def _only_program(kernel: Unikernel) -> Program:
    """Return the first baked program without arguments: the guest insists on being told."""
    from rumpbundle.config import Program

    return Program(bin=os.path.splitext(kernel.name)[0] or kernel.name)


def dialect(config: Config, kernel: Unikernel) -> bytes:
    """Return *config* as rumprun reads it: what its tokenizer gives back is byte for byte what was configured.

    Raises:
        ConfigError: the dialect cannot express it, or *kernel* has no driver for it.
    """
    members = [*_members(config, kernel)]
    return ("{" + ",\n".join(members) + "}").encode("utf-8")


def _members(config: Config, kernel: Unikernel) -> Iterator[str]:
    for key, value in config.env.items():
        yield f'"env":{_string(f"{key}={value}", f"$.env.{key}")}'
    if config.hostname is not None:
        yield f'"hostname":{_string(config.hostname, "$.hostname")}'
    _check_mounts(config, kernel)
    for index, block in enumerate(config.blk):
        fields = {"source": block.source, "path": block.path}
        if block.mountpoint is not None:
            fields |= {"fstype": block.fstype, "mountpoint": block.mountpoint}
        yield f'"blk":{_object(fields, f"$.blk[{index}]")}'
    if len(config.net) > 1:
        raise ConfigError("$.net[1]: rumprun configures one interface and dies on a second")
    for network in config.net:
        yield f'"net":{_object(_interface(network, kernel), "$.net[0]")}'
    if config.cmdline is not None:
        yield f'"cmdline":{_string(config.cmdline, "$.cmdline")}'
    if config.rc:
        programs = []
        for index, program in enumerate(config.rc):
            path = f"$.rc[{index}]"
            argv = ",".join(_string(a, f"{path}.argv[{n}]") for n, a in enumerate(program.argv))
            runmode = f',"runmode":"{program.runmode}"' if program.runmode else ""
            programs.append(f'{{"bin":{_string(program.bin, f"{path}.bin")},"argv":[{argv}]{runmode}}}')
        yield f'"rc":[{",".join(programs)}]'


def _string(text: str, path: str) -> str:
    """Return *text* as a JSON string no character of which needs an escape: the guest decodes none."""
    for character in text:
        if character in '"\\' or ord(character) < 32 or ord(character) == 127:
            name = {'"': "a double quote", "\\": "a backslash"}.get(character, "a control character")
            raise ConfigError(
                f"{path}: contains {name}, which rumprun's configuration cannot express",
                hint="put such values into a file the program reads (--data)",
            )
    return f'"{text}"'


def _object(fields: dict[str, str], path: str) -> str:
    inner = ",".join(f'"{key}":{_string(value, f"{path}.{key}")}' for key, value in fields.items())
    return f"{{{inner}}}"


def _interface(network: Network, kernel: Unikernel) -> dict[str, str]:
    name = network.interface.rstrip("0123456789")
    xen = kernel.target == "xen"
    if xen != (name == "xenif"):
        known = "xenif0" if xen else "vioif0 (virtio) or wm0 (e1000)"
        raise ConfigError(f"$.net[0].if: this kernel's interfaces are called {known}, got {network.interface!r}")
    if network.cloner and not xen:
        raise ConfigError("$.net[0].cloner: only Xen interfaces are created by the guest")
    driver = _INTERFACES.get(name)
    if kernel.drivers and driver is not None and driver not in kernel.drivers:
        raise ConfigError(
            f"$.net[0].if: {network.interface} needs the {driver} driver, which {kernel.name} has not linked in",
            hint="bake it with hw_generic" if driver == "e1000" else "bake it with hw_virtio",
        )
    fields = {"if": network.interface}
    if xen:
        fields["cloner"] = "true"
    fields |= {"type": network.type, "method": network.method}
    if network.addr is not None:
        fields |= {"addr": network.addr, "mask": str(network.mask)}
    if network.gw is not None:
        fields["gw"] = network.gw
    return fields


def _check_mounts(config: Config, kernel: Unikernel) -> None:
    """Refuse block entries on which the guest would die at boot."""
    images = 0
    seen: dict[str, int] = {}
    for index, block in enumerate(config.blk):
        path = f"$.blk[{index}]"
        if block.source == "vnd":
            images += 1
            if images > 1:
                raise ConfigError(f"{path}.source: rumprun can open one vnd image, a second fails")
        elif block.source == "etfs" and kernel.target != "xen":
            raise ConfigError(f"{path}.source: etfs exists on Xen PV only; this is a hw kernel", hint='use "dev"')
        if block.fstype == "kernfs":
            if kernel.target != "xen":
                raise ConfigError(f"{path}.fstype: this kernel has no kernfs", hint='use "blk"')
        elif block.source == "dev":
            _check_device(block, kernel, path)
        if block.mountpoint is not None and block.source == "dev":
            if block.path in seen:
                raise ConfigError(f"{path}.path: {block.path} is mounted by $.blk[{seen[block.path]}] already")
            seen[block.path] = index


def _check_device(block: Block, kernel: Unikernel, path: str) -> None:
    match = re.fullmatch(r"/dev/(ld|sd|cd)([0-9])([a-z])", block.path)
    if kernel.target == "xen":
        raise ConfigError(
            f"{path}.source: a Xen PV kernel reaches its disks through etfs", hint='use "etfs" and "xvda"'
        )
    if match is None:
        raise ConfigError(
            f"{path}.path: expected a disk of this guest like /dev/ld0a or /dev/sd0a, got {block.path!r}"
        )
    disk, letters = match[1], _LETTERS[match[1]]
    if not re.match(f"[{letters}]", match[3]):
        raise ConfigError(f"{path}.path: {disk} devices have letters {letters} only, got {block.path!r}")
    if kernel.drivers and _DISKS[disk] not in kernel.drivers:
        raise ConfigError(
            f"{path}.path: {block.path} needs the {_DISKS[disk]} driver, which {kernel.name} has not linked in",
            hint="bake it with hw_virtio" if disk == "ld" else "bake it with hw_virtio_scsi or hw_generic",
        )
