"""The test kernels and the boot harness themselves, without any image of ours in between."""

from __future__ import annotations

import pytest
from support import kernels, qemu
from support.tools import output_of


@pytest.mark.boot
@pytest.mark.parametrize("name", ["multiboot", "multiboot-kludge", "multiboot-both", "linux"])
def test_reports_exactly_what_it_was_given(name, tmp_path):
    content = bytes(range(256)) * 100
    (tmp_path / "module").write_bytes(content)
    extra = ["-kernel", str(kernels.build(name)), "-append", "a  b\\$ é exit=5", "-initrd", str(tmp_path / "module")]
    result = qemu.boot(None, extra=extra, timeout=30)
    report = kernels.Report.parse(result.serial)
    assert report.cmdline.endswith("a  b\\$ é exit=5".encode())
    assert [(m.size, m.crc32) for m in report.modules] == [(len(content), kernels.Module.of(content).crc32)]
    assert result.status == 2 * 5 + 1


@pytest.mark.boot
def test_the_example_speaks_on_serial_and_on_screen():
    output_of("make", "-C", str(kernels.ROOT / "examples" / "hello"))
    extra = ["-kernel", str(kernels.ROOT / "examples" / "hello" / "hello.bin"), "-append", "some words"]
    result = qemu.boot(None, extra=extra, timeout=30)
    assert "Hello from a unikernel." in result.text
    assert "some words" in result.text
    assert result.status == kernels.SUCCESS
    # Without the exit port it stays, with its last words on the screen.
    result = qemu.boot(None, extra=extra, timeout=30, exit_device=False, until_screen="Goodbye")
    assert result.screen.startswith("Hello from a unikernel.\nmemory: 256 MiB\ncommand line: ")


@pytest.mark.boot
def test_misbehaves_on_request():
    kernel = str(kernels.build("multiboot"))
    result = qemu.boot(None, extra=["-kernel", kernel, "-append", "flood=1000 exit=3"], timeout=30)
    assert result.serial.count(b"x") > 900
    assert result.status == 7
    assert qemu.boot(None, extra=["-kernel", kernel, "-append", "triple"], timeout=30).status == 0
    hung = qemu.boot(None, extra=["-kernel", kernel, "-append", "hang"], timeout=30, until="end of report")
    assert hung.status is None
    halted = qemu.boot(None, extra=["-kernel", kernel], timeout=30, exit_device=False, until="halted")
    assert halted.status is None
