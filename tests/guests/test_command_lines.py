"""Solo5, Unikraft and Linux: configurations as command lines, and what those cannot carry."""

from __future__ import annotations

import dataclasses
import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import ext2 as ext2_reader
from support.tools import require

from rumpbundle.config import Block, Config, Network, Program
from rumpbundle.disk.content import Content
from rumpbundle.disk.tree import Directory, File
from rumpbundle.errors import ConfigError, KernelError, RumpbundleError, UsageError
from rumpbundle.guests import Data, Request, Writable, deliver
from rumpbundle.kernels.notes import Device
from rumpbundle.kernels.unikernel import Family, Firmware, Protocol, Unikernel
from rumpbundle.manifest import Module

TREE = Directory.of("", [File("f", Content.of_bytes(b"hello"))])
STATIC = Network(interface="eth0", type="inet", method="static", addr="10.0.0.2", mask=20, gw="10.0.0.1")
DHCP = Network(interface="eth0", type="inet", method="dhcp")
IPV6 = Network(interface="eth0", type="inet6", method="auto")


def request(family: Family, config: Config | None = None, **changes) -> Request:
    protocol = Protocol.LINUX if family is Family.LINUX else Protocol.MULTIBOOT
    kernel = Unikernel(name="app.bin", content=Content.of_bytes(b"k"), family=family, protocols=(protocol,))
    boot = dict.fromkeys(Firmware, protocol)
    return dataclasses.replace(Request(kernel=kernel, boot=boot, config=config, epoch=0), **changes)


def runs(*argv: str) -> Config:
    return Config(rc=(Program(bin="app", argv=argv),))


@pytest.mark.parametrize(
    ("family", "config", "cmdline", "received"),
    [
        (Family.SOLO5, None, None, "app.bin"),
        (Family.SOLO5, runs("--ipv4=10.0.0.2/24", "a b"), None, 'app.bin --ipv4=10.0.0.2/24 "a b"'),
        (Family.SOLO5, runs("x"), "-l debug", "app.bin -l debug x"),
        (Family.SOLO5, Config(cmdline="app -v x"), None, "app.bin -v x"),
        (Family.SOLO5, Config(cmdline='"my prog" -v "x"'), None, 'app.bin -v "x"'),
        (Family.SOLO5, Config(cmdline="'my prog'd -v x"), None, "app.bin -v x"),
        (Family.SOLO5, Config(cmdline=" app "), None, "app.bin"),
        (Family.SOLO5, Config(cmdline='"my prog"'), None, "app.bin"),
        (Family.UNIKRAFT, None, None, "app.bin"),
        (Family.UNIKRAFT, runs("-c", "/x.conf"), None, "app.bin -- -c /x.conf"),
        (Family.UNIKRAFT, None, "a.b=1 -- x", "app.bin a.b=1 -- x"),
        (
            Family.UNIKRAFT,
            Config(cmdline="app x", env={"A": "1", "B": "/a:b"}, net=(STATIC,)),
            "a.b=1",
            "app.bin a.b=1 env.vars=[ A=1 B=/a:b ] netdev.ip=10.0.0.2/20:10.0.0.1 -- x",
        ),
        (Family.UNIKRAFT, Config(env={"A": "1"}), None, "app.bin env.vars=[ A=1 ] --"),
        (Family.UNIKRAFT, Config(env={"A": "1"}), "x.y=2 -- arg", "app.bin x.y=2 env.vars=[ A=1 ] -- arg"),
        (Family.UNIKRAFT, Config(net=(DHCP,)), None, "app.bin"),
        (Family.LINUX, None, None, ""),
        (Family.LINUX, None, "console=ttyS0", "console=ttyS0"),
        (
            Family.LINUX,
            Config(hostname="web1", env={"PORT": "80"}, net=(DHCP,), cmdline="init -v x"),
            "quiet",
            "quiet hostname=web1 ip=:::::eth0:dhcp PORT=80 -- -v x",
        ),
        (Family.LINUX, Config(net=(STATIC,)), None, "ip=10.0.0.2::10.0.0.1:255.255.240.0::eth0:off"),
        (Family.LINUX, Config(env={"A": "b"}), "quiet -- single", "quiet A=b -- single"),
        (Family.LINUX, Config(env={"A": "b"}), '"x=1 -- 2" quiet', '"x=1 -- 2" quiet A=b'),
        (Family.LINUX, runs("x"), '"x=1 -- 2"', '"x=1 -- 2" -- x'),
        (Family.LINUX, Config(env={"A": "b"}), "quiet\t--\tsingle", "quiet A=b -- single"),
        (Family.UNIKRAFT, runs("x"), 'v.x="a -- b" --', 'app.bin v.x="a -- b" -- x'),
    ],
)
def test_command_lines(family, config, cmdline, received):
    assert deliver(request(family, config, cmdline=cmdline)).cmdline == received


@pytest.mark.parametrize(
    ("family", "config", "message"),
    [
        (Family.SOLO5, Config(env={"A": "b"}), r"\$.env: a Solo5 guest has no environment"),
        (Family.SOLO5, Config(hostname="h"), r"\$.hostname"),
        (Family.SOLO5, Config(net=(DHCP,)), r"\$.net: .*--ipv4"),
        (Family.SOLO5, Config(blk=(Block(source="dev", path="/dev/ld0a"),)), r"\$.blk"),
        (Family.SOLO5, runs('say "x"'), r"\$.rc\[0\].argv\[0\]: holds quotes"),
        (Family.SOLO5, runs("x", ""), r"\$.rc\[0\].argv\[1\]: is empty"),
        (Family.SOLO5, Config(rc=(Program(bin="a"), Program(bin="b"))), r"\$.rc\[1\]: this guest is one program"),
        (Family.SOLO5, Config(rc=(Program(bin="a", runmode="&"),)), r"\$.rc\[0\].runmode"),
        (Family.UNIKRAFT, Config(env={"A": "two words"}), r"\$.env.A: Unikraft's env.vars cannot carry blanks"),
        (Family.UNIKRAFT, Config(env={"A": "x]"}), r"\$.env.A"),
        (Family.UNIKRAFT, Config(env={"A]": "x"}), r"\$.env.A\]: Unikraft's env.vars cannot carry"),
        (Family.UNIKRAFT, Config(net=(DHCP, STATIC)), r"\$.net\[1\]"),
        (Family.UNIKRAFT, Config(net=(IPV6,)), r"\$.net\[0\].type"),
        (Family.UNIKRAFT, Config(hostname="h"), r"\$.hostname"),
        (Family.LINUX, Config(env={"a.b": "x"}), r"\$.env.a.b: cannot reach init"),
        (Family.LINUX, Config(env={"A\\": "x"}), "cannot reach init"),
        (Family.LINUX, Config(env={"A": "x y"}), r"\$.env.A: cannot reach init"),
        (Family.LINUX, Config(net=(DHCP, STATIC)), r"\$.net\[1\]"),
        (
            Family.LINUX,
            Config(net=(Network(interface="eth0:1", type="inet", method="dhcp"),)),
            r"\$.net\[0\].if: a col",
        ),
        (Family.LINUX, Config(net=(IPV6,)), r"\$.net\[0\].type"),
        (Family.LINUX, Config(blk=(Block(source="dev", path="/dev/ld0a"),)), r"\$.blk"),
    ],
)
def test_what_a_command_line_cannot_say_is_refused(family, config, message):
    with pytest.raises(ConfigError, match=message):
        deliver(request(family, config))


@pytest.mark.parametrize("family", [Family.UNIKRAFT, Family.LINUX])
def test_arguments_in_two_places_are_refused(family):
    with pytest.raises(UsageError, match="has arguments after --"):
        deliver(request(family, runs("x"), cmdline="a -- b"))


def test_linux_cuts_its_command_line():
    assert deliver(request(Family.LINUX, cmdline="x" * 2047)).cmdline == "x" * 2047
    with pytest.raises(UsageError, match="after 2047 bytes"):
        deliver(request(Family.LINUX, cmdline="x" * 2048))


def test_solo5_cuts_its_command_line():
    assert deliver(request(Family.SOLO5, cmdline="x" * 8191)).cmdline == "app.bin " + "x" * 8191
    with pytest.raises(UsageError, match="after 8191 bytes"):
        deliver(request(Family.SOLO5, runs("x" * 8192)))


@pytest.mark.parametrize("family", [Family.SOLO5, Family.UNIKRAFT])
def test_guests_without_a_file_system_of_ours(family):
    for changes in ({"data": (Data(TREE, "/d"),)}, {"volumes": (Writable(TREE, "/d"),)}):
        with pytest.raises(UsageError):
            deliver(request(family, **changes))
    if family is Family.SOLO5:
        with pytest.raises(UsageError, match="ignores boot modules"):
            deliver(request(family, modules=(Module("m", Content.of_bytes(b"1")),)))


def test_solo5_says_what_its_manifest_asks_for():
    wanted = request(Family.SOLO5)
    devices = (Device("storage", "block"), Device("service", "net"), Device("log", "block"))
    kernel = dataclasses.replace(wanted.kernel, devices=devices)
    notes = deliver(dataclasses.replace(wanted, kernel=kernel)).notes
    assert "never virtio" in notes[0]
    assert "block storage, net service, block log: give it these virtio devices, in this order" in notes[1]
    assert "asks for no devices: give it no virtio disk" in deliver(wanted).notes[1]
    assert not deliver(dataclasses.replace(wanted, kernel=dataclasses.replace(kernel, target="xen"))).notes
    alone = dataclasses.replace(kernel, undriven=devices[2:])
    with pytest.raises(KernelError, match=r"asks for block storage, .* drives one block and one network device"):
        deliver(dataclasses.replace(wanted, kernel=alone))


def test_linux_gets_data_as_its_last_initrd():
    initrd = Module("initrd.img", Content.of_bytes(b"1234"))
    delivery = deliver(request(Family.LINUX, modules=(initrd,), data=(Data(TREE, "/srv/www"),)))
    assert [module.name for module in delivery.modules] == ["initrd.img", "www.cpio"]
    listing = subprocess.run(
        [require("cpio"), "--list", "--quiet"],
        input=delivery.modules[1].content.read(),
        capture_output=True,
        check=True,
    )
    assert listing.stdout.decode().split() == ["srv", "srv/www", "srv/www/f"]


def test_linux_gets_volumes_as_partitions_with_labels(tmp_path):
    wanted = request(Family.LINUX, volumes=(Writable(TREE, "/var/data", size=8 << 20), Writable(TREE, "/srv/data")))
    delivery = deliver(wanted)
    assert [volume.label for volume in delivery.volumes] == ["data", "data_2"]
    assert delivery.volumes[0].content.size == 8 << 20
    assert delivery.table == "gpt"
    image = ext2_reader.write(delivery.volumes[1].content, tmp_path / "image")
    assert "data_2" in ext2_reader.debugfs(image, "stats -h")
    assert any("mount LABEL=data_2 /srv/data" in note for note in delivery.notes)


@pytest.mark.parametrize(
    ("family", "protocols", "hint"),
    [
        (Family.LINUX, (Protocol.LINUX, Protocol.EFI), "--protocol linux"),
        (Family.LINUX, (Protocol.EFI,), "ukify --initrd"),
        (Family.PLAIN, (Protocol.EFI,), "--esp DIR"),
    ],
)
def test_an_efi_application_gets_no_modules(family, protocols, hint):
    wanted = request(family, modules=(Module(name="m", content=Content.of_bytes(b"m")),))
    kernel = dataclasses.replace(wanted.kernel, protocols=protocols)
    with pytest.raises(UsageError, match="gets no boot modules") as refused:
        deliver(dataclasses.replace(wanted, kernel=kernel, boot={Firmware.UEFI: Protocol.EFI}))
    assert hint in (refused.value.hint or "")


@given(st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=12), max_size=5))
def test_arguments_arrive_as_they_were_or_are_refused(arguments):
    try:
        line = deliver(request(Family.SOLO5, runs(*arguments))).cmdline
    except RumpbundleError:
        assert any(not a or set(a) & set("\"'\\\x7f") for a in arguments)
    else:
        assert shlex.split(line) == ["app.bin", *arguments]


NAME = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="="), min_size=1, max_size=6)
VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=8)


def after_dashes(line: str) -> tuple[list[str], list[str]]:
    """Return the words before ``--`` and those after it, as the guests split them."""
    words = shlex.split(line)
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


def has(text: str, characters: str) -> bool:
    return not text.isprintable() or bool(set(text) & set(characters))


@pytest.mark.parametrize(("family", "never"), [(Family.LINUX, " \"'\\."), (Family.UNIKRAFT, " \"'\\[]")])
@given(env=st.dictionaries(NAME, VALUE, max_size=3), arguments=st.lists(VALUE, max_size=3))
def test_variables_and_arguments_arrive_as_they_were_or_are_refused(family, never, env, arguments):
    """*never* are characters that no variable can have there."""
    config = Config(env=env, rc=(Program(bin="app", argv=tuple(arguments)),))
    try:
        line = deliver(request(family, config)).cmdline
    except ConfigError:
        variables = any(has(key + value, never) for key, value in env.items())
        assert variables or any(not argument or has(argument, "\"'\\") for argument in arguments)
        return
    before, after = after_dashes(line)
    variables = [f"{key}={value}" for key, value in env.items()]
    if family is Family.UNIKRAFT:
        variables = ["app.bin", *(["env.vars=[", *variables, "]"] if env else [])]
    assert before == variables
    assert after == arguments


@pytest.mark.parametrize("text", ['"my prog -v x', "my'prog -v"])
def test_a_program_name_whose_quote_is_not_closed_is_refused(text):
    with pytest.raises(ConfigError, match="a quote in the program's name is not closed"):
        deliver(request(Family.SOLO5, Config(cmdline=text)))
