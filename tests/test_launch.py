"""``--boot`` and ``run``, and the library behind them: real bundles under a real QEMU."""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from support import kernels, linux
from support.bootsector import bootsector
from support.tools import free_port, require

import rumpbundle
from rumpbundle import guests
from rumpbundle.dev_launch import Options, follow
from rumpbundle.disk import tree
from rumpbundle.errors import GuestError, HostError, Interrupted, UsageError
from rumpbundle.images import detect
from rumpbundle.images import disk as images
from rumpbundle.images.detect import file_system
from rumpbundle.kernels.unikernel import Family, Firmware
from rumpbundle.launcher import attached, qemu
from rumpbundle.launcher.backend import Drive, LaunchRequest, Reason
from rumpbundle.launcher.image import opened, unpacked
from rumpbundle.launcher.terminal import Keys

COMMAND = [sys.executable, "-m", "rumpbundle"]


@pytest.fixture(autouse=True)
def _this_rumpbundle(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(kernels.ROOT))


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A kernel that reports what it was given and ends well."""
    require("qemu-system-x86_64")
    return shutil.copyfile(kernels.build("multiboot"), tmp_path / "app.bin")


def disk(directory: Path, text: str, ending: str) -> Path:
    require("qemu-system-x86_64")
    image = directory / "disk.raw"
    image.write_bytes(bootsector(text, ending).ljust(1 << 20, b"\0"))
    return image


def rumpbundle_(*words: str | Path, cwd: Path, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
        **more,
    )  # fmt: skip


# --- the library ---


@pytest.mark.boot
def test_launch(app: Path):
    heard: list[bytes] = []
    with rumpbundle.launch(app, accel="tcg", cmdline="hello", memory=64 << 20, sinks=(heard.append,)) as guest:
        assert guest.expect(r'^cmdline "(.*)"$', timeout=180)[1] == "app.bin hello"
        assert str(guest.wait(10)) == "the guest exited with status 0 (isa-debug-exit)"
    assert b"testkernel multiboot" in b"".join(heard)
    assert os.listdir(app.parent) == ["app.bin"]


def test_unknown_keywords_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="there is no option 'memroy'"):
        rumpbundle.launch(tmp_path / "none", memroy=1)


@pytest.mark.boot
def test_a_finished_image_is_not_written_to_unless_asked(tmp_path: Path):
    image = disk(tmp_path, "", "success")
    sector = bytearray(image.read_bytes())
    # int 13h, ah=3: write one sector from 0x7c00 to the second, then end well.
    code = "b80103 bb007c b90200 ba8000 31f6 8ec6 cd13 b010 e6f4"
    sector[: len(bytes.fromhex(code))] = bytes.fromhex(code)
    image.write_bytes(sector)
    with rumpbundle.run(image, accel="tcg") as guest:
        assert guest.wait(180).good
    assert image.read_bytes() == sector
    with rumpbundle.run(image, accel="tcg", persist=True) as guest:
        assert guest.wait(180).good
    assert image.read_bytes()[512:1024] == sector[:512]


@pytest.mark.boot
def test_a_disk_that_does_not_boot(tmp_path: Path):
    image = disk(tmp_path, "", "hang")
    image.write_bytes(bytes(1 << 20))
    with rumpbundle.run(image, accel="tcg") as guest:
        assert str(guest.wait(180)).startswith("the guest was not started (its firmware found nothing")


@pytest.mark.boot
def test_ends_that_are_not_by_custom(tmp_path: Path):
    with rumpbundle.run(disk(tmp_path, "hello\n", "default port"), accel="tcg") as guest:  # as Nanos has it
        assert str(guest.wait(180)) == "the guest exited with status 3 (isa-debug-exit)"
    with rumpbundle.run(disk(tmp_path, "panic: half a line", "triple"), accel="tcg") as guest:
        assert str(guest.wait(180)) == "the guest crashed (panic: half a line)"


@pytest.mark.boot
def test_following(tmp_path: Path):
    with rumpbundle.run(disk(tmp_path, "hello\n", "failure"), accel="tcg") as guest:
        with pytest.raises(GuestError, match="exited with status 3") as caught:
            follow(guest, timeout=180)
        assert caught.value.console == ("hello",)
    with rumpbundle.run(disk(tmp_path, "hello\n", "hang"), accel="tcg") as guest:
        assert follow(guest, expect="^hel+o$", timeout=180) is None
        assert guest.ending is not None
    with rumpbundle.run(disk(tmp_path, "hello\n", "hang"), options=Options(accel="tcg")) as guest:
        guest.expect("hello", 30)
        guest.interrupt()
        with pytest.raises(Interrupted):
            follow(guest)


@pytest.mark.boot
def test_a_kernel_that_asks_for_a_framebuffer_gets_one(tmp_path: Path):
    require("qemu-system-x86_64")
    done = rumpbundle_("--boot", "qemu", kernels.build("multiboot2-framebuffer"), "--accel", "tcg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "framebuffer 00000400" in done.stdout
    assert "note: the kernel asks for a framebuffer; it gets a display adapter, which is not shown" in done.stderr


@pytest.mark.boot
@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_the_guest_has_memory_for_its_modules(app: Path, firmware: str):
    """300 MB, with the 128 MB the kernel itself would get: GRUB says "out of memory"."""
    module = app.parent / "module"
    with module.open("wb") as file:
        file.truncate(300_000_000)
    modules = (rumpbundle.ModuleFile(module),)
    (image,) = rumpbundle.bundle(app, "raw", output=app.parent / "app.raw", modules=modules).paths
    with rumpbundle.run(image, accel="tcg", firmware=firmware) as guest:
        assert guest.wait(100).good


FORMATS = {
    "iso": Drive(path="app.iso"),
    "raw": Drive(path="app.raw"),
    "vmdk": Drive(path="app.vmdk", format="vmdk"),
    "vdi": Drive(path="app.vdi", format="vdi"),
    "qcow2": Drive(path="app.qcow2", format="qcow2"),
    "vhd": Drive(path="app.vhd", format="vpc"),
    "azure": Drive(path="app.azure.vhd", length=20 << 20),
    "vhdx": Drive(path="app.vhdx", format="vhdx"),
    "ova": Drive(path="app.ova", format="vmdk", offset=3584),
    "ec2": Drive(path="app.ec2/volume.raw"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_finished_images_are_opened_where_they_stand(app: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(app.parent)
    path = rumpbundle.bundle("app.bin", name).paths[0]
    with opened(path, persist=False) as image:
        assert image.disk.fd is not None
        assert os.path.samestat(os.fstat(image.disk.fd), os.stat(image.disk.path))
        disk = replace(image.disk, fd=None, **({"length": None} if name == "ova" else {}))
        assert disk == replace(FORMATS[name], offset=disk.offset if name == "ova" else 0)
        assert image.manifest["name"] == "app"


def test_of_a_large_empty_disk_only_what_is_there_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    require("qemu-img")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "a.qcow2", "64G"], check=True)
    subprocess.run(["qemu-io", "-c", "write -P 7 63G 1M", tmp_path / "a.qcow2"], check=True, capture_output=True)
    looked_at: list[int] = []
    read = images.Disk.read

    def counting(self, offset: int, length: int) -> bytes:
        looked_at.append(length)
        return read(self, offset, length)

    monkeypatch.setattr(images.Disk, "read", counting)
    made = unpacked(tmp_path / "a.qcow2", str(tmp_path / "a.raw"))
    assert sum(looked_at) < 2 << 20
    assert os.stat(made.disk.path).st_size == 64 << 30
    with open(made.disk.path, "rb") as file:
        file.seek(63 << 30)
        assert file.read(1 << 20) == b"\7" * (1 << 20)


@pytest.mark.parametrize(
    "manifest",
    [b"{", b"[]", b'{"modules": 5, "boot": 7, "family": [], "bus": {}, "cmdline": 1, "devices": {"a": 1}}'],
)
def test_what_a_manifest_claims_is_not_believed(app: Path, manifest: bytes):
    (image,) = rumpbundle.bundle(app, "raw", output=app.parent / "app.raw").paths
    data = image.read_bytes()
    at = data.index(b'{\n "rumpbundle"') if b'{\n "rumpbundle"' in data else data.index(b'{\n "schema"')
    end = data.index(b"\n}\n", at) + 3
    image.write_bytes(data[:at] + manifest.ljust(end - at) + data[end:])
    with opened(image, persist=False) as found:
        assert (found.family, found.cmdline, found.drivers) == (Family.PLAIN, "", frozenset())
        assert found.firmware is Firmware.BIOS
        assert not found.devices


@pytest.mark.boot
@pytest.mark.parametrize(("name", "bus"), [("ova", "sata"), ("gce", "scsi"), ("vhd", "ide"), ("iso", "cd")])
def test_finished_images_boot(app: Path, name: str, bus: str):
    path = rumpbundle.bundle(app, name, output=app.parent / "image").paths[0]
    with rumpbundle.run(path, accel="tcg", bus=bus) as guest:
        assert guest.wait(180).good
    with pytest.raises(UsageError, match="packed") if name in ("ova", "gce") else contextlib.nullcontext():
        with opened(path, persist=True) as image:
            assert image.disk.persist


def test_directories_become_further_disks(tmp_path: Path):
    (tmp_path / "site" / "sub").mkdir(parents=True)
    (tmp_path / "site" / "sub" / "page").write_text("page")
    site = tree.scan(tmp_path / "site")
    trees = [guests.Data(site, "/srv/site"), guests.Writable(site, "/site", 4 << 20)]
    with contextlib.ExitStack() as stack:
        iso, ext2 = attached.attached(trees, stack)
        for disk, label in ((iso, "site"), (ext2, "site_2")):
            with detect.open_disk(disk.path) as opened_disk:
                files = file_system(opened_disk)
                assert files is not None
                assert files.label == label
                assert b"".join(files.chunks(files.find("/sub/page"))) == b"page"
        assert os.fstat(ext2.fd).st_size == 4 << 20
    argv = qemu.command(qemu.machine_for(LaunchRequest(name="x", disk=Drive(path="x"), further=(iso, ext2))))
    assert f"if=none,id=disk2,driver=raw,file.driver=file,file.filename={ext2.path}" in argv
    assert "virtio-blk-pci,drive=disk2,disable-legacy=off" in argv


@pytest.mark.boot
def test_the_dry_run_makes_the_further_disks(tmp_path: Path):
    (tmp_path / "a b").mkdir()
    image = disk(tmp_path, "", "success")
    words = [
        "run",
        image,
        "--boot",
        "qemu",
        "--accel",
        "tcg",
        "--dry-run",
        "--data",
        "a b:/x",
        "--volume",
        "a b:/x:8M",
    ]
    first, second, third = rumpbundle_(*words, cwd=tmp_path).stdout.splitlines()
    assert first == "rumpbundle volume 'a b' -o x.iso --label x"
    assert second == "rumpbundle volume 'a b' -o x_2.ext2 --label x_2 -t ext2 --size 8388608"
    assert "id=disk1,snapshot=on,driver=raw,file.driver=file,file.filename=x.iso " in third
    assert "id=disk2,driver=raw,file.driver=file,file.filename=x_2.ext2 " in third
    pasted = "\n".join([first, second, third]).replace("rumpbundle", f"{sys.executable} -m rumpbundle")
    done = subprocess.run(["sh", "-c", pasted], cwd=tmp_path, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == kernels.SUCCESS
    assert {"x.iso", "x_2.ext2"} < set(os.listdir(tmp_path))


def test_the_dry_run_tells_data_from_a_volume_of_the_same_words(tmp_path: Path):
    (tmp_path / "tree").mkdir()
    words = ["--boot", "qemu", "--accel", "tcg", "--dry-run", "--data", "tree:/x", "--volume", "tree:/x"]
    first, second, _ = rumpbundle_("run", disk(tmp_path, "", "success"), *words, cwd=tmp_path).stdout.splitlines()
    assert first == "rumpbundle volume tree -o x.iso --label x"
    assert second == "rumpbundle volume tree -o x_2.ext2 --label x_2 -t ext2"


# --- the command ---


@pytest.mark.boot
def test_the_quick_iteration(app: Path):
    done = rumpbundle_(
        "--boot", "qemu", "app.bin", "--accel", "tcg", "--log", "log", "--", "-m", "64M", cwd=app.parent
    )
    assert done.returncode == 0, done.stderr
    assert "end of report" in done.stdout
    # The first is the loader's carriage return, which programs the port; our reading made a line end of it.
    assert done.stdout.startswith("\n\ntestkernel"), "something speaks before the kernel does"
    assert done.stderr.splitlines()[-1] == "note: the guest exited with status 0 (isa-debug-exit)"
    assert (app.parent / "log").read_text() == done.stdout
    assert sorted(os.listdir(app.parent)) == ["app.bin", "log"]


@pytest.mark.boot
def test_the_dry_run_can_be_pasted_and_works(app: Path):
    words = ["--boot", "qemu", "app.bin", "--accel", "tcg", "--cmdline", "a  b", "--name", "x y", "--dry-run"]
    planned = rumpbundle_(*words, cwd=app.parent)
    first, second = planned.stdout.splitlines()
    assert first == "rumpbundle raw --cmdline 'a  b' --name 'x y' app.bin"
    assert os.listdir(app.parent) == ["app.bin"]
    subprocess.run(
        ["sh", "-ec", first.replace("rumpbundle", f"{sys.executable} -m rumpbundle", 1)], cwd=app.parent, check=True
    )
    done = subprocess.run(
        ["sh", "-c", second], cwd=app.parent, capture_output=True, stdin=subprocess.DEVNULL, timeout=60
    )
    assert done.returncode == kernels.SUCCESS
    assert b'cmdline "app.bin a  b"' in done.stdout


@pytest.mark.boot
def test_expectations_decide_the_exit_status(tmp_path: Path):
    def run(ending: str, *words: str) -> tuple[int, list[str]]:
        image = disk(tmp_path, "one\ntwo\n", ending)
        done = rumpbundle_("run", image, "--boot", "qemu", "--accel", "tcg", *words, cwd=tmp_path)
        return done.returncode, done.stderr.splitlines()[-3:]

    assert run("hang", "--expect", "^two$", "--timeout", "30")[0] == 0
    assert run("triple", "--expect", "three", "--timeout", "30") == (
        5,
        [
            "console: one",
            "console: two",
            "error: the guest reset the machine (a triple fault, or a reboot) before it said 'three'",
        ],
    )
    assert run("hang", "--expect", "three", "--timeout", "1")[1][-1] == (
        "error: the guest did not say 'three' within 1 s"
    )
    assert run("panic") == (5, ["console: one", "console: two", "error: the guest panicked (pvpanic)"])
    assert run("halt")[0] == 0
    assert run("success", "--expect", "(")[1] == [
        "error: --expect: is no regular expression: missing ), unterminated subpattern at position 0"
    ]


@pytest.mark.boot
def test_what_we_say_begins_a_line(tmp_path: Path):
    image = disk(tmp_path, "half a line", "success")
    words = [*COMMAND, "run", str(image), "--accel", "tcg"]  # qemu, without --boot
    both = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=60
    )
    assert both.stdout == b"half a line\nnote: the guest exited with status 0 (isa-debug-exit)\n"
    apart = subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    assert apart.stdout == b"half a line"


@pytest.mark.boot
def test_qemu_is_what_boots_unless_another_is_named(app: Path):
    done = rumpbundle_("boot", "./app.bin", "--accel", "tcg", cwd=app.parent)
    assert done.returncode == 0, done.stderr
    assert "end of report" in done.stdout


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"hello\n", "is a text file, no disk image"),
        (b"#!/bin/sh\necho hello\n", "is a script, no disk image"),
        (b"%PDF-1.7\n\0\1\2", "is a PDF document, no disk image"),
        (b"", "is empty"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, data: bytes, problem: str):
    (tmp_path / "file").write_bytes(data)
    done = rumpbundle_("run", "file", "--accel", "tcg", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0] == f"error: file: {problem}"


def test_a_kernel_is_no_image(app: Path):
    done = rumpbundle_("run", "app.bin", "--accel", "tcg", cwd=app.parent)
    assert done.stderr == (
        "error: app.bin: is an ELF program or kernel, no disk image\nhint: rumpbundle --boot qemu app.bin\n"
    )


def test_bad_options(tmp_path: Path):
    image = disk(tmp_path, "", "hang")
    for words, message in (
        (["--boot", "qemo"], "error: --boot: no such backend: qemo"),
        (["--boot", "qemu", "--publish", "80"], "error: --publish: expected HOST:GUEST[/udp], got '80'"),
        (["--boot", "qemu", "--gdb", "0"], "error: --gdb: expected a port from 1 to 65535, got '0'"),
        (["--boot", "qemu", "--memory", "lots"], "error: --memory: expected a size"),
        (["--boot", "qemu", "--memory", "0"], "error: --memory: expected at least 1M, got 0 bytes"),
    ):
        done = rumpbundle_("run", image, *words, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith(message)


@pytest.mark.boot
def test_what_is_piped_in_is_typed(tmp_path: Path):
    image = disk(tmp_path, "> ", "echo")
    words = [
        "run",
        str(image),
        "--boot",
        "qemu",
        "--accel",
        "tcg",
        "--expect",
        "> hello\x01\x03there",
        "--timeout",
        "30",
    ]
    done = subprocess.run([*COMMAND, *words], input=b"hello\x01\x03there", capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.boot
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_it(tmp_path: Path, number: signal.Signals):
    image = disk(tmp_path, "here\n", "hang")
    words = ["run", str(image), "--boot", "qemu", "--accel", "tcg"]
    with subprocess.Popen(
        [*COMMAND, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=180)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "error: interrupted"
    assert not qemus(image)


# --- the terminal ---


def test_keys():
    assert Keys().take(b"abc\r") == (b"abc\r", "")
    assert Keys().take(b"ab\x03cd") == (b"ab", "interrupt")
    assert Keys().take(b"ab\x01xcd") == (b"ab", "quit")
    assert Keys().take(b"\x01\x03\x01\x01\x01c") == (b"\x03\x01\x01c", "")
    keys = Keys()
    assert keys.take(b"\x01") == (b"", "")
    assert keys.take(b"x") == (b"", "quit")


class OnTerminal:
    """rumpbundle on a terminal of its own."""

    def __init__(self, *words: str | Path, cwd: Path, stderr: Path | None = None) -> None:
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.chdir(cwd)
            if stderr is not None:
                os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT), 2)
            os.execv(sys.executable, [*COMMAND, *map(str, words)])
        self.said = b""
        self.before = termios.tcgetattr(self.fd)

    def until(self, text: bytes) -> None:
        deadline = time.monotonic() + 60
        while text not in self.said:
            assert select.select([self.fd], [], [], max(deadline - time.monotonic(), 0))[0], self.said
            self.said += os.read(self.fd, 4096)

    def until_raw(self) -> None:
        """Wait until keys come as they are typed: that is not before the guest's first word."""
        deadline = time.monotonic() + 30
        while termios.tcgetattr(self.fd)[3] & (termios.ICANON | termios.ECHO | termios.ISIG):
            assert time.monotonic() < deadline, self.said
            time.sleep(0.01)

    def end(self) -> int:
        """Return the exit status."""
        deadline = time.monotonic() + 30
        while not (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            assert time.monotonic() < deadline, self.said
            if select.select([self.fd], [], [], 0.05)[0]:
                try:
                    self.said += os.read(self.fd, 4096)
                except OSError:
                    time.sleep(0.05)
        return ended[1]


@pytest.mark.boot
@pytest.mark.parametrize(("keys", "status"), [(b"\x03", 130), (b"\x01x", 0)])
def test_the_way_out_restores_the_terminal(tmp_path: Path, keys: bytes, status: int):
    image = disk(tmp_path, "type: ", "echo")
    terminal = OnTerminal("run", image, "--boot", "qemu", "--accel", "tcg", cwd=tmp_path)
    terminal.until(b"type: ")
    terminal.until_raw()
    os.write(terminal.fd, b"hello \x01\x03 you")
    terminal.until(b"hello \x03 you")
    os.write(terminal.fd, keys)
    assert os.waitstatus_to_exitcode(terminal.end()) == status
    assert termios.tcgetattr(terminal.fd) == terminal.before


@pytest.mark.boot
def test_a_hypervisor_that_dies_leaves_the_terminal_as_it_was(tmp_path: Path):
    image = disk(tmp_path, "type: ", "echo")
    terminal = OnTerminal("run", image, "--boot", "qemu", "--accel", "tcg", cwd=tmp_path)
    terminal.until(b"type: ")
    terminal.until_raw()
    (child,) = (
        int(process.name)
        for process in Path("/proc").glob("[0-9]*")
        if words_of(process)[:1] == [shutil.which("qemu-system-x86_64")] and has_open(process, image)
    )
    os.kill(child, signal.SIGKILL)
    terminal.until(b"error: qemu-system-x86_64 was killed by SIGKILL")
    assert os.waitstatus_to_exitcode(terminal.end()) == 4
    assert termios.tcgetattr(terminal.fd) == terminal.before
    assert not qemus(image)


@pytest.mark.boot
def test_a_terminal_that_goes_away_is_an_interruption(tmp_path: Path):
    image = disk(tmp_path, "type: ", "echo")
    terminal = OnTerminal("run", image, "--accel", "tcg", cwd=tmp_path, stderr=tmp_path / "said")
    terminal.until(b"type: ")
    terminal.until_raw()
    os.close(terminal.fd)
    _, status = os.waitpid(terminal.pid, 0)
    assert (tmp_path / "said").read_text() == "error: interrupted\n"
    assert os.waitstatus_to_exitcode(status) == 130
    assert not qemus(image)


@pytest.mark.boot
@pytest.mark.parametrize(
    ("shell", "words", "said"),
    [
        ('"$@" >&-', (), "standard output: is closed"),
        ('"$@" >/dev/full', (), "standard output: cannot be written: No space left on device"),
        ('"$@"', ("--log", "/dev/full"), "/dev/full: cannot be written: No space left on device"),
    ],
)
def test_what_does_not_take_the_console_is_named(tmp_path: Path, shell: str, words: tuple[str, ...], said: str):
    image = disk(tmp_path, "hello", "hang")
    argv = ["sh", "-c", shell, "sh", *COMMAND, "run", str(image), "--accel", "tcg", *words]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (3, f"error: {said}")
    assert not qemus(image)


@pytest.mark.boot
def test_a_console_and_keys_that_others_made_nonblocking(tmp_path: Path):
    """They share the setting with us: a pipe that is full, or empty, is waited for."""
    (ours, theirs), (keys, typing) = os.pipe(), os.pipe()
    for fd in (theirs, keys):
        os.set_blocking(fd, False)
    app = shutil.copyfile(kernels.build("multiboot"), tmp_path / "app.bin")
    argv = [*COMMAND, "--boot", "qemu", app, "--accel", "tcg", "--cmdline", "flood=200000 echo"]
    with subprocess.Popen(argv, stdin=keys, stdout=theirs, stderr=subprocess.PIPE, text=True) as process:
        os.close(theirs)
        os.close(keys)
        time.sleep(3)  # until the pipe is full
        heard = b""
        while data := os.read(ours, 65536):
            heard += data
            if b"echoing" in heard:
                os.write(typing, b"q")
        assert process.wait(30) == 0, process.stderr.read()
    assert len(heard) > 200_000
    os.close(ours)
    os.close(typing)


@pytest.mark.boot
def test_an_image_that_another_guest_writes_to_is_named(tmp_path: Path):
    image = disk(tmp_path, "hello", "hang")
    with rumpbundle.run(image, accel="tcg", persist=True) as guest:
        guest.expect("hello", 60)
        done = rumpbundle_("run", image, "--accel", "tcg", "--persist", cwd=tmp_path)
    assert done.returncode == 4
    assert f"Is another process using the image [{image}]?" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=["run", "dry-run"])
def test_a_log_that_cannot_be_written_is_refused_before_anything_starts(tmp_path: Path, more):
    image = disk(tmp_path, "hello", "hang")
    done = rumpbundle_("run", image, "--accel", "tcg", "--log", "missing/log", *more, cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr.endswith("error: missing/log: cannot be written: No such file or directory\n")


def test_an_image_that_cannot_be_written_to_is_no_mistake_of_the_caller(tmp_path: Path, monkeypatch):
    image = disk(tmp_path, "hello", "hang")
    real = os.open

    def read_only(path, flags, *more, **how):
        if flags & os.O_RDWR and os.fspath(path) == str(image):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *more, **how)

    monkeypatch.setattr(os, "open", read_only)
    with (
        pytest.raises(HostError, match="cannot be written to: Read-only file system") as caught,
        opened(image, persist=True),
    ):
        pass
    assert (caught.value.exit_code, caught.value.hint) == (3, "leave out --persist")


def words_of(process: Path) -> list[str]:
    """Return the command line of a process of ``/proc``."""
    try:
        return (process / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return []


def has_open(process: Path, file: Path) -> bool:
    """Return whether a process of ``/proc`` has *file* open."""
    with contextlib.suppress(OSError):
        return any(os.path.realpath(fd) == str(file) for fd in (process / "fd").iterdir())
    return False


def qemus(mark: Path) -> list[str]:
    """Return the command lines of processes that mention *mark*, or have it open."""
    lines = ((process, " ".join(words_of(process))) for process in Path("/proc").glob("[0-9]*"))
    return [line for process, line in lines if str(mark) in line or has_open(process, mark)]


@pytest.mark.boot
def test_sigkill_leaves_neither_process_nor_file_nor_raw_terminal(
    app: Path, tmp_path_factory: pytest.TempPathFactory
):
    scratch = tmp_path_factory.mktemp("scratch")
    port = free_port()
    image = disk(app.parent, "type: ", "echo")
    os.environ["TMPDIR"] = str(scratch)
    try:
        terminal = OnTerminal("run", image, "--boot", "qemu", "--accel", "tcg", cwd=app.parent)
        bundled = subprocess.Popen(
            [*COMMAND, "--boot", "qemu", str(app), "--accel", "tcg", "--gdb", str(port), "-v"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        del os.environ["TMPDIR"]
    with bundled:
        terminal.until(b"type: ")
        assert bundled.stderr is not None
        assert any("qemu-system-x86_64" in line for line in bundled.stderr)
        assert len(qemus(image)) >= 2
        os.kill(terminal.pid, signal.SIGKILL)
        bundled.kill()
    terminal.end()
    deadline = time.monotonic() + 10
    while (left := qemus(image) + qemus(Path(f"tcp:127.0.0.1:{port}"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
    assert os.listdir(scratch) == []
    assert termios.tcgetattr(terminal.fd)[3] & (termios.ICANON | termios.ECHO)


# --- the network ---

SERVER = """
ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0
mkdir /www; echo 'a page of the guest' > /www/index.html
httpd -h /www; echo serving
read line < /dev/ttyS0
echo c > /proc/sysrq-trigger
"""


@pytest.mark.boot
def test_a_linux_guest_serves_a_page_and_panics(tmp_path: Path):
    require("qemu-system-x86_64")
    initrd = linux.initrd(tmp_path / "initrd", SERVER, ["virtio_pci", "virtio_net"])
    port = free_port()
    with rumpbundle.launch(
        linux.kernel(),
        accel="tcg",
        cmdline="console=ttyS0 quiet",
        modules=(rumpbundle.ModuleFile(initrd),),
        publish=[f"{port}:80"],
    ) as guest:
        guest.expect("^serving$", timeout=120)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
            assert page.read() == b"a page of the guest\n"
        guest.send("\n")
        ending = guest.wait(180)
    assert (ending.reason, ending.detail) == (
        Reason.PANICKED,
        "Kernel panic - not syncing: sysrq triggered crash",
    )
    assert any("---[ end Kernel panic" in line for line in guest.console.tail())


# --- what a guest says, and has ---

FLOOD = """
until [ -e /dev/vport*p1 ]; do sleep 0.1; done
exec > $(echo /dev/vport*p1)
yes 'a line of a guest that floods its console' | head -c 100000000
echo; echo "$((16 + 1)) needles"
yes 'and goes on'
"""

LISTEN = """
import resource, sys, rumpbundle
heard = 0
def listen(data):
    global heard
    heard += len(data)
def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
kernel, initrd = sys.argv[1:]
with rumpbundle.launch(
    kernel, accel="tcg", cmdline="console=ttyS0 quiet", modules=(rumpbundle.ModuleFile(initrd),), sinks=(listen,),
    args=("-device", "virtio-serial-pci", "-device", "virtserialport,chardev=serial0"),
) as guest:
    guest.expect("floods its console", timeout=120)
    before = memory()
    needle = guest.expect(r"^(\\d+) needles$", timeout=240)
    print(needle[1], heard, memory() - before, guest.kill().reason)
"""


@pytest.mark.boot
def test_a_flood_of_100_mb_is_searched_in_flat_memory(tmp_path: Path):
    """By a virtio console, at some 10 MB/s emulated; the UART gives 1 MB/s, which would take two minutes."""
    require("qemu-system-x86_64")
    initrd = linux.initrd(tmp_path / "initrd", FLOOD, ["virtio_pci", "virtio_console"])
    done = subprocess.run(
        [sys.executable, "-c", LISTEN, linux.kernel(), initrd], capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    needles, heard, kib, reason = done.stdout.split(maxsplit=3)
    assert (needles, reason) == ("17", "was stopped\n")
    assert int(heard) > 100_000_000
    assert int(kib) < 8 << 10, "our memory grew with what the guest said"


DISKS = """
mkdir /site /state
mount -t iso9660 -o ro /dev/vdb /site; echo "site says $(cat /site/sub/page)"
mount -t ext4 /dev/vdc /state; echo "state was $(cat /state/old)"
echo written > /state/new; sync; umount /state
mount -t ext4 /dev/vdc /state; echo "state is $(cat /state/new)"
echo "labels name $(findfs LABEL=site) and $(findfs LABEL=state)"
"""


@pytest.mark.boot
def test_a_guest_finds_its_further_disks(tmp_path: Path):
    require("qemu-system-x86_64")
    initrd = linux.initrd(tmp_path / "initrd", DISKS)
    (image,) = rumpbundle.bundle(
        linux.kernel(),
        "qcow2",
        output=tmp_path / "linux.qcow2",
        cmdline="console=ttyS0 quiet",
        modules=(rumpbundle.ModuleFile(initrd),),
    ).paths
    (tmp_path / "site" / "sub").mkdir(parents=True)
    (tmp_path / "site" / "sub" / "page").write_text("a page")
    # busybox gives up looking for a label where a disk has less than 64 KiB.
    (tmp_path / "site" / "more").write_bytes(bytes(1 << 16))
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "old").write_text("old")
    words = ["--accel", "tcg", "--data", "site:/srv/site", "--volume", "state:/var/state:8M", "--timeout", "200"]
    done = subprocess.run(
        [*COMMAND, "run", image, "--boot", "qemu", *words],
        cwd=tmp_path, capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.replace("\r", "").splitlines()
    assert "site says a page" in said
    assert "state was old" in said
    assert "state is written" in said
    assert "labels name /dev/vdb and /dev/vdc" in said
    assert sorted(os.listdir(tmp_path / "state")) == ["old"]


# --- the debugger ---


@pytest.mark.boot
def test_gdb_stops_at_the_entry(app: Path):
    require("gdb")
    entry = int(re.search(r"Entry point address:\s+(0x[0-9a-f]+)", _readelf(app))[1], 16)
    port = free_port()
    with rumpbundle.launch(app, accel="tcg", gdb=port) as guest:
        script = [
            f"target remote 127.0.0.1:{port}",
            f"hbreak *{entry:#x}",
            "continue",
            'printf "at %x\\n", $pc',
            "kill",
        ]
        words = [word for line in script for word in ("-ex", line)]
        deadline = time.monotonic() + 10
        while True:
            done = subprocess.run(["gdb", "-nx", "-batch", *words], capture_output=True, text=True, timeout=60)
            if "Connection refused" not in done.stderr or time.monotonic() > deadline:
                break
        assert f"at {entry:x}" in done.stdout, done.stdout + done.stderr
        assert "testkernel" not in guest.console.text


def _readelf(path: Path) -> str:
    require("readelf")
    return subprocess.run(["readelf", "-h", path], capture_output=True, text=True, check=True).stdout
