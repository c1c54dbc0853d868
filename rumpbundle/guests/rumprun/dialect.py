"""The JSON dialect rumprun reads (docs/facts/guests.md#rumprun-dialect), and what it would die on.

A tokenizer reads it, not a JSON library: every leaf is a string, entries are repeated keys, escapes are not decoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rumpbundle.errors import ConfigError
from rumpbundle.kernels.unikernel import Unikernel

if TYPE_CHECKING:
    from rumpbundle.config import Block, Config, Network

ROOT_CONFIG = "_RUMPRUN_ROOTFSCFG="
"""What stands before the name of a file on the guest's disk that holds its configuration."""
DISK_DRIVERS = {"ld": ("virtio-blk",), "sd": ("virtio-scsi", "usb"), "cd": ("virtio-scsi",)}
"""The drivers that make a disk of a name."""
ETFS_LIMIT = 24
"""Bytes of an etfs path: the guest cuts ``XENBLK_`` and the path off at 31 (rumprun lib/librumprun_base/config.c)."""
_LETTERS = {"ld": "a-e", "sd": "a-h", "cd": "a-h"}
_INTERFACES = {"vioif": "virtio-net", "wm": "e1000", "xenif": "xen-net"}
_BAKE = {
    "virtio-blk": "hw_virtio",
    "virtio-net": "hw_virtio",
    "virtio-scsi": "hw_virtio_scsi or hw_generic",
    "e1000": "hw_generic",
}


def is_xen(kernel: Unikernel) -> bool:
    """Return whether *kernel* is a build for Xen PV domains."""
    return kernel.target.startswith("xen")


def lacks(kernel: Unikernel, driver: str) -> bool:
    """Return whether *driver* is known not to be linked in."""
    return bool(kernel.target) and driver not in kernel.drivers


def dialect(config: Config, kernel: Unikernel) -> bytes:
    """Return *config* as rumprun reads it: what its tokenizer gives back is byte for byte what was configured.

    Raises:
        ConfigError: the dialect cannot express it, or *kernel* has no driver for it.
    """
    members = [*_members(config, kernel)]
    return ("{" + ",\n".join(members) + "}").encode("utf-8")


def first_program(name: str) -> bytes:
    """Return the configuration that runs the first baked program, called *name*, without arguments."""
    return f'{{"rc":[{_program(name, (), "", "$.rc[0]")}]}}'.encode()


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
        programs = [_program(p.bin, p.argv, p.runmode, f"$.rc[{index}]") for index, p in enumerate(config.rc)]
        yield f'"rc":[{",".join(programs)}]'


def _program(name: str, arguments: Sequence[str], runmode: str, path: str) -> str:
    argv = ",".join(_string(argument, f"{path}.argv[{index}]") for index, argument in enumerate(arguments))
    mode = f',"runmode":"{runmode}"' if runmode else ""
    return f'{{"bin":{_string(name, f"{path}.bin")},"argv":[{argv}]{mode}}}'


def _string(text: str, path: str) -> str:
    """Return *text* as a JSON string no character of which needs an escape: the guest decodes none."""
    for character in text:
        if character in '"\\' or ord(character) < 32 or ord(character) == 127:
            name = {'"': "a double quote", "\\": "a backslash"}.get(character, "a control character")
            raise ConfigError(
                f"{path}: contains {name}, which rumprun's configuration cannot express",
                hint="put such values into a file the program reads (--data)",
            )
    if ROOT_CONFIG in text:
        raise ConfigError(
            f"{path}: contains {ROOT_CONFIG}, behind which rumprun looks for the name of its configuration file"
        )
    return f'"{text}"'


def _object(fields: dict[str, str], path: str) -> str:
    inner = ",".join(f'"{key}":{_string(value, f"{path}.{key}")}' for key, value in fields.items())
    return f"{{{inner}}}"


def _interface(network: Network, kernel: Unikernel) -> dict[str, str]:
    name = network.interface.rstrip("0123456789")
    driver = _INTERFACES.get(name)
    if driver is None and "usb" not in kernel.drivers:
        known = ", ".join(f"{each}0" for each, its in _INTERFACES.items() if not lacks(kernel, its))
        raise ConfigError(
            f"$.net[0].if: no interface of this guest is called {network.interface!r}",
            hint=f"it may have {known}" if known else "it has no network driver linked in",
        )
    if driver is not None and lacks(kernel, driver):
        raise ConfigError(
            f"$.net[0].if: {network.interface} needs the {driver} driver, which {kernel.name} has not linked in",
            hint=f"bake it with {_BAKE[driver]}" if driver in _BAKE and not is_xen(kernel) else None,
        )
    if network.type == "inet6" and network.method == "auto":
        raise ConfigError(
            "$.net[0].method: rumprun page-faults over inet6 with auto (m_set_rcvif of NULL)",
            hint="give it an address: static",
        )
    if network.cloner and name != "xenif":
        raise ConfigError("$.net[0].cloner: only Xen's interfaces (xenif0) are created by the guest")
    fields = {"if": network.interface}
    if name == "xenif":
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
        elif block.source == "etfs" and not is_xen(kernel):
            raise ConfigError(f"{path}.source: etfs exists on Xen PV only; this is a hw kernel", hint='use "dev"')
        elif block.source == "etfs" and len(block.path.encode()) > ETFS_LIMIT:
            raise ConfigError(f"{path}.path: longer than the {ETFS_LIMIT} bytes of a Xen disk's name in the guest")
        if block.fstype == "kernfs":
            if not is_xen(kernel):
                raise ConfigError(f"{path}.fstype: this kernel has no kernfs", hint='use "blk"')
        elif block.source == "dev":
            _check_device(block, kernel, path)
        if block.mountpoint is not None and block.source == "dev":
            if block.path in seen:
                raise ConfigError(f"{path}.path: {block.path} is mounted by $.blk[{seen[block.path]}] already")
            seen[block.path] = index


def _check_device(block: Block, kernel: Unikernel, path: str) -> None:
    match = re.fullmatch(r"/dev/(ld|sd|cd)([0-9])([a-z])", block.path)
    if is_xen(kernel):
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
    drivers = DISK_DRIVERS[disk]
    if all(lacks(kernel, driver) for driver in drivers):
        raise ConfigError(
            f"{path}.path: {block.path} needs the {drivers[0]} driver, which {kernel.name} has not linked in",
            hint=f"bake it with {_BAKE[drivers[0]]}",
        )
