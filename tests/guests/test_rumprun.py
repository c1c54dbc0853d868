"""rumprun: from the configuration to what the guest's own parser makes of the bytes it receives."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support import ext2 as ext2_reader
from support import rumprun as guest
from support.tools import output_of

from rumpbundle.config import Block, Config, Network, Program
from rumpbundle.disk.content import Content
from rumpbundle.disk.tree import Directory, File
from rumpbundle.errors import ConfigError, InputError, RumpbundleError, UsageError
from rumpbundle.guests import Data, Delivery, Request, Writable, deliver
from rumpbundle.kernels.unikernel import Family, Firmware, Protocol, Unikernel
from rumpbundle.manifest import Module

VIRTIO = Unikernel(
    name="app.bin",
    content=Content.of_bytes(b"k"),
    family=Family.RUMPRUN,
    protocols=(Protocol.MULTIBOOT,),
    target="hw_virtio",
    drivers=frozenset({"virtio-blk", "virtio-net"}),
)
GENERIC = dataclasses.replace(
    VIRTIO, target="hw_generic", drivers=frozenset({"virtio-blk", "virtio-scsi", "virtio-net", "e1000"})
)
NO_DISK = dataclasses.replace(VIRTIO, drivers=frozenset({"virtio-net"}))
XEN = dataclasses.replace(VIRTIO, target="xen_pv", drivers=frozenset({"xen-blk", "xen-net"}))

DHCP = Network(interface="vioif0", type="inet", method="dhcp")


def request(config: Config | None, kernel: Unikernel = VIRTIO, **changes) -> Request:
    boot = dict.fromkeys(Firmware, Protocol.MULTIBOOT)
    return dataclasses.replace(Request(kernel=kernel, boot=boot, config=config, epoch=0), **changes)


def received(delivery: Delivery) -> guest.Guest:
    """Return what the guest makes of a delivery."""
    files = {node.name: node.content.read() for node in delivery.root.children if isinstance(node, File)}
    return guest.boot(delivery.cmdline, [module.content.read() for module in delivery.modules], files)


def test_the_whole_configuration_arrives():
    config = Config(
        hostname="web1",
        env={"LANG": "C", "EMPTY": "", "PATH": "/a:/b c'd"},
        rc=(
            Program(bin="httpd", argv=("-d", "/data", "two words", "it's", "")),
            Program(bin="cat", runmode="|"),
            Program(bin="cron", argv=(), runmode="&"),
        ),
        net=(Network(interface="vioif0", type="inet", method="static", addr="10.0.0.2", mask=24, gw="10.0.0.1"),),
        blk=(Block(source="dev", path="/dev/ld1a", mountpoint="/data"), Block(source="vnd", path="x.iso")),
    )
    found = received(deliver(request(config)))
    assert found.programs == [
        (["httpd", "-d", "/data", "two words", "it's", ""], ""),
        (["cat"], "|"),
        (["cron"], "&"),
    ]
    assert (found.env, found.hostname) == (config.env, "web1")
    assert found.net == {
        "if": "vioif0", "type": "inet", "method": "static", "addr": "10.0.0.2", "mask": "24", "gw": "10.0.0.1",
    }  # fmt: skip
    assert found.blk == [
        {"source": "dev", "path": "/dev/ld1a", "fstype": "blk", "mountpoint": "/data"},
        {"source": "vnd", "path": "x.iso"},
    ]


def test_without_configuration_the_first_program_runs():
    assert received(deliver(request(None))).programs == [(["app"], "")]
    assert received(deliver(request(Config(env={"A": "b"})))).programs == [(["app"], "")]


def test_without_configuration_its_types_are_not_imported():
    program = (
        "import sys; from rumpbundle import guests; from rumpbundle.kernels.unikernel import *;"
        "from rumpbundle.disk.content import Content;"
        "kernel = Unikernel(name='app.bin', content=Content.of_bytes(b'k'), family=Family.RUMPRUN, protocols=());"
        "guests.deliver(guests.Request(kernel=kernel, boot={}, epoch=0));"
        "print('msgspec' in sys.modules)"
    )
    assert output_of(sys.executable, "-c", program, cwd=Path(__file__).parents[2]) == "False\n"


def test_cmdline_is_split_by_the_guest():
    found = received(deliver(request(Config(cmdline="httpd -d 'a b' /data"))))
    assert found.programs == [(["httpd", "-d", "a b", "/data"], "")]


def _of_length(length: int) -> Config:
    """Return a configuration whose text is *length* bytes."""
    empty = len(deliver(request(Config(cmdline="a", env={"V": ""}))).config)
    return Config(cmdline="a", env={"V": "x" * (length - empty)})


@pytest.mark.parametrize("length", [4093, 4094])
def test_up_to_4094_bytes_it_is_a_module(length):
    config = _of_length(length)
    delivery = deliver(request(config))
    assert delivery.modules[0].content.size == length
    assert delivery.cmdline == "app.bin"
    assert received(delivery).env == config.env


@pytest.mark.parametrize("length", [4095, 65535, 65536])
def test_above_it_is_a_file(length):
    config = _of_length(length)
    delivery = deliver(request(config))
    assert not delivery.modules
    assert delivery.cmdline == "app.bin _RUMPRUN_ROOTFSCFG=/json.cfg"
    assert received(delivery).env == config.env
    assert deliver(request(config, argv0=False)).cmdline == "_RUMPRUN_ROOTFSCFG=/json.cfg"


def test_above_64_kib_it_is_refused():
    with pytest.raises(ConfigError, match="at most 65536 bytes"):
        deliver(request(_of_length(65537)))


def test_a_file_needs_a_disk_driver():
    with pytest.raises(UsageError, match="no disk driver"):
        deliver(request(_of_length(4095), NO_DISK))


@pytest.mark.parametrize(
    ("config", "kernel", "message"),
    [
        (Config(env={"A": 'say "x"'}), VIRTIO, r"\$.env.A: contains a double quote"),
        (Config(cmdline="a\\b"), VIRTIO, r"\$.cmdline: contains a backslash"),
        (Config(rc=(Program(bin="a", argv=("x", "y\nz")),)), VIRTIO, r"\$.rc\[0\].argv\[1\]: contains a control"),
        (Config(env={"A": "x_RUMPRUN_ROOTFSCFG=y"}), VIRTIO, r"\$.env.A: contains _RUMPRUN_ROOTFSCFG="),
        (Config(net=(DHCP, DHCP)), VIRTIO, r"\$.net\[1\]: rumprun configures one"),
        (Config(net=(Network(interface="wm0", type="inet", method="dhcp"),)), VIRTIO, "needs the e1000 driver"),
        (
            Config(net=(Network(interface="xenif0", type="inet", method="dhcp"),)),
            VIRTIO,
            "needs the xen-net driver",
        ),
        (
            Config(net=(Network(interface="eth0", type="inet", method="dhcp"),)),
            XEN,
            "no interface of this guest is called",
        ),
        (Config(net=(Network(interface="vioif0", type="inet", method="dhcp", cloner=True),)), VIRTIO, "only Xen"),
        (Config(blk=(Block(source="vnd", path="a"), Block(source="vnd", path="b"))), VIRTIO, "one vnd image"),
        (Config(blk=(Block(source="etfs", path="xvda"),)), VIRTIO, "Xen PV only"),
        (Config(blk=(Block(source="dev", path="/dev/ld0a"),)), XEN, "through etfs"),
        (Config(blk=(Block(source="etfs", path="x" * 25),)), XEN, r"\$.blk\[0\].path: longer than the 24 bytes"),
        (Config(blk=(Block(source="dev", path="/dev/sd0a"),)), VIRTIO, "needs the virtio-scsi driver"),
        (Config(blk=(Block(source="dev", path="/dev/ld0f"),)), VIRTIO, "letters a-e only"),
        (Config(blk=(Block(source="dev", path="/dev/wd0a"),)), VIRTIO, "expected a disk of this guest"),
        (Config(blk=(Block(source="dev", path="x", fstype="kernfs", mountpoint="/kern"),)), VIRTIO, "no kernfs"),
        (
            Config(blk=(Block(source="dev", path="/dev/ld0a", mountpoint="/a"),) * 2),
            VIRTIO,
            r"\$.blk\[1\].path: /dev/ld0a is mounted by \$.blk\[0\]",
        ),
    ],
)
def test_what_the_guest_would_die_on_is_refused(config, kernel, message):
    with pytest.raises(ConfigError, match=message):
        deliver(request(config, kernel))


@pytest.mark.parametrize("path", ["/dev/ld0a", "/dev/ld9e", "/dev/sd0h", "/dev/cd0a"])
def test_devices_with_a_driver_pass(path):
    config = Config(blk=(Block(source="dev", path=path, mountpoint="/data"),))
    assert received(deliver(request(config, GENERIC))).blk[0]["path"] == path


def test_xen_gets_its_text_for_the_xenstore():
    net = Network(interface="xenif0", type="inet", method="dhcp")
    blk = Block(source="etfs", path="xvda", mountpoint="/data")
    delivery = deliver(request(Config(cmdline="a", net=(net,), blk=(blk,)), XEN))
    assert (delivery.modules, delivery.cmdline) == ((), "")
    found = guest.read(delivery.config.decode())
    assert found.net == {"if": "xenif0", "cloner": "true", "type": "inet", "method": "dhcp"}


def test_the_user_may_write_the_dialect_himself():
    own = Module("cfg.json", Content.of_bytes(b'{"cmdline":"a",}'))
    assert deliver(request(None, modules=(own,))).modules == (own,)
    assert deliver(request(None, cmdline="_RUMPRUN_ROOTFSCFG=/x")).cmdline.endswith(" _RUMPRUN_ROOTFSCFG=/x")
    with pytest.raises(UsageError, match="ignores all modules but the first"):
        deliver(request(None, modules=(own, own)))
    with pytest.raises(UsageError, match="panics on a module of more than 4094"):
        deliver(request(None, modules=(Module("c", Content.of_bytes(bytes(4095))),)))
    room = 4095 - len("app.bin ")
    assert deliver(request(None, cmdline="é" * (room // 2))).cmdline
    with pytest.raises(UsageError, match="panics on a command line of more than 4095 bytes"):
        deliver(request(None, cmdline="é" * (room // 2 + 1)))
    with pytest.raises(UsageError, match="ignores command line"):
        deliver(request(Config(cmdline="a"), modules=(own,)))
    with pytest.raises(UsageError, match="ignores command line"):
        deliver(request(Config(cmdline="a"), cmdline="b"))


CARRIED = st.characters(min_codepoint=32, exclude_characters='"\\\x7f', exclude_categories=("Cs",))
ANY = st.characters(exclude_characters="\0", exclude_categories=("Cs",))
NAME = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='="\\'), min_size=1, max_size=8)


def configs(characters):
    text = st.text(characters, max_size=20)
    program = st.builds(Program, bin=text.filter(bool), argv=st.lists(text, max_size=4).map(tuple))
    return st.builds(
        Config,
        rc=st.lists(program, min_size=1, max_size=3).map(tuple),
        env=st.dictionaries(NAME, text, max_size=4),
        hostname=st.none() | st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True),
        net=st.sampled_from([(), (DHCP,)]),
    )


@given(configs(CARRIED))
def test_what_is_configured_is_what_the_guest_reads(config):
    assume("_RUMPRUN_ROOTFSCFG=" not in repr(config))
    found = received(deliver(request(config)))
    assert found.programs == [([program.bin, *program.argv], "") for program in config.rc]
    assert (found.env, found.hostname) == (config.env, config.hostname)
    assert (found.net is None) == (not config.net)


@given(configs(CARRIED) | configs(ANY))
def test_the_guest_never_panics_on_what_was_accepted(config):
    try:
        delivery = deliver(request(config))
    except RumpbundleError:
        return
    assert received(delivery).programs == [([program.bin, *program.argv], "") for program in config.rc]


@given(st.binary(max_size=300))
def test_every_printable_character_arrives(data):
    value = data.decode("latin-1").translate(dict.fromkeys([*range(32), ord('"'), ord("\\"), 127]))
    assume("_RUMPRUN_ROOTFSCFG=" not in value)
    assert received(deliver(request(Config(env={"V": value})))).env == {"V": value}


TREE = Directory.of("", [File("index.html", Content.of_bytes(b"hello"))])
SCSI = dataclasses.replace(GENERIC, drivers=frozenset({"virtio-scsi", "virtio-net"}))
LONG = Config(cmdline="a", env={"V": "x" * 5000})


def mounts(delivery: Delivery) -> list[tuple[str, str, str]]:
    return [(e["source"], e["path"], e["mountpoint"]) for e in received(delivery).blk]


def test_data_stands_at_the_root_of_the_iso():
    delivery = deliver(request(Config(cmdline="a"), data=(Data(TREE, "/data"),)))
    assert mounts(delivery) == [("dev", "/dev/ld0a", "/data")]
    assert delivery.root.children == TREE.children
    assert (delivery.volumes, delivery.table) == ((), "gpt")


def test_a_scsi_only_kernel_finds_it_on_sd0():
    delivery = deliver(request(Config(cmdline="a"), SCSI, data=(Data(TREE, "/data"),)))
    assert mounts(delivery) == [("dev", "/dev/sd0a", "/data")]


USB = dataclasses.replace(GENERIC, drivers=frozenset({"virtio-blk", "usb", "virtio-net"}))


@pytest.mark.parametrize(
    ("kernel", "bus", "disk"),
    [
        (GENERIC, "", "ld0"),
        (GENERIC, "virtio-blk", "ld0"),
        (GENERIC, "virtio-scsi", "sd0"),
        (USB, "usb", "sd0"),
        (GENERIC, "nvme", "ld0"),  # it drives none there, and check says so
        (VIRTIO, "virtio-scsi", "ld0"),
    ],
)
def test_the_bus_says_which_disk(kernel, bus, disk):
    wanted = request(None, kernel, data=(Data(TREE, "/a"),), volumes=(Writable(TREE, "/b"),), bus=bus)
    delivery = deliver(wanted)
    assert mounts(delivery) == [("dev", f"/dev/{disk}a", "/a"), ("dev", f"/dev/{disk}e", "/b")]
    assert any(f"on /dev/{disk}: attach the image as" in note for note in delivery.notes)


def test_the_users_own_entry_says_which_disk():
    own = Config(cmdline="a", blk=(Block(source="dev", path="/dev/sd0a", mountpoint="/data"),))
    wanted = request(own, GENERIC, data=(Data(TREE, "/data"),), volumes=(Writable(TREE, "/db"),), bus="virtio-blk")
    delivery = deliver(wanted)
    assert mounts(delivery) == [("dev", "/dev/sd0a", "/data"), ("dev", "/dev/sd0e", "/db")]
    assert "the guest looks for its files on /dev/sd0: attach the image as virtio-scsi" in delivery.notes
    other = Config(cmdline="a", blk=(Block(source="dev", path="/dev/ld1a", mountpoint="/data"),))
    with pytest.raises(ConfigError, match="is where the image's files are to be mounted, from /dev/ld0a"):
        deliver(request(other, data=(Data(TREE, "/data"),)))
    twice = Config(cmdline="a", blk=(Block(source="dev", path="/dev/ld0a", mountpoint="/x"),))
    with pytest.raises(ConfigError, match=r"/dev/ld0a is mounted by \$.blk\[0\] already"):
        deliver(request(twice, data=(Data(TREE, "/data"),)))


def test_a_volume_is_the_first_partition_of_a_plain_mbr(tmp_path):
    wanted = request(Config(cmdline="a"), data=(Data(TREE, "/data"),), volumes=(Writable(TREE, "/var/db"),))
    delivery = deliver(wanted)
    assert mounts(delivery) == [("dev", "/dev/ld0a", "/data"), ("dev", "/dev/ld0e", "/var/db")]
    assert delivery.table == "mbr"
    assert [(v.label, v.filesystem) for v in delivery.volumes] == [("db", "ext2")]
    ext2_reader.write(delivery.volumes[0].content, tmp_path / "image")
    assert "index.html" in ext2_reader.debugfs(tmp_path / "image", "ls /")


def test_a_second_tree_is_a_partition_too():
    delivery = deliver(request(None, data=(Data(TREE, "/a"), Data(TREE, "/b"))))
    assert mounts(delivery) == [("dev", "/dev/ld0a", "/a"), ("dev", "/dev/ld0e", "/b")]
    assert [v.filesystem for v in delivery.volumes] == ["iso9660"]


def test_beside_a_long_configuration_a_tree_is_an_image_file():
    wanted = request(LONG, data=(Data(TREE, "/data"),), volumes=(Writable(TREE, "/db"),))
    delivery = deliver(wanted)
    assert mounts(delivery) == [("vnd", "images/data.iso", "/data"), ("dev", "/dev/ld0e", "/db")]
    assert [node.name for node in delivery.root.children] == ["images", "json.cfg"]
    image = delivery.root.children[0].children[0].content
    assert image.size % 2048 == 0
    assert image.read()[32769:32774] == b"CD001"


def test_a_long_configuration_cannot_mount_the_iso_itself():
    own = LONG.replace(blk=(Block(source="dev", path="/dev/ld0a", mountpoint="/data"),))
    with pytest.raises(ConfigError, match="mounted on /rootfs and cannot mount again"):
        deliver(request(own))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": (Data(TREE, "/a"), Data(TREE, "/b"), Data(TREE, "/c"))}, "can mount two --data"),
        (
            {"data": (Data(TREE, "/a"), Data(TREE, "/b")), "volumes": (Writable(TREE, "/c"),)},
            "can mount one --volume",
        ),
        ({"volumes": (Writable(TREE, "/a"), Writable(TREE, "/b"))}, "can mount one --volume"),
        ({"volumes": (Writable(TREE, "/b", size=100),)}, "--volume /b: a file system of 100 bytes cannot hold"),
        ({"data": (Data(TREE, "/"),)}, "would hide"),
        ({"data": (Data(TREE, "/dev/x"),)}, "would hide"),
        ({"data": (Data(TREE, "/a"),), "kernel": NO_DISK}, "no disk driver"),
    ],
)
def test_what_it_cannot_mount_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        deliver(dataclasses.replace(request(Config(cmdline="a")), **changes))


def test_on_xen_every_tree_is_a_disk():
    own = Config(cmdline="a", blk=(Block(source="etfs", path="xvda", mountpoint="/x"),))
    delivery = deliver(request(own, XEN, data=(Data(TREE, "/a"),), volumes=(Writable(TREE, "/b"),)))
    assert [(e["path"], e["mountpoint"]) for e in guest.read(delivery.config.decode()).blk] == [
        ("xvda", "/x"),
        ("xvdb", "/a"),
        ("xvdc", "/b"),
    ]
    assert [v.filesystem for v in delivery.volumes] == ["iso9660", "ext2"]


def test_what_page_faults_is_refused_with_the_way_out():
    network = Network(interface="vioif0", type="inet6", method="auto")
    with pytest.raises(ConfigError, match="page-faults over inet6 with auto") as caught:
        deliver(request(Config(net=(network,))))
    assert "static" in caught.value.hint
