"""A compressed module arrives as it is: GRUB, which unpacks whatever it can, is told not to."""

from __future__ import annotations

import gzip

import pytest
from support import images, kernels, qemu
from support.kernels import Module, Report


@pytest.mark.boot
@pytest.mark.parametrize("kernel", ["multiboot", "multiboot2", "linux"])
def test_gzip_modules_arrive_compressed(tmp_path, kernel):
    content = gzip.compress(b"a root file system" * 1000, mtime=0)
    made = images.make(tmp_path, kernels.build(kernel), cmdline="exit=5", modules=[("root.gz", content, "")])
    report = Report.parse(qemu.boot(made).serial)
    assert report.modules == (Module.of(content),)
