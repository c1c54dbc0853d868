"""Which disk a guest is told to mount: the one it finds where the image will run."""

from __future__ import annotations

import pytest
from support import synthetic

from rumpbundle.cli import main

DRIVERS = (b"ld_virtio", b"vioscsi", b"umass", b"vioif", b"Intel i82540EM")
"""Those of hw_generic."""


@pytest.fixture
def app(tmp_path, monkeypatch):
    """A rumprun kernel in the current directory that drives every disk rumprun can, and a directory for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.bin").write_bytes(synthetic.rumprun(*DRIVERS))
    (tmp_path / "site").mkdir()
    return "app.bin"


SOLO5 = synthetic.elf(
    [synthetic.Segment(synthetic.multiboot1().ljust(256, b"\0"))],
    [
        synthetic.Section(".text", bytes(64), addr=0x100000),
        synthetic.Section(
            ".note.solo5", synthetic.solo5_notes(3, ("service", 2), ("storage", 1)), type=synthetic.SHT_NOTE
        ),
    ],
)


@pytest.mark.parametrize(
    ("words", "disk"),
    [
        (("raw", "app.bin"), "ld0"),
        (("gce", "app.bin"), "sd0"),
        (("vdi", "app.bin"), "ld0"),
        (("ec2", "app.bin"), "ld0"),
        (("xen", "app.bin"), "ld0"),
        (("build", "-f", "raw,qcow2", "app.bin"), "ld0"),
        (("build", "-f", "raw,gce", "app.bin"), "sd0"),
        (("--boot", "qemu", "app.bin"), "ld0"),
        (("--boot", "qemu", "app.bin", "--bus", "scsi"), "sd0"),
        (("--boot", "qemu", "app.bin", "--bus", "usb"), "sd0"),
        (("--boot", "qemu", "app.bin", "--bus", "virtio"), "ld0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_the_platform_or_the_user_decides(app, words, disk, capsys):
    assert main([*words, "--data", "site:/data", "--dry-run"]) == 0
    assert f"the guest looks for its files on /dev/{disk}: attach the image as" in capsys.readouterr().err


def test_what_is_written_says_so(app, capsys):
    assert main(["gce", app, "--data", "site:/data", "--volume", "site:/db"]) == 0
    assert main(["cat", "app.gce.tar.gz", "/boot/modules/0/config.json"]) == 0
    text = capsys.readouterr().out
    assert '"path":"/dev/sd0a","fstype":"blk","mountpoint":"/data"' in text
    assert '"path":"/dev/sd0e","fstype":"blk","mountpoint":"/db"' in text


@pytest.mark.parametrize(
    ("format", "words", "device"),
    [("vdi", (), "virtio-blk-pci"), ("vdi", ("--bus", "virtio"), "virtio-blk-pci"), ("raw", (), "virtio-blk-pci")],
)
def test_a_finished_image_stands_where_the_guest_looks(app, format, words, device, capsys):
    assert main([format, app, "--data", "site:/data"]) == 0
    assert main(["run", f"app.{format}", "--boot", "qemu", "--accel", "tcg", "--dry-run", *words]) == 0
    assert f"-device {device}" in capsys.readouterr().out


def test_a_finished_image_of_solo5_finds_its_devices(app, tmp_path, capsys):
    (tmp_path / "solo5.bin").write_bytes(SOLO5)
    assert main(["raw", "solo5.bin"]) == 0
    assert "asks for net service, block storage: give it these virtio devices" in capsys.readouterr().err
    run = ["run", "solo5.raw", "--boot", "qemu", "--accel", "tcg", "--dry-run"]
    assert main([*run, "--volume", "site:/storage"]) == 0
    shown = capsys.readouterr()
    assert 0 < shown.out.index("-device virtio-net-pci") < shown.out.index("-device virtio-blk-pci")
    assert "will not find" not in shown.err
    assert main(run) == 0
    assert "block devices it will not find (storage)" in capsys.readouterr().err
