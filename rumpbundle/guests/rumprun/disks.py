"""Where data and volumes stand so that a rumprun guest can mount them (docs/facts/guests.md#rumprun-disks).

On hw the image's disk is ld0 (virtio-blk) or sd0 (virtio-scsi, USB), and the guest reaches three places on it:

- ``a``, the ISO at its start: the whole image, so the tree appears beside ``/boot``;
- ``e``, the first MBR partition, if the table is a plain MBR: a volume or a further tree;
- a file on ``a``, through the one ``vnd`` device. ``a`` is mounted on /rootfs, and the working directory, when the
  guest has read its configuration from there; it cannot be mounted a second time then, so this stands in for it.

On Xen PV every tree is a disk of its own: xvda, xvdb, ….
"""

from __future__ import annotations

import re
from dataclasses import replace
from string import ascii_lowercase
from typing import TYPE_CHECKING
from typing import Literal as OneOf

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.tree import Directory, File, Node
from rumpbundle.errors import ConfigError, UsageError
from rumpbundle.guests._contract import Data, Request, Writable
from rumpbundle.guests.rumprun.dialect import DISK_DRIVERS, is_xen, lacks
from rumpbundle.manifest import Mounted, Volume

if TYPE_CHECKING:
    from rumpbundle.config import Config

IMAGES = "images"
"""The directory of image files at the root of the ISO, which is the working directory of the guest."""


@dataclass(frozen=True, kw_only=True)
class Disks:
    """What data and volumes need on the disk."""

    root: tuple[Node, ...] = ()
    volumes: tuple[Volume, ...] = ()
    bus: str = ""
    """Where the disk they are on must be."""
    mounts: tuple[Mounted, ...] = ()
    notes: tuple[str, ...] = ()


def place(request: Request, config: Config, *, on_file: bool) -> tuple[Config, Disks]:
    """Give all data and volumes of *request* a place; return *config* with a mount for each, and the places.

    *on_file* says that the guest reads its configuration from its disk.

    Raises:
        ConfigError: an entry of *config* is in the way.
        UsageError: this guest has no such place, or no driver.
    """
    if not request.data and not request.volumes and not on_file:
        return config, Disks()
    for mounted in _mounted(request):
        if mounted.mount == "/" or re.match("/(dev|rootfs)(/|$)", mounted.mount):
            raise UsageError("would hide what the guest needs there itself", where=mounted.mount)
    return _on_xen(request, config) if is_xen(request.kernel) else _on_hw(request, config, on_file=on_file)


def _mounted(request: Request) -> tuple[Data | Writable, ...]:
    return (*request.data, *request.volumes)


def _on_xen(request: Request, config: Config) -> tuple[Config, Disks]:
    used = {block.path for block in config.blk if block.source == "etfs"}
    names = [f"xvd{letter}" for letter in ascii_lowercase if f"xvd{letter}" not in used]
    mounted = _mounted(request)
    if len(mounted) > len(names):
        raise UsageError(f"a Xen domain has {len(names)} disks for --data and --volume, not {len(mounted)}")
    volumes: list[Volume] = []
    mounts = []
    labels: set[str] = set()
    for device, each in zip(names, mounted, strict=False):
        epoch = request.epoch
        made = each.as_iso9660(labels, epoch) if isinstance(each, Data) else each.as_ext2(labels, epoch)[0]
        mounts.append(Mounted(each.mount, f"volume {len(volumes)}", writable=isinstance(each, Writable)))
        volumes.append(replace(made, device=device))
        config = _with_mount(config, "etfs", device, each.mount)
    return config, Disks(volumes=tuple(volumes), mounts=tuple(mounts))


def _on_hw(request: Request, config: Config, *, on_file: bool) -> tuple[Config, Disks]:
    disk = _disk(request, config)
    places = ["image" if on_file else "a", *([] if request.volumes else ["e"])]
    _refuse_too_many(request, len(places))
    if on_file:
        _refuse_mounted_root(config, f"/dev/{disk}a")
    root: tuple[Node, ...] = ()
    volumes: list[Volume] = []
    mounts: list[Mounted] = []
    notes: list[str] = []
    labels: set[str] = set()
    for where, data in zip(places, request.data, strict=False):
        if where == "a":
            root = data.tree.children
            mounts.append(Mounted(data.mount, "root"))
            config = _with_mount(config, "dev", f"/dev/{disk}a", data.mount)
            notes.append(f"{data.mount} shows the whole image, /boot and rumpbundle.json beside your files")
            continue
        made = data.as_iso9660(labels, request.epoch)
        if where == "image":
            name = f"{made.label}.iso"
            root = (Directory.of(IMAGES, [File(name, made.content)]),)
            mounts.append(Mounted(data.mount, f"/{IMAGES}/{name}"))
            config = _with_mount(config, "vnd", f"{IMAGES}/{name}", data.mount)
        else:
            mounts.append(Mounted(data.mount, f"volume {len(volumes)}"))
            volumes.append(made)
            config = _with_mount(config, "dev", f"/dev/{disk}e", data.mount)
    for writable in request.volumes:
        mounts.append(Mounted(writable.mount, f"volume {len(volumes)}", writable=True))
        volumes.append(writable.as_ext2(labels, request.epoch)[0])
        config = _with_mount(config, "dev", f"/dev/{disk}e", writable.mount)
    if not request.data and not request.volumes:
        return config, Disks()  # its configuration it finds on any disk
    buses = [bus for bus in DISK_DRIVERS[disk[:2]] if not lacks(request.kernel, bus)]
    notes.append(f"the guest looks for its files on /dev/{disk}: attach the image as {' or '.join(buses)}")
    places_found = Disks(root=root, volumes=tuple(volumes), bus=buses[0], mounts=tuple(mounts), notes=tuple(notes))
    return config, places_found


def _refuse_too_many(request: Request, places: int) -> None:
    if len(request.data) > places or len(request.volumes) > 1:
        what = "one --volume" if request.volumes else "two --data, or one beside a --volume"
        raise UsageError(
            f"rumprun can mount {what} from this image",
            where="--volume" if len(request.volumes) > 1 else "--data",
            hint="put them as subdirectories into one, or on a disk of their own (rumpbundle volume)",
        )


def _refuse_mounted_root(config: Config, device: str) -> None:
    for index, block in enumerate(config.blk):
        if block.path == device:
            raise ConfigError(
                f"$.blk[{index}].path: a configuration of this length is read from {device}, which the guest has "
                "then mounted on /rootfs and cannot mount again"
            )


def _disk(request: Request, config: Config) -> str:
    """Return the guest's name for the image's disk: the user's, else by its bus, else the first it drives."""
    kernel = request.kernel
    mounts = {mounted.mount for mounted in _mounted(request)}
    for block in config.blk:
        if block.mountpoint in mounts and (match := re.match("/dev/((?:ld|sd)0)", block.path)):
            return match[1]
    driven = [name for name in ("ld", "sd") if not all(lacks(kernel, driver) for driver in DISK_DRIVERS[name])]
    there = [name for name in driven if request.bus in DISK_DRIVERS[name]]
    for name in (*there, *driven):
        return f"{name}0"
    raise UsageError(
        "has no disk driver linked in, so it can read no file of the image",
        where=kernel.name,
        hint="bake it with hw_virtio; or bake the files in (rumpbundle component), and keep the configuration short",
    )


def _with_mount(config: Config, source: OneOf["dev", "vnd", "etfs"], path: str, mount: str) -> Config:
    """Return *config* with an entry that mounts *path*, unless the user has written one for that place."""
    from rumpbundle.config import Block

    for index, block in enumerate(config.blk):
        if block.mountpoint != mount:
            continue
        if (block.source, block.path) == (source, path):
            return config
        raise ConfigError(
            f"$.blk[{index}].mountpoint: {mount} is where the image's files are to be mounted, from {path}",
            hint="leave this entry out; it is written for you",
        )
    return config.replace(blk=(*config.blk, Block(source=source, path=path, mountpoint=mount)))
