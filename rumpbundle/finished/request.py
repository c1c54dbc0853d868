"""What the user asked for when an image was made, taken from the image: to compile it again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rumpbundle import guests
from rumpbundle.disk.content import Content
from rumpbundle.disk.tree import Directory, File, walk
from rumpbundle.errors import ImageError
from rumpbundle.finished.origin import Origin
from rumpbundle.manifest import Bundle, Mounted

if TYPE_CHECKING:
    from rumpbundle.config import Config


def config_of(origin: Origin) -> Config | None:
    """Return the configuration the user gave; None if there was none.

    Raises:
        ConfigError: it is none.
    """
    if origin.bundle.asked.config is None:
        return None
    import json

    from rumpbundle.config import parse

    return parse(json.dumps(origin.bundle.asked.config).encode(), "/rumpbundle.json: $.asked.config")


def request_of(origin: Origin) -> guests.Request:
    """Return what was asked for when the image was made: delivered, it gives the image's own bundle again.

    Raises:
        ImageError: the image does not hold what its manifest names.
        ConfigError: the configuration in it is none.
    """
    bundle, asked = origin.bundle, origin.bundle.asked
    data = tuple(_data(bundle, mount) for mount in asked.mounts if not mount.writable)
    volumes = tuple(
        guests.Writable(Directory(""), mount.mount, made=_made(bundle, mount))
        for mount in asked.mounts
        if mount.writable
    )
    return guests.Request(
        kernel=bundle.kernel,
        boot=bundle.boot,
        cmdline=asked.cmdline,
        argv0=asked.argv0,
        modules=bundle.modules[: asked.modules],
        config=config_of(origin),
        data=data,
        volumes=volumes,
        has_esp_files=bool(bundle.esp.children),
        bus=bundle.bus,
        epoch=bundle.epoch,
        room=asked.room,
    )


def rebundled(origin: Origin, request: guests.Request) -> tuple[Bundle, guests.Delivery]:
    """Return the bundle that *request* makes of the same kernel, files and boot images, and what was delivered.

    Raises:
        RumpbundleError: the guest cannot be given this.
    """
    from rumpbundle.config import builtins

    delivery = guests.deliver(request)
    asked = replace(
        origin.bundle.asked,
        cmdline=request.cmdline,
        config=None if request.config is None else builtins(request.config),
        mounts=delivery.mounts,
    )
    bundle = replace(
        origin.bundle,
        cmdline=delivery.cmdline,
        modules=delivery.modules,
        root=delivery.root,
        volumes=delivery.volumes,
        table=delivery.table,
        bus=delivery.bus,
        config=b"" if origin.bundle.firmware else delivery.config,
        asked=asked,
    )
    return bundle, delivery


def _data(bundle: Bundle, mount: Mounted) -> guests.Data:
    if mount.place == "root":
        # What has room kept for it is the configuration's own file, not the user's.
        children = [node for node in bundle.root.children if not (isinstance(node, File) and node.room)]
        return guests.Data(Directory("", tuple(children)), mount.mount)
    return guests.Data(Directory(""), mount.mount, made=_made(bundle, mount))


def _made(bundle: Bundle, mount: Mounted) -> Content:
    """Return the file system, or the archive, that the image keeps for *mount*."""
    kind, _, number = mount.place.partition(" ")
    found: Content | None = None
    if kind in ("module", "volume") and number.isdigit():
        kept = bundle.modules if kind == "module" else bundle.volumes
        found = kept[int(number)].content if int(number) < len(kept) else None
    else:
        files = (node.content for path, node in walk(bundle.root) if path == mount.place and isinstance(node, File))
        found = next(files, None)
    if found is None:
        raise ImageError(f"{mount.mount} should stand in {mount.place!r}, which the image does not have")
    return found


__all__ = ["config_of", "rebundled", "request_of"]
