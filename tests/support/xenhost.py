"""A real Xen to try things on: Debian's hypervisor, kernel and toolstack as a small dom0, all inside one QEMU.

The machine's disk is an image of ours: Xen is a Multiboot 2 kernel, dom0's kernel and initramfs are its modules.

::

    results = run({"run": b"xl info >/results/info"}, memory=448, dom0_memory=224, timeout=60)
    results.files["info"]

Needs no root and no KVM. What dom0 needs is taken out of Debian's packages and laid out as an initramfs, once;
each run adds its own files and a script, and gets back the directory ``/results`` that the script filled.
The recipe and its pitfalls are in ``docs/facts/xen.md#xen-in-qemu``.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import rumpbundle
from rumpbundle.bundling.writing import ModuleFile
from support.debian import debian_file, debian_tree
from support.tools import output_of, require

VERSION = "4.17"
LIBRARIES = Path("/lib/x86_64-linux-gnu")
LIBRARY_PACKAGES = (
    *("libxencall1", "libxendevicemodel1", "libxenevtchn1", "libxenforeignmemory1", "libxengnttab1", "libxenhypfs1"),
    *("libxenmisc4.17", "libxenstore4", "libxentoolcore1", "libxentoollog1", "libyajl2"),
)
TOOLS = ("libxl-save-helper", "xen-init-dom0", "xenconsole", "xenconsoled", "xenstored", "xl")
STORE_TOOLS = ("xenstore-exists", "xenstore-list", "xenstore-ls", "xenstore-read", "xenstore-rm", "xenstore-write")
MODULES = (
    *("xen/xen-privcmd", "xen/xenfs/xenfs", "xen/xen-evtchn", "xen/xen-gntdev"),
    *("block/loop", "block/xen-blkback/xen-blkback"),
)
"""In the order they are loaded."""

FIRMWARE = ("/usr/share/seabios/bios-256k.bin", "/usr/share/ovmf/OVMF.fd", "/usr/share/qemu/keymaps/en-us")
"""What the device model reads for an HVM guest, even one without a display; from this machine's own packages."""

INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /results /run/xen /run/xenstored /run/lock /var/lib/xen
/bin/busybox mkdir -p /var/log/xen/console
/bin/busybox ln -s /bin/busybox /bin/sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin:/usr/lib/xen-%(version)s/bin
ln -s ../run /var/run
ln -s ../run/lock /var/lock
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm
mount -t devpts none /dev/pts
mount -t tmpfs none /dev/shm
for module in %(modules)s; do insmod /modules/$module.ko || echo "cannot load $module"; done
mount -t xenfs none /proc/xen
xenstored --pid-file /run/xenstored.pid
until xenstore-read -s / >/dev/null 2>&1; do usleep 50000; done
xen-init-dom0
xenconsoled --log=guest --pid-file /run/xenconsoled.pid
echo "dom0 is up after $(cut -d' ' -f1 /proc/uptime) s"
while sleep 5; do echo "dom0 lives"; done &
cd /job
# No pipe: what the script leaves running when it is killed would hold it open for ever.
: >/results/log
tail -f /results/log &
timeout "$(cat /job/timeout)" sh /job/run >>/results/log 2>&1
echo "run ended with status $?" >>/results/log
sleep 1
cp -r /var/log/xen /results/xen
stty -F /dev/ttyS1 raw -echo 2>/dev/null
tar -c -C /results . >/dev/ttyS1
sync
echo o >/proc/sysrq-trigger
sleep 60
"""

BLOCK = """#!/bin/sh
# What Xen's own block script does for a raw file, without bash, flock and udev.
case $1 in
add)
    file=$(xenstore-read "$XENBUS_PATH/params")
    loop=$(losetup -f)
    case $(xenstore-read "$XENBUS_PATH/mode") in
    w*) losetup "$loop" "$file" ;;
    *) losetup -r "$loop" "$file" ;;
    esac
    xenstore-write "$XENBUS_PATH/node" "$loop"
    xenstore-write "$XENBUS_PATH/physical-device" "$(stat -c %t:%T "$loop")"
    xenstore-write "$XENBUS_PATH/hotplug-status" connected
    ;;
remove)
    losetup -d "$(xenstore-read "$XENBUS_PATH/node")" 2>/dev/null || true
    ;;
esac
"""


@dataclass(frozen=True)
class Entry:
    """A file of an initramfs; *mode* with the type bits."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def cpio(entries: Sequence[Entry]) -> bytes:
    """Return *entries*, and the directories they need, as a ``newc`` archive, which the kernel unpacks itself."""
    out = io.BytesIO()
    directories: dict[str, None] = {}
    for entry in entries:
        for parent in reversed(Path(entry.path).parents):
            if str(parent) != ".":
                directories[str(parent)] = None
    for number, entry in enumerate(
        [*(Entry(d, 0o040755) for d in directories), *entries, Entry("TRAILER!!!", 0)], start=1
    ):
        name = entry.path.encode() + b"\0"
        fields = (number, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields) + name
        out.write(header + bytes(-len(header) % 4) + entry.data + bytes(-len(entry.data) % 4))
    return out.getvalue()


def _regular(path: str, source: Path, mode: int = 0o100755) -> Entry:
    return Entry(path, mode, source.read_bytes())


def _needed(binary: Path) -> list[str]:
    """Return the sonames *binary* is linked with."""
    dynamic = output_of("readelf", "-dW", str(binary))
    return [line.split("[")[1].rstrip("]") for line in dynamic.splitlines() if "(NEEDED)" in line]


def _libraries(binaries: Sequence[Path]) -> Iterator[Entry]:
    """Yield the shared libraries *binaries* need, the packages' own before this machine's."""
    places = [debian_tree(p) / "usr/lib/x86_64-linux-gnu" for p in LIBRARY_PACKAGES]
    places += [LIBRARIES, Path("/usr") / LIBRARIES.relative_to("/")]
    # xl loads libgcc_s when one of its threads is cancelled: nothing is linked with it.
    seen = {"libgcc_s.so.1": None}
    waiting = [*binaries]
    done = 0
    while waiting or done < len(seen):
        for binary in waiting:
            seen.update(dict.fromkeys(_needed(binary)))
        waiting = []
        for name in list(seen)[done:]:
            done += 1
            path = next((p / name for p in places if (p / name).exists()), None)
            assert path is not None, f"no package of LIBRARY_PACKAGES has {name}"
            waiting.append(path)
            where = "lib64" if name.startswith("ld-linux") else "lib/x86_64-linux-gnu"
            yield _regular(f"{where}/{name}", path)


@cache
def base(*, hvm: bool) -> bytes:
    """Return dom0's initramfs; *hvm* adds the device model and firmware for HVM guests (some 40 MB)."""
    tools = debian_tree(f"xen-utils-{VERSION}") / f"usr/lib/xen-{VERSION}/bin"
    store = debian_file("xenstore-utils", "usr/bin/xenstore")
    binaries = [*(tools / name for name in TOOLS), store]
    busybox = Path(require("busybox"))
    kernel_modules = next((debian_tree("linux-image-amd64") / "lib/modules").iterdir()) / "kernel/drivers"
    modules = [kernel_modules / f"{name}.ko" for name in MODULES]
    entries = [
        Entry("dev/console", 0o020600, device=(5, 1)),
        Entry("init", 0o100755, (INIT % {"version": VERSION, "modules": " ".join(m.stem for m in modules)}).encode()),
        Entry("etc/xen/scripts/block", 0o100755, BLOCK.encode()),
        Entry("etc/xen/xl.conf", 0o100644, b'autoballoon="off"\n'),
        _regular("bin/busybox", busybox),
        *(_regular(f"usr/lib/xen-{VERSION}/bin/{name}", tools / name) for name in TOOLS),
        _regular("usr/bin/xenstore", store),
        *(Entry(f"usr/bin/{name}", 0o120777, b"xenstore") for name in STORE_TOOLS),
        *(_regular(f"modules/{module.name}", module) for module in modules),
    ]
    if hvm:
        device_model = debian_file("qemu-system-xen", "usr/libexec/xen-qemu-system-i386")
        binaries.append(device_model)
        entries += [
            _regular("usr/libexec/xen-qemu-system-i386", device_model),
            _regular(
                f"usr/lib/xen-{VERSION}/boot/hvmloader",
                debian_file(f"xen-utils-{VERSION}", f"usr/lib/xen-{VERSION}/boot/hvmloader"),
            ),
            *(_regular(path.lstrip("/"), Path(path)) for path in FIRMWARE),
        ]
    return cpio([*entries, *_libraries(binaries)])


def hypervisor() -> Path:
    """Return Xen itself, compressed as Debian has it: a Multiboot 1 and 2 kernel."""
    return debian_file(f"xen-hypervisor-{VERSION}-amd64", f"boot/xen-{VERSION}-amd64.gz")


def vmlinuz() -> Path:
    """Return dom0's kernel."""
    return debian_file("linux-image-amd64", "boot/vmlinuz-*")


@dataclass(frozen=True)
class Results:
    """What a run left: the files of ``/results`` by name, and what Xen and dom0 said."""

    files: Mapping[str, bytes]
    console: str
    seconds: float


def xen_options(dom0_memory: int) -> str:
    """Return Xen's own command line; *dom0_memory* in MiB."""
    return (
        "console=com1 com1=115200,8n1 dom0_max_vcpus=1 watchdog=0 bootscrub=0 "
        f"dom0_mem={dom0_memory}M,max:{dom0_memory}M"
    )


LINUX_OPTIONS = "console=hvc0 quiet panic=-1"


def run(
    files: Mapping[str, bytes | Path], *, hvm: bool = False, memory: int, dom0_memory: int, timeout: int
) -> Results:
    """Boot Xen with *files* under dom0's ``/job`` and return the results; ``run`` is the script it runs there.

    Sizes in MiB. A script that has not ended after *timeout* seconds of dom0's time is killed, and tried again on a
    machine started anew: a guest stood still.
    """
    files = {**files, "timeout": str(timeout).encode()}
    entries = [
        Entry(f"job/{name}", 0o100644, data.read_bytes() if isinstance(data, Path) else data)
        for name, data in files.items()
    ]
    with tempfile.TemporaryDirectory(prefix="rumpbundle-xen.") as directory:
        scratch = Path(directory)
        (scratch / "dom0.cpio").write_bytes(base(hvm=hvm) + cpio(entries))
        modules = (ModuleFile(vmlinuz(), LINUX_OPTIONS), ModuleFile(scratch / "dom0.cpio"))
        options = xen_options(dom0_memory)
        rumpbundle.bundle(
            *(hypervisor(), "raw"), output=scratch / "xen.raw", cmdline=options, modules=modules, firmware="bios"
        )
        boot = ["-drive", f"if=virtio,format=raw,file={scratch}/xen.raw"]
        if hvm:
            # Time passes by instructions: QEMU 7.2 dies when a 64-bit guest writes CR8 with an interrupt pending, as
            # OVMF does at the end of each tick, once the ticks come faster than a busy machine can serve them.
            boot += ["-icount", "shift=3,sleep=off"]
        for _ in range(RESTARTS):
            try:
                return _boot(scratch, boot, memory)
            except HostStalled as stalled:
                warnings.warn(f"the emulated Xen host stalled and is started once more: {stalled}", stacklevel=2)
        return _boot(scratch, boot, memory)


class HostStalled(Exception):
    """The emulated machine or a guest on it stands still, or the emulator broke down."""


KILLED = b"run ended with status 143"
"""What the log says of a script that dom0's ``timeout`` has ended."""

STILL = 90
"""Seconds of silence after which the machine stands still: dom0 beats every 5 s of its own time."""

RESTARTS = 2
"""How often a machine that stalled is started anew; what a test asserts is never asked twice.

A stall is the emulator's fault and nobody's test. The whole machine stands still, though dom0 beats whatever a guest
does, or one guest, and dom0 ends the script; a guest that really does not boot does so each time. Seen in 2 of 5 runs
with two HVM guests under SeaBIOS, and looked into with gdb once: the guest was inside GRUB's call of int 13h at
D980:F15D, where its CS should be F000 (D980 was SS), and QEMU 7.2 delivered one #UD to it after the other, with no
tick of Xen's in between and a millisecond of emulated time in a second.
"""


def _boot(scratch: Path, boot: Sequence[str], memory: int) -> Results:
    tar = scratch / "results.tar"
    console = scratch / "console"
    argv = [
        *(require("qemu-system-x86_64"), "-accel", "tcg", "-cpu", "qemu64,+svm,+npt,+rdrand", "-m", str(memory)),
        *("-nodefaults", "-no-user-config", "-display", "none", "-nic", "none", "-no-reboot"),
        *("-serial", f"file:{console}", "-serial", f"file:{tar}", *boot),
    ]
    start = time.monotonic()
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        _wait(process, console)
    finally:
        process.kill()
        process.wait()
    said = console.read_text("utf-8", "replace")
    if process.returncode:
        raise HostStalled(f"QEMU gave {process.returncode}\n{said[-4000:]}")
    try:
        with tarfile.open(tar) as archive:
            files = {
                member.name.removeprefix("./"): file.read()
                for member in archive
                if member.isfile() and (file := archive.extractfile(member))
            }
    except tarfile.TarError:
        pytest.fail(f"dom0 left no results:\n{said[-4000:]}")
    if KILLED in files.get("log", b""):
        raise HostStalled(f"a guest had no end\n{said[-4000:]}")
    return Results(files, said, time.monotonic() - start)


def _wait(process: subprocess.Popen[bytes], console: Path) -> None:
    """Wait for the end of *process* as long as *console* grows."""
    seen, since = -1, 0.0
    while process.poll() is None:
        size = console.stat().st_size if console.exists() else 0
        if size != seen:
            seen, since = size, time.monotonic()
        elif time.monotonic() - since > STILL:
            raise HostStalled(f"no word for {STILL} s\n{console.read_text('utf-8', 'replace')[-4000:]}")
        time.sleep(0.1)
