"""xen: a directory with what ``xl create`` takes: a kernel or a disk, ``xl.cfg``, and what goes to xenstore.

A kernel that Xen starts itself stands there as it is: ``kernel`` (PV or PVH), ``initrd`` if it has boot modules,
``cfg.json`` for xenstore if it is a rumprun, and ``disk.raw`` only if there is data; without that,
``rumpbundle.json`` says what it was made from. Any other kernel boots from ``disk.raw`` in an HVM domain. Xen 4.x on
x86; the facts are in :mod:`rumpbundle.xen.xl`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from rumpbundle.dataclass import dataclass
from rumpbundle.disk.content import Content
from rumpbundle.disk.flat import disk_errors, write_all, write_content, write_flat
from rumpbundle.disk.layout import MIB
from rumpbundle.errors import UsageError
from rumpbundle.formats._cloud import shell_path
from rumpbundle.formats._contract import Folder, Format, FormatOptions, Job, ReadBack, option
from rumpbundle.formats._naming import TextRule, image_name
from rumpbundle.host.shell import quoted
from rumpbundle.images.records import kitfiles
from rumpbundle.manifest import Bundle
from rumpbundle.xen import domain, xl

_NAME = TextRule(
    what="a domain's name",
    words=xl.NAME_RULE,
    pattern=xl.NAME_PATTERN,
    keep="A-Za-z0-9_.+-",
    longest=xl.NAME_MAX,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class XenOptions(FormatOptions):
    type: str = option("auto", "How Xen runs it.", choices=("auto", "pv", "pvh", "hvm"))
    memory: int = option(0, "The domain's memory: 64M.  [default: what the guest needs]", metavar="SIZE", size=True)
    host_directory: str = option(
        "",
        "Where the directory will stand on the Xen host: paths in xl.cfg become absolute, and a reboot of the guest "
        "restarts it.",
        metavar="DIR",
    )
    set: tuple[str, ...] = option(
        (), "A further line of xl.cfg, as vif=['bridge=xenbr0']; repeatable.", metavar="KEY=VALUE", multiple=True
    )


def _write_kit(job: Job, directory: Path) -> None:
    wanted = _domain(job.bundle, job.options)
    has_disk = any(posixpath.basename(disk.path) == kitfiles.XEN_DISK for disk in wanted.disks)
    files = {f"{volume.device}.raw": volume.content for volume in domain.own_disks(job.bundle)}
    if wanted.kind is not xl.DomainKind.HVM:
        files |= {"kernel": job.bundle.kernel.content, "initrd": domain.ramdisk_of(job.bundle)}
    if job.bundle.config:
        files[kitfiles.XEN_CONFIG] = Content.of_bytes(job.bundle.config)
    with disk_errors():
        for name, content in files.items():
            if content.size:
                with (directory / name).open("x+b") as out:
                    write_content(content, out.fileno(), job.report, job.label, named=True)
        if has_disk:
            with (directory / kitfiles.XEN_DISK).open("x+b") as out:
                write_flat(job.layout, out.fileno(), job.report, job.label)
        # Told last: now all is hashed.
        told = {kitfiles.XL_CFG: xl_cfg(job.bundle, job.options)}
        if not has_disk:
            told[kitfiles.XEN_MANIFEST] = job.bundle.manifest_bytes
        for name, text in told.items():
            with (directory / name).open("xb") as out:
                write_all(out.fileno(), text, 0)


def xl_cfg(bundle: Bundle, options: XenOptions) -> bytes:
    """Return the whole of ``xl.cfg``."""
    return "".join((*_text(bundle, options), f"# Bundle {bundle.identity.digest}\n")).encode()


def _domain(bundle: Bundle, options: XenOptions) -> xl.Domain:
    """Return the domain, with its files where the user will keep them."""
    place = options.host_directory
    if place and (not posixpath.isabs(place) or posixpath.normpath(place) != place):
        raise UsageError(f"expected an absolute path, got {place!r}", where="--host-directory")
    return domain.domain_of(
        bundle,
        lambda name: posixpath.join(place, name),
        name=image_name(bundle, _NAME),
        kind=domain.kind_of(bundle.kernel, options.type),
        memory=_memory(options.memory),
        # xl waits for the reboot in the root directory, where relative paths lead nowhere.
        restarts=bool(place),
    )


def _check(job: Job) -> None:
    """Raise what writing would be refused for.

    Raises:
        RumpbundleError: as :func:`rumpbundle.xen.domain.domain_of`; a line the user gave is not one xl takes.
    """
    "".join(_text(job.bundle, job.options)).encode()


def _memory(size: int) -> int:
    """Return *size* in MiB, which xl counts in."""
    if size % MIB:
        raise UsageError(f"expected whole MiB, got {size} bytes", where="--memory")
    return size // MIB


def _text(bundle: Bundle, options: XenOptions) -> Iterator[str]:
    wanted = _domain(bundle, options)
    if not options.host_directory:
        yield "# Paths are relative: run xl create in this directory.\n"
    yield wanted.text()
    xl.check_arguments(options.set)
    ours = wanted.settings()
    for line in options.set:
        key, equals, _ = line.partition("=")
        if not equals or line.startswith("-"):
            raise UsageError("expected KEY=VALUE", where=f"--set {line}")
        if key.strip() in ours:
            raise UsageError("is set already", where=f"--set {line}")
        yield f"{line}\n"


def _commands(job: Job) -> tuple[str, ...]:
    place = job.options.host_directory or shell_path(job.output)
    config = kitfiles.XEN_CONFIG if job.bundle.config else None
    name = _domain(job.bundle, job.options).name
    return (f"cd {quoted(place)}", *xl.script(name, kitfiles.XL_CFG, config))


def _places(text: bytes) -> dict[str, str]:
    lines = text.decode("utf-8", "surrogateescape").split("\n")
    return {f"line {number}": line for number, line in enumerate(lines, 1)}


def _candidates(_: Job, there: Mapping[str, str]) -> Iterator[XenOptions]:
    lines = [*there.values()]
    keys = [line.partition(" = ")[0] for line in lines]
    values = {key: line.partition(" = ")[2] for key, line in reversed([*zip(keys, lines, strict=True)])}
    last = keys.index("on_reboot") if "on_reboot" in keys else len(keys)
    place = ""
    if not lines[0].startswith("#"):
        named = re.search(r'target=(.*?)"\]?$', values.get("disk", "").partition('", "')[0] + '"')
        found = values["kernel"][1:-1] if "kernel" in values else named[1] if named else ""
        place = posixpath.dirname(re.sub(r"\\(.)", r"\1", found))
    memory = values.get("memory", "")
    for mib in ("0", memory):
        yield XenOptions(
            type=values.get("type", "").strip('"'),
            memory=int(mib) * MIB if re.fullmatch("[0-9]{1,9}", mib) else 0,
            host_directory=place,
            set=tuple(lines[last + 1 : -2]),
        )


_NAMES = (kitfiles.XL_CFG, kitfiles.XEN_CONFIG, kitfiles.XEN_MANIFEST)

FORMAT = Format(
    name="xen",
    suffix=".xen/",
    summary="directory for Xen's xl: kernel (PV, PVH) or disk (HVM), xl.cfg, configuration for xenstore",
    targets=("xen-pv", "xen-pvh", "xen-hvm"),
    product=Folder(_write_kit, (*_NAMES, "kernel", "initrd", "*.raw")),
    check=_check,
    commands=_commands,
    needs_disk=False,
    options=XenOptions,
    read_back=ReadBack(
        file=kitfiles.XL_CFG,
        text=lambda job: xl_cfg(job.bundle, job.options),
        places=_places,
        candidates=_candidates,
    ),
)
