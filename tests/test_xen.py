"""What we write for Xen, shown to a real one: Debian's Xen and toolstack in QEMU (``support/xenhost.py``).

Guests are started by exactly the commands of :mod:`rumpbundle.xl`, many in one boot of dom0, and say on their own
console what reached them. A boot of Xen and dom0 takes about 10 s here, a PV or PVH guest 1 s.
"""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass

import pytest
from support import kernels, xenhost

from rumpbundle import xl

pytestmark = pytest.mark.boot

TRICKY = "a  b\\c\\\\ \"q\" 's' é $x `y` #z %s {w} ;"
"""A text with everything that xl.cfg, the shell and xenstore-write treat in a way of their own."""
CONFIG = json.dumps({"rc": [{"bin": TRICKY, "argv": ["\n\t\x41"]}], "é": "\\"}, ensure_ascii=False) + " \\x41\\"


def of_size(size):
    """Return a configuration of *size* bytes, half of them backslashes."""
    filler = size - len(CONFIG.encode())
    return CONFIG + "\\x" * (filler // 2) + "x" * (filler % 2)


@dataclass(frozen=True)
class Guest:
    """A domain to start, the files it needs, and its configuration in xenstore."""

    domain: xl.Domain
    files: dict
    config: str | None = None

    def commands(self):
        """Return a script that starts it as the launcher does: the console is attached before it runs."""
        lines = [f"cd /job/{self.domain.name}", f"{shlex.join(xl.create('xl.cfg'))} || exit 1"]
        lines.append(f"D=$({shlex.join(xl.domain_id(self.domain.name))})")
        number = 31337
        out = f"/results/{self.domain.name}.console"
        lines.append(f"{shlex.join(xl.console(number))} </dev/null >{out} & console=$!")
        lines.append("until ls -l /proc/$console/fd | grep -q pts; do usleep 20000; done")
        if self.config is not None:
            lines.append(shlex.join(xl.write_config(number, self.config)))
        lines += [shlex.join(xl.unpause(number)), "wait $console"]
        lines.append(f"{shlex.join(xl.destroy(number))} 2>/dev/null")
        return "\n".join(lines).replace(str(number), "$D").replace("'/local/domain/$D/rumprun/cfg'", STORE)


STORE = '"/local/domain/$D/rumprun/cfg"'


def job(guests, script=""):
    """Return the files of a dom0 job that shows each guest's xl.cfg to ``xl create -n`` and then starts it."""
    files = {}
    for guest in guests:
        name = guest.domain.name
        files |= {f"{name}/{path}": data for path, data in guest.files.items()}
        files[f"{name}/xl.cfg"] = guest.domain.text().encode()
        script += f"cd /job/{name}; xl create -n xl.cfg >/results/{name}.json\n({guest.commands()}\n)\n"
    return files | {"run": script.encode()}


def understood(results, name):
    """Return what xl understood of the ``xl.cfg`` of *name*."""
    text = results.files[f"{name}.json"].decode()
    return json.loads(text[text.index("{") :])


def check_understood(results, domain):
    """Assert that xl understood exactly what *domain* means."""
    got = understood(results, domain.name)
    info = got["b_info"]
    assert got["c_info"]["name"] == domain.name
    assert got["c_info"]["type"] == domain.kind
    assert info["max_memkb"] == domain.memory * 1024
    assert (info.get("kernel"), info.get("ramdisk")) == (domain.kernel, domain.ramdisk)
    assert info.get("cmdline", "") == domain.cmdline
    disks = [(d["pdev_path"], d["vdev"], d["format"], bool(d.get("readwrite"))) for d in got.get("disks", [])]
    assert disks == [(d.path, d.vdev, "raw", d.writable) for d in domain.disks]
    # Of these three, destroy is xl's default and not printed.
    assert got.get("on_reboot", "destroy") == ("restart" if domain.restarts else "destroy")
    assert got.get("on_poweroff", "destroy") == got.get("on_crash", "destroy") == "destroy"


def report(results, name):
    """Return what the test kernel of *name* said on its console, and its configuration."""
    console = results.files.get(f"{name}.console", b"")
    found = kernels.Report.parse(console)
    log = results.files[f"xen/console/guest-{name}.log"]
    assert kernels.Report.parse(log) == found, "the attached console missed a part of what the guest said"
    return found, kernels.field(console, "config")


MISUNDERSTOOD = {
    "comma": "disk=['format=raw, vdev=xvda, access=rw, target=/a,']",
    "typo": "memroy=99",
}
"""Lines of an xl.cfg that xl takes with status 0 and understands otherwise: why :mod:`rumpbundle.xl` refuses them."""


def test_pv_and_pvh_guests_get_what_was_meant():
    image = os.urandom(100_000)
    pv = {"kernel": "k", "memory": 32, "kind": xl.Kind.PV}
    pvh = pv | {"kind": xl.Kind.PVH}
    files = {"k": kernels.build("xen-pv")}
    disks = (
        xl.Disk(path="disk.raw", vdev="xvda"),
        xl.Disk(path="/job/pv-disks/ü,'\"#%s=.raw", vdev="xvdb", writable=False),
    )
    guests = [
        Guest(xl.Domain(name="pv", **pv, cmdline=TRICKY, ramdisk="r d"), files | {"r d": image}, CONFIG),
        Guest(xl.Domain(name="pv-most", **pv, cmdline="x" * xl.PV_CMDLINE_MAX), files, of_size(xl.CONFIG_MAX)),
        Guest(
            xl.Domain(name="pv-disks", **pv, disks=disks, restarts=False),
            files | {"disk.raw": bytes(1 << 20), "ü,'\"#%s=.raw": bytes(4096)},
        ),
        Guest(
            xl.Domain(name="pvh", **pvh, cmdline=TRICKY + "x" * 4000, ramdisk="initrd"),
            {"k": kernels.build("xen-pvh"), "initrd": image},
            of_size(4000),
        ),
    ]
    cut = Guest(xl.Domain(name="cut", **pvh, cmdline="x" * 1100), files)
    script = "".join(f"xl create -n {name} >/results/{name}.json || echo {name} refused\n" for name in MISUNDERSTOOD)
    job_files = job([*guests, cut], f"cd /job\n{script}")
    job_files["cut/xl.cfg"] = cut.domain.text().replace('"pvh"', '"pv"').encode()
    for name, line in MISUNDERSTOOD.items():
        job_files[name] = f"name='x'\ntype='pv'\nkernel='/k'\n{line}\n".encode()
    results = xenhost.run(job_files, memory=448, dom0_memory=224, timeout=150)
    for guest in guests:
        domain = guest.domain
        check_understood(results, domain)
        said, config = report(results, domain.name)
        assert said.protocol == f"xen-{domain.kind}"
        assert said.cmdline == domain.cmdline.encode()
        assert said.modules == ((kernels.Module.of(image),) if domain.ramdisk else ())
        assert config == (None if guest.config is None else guest.config.encode())

    assert b"refused" not in results.files["log"]
    assert understood(results, "comma")["disks"][0]["pdev_path"] == "/a"
    assert b"99" not in results.files["typo.json"]
    assert understood(results, "cut")["b_info"]["cmdline"] == "x" * 1100
    assert report(results, "cut")[0].cmdline == b"x" * xl.PV_CMDLINE_MAX
