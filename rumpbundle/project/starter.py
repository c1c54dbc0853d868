"""A first project file for a kernel: what it is, and what people mostly say of one like it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping

from rumpbundle.errors import InputError
from rumpbundle.kernels.unikernel import Family, Firmware, Protocol, Unikernel
from rumpbundle.knowledge import platforms
from rumpbundle.knowledge.check import check
from rumpbundle.manifest import stem

_CONFIGS = (
    'config-for = ["serial:web7=web7.json"]  # for some machines; configs = "DIR": rumpbundle help configs',
    'config-room = "4K"  # kept for a later rumpbundle reconfig',
)
_GUEST: Mapping[Family, tuple[str, ...]] = {
    Family.RUMPRUN: (
        'config = "cfg.json"  # programs, mounts and interfaces: rumpbundle help config',
        'env = { PORT = "80" }',
        'net = ["vioif0,inet,dhcp"]',
        'hostname = "web1"',
        'args = ["-v"]  # of the program',
        *_CONFIGS,
        'data = ["site:/data"]  # a directory, read-only',
        'volumes = ["state:/var/db:64M"]  # a directory on a disk the guest can write to',
    ),
    Family.SOLO5: ("args = ['--ipv4=10.0.0.2/24']  # as the unikernel's --help lists them", *_CONFIGS),
    Family.UNIKRAFT: ('args = ["-v"]', 'env = { PORT = "80" }', 'modules = ["initrd.cpio"]', *_CONFIGS),
    Family.LINUX: (
        'modules = ["initrd.gz"]',
        'cmdline = "console=ttyS0"',
        'hostname = "web1"',
        'data = ["site:/data"]  # a directory, read-only',
        'volumes = ["state:/var/db:64M"]  # a directory on a partition that can be written to',
        *_CONFIGS,
    ),
    Family.HERMIT: ('modules = ["app"]  # the application; the kernel is the loader of Hermit',),
    Family.XEN: ('cmdline = "-v"',),
    Family.PLAIN: ('cmdline = "-v"', 'modules = ["data.bin"]'),
}
_FORMATS: Mapping[str, str] = {
    "virtualbox": "ova", "vmware": "ova", "hyperv": "vhdx", "ec2": "ec2", "gce": "gce", "azure": "azure",
    "xen-hvm": "xen", "xen-pv": "xen", "xen-pvh": "xen",
}  # fmt: skip
"""What to write for each platform that takes no plain disk."""


def text(app: str) -> str:
    """Return a project file for the kernel *app*, with comments.

    Raises:
        RumpbundleError: it is no kernel, or its name cannot stand in a project file.
    """
    kernel = Unikernel.read(app, disk=False)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem(os.path.basename(app))).strip("-")[:64] or "app"
    lines = [
        "# What `rumpbundle build` makes. Paths are relative to this file; `rumpbundle help project` explains them.",
        "",
        f"[image.{name}]",
        f"app = {_quoted(app)}  # {_what(kernel)}",
        *_formats(kernel),
    ]
    if Protocol.EFI in kernel.protocols and len(kernel.protocols) == 1:
        lines += ['firmware = "uefi"', '# esp = "esp"  # a directory of files that go beside it']
    lines += [f"# {line}" for line in _GUEST[kernel.family]]
    lines += [
        '# output = "out"  # the directory to write into',
        f'# name = "{name}"  # what the machine is called',
        '# size = "64M"  # the least size of the disk',
        '# firmware = "both"  # or bios, uefi; protocol = "auto" and console = "both" are as on the command line',
        '# options.ova = { memory = "64M" }  # of single formats: rumpbundle ova --help',
        "# strict = true  # what is known not to work is an error",
        f'# sbom = "{name}.cdx.json"  # what is in it, as CycloneDX',
        '# sign = "minisign.key"  # a signature of each output beside it',
        '# rows = "fleet.csv"  # an image for each row, with {column} in any string',
        "",
        f"# How `rumpbundle boot {name}` boots it.",
        f"[image.{name}.boot]",
        '# memory = "128M"',
        '# publish = ["8080:80"]  # a port here, and one of the guest',
        '# as = "serial:web7"  # what firmware says of the machine',
        '# expect = "ready"',
        "# timeout = 30",
    ]
    return "\n".join(lines) + "\n"


def _quoted(path: str) -> str:
    """Return *path* as a string of TOML."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError("its name is not UTF-8, which a project file is", where=path, hint="rename it") from None
    return json.dumps(path, ensure_ascii=False).replace("\x7f", "\\u007f")


def _what(kernel: Unikernel) -> str:
    """Return what *kernel* is, in a few words."""
    boots = [str(each) for each in Firmware if kernel.protocol_for(each, None)] if kernel.protocols else []
    family = "a kernel" if kernel.family is Family.PLAIN else f"a {kernel.family} kernel"
    how = f" by {', '.join(kernel.protocols)}" if kernel.protocols else ""
    return f"{family}, starts{how} under {' and '.join(boots).upper().replace('AND', 'and') or 'Xen alone'}"


def _formats(kernel: Unikernel) -> list[str]:
    """Return the line that says what to write, and where else it is known to run."""
    first = "iso" if kernel.protocols else "xen"
    fit = [_FORMATS[each.name] for each in platforms() if each.name in _FORMATS and not check(kernel, each.name).noes]
    more = [name for name in dict.fromkeys(fit) if name != first]
    known = f"  # also known to suit it: {', '.join(more)}; all: rumpbundle formats" if more else ""
    return [f'formats = ["{first}"]{known}']
