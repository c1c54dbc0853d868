"""What the user asked for when an image was made, taken from the image: to compile it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rumpbundle import guests
from rumpbundle.finished.origin import Origin
from rumpbundle.manifest import PATH, Bundle

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

    return parse(json.dumps(origin.bundle.asked.config).encode(), f"{PATH}: $.asked.config")


def request_of(origin: Origin) -> guests.Request:
    """Return what was asked for when the image was made: delivered, it gives the image's own bundle again.

    Raises:
        ImageError: the image does not hold what its manifest names.
        ConfigError: the configuration in it is none.
    """
    bundle, asked = origin.bundle, origin.bundle.asked
    data, volumes = guests.kept(bundle, asked.mounts)
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


def configs_of(origin: Origin) -> dict[str, guests.ConfigFor]:
    """Return the configurations for some machines only, by their keys.

    Raises:
        ConfigError, UsageError: one of them, or its key, is none.
    """
    import json

    from rumpbundle.config import parse

    where = f"{PATH}: $.choices"
    return {
        choice.key: guests.ConfigFor(choice.key, parse(json.dumps(choice.config).encode(), choice.key), where)
        for choice in origin.bundle.choices
    }


def rebundled(
    origin: Origin, request: guests.Request, configs: Sequence[guests.ConfigFor] = ()
) -> tuple[Bundle, guests.Delivery]:
    """Return the bundle that *request* makes of the same kernel, files and boot images, and what was delivered.

    *configs* take the places of those there are for their keys, and join the others.

    Raises:
        RumpbundleError: the guest cannot be given this.
    """
    from rumpbundle.config import builtins

    further = configs_of(origin) | {each.key: each for each in guests.ordered(configs)}
    delivery, choices = guests.deliver_several(request, tuple(further.values()))
    asked = replace(
        origin.bundle.asked,
        cmdline=request.cmdline,
        config=None if request.config is None else builtins(request.config),
        default=request.config is not None or not choices,
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
        choices=choices,
    )
    return bundle, delivery


__all__ = ["config_of", "configs_of", "rebundled", "request_of"]
