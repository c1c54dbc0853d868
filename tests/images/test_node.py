"""What QEMU is told to open: nothing an image names is ever opened with it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from support.tools import require

from rumpbundle.cli import main
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.errors import ImageError
from rumpbundle.finished import opinions
from rumpbundle.images.containers.vmdk import open_vmdk
from rumpbundle.images.detect import open_disk
from rumpbundle.images.medium import FdMedium, Window
from rumpbundle.images.node import BlockNode, node_of
from rumpbundle.images.records import qcow2, vmdk
from rumpbundle.launcher import requests
from rumpbundle.launcher.backend import Drive
from rumpbundle.launcher.image import opened
from rumpbundle.launcher.qemu import unpacking

SECRET = b"a secret of the host"


def vmdk_of(lines: str, *, capacity: int = 128, footer: int | None = None, at: int = 1) -> bytes:
    """Return a sparse VMDK with *lines* in its descriptor, at sector *at*; with a *footer* of that capacity."""
    text = f'# Disk DescriptorFile\nversion=1\nCID=12345678\ncreateType="monolithicSparse"\n{lines}\n'.encode()
    end = vmdk.GD_AT_END
    header = vmdk.SparseHeader(capacity=capacity, gd_offset=end if footer is not None else 40, descriptor_offset=at)
    data = bytearray(header.pack().ljust(64 << 10, b"\0"))
    data[at * 512 : at * 512 + len(text)] = text
    if footer is not None:
        # Footer and end-of-stream marker: the last but one sector pair.
        data += vmdk.SparseHeader(capacity=footer, gd_offset=40).pack() + bytes(512)
    return bytes(data)


def qcow2_of(name: bytes = b"", **fields: int) -> bytes:
    header = qcow2.Header(disk_size=1 << 20, l1_size=1, l1_offset=1 << 16, refcount_table_offset=1 << 17, **fields)
    data = bytearray(header.pack().ljust(3 << 16, b"\0"))
    data[4096 : 4096 + len(name)] = name
    return bytes(data)


def backed_by(name: bytes) -> bytes:
    return qcow2_of(name, backing_file_offset=4096, backing_file_size=len(name))


def ova_of(name: str, data: bytes) -> bytes:
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        return file.getvalue()


NO_PARENT = "parentCID=ffffffff"
FLAT = f'{NO_PARENT}\nRW 2048 FLAT "/etc/hostname" 0'
DIRECT = f'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\n{FLAT}\n'.encode()

HOSTILE = {
    "capacity-0": (vmdk_of(FLAT, capacity=0), "a disk of no size"),
    "capacity-0-in-front": (vmdk_of(FLAT, capacity=0, footer=128), "a disk of no size"),
    "capacity-0-behind": (vmdk_of(FLAT, footer=0), "a disk of no size"),
    "flat": (vmdk_of(FLAT), "names another file (FLAT /etc/hostname)"),
    "flat-far-behind": (vmdk_of("\n" * 600 + FLAT), "names another file"),
    "raw-device": (vmdk_of(f'{NO_PARENT}\nRW 2048 VMFSRDM "disk"'), "names another file"),
    "elsewhere": (vmdk_of(f'{NO_PARENT}\nRW 128 SPARSE "../other.vmdk"'), "names another file"),
    "two": (vmdk_of(f'{NO_PARENT}\nRW 64 SPARSE "a.vmdk"\nRW 64 SPARSE "b.vmdk"'), "names another file"),
    "parent": (vmdk_of('parentCID=12345678\nparentFileNameHint="/etc/hostname"'), "a parent disk, /etc/hostname"),
    "parent-hint": (vmdk_of(f'{NO_PARENT}\nparentFileNameHint="base.vmdk"'), "a parent disk, base.vmdk"),
    "parent-id": (vmdk_of("parentCID=12345678"), "a parent disk"),
    "ova": (ova_of("disk.vmdk", vmdk_of(FLAT, capacity=0)), "a disk of no size"),
    "ova-descriptor": (ova_of("disk.vmdk", DIRECT.ljust(512, b"\0")), "VMDK"),
    "backing": (backed_by(b"/etc/hostname"), "has a backing file, /etc/hostname"),
    "backing-json": (
        backed_by(b'json:{"driver":"raw","file.filename":"/etc/hostname"}'),
        "has a backing file, json:",
    ),
    "data-file": (qcow2_of(incompatible=qcow2.INCOMPATIBLE_DATA_FILE), "keeps its data in another file"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_names_another_file_is_refused(name: str, tmp_path: Path):
    data, problem = HOSTILE[name]
    image = tmp_path / "image"
    image.write_bytes(data)
    for persist in (False, True):
        with pytest.raises(ImageError) as caught, opened(image, persist=persist):
            pass
        assert problem in str(caught.value)
        assert caught.value.where == str(image)
    for words in (["--dry-run"], ["--persist"]):
        done = subprocess.run(
            [sys.executable, "-m", "rumpbundle", "run", image, "--boot", "qemu", "--accel", "tcg", *words],
            capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"error: {image}: ")
    assert image.read_bytes() == data


def test_a_disk_that_stands_in_several_files_is_refused(tmp_path: Path):
    (tmp_path / "a.raw").write_bytes(bytes(4096))
    (tmp_path / "b.raw").write_bytes(bytes(4096))
    with open_disk(tmp_path / "a.raw") as disk:
        assert node_of(disk) is not None
        disk.others = (InputFile(tmp_path / "b.raw"),)
        with pytest.raises(ImageError, match=r"stands in other files, too .*b\.raw") as caught:
            node_of(disk)
    assert "convert" in caught.value.hint


def test_qemu_follows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Even if an image that names another file came so far: the node says that there is none."""
    require("qemu-img")
    monkeypatch.chdir(tmp_path)
    Path("secret.raw").write_bytes(SECRET.ljust(1 << 20, b"\0"))
    for format in ("qcow2", "vmdk"):
        Path("base").unlink(missing_ok=True)
        subprocess.run(["qemu-img", "convert", "-O", format, "secret.raw", "base"], check=True)
        subprocess.run(["qemu-img", "create", "-q", "-f", format, "-b", "base", "-F", format, "child"], check=True)
        plain = subprocess.run(["qemu-img", "convert", "-f", format, "-O", "raw", "child", "seen"], check=False)
        assert plain.returncode == 0
        assert Path("seen").read_bytes().startswith(SECRET), "the case shows nothing"
        subprocess.run(unpacking(Drive(path="child", format=format), "seen"), check=True)
        assert not Path("seen").read_bytes().strip(b"\0")
        Path("child").unlink()


def test_a_name_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    require("qemu-img")
    monkeypatch.chdir(tmp_path)
    name = 'json:{"driver":"null-co"}'
    Path(name).write_bytes(SECRET.ljust(4096, b"\0"))
    with opened(name, persist=False) as image:
        subprocess.run(unpacking(image.disk, "seen"), check=True)
    assert Path("seen").read_bytes() == Path(name).read_bytes()


def test_what_a_window_shows_is_opened_in_its_file(tmp_path: Path):
    data = vmdk_of(f'{NO_PARENT}\nRW 128 SPARSE "a.vmdk"')
    path = tmp_path / "file"
    path.write_bytes(bytes(1024) + data + bytes(512))
    with path.open("rb") as file:
        outer = Window(FdMedium(file.fileno()), 512, len(data) + 1024)
        disk = open_vmdk(Window(outer, 512, len(data)))
        assert node_of(disk) == BlockNode("vmdk", file.fileno(), 1024, len(data))


def test_the_name_may_lead_elsewhere_by_then(tmp_path: Path):
    """QEMU opens the file that was looked at, whatever has its name when it starts."""
    image = tmp_path / "a.raw"
    image.write_bytes(b"first".ljust(4096, b"\0"))
    with opened(image, persist=True) as found:
        image.rename(tmp_path / "b.raw")
        image.write_bytes(SECRET.ljust(4096, b"\0"))
        fd = os.open(found.disk.inherited, os.O_RDWR)
        try:
            assert os.pread(fd, 5, 0) == b"first"
        finally:
            os.close(fd)


def test_a_kit_leads_to_no_other_file(tmp_path: Path):
    """A kit may come from anywhere; a link in it would give the guest any file of this machine."""
    (tmp_path / "secret").write_bytes(SECRET.ljust(4096, b"\0"))
    for name, config in (("volume.raw", None), ("disk.raw", "xl.cfg")):
        kit = tmp_path / f"kit-{name}"
        kit.mkdir()
        (kit / name).symlink_to(tmp_path / "secret")
        with pytest.raises(ImageError, match=r"raw: is a symbolic link"), opened(kit, persist=False):
            pass
        if config:
            (kit / config).write_text("")
            with pytest.raises(ImageError, match=r"raw: is a symbolic link"):
                requests.of_kit(kit)


def test_verify_opens_nothing_that_a_vmdk_names_in_passing(tmp_path, capsys):
    """QEMU takes a parent's name for one wherever it stands: it would open it, whatever it is."""
    image = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", "vmdk", image, "1M"], check=True)
    data = image.read_bytes()
    text = data[512:10752].rstrip(b"\0") + b'# parentFileNameHint="other"\n'
    image.write_bytes(data[:512] + text.ljust(10240, b"\0") + data[10752:])
    assert subprocess.run(["qemu-img", "check", "-q", image], check=False, capture_output=True).returncode
    assert main(["verify", str(image)]) == 0, capsys.readouterr()


def test_qemu_img_checks_the_file_that_was_looked_at(tmp_path):
    """Not what stands at its name by then: that may lead anywhere."""
    image, other = tmp_path / "image", tmp_path / "other"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True)
    argv = ["qemu-img", "create", "-q", "-u", "-b", str(tmp_path / "any file"), "-F", "raw", "-f", "qcow2"]
    subprocess.run([*argv, other, "1M"], check=True)
    assert subprocess.run(["qemu-img", "check", "-q", other], check=False, capture_output=True).returncode
    told = []
    with open_disk(image, watch="no") as disk:
        os.replace(other, image)
        assert list(opinions.container(image, disk, told.append)) == []
    assert told[0].argv == ("qemu-img", "check", "-q", "-f", "qcow2", str(image))
