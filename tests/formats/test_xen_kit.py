"""The Xen kit as files. ``tests/test_xen.py`` shows kits to a real Xen."""

from __future__ import annotations

import pytest
from support import kernels
from support.tools import output_of

import rumpbundle
from rumpbundle import guests
from rumpbundle.bundling.writing import ModuleFile
from rumpbundle.config import Config, Program
from rumpbundle.disk import tree
from rumpbundle.errors import ConfigError, KernelError, RumpbundleError, UsageError
from rumpbundle.formats.xen import XenOptions
from rumpbundle.host import environment
from rumpbundle.xen import xl


def kit(tmp_path, kernel, *, output="app.xen", options=None, **recipe):
    """Write a kit for the test kernel called *kernel*; return its directory, its xl.cfg and its commands."""
    result = rumpbundle.bundle(
        kernels.build(kernel), "xen", output=tmp_path / output, options=XenOptions(**(options or {})), **recipe
    )
    (path,) = result.paths
    return path, (path / "xl.cfg").read_text(), result.commands


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def module(tmp_path, content, name="initrd.img"):
    path = tmp_path / name
    path.write_bytes(content)
    return ModuleFile(path)


def test_pv_kernel_stands_there_as_it_is(tmp_path):
    path, cfg, commands = kit(tmp_path, "xen-pv", cmdline="a b")
    assert names(path) == ["kernel", "rumpbundle.json", "xl.cfg"]
    assert (path / "kernel").read_bytes() == kernels.build("xen-pv").read_bytes()
    domain = xl.Domain(
        name="xen-pv", kind=xl.DomainKind.PV, memory=128, kernel="kernel", cmdline="a b", restarts=False
    )
    assert cfg.partition("\n")[2].rpartition("# Bundle ")[0] == domain.text()
    assert commands == (f"cd {path}", *xl.script("xen-pv", "xl.cfg", None))


def test_rumprun_on_xen_gets_its_configuration_through_xenstore(tmp_path):
    config = Config(rc=(Program(bin="httpd", argv=("-p", "80")),))
    path, cfg, commands = kit(tmp_path, "xen-pv-rumprun", config=config, name="web1")
    assert names(path) == ["cfg.json", "kernel", "rumpbundle.json", "xl.cfg"]
    assert (path / "cfg.json").read_bytes() == b'{"rc":[{"bin":"httpd","argv":["-p","80"]}]}'
    assert "cmdline" not in cfg
    assert commands[1:] == xl.script("web1", "xl.cfg", "cfg.json")


def test_the_configuration_counts_for_the_digest(tmp_path):
    digests = {
        rumpbundle.bundle(
            kernels.build("xen-pv-rumprun"), "xen", output=tmp_path / name, config=Config(hostname=name)
        ).digest
        for name in ("a", "b")
    }
    assert len(digests) == 2


def test_pvh_kernel_with_a_module(tmp_path):
    path, cfg, _ = kit(tmp_path, "xen-pvh", modules=(module(tmp_path, b"123"),))
    assert names(path) == ["initrd", "kernel", "rumpbundle.json", "xl.cfg"]
    assert (path / "initrd").read_bytes() == b"123"
    assert 'type = "pvh"\n' in cfg
    assert 'ramdisk = "initrd"\n' in cfg


@pytest.mark.parametrize(("firmware", "key"), [("both", "bios"), ("bios", "bios"), ("uefi", "uefi")])
def test_a_kernel_of_its_own_boots_from_the_disk(tmp_path, firmware, key):
    path, cfg, _ = kit(tmp_path, "multiboot", firmware=firmware, modules=(module(tmp_path, b"123"),), size=3 << 20)
    assert names(path) == ["disk.raw", "xl.cfg"]
    assert f'firmware = "{key}"\n' in cfg
    assert 'serial = "pty"\n' in cfg
    assert "kernel" not in cfg
    raw = rumpbundle.bundle(
        kernels.build("multiboot"),
        "raw",
        output=tmp_path / "raw",
        firmware=firmware,
        modules=(ModuleFile(tmp_path / "initrd.img"),),
        size=3 << 20,
    )
    assert (path / "disk.raw").read_bytes() == raw.paths[0].read_bytes()


def test_absolute_paths_make_restarts_possible(tmp_path):
    _, cfg, commands = kit(tmp_path, "xen-pv", options={"host_directory": "/srv/my xen"})
    assert 'kernel = "/srv/my xen/kernel"\n' in cfg
    assert 'on_reboot = "restart"\n' in cfg
    assert commands[0] == "cd '/srv/my xen'"
    _, cfg, _ = kit(tmp_path, "xen-pv", output="b")
    assert 'on_reboot = "destroy"\n' in cfg
    for wrong in ("srv", "/srv/", "/a/../b"):
        with pytest.raises(UsageError, match="absolute path"):
            kit(tmp_path, "xen-pv", output="c", options={"host_directory": wrong})
    with pytest.raises(RumpbundleError, match="blanks"):
        kit(tmp_path, "multiboot", output="c", options={"host_directory": "/srv/my xen"})


def test_further_settings(tmp_path):
    lines = ("vif=['bridge=xenbr0']", "vcpus = 2")
    _, cfg, _ = kit(tmp_path, "xen-pv", options={"set": lines, "memory": 64 << 20})
    assert "\nvif=['bridge=xenbr0']\nvcpus = 2\n# Bundle " in cfg
    assert "memory = 64\n" in cfg


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("memory=32", "set already"),
        ("vfi=['x']", "would ignore 'vfi'"),
        ("name='x'", "--name"),
        ("vif", "expected KEY=VALUE"),
        ("-x=1", "expected KEY=VALUE"),
        ("vcpus=2\nmemory=1", "more than one line"),
    ],
)
def test_settings_that_would_not_do_what_they_say(tmp_path, line, problem):
    with pytest.raises(UsageError, match=problem):
        kit(tmp_path, "xen-pv", options={"set": (line,)})
    assert not (tmp_path / "app.xen").exists()


@pytest.mark.parametrize(
    ("kernel", "type", "problem"),
    [
        ("xen-pv", "pvh", "is no pvh kernel .it can be pv"),
        ("xen-pvh", "hvm", "is no hvm kernel .it can be pvh"),
        ("multiboot", "pv", "is no pv kernel .it can be hvm"),
    ],
)
def test_kinds_the_kernel_cannot_be(tmp_path, kernel, type, problem):
    with pytest.raises(KernelError, match=problem):
        kit(tmp_path, kernel, options={"type": type})
    with pytest.raises(UsageError, match="expected one of auto"):
        kit(tmp_path, kernel, options={"type": "xen"})


def test_one_module_without_a_command_line(tmp_path):
    one = module(tmp_path, b"1")
    with pytest.raises(UsageError, match="one module"):
        kit(tmp_path, "xen-pvh", modules=(one, module(tmp_path, b"2", "second")))
    with pytest.raises(UsageError, match="no command line"):
        kit(tmp_path, "xen-pvh", modules=(ModuleFile(one.path, "text"),))


def test_what_xen_would_cut_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(ConfigError, match="after 1023"):
        kit(tmp_path, "xen-pv", cmdline="x" * 1024)
    config = Config(rc=(Program(bin="x", argv=("y" * 4064,)),))
    with pytest.raises(ConfigError, match="xenstore takes 4064"):
        kit(tmp_path, "xen-pv-rumprun", config=config)
    assert names(tmp_path) == []


def test_names(tmp_path):
    with pytest.raises(UsageError, match="not a domain's name"):
        kit(tmp_path, "xen-pv", name="my guest")
    copy = tmp_path / "42 (copy).bin"
    copy.write_bytes(kernels.build("xen-pv").read_bytes())
    result = rumpbundle.bundle(copy, "xen", output=tmp_path / "k")
    assert 'name = "42-copy"\n' in (result.paths[0] / "xl.cfg").read_text()


def test_memory_has_room_for_the_files(tmp_path):
    _, cfg, _ = kit(tmp_path, "xen-pvh", modules=(module(tmp_path, bytes(100 << 20)),))
    assert "memory = 234\n" in cfg


def test_only_the_xen_format_takes_a_xen_kernel(tmp_path):
    with pytest.raises(KernelError) as caught:
        rumpbundle.bundle(kernels.build("xen-pv"), "raw", output=tmp_path / "x")
    assert "rumpbundle xen" in caught.value.hint


def test_a_volume_is_as_large_as_it_says(tmp_path):
    """A file system ends in blocks that are free, and so zero: a file without them is cut off."""
    files = tmp_path / "files"
    (files / "etc").mkdir(parents=True)
    (files / "etc" / "motd").write_text("welcome")
    (files / "big").write_bytes(b"x" * (5 << 20))
    root = tree.scan(files)
    config = Config(rc=(Program(bin="httpd"),))
    path, _, _ = kit(
        tmp_path,
        "xen-pv-rumprun",
        config=config,
        data=(guests.Data(root, "/ro"),),
        volumes=(guests.Writable(root, "/rw", 64 << 20),),
    )
    made = {name: path / name for name in names(path) if name.endswith(".raw")}
    assert len(made) == 2
    ext2, iso = sorted(made.values(), key=lambda each: -each.stat().st_size)
    assert ext2.stat().st_size == 64 << 20
    assert output_of("e2fsck", "-fn", str(ext2)).count("Pass") == 5
    assert output_of("debugfs", "-R", "cat /etc/motd", str(ext2)).endswith("welcome")
    assert output_of("isoinfo", "-R", "-x", "/etc/motd", "-i", str(iso)) == "welcome"
    # What is zero takes no room, and nothing that is there is missing.
    assert ext2.stat().st_blocks * 512 < 8 << 20
    volume, _ = guests.Writable(root, "/rw", 64 << 20).as_ext2(set(), environment.DEFAULT_EPOCH)
    assert ext2.read_bytes() == volume.content.read()
