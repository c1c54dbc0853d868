"""A real Linux finds its data and its volume, reads every file back, writes, and finds it after a reboot."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from pathlib import Path

import pytest
from support import linux, qemu
from support.tools import output_of

import rumpbundle
from rumpbundle import guests, volume
from rumpbundle.bundling.writing import ModuleFile
from rumpbundle.config import Config
from rumpbundle.disk import tree

pytestmark = pytest.mark.boot

SCRIPT = """
report() {
    echo "BEGIN $1"
    cd $2
    find . -type f -exec sha256sum {} + | sort -k 2
    find . -mindepth 1 ! -path './lost+found' ! -name written -exec stat -c '%n %a %h %u %N' {} + | sort
    cd /
    echo "END $1"
}
tries=0
until DB=$(findfs LABEL=db 2>/dev/null) || [ $tries = 900 ]; do tries=$((tries+1)); sleep 0.1; done
report data /srv/site
mkdir /db /iso
mount -t ext4 $DB /db
[ -e /db/written ] && { echo "FOUND $(cat /db/written)"; rm /db/written; } || echo FIRST
report volume /db
echo "what $(cat /proc/sys/kernel/hostname) wrote for $OWNER" > /db/written
mkdir /db/made && rmdir /db/made
umount /db
mount -t iso9660 -o ro $(findfs LABEL=ISO) /iso && report iso /iso
echo ALL DONE
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    top = tmp_path_factory.mktemp("site")
    (top / "sub" / "deeper").mkdir(parents=True)
    (top / "empty").mkdir(mode=0o700)
    for size in (0, 1, 4095, 4096, 4097, 60_000, 2 << 20):
        (top / f"f{size}").write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
    with open(top / "sparse", "wb") as file:
        file.seek(3 << 20)
        file.write(b"after a hole")
    (top / "sub" / "script").write_text("#!/bin/sh\n")
    (top / "sub" / "script").chmod(0o4751)
    os.link(top / "f4097", top / "sub" / "hard")
    (top / "sub" / "link").symlink_to("../f1")
    (top / "sub" / "far").symlink_to("nowhere/" + "long" * 50)  # too long to stand in an inode
    (top / ("long" * 60)).write_text("long")
    (top / "ümläute").write_text("not ASCII")
    for number in range(20):
        (top / "sub" / "deeper" / f"{number}").write_text(str(number) * number)
    (top / "large").mkdir()
    for number in range(30):  # a directory of several blocks
        (top / "large" / f"{number:03}{'n' * 200}").touch()
    return top


@pytest.fixture(scope="module")
def image(site, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("image")
    root = tree.scan(site)
    rumpbundle.bundle(
        linux.kernel(),
        "raw",
        output=directory / "linux.raw",
        cmdline="console=ttyS0 quiet panic=-1",
        config=Config(hostname="web1", env={"OWNER": "nobody"}),
        modules=(ModuleFile(linux.initrd(directory / "initrd", SCRIPT)),),
        data=(guests.Data(root, "/srv/site"),),
        volumes=(guests.Writable(root, "/db"),),
    )
    volume.save(volume.iso9660(root, label="ISO", epoch=0), directory / "disk.iso")
    return directory / "linux.raw"


def listing(top: Path) -> list[str]:
    """Return what the guest's report says of *top*."""
    sums, stats = [], []
    for directory, names, files in os.walk(top):
        for name in (*names, *files):
            path = Path(directory, name)
            shown = f"./{path.relative_to(top)}"
            status = path.lstat()
            target = f"'{shown}' -> '{os.readlink(path)}'" if path.is_symlink() else shown
            links = 2 + sum(map(Path.is_dir, path.iterdir())) if path.is_dir() else status.st_nlink
            stats.append(f"{shown} {stat.S_IMODE(status.st_mode):o} {links} 0 {target}")
            if path.is_file() and not path.is_symlink():
                sums.append(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {shown}")
    key = os.fsencode
    return [*sorted(sums, key=lambda line: key(line.split("  ")[1])), *sorted(stats, key=key)]


def run(image: Path, firmware: str, bus: str) -> str:
    """Boot *image*, which the guest may write to, and return its console."""
    drives = [
        *("-drive", f"if=none,id=boot,format=raw,file={image}", *qemu.BUSES[bus]),
        *("-drive", f"if=virtio,format=raw,readonly=on,file={image.with_name('disk.iso')}"),
    ]
    return qemu.boot(None, firmware=firmware, memory="384M", timeout=300, extra=drives).text


def test_data_and_volume(image, site, tmp_path):
    """One image goes from machine to machine; each boot finds what the one before wrote."""
    expected = listing(site)
    found = "FIRST"
    for firmware, bus in (("bios", "virtio"), ("uefi", "ahci"), ("bios", "ahci"), ("uefi", "virtio")):
        console = run(image, firmware, bus)
        for what in ("data", "volume", "iso"):
            report = re.search(f"BEGIN {what}\n(.*)\nEND {what}\n", console, re.DOTALL)
            assert report is not None, console
            assert report[1].split("\n") == expected, f"{what} under {firmware} on {bus}"
        assert f"\n{found}\n" in console, f"under {firmware} on {bus}"
        assert "ALL DONE" in console
        found = "FOUND what web1 wrote for nobody"
    table = json.loads(output_of("sfdisk", "--json", str(image)))["partitiontable"]
    place = table["partitions"][-1]
    with open(image, "rb") as disk:
        disk.seek(place["start"] * 512)
        (tmp_path / "volume").write_bytes(disk.read(place["size"] * 512))
    assert len(output_of("e2fsck", "-fn", str(tmp_path / "volume")).splitlines()) == 7
