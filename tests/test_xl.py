"""What we ask of Xen's xl, as values. ``tests/test_xen.py`` shows the same to a real Xen."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.debian import debian_file

from rumpbundle.errors import ConfigError, InputError, RumpbundleError, UsageError
from rumpbundle.kernels.unikernel import Firmware
from rumpbundle.xen import xl


def pv(**changes):
    return xl.Domain(**({"name": "web1", "kind": xl.DomainKind.PV, "memory": 64, "kernel": "app.bin"} | changes))


def hvm(**changes):
    disks = (xl.DomainDisk(path="app.raw", vdev="xvda"),)
    return xl.Domain(**({"name": "web1", "kind": xl.DomainKind.HVM, "memory": 128, "disks": disks} | changes))


def test_pv_domain_as_text():
    domain = pv(cmdline='say "hi"', disks=(xl.DomainDisk(path="/d/x,y.raw", vdev="xvda"),))
    assert domain.text() == (
        'name = "web1"\n'
        'type = "pv"\n'
        "memory = 64\n"
        'kernel = "app.bin"\n'
        'cmdline = "say \\"hi\\""\n'
        'disk = ["format=raw, vdev=xvda, access=rw, target=/d/x,y.raw"]\n'
        'on_poweroff = "destroy"\n'
        'on_crash = "destroy"\n'
        'on_reboot = "restart"\n'
    )


def test_hvm_domain_has_a_serial_port_and_its_firmware():
    text = hvm(firmware=Firmware.UEFI, restarts=False).text()
    assert 'serial = "pty"\n' in text
    assert 'firmware = "uefi"\n' in text
    assert 'on_reboot = "destroy"\n' in text
    assert "kernel" not in text


def test_only_hvm_gets_the_keys_that_are_hvms():
    assert "serial" not in pv().text()
    assert "firmware" not in pv(kind=xl.DomainKind.PVH).text()


@pytest.mark.parametrize("make", [pv, hvm])
def test_every_key_written_is_one_xl_asks_for(make):
    keys = re.findall(r"^(\w+) =", make(**({"ramdisk": "initrd"} if make is pv else {})).text(), re.M)
    assert set(keys) <= xl.KEYS


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"kernel": None}, "needs a kernel"),
        ({"kernel": "a\r\nb"}, "cannot carry"),
        ({"ramdisk": "a\nb"}, "cannot carry"),
        ({"cmdline": "a\0b"}, "cannot carry"),
        ({"kernel": "a\udcffb"}, "cannot carry"),
        ({"memory": 0}, "at least 1 MiB"),
        ({"name": "a/b"}, "is no name"),
        ({"name": ""}, "is no name"),
        ({"name": "-p"}, "is no name"),
        ({"name": "n" * 65}, "is no name"),
        ({"name": "12"}, "is no name"),
        ({"disks": (xl.DomainDisk(path="a", vdev="xvda"), xl.DomainDisk(path="b", vdev="xvda"))}, "same device name"),
    ],
)
def test_what_xl_would_get_wrong_is_refused(changes, problem):
    with pytest.raises(RumpbundleError, match=problem):
        pv(**changes)


def test_hvm_takes_a_disk_and_nothing_else():
    with pytest.raises(UsageError, match="needs a disk"):
        hvm(disks=())
    for changes in ({"kernel": "k"}, {"ramdisk": "r"}, {"cmdline": "c"}):
        with pytest.raises(UsageError, match="boots its disk"):
            hvm(**changes)


def test_a_pv_command_line_is_not_cut():
    pv(cmdline="x" * 1023)
    with pytest.raises(ConfigError, match="1024 bytes"):
        pv(cmdline="x" * 1024)
    with pytest.raises(ConfigError, match="1024 bytes"):
        pv(cmdline="é" * 512)
    pv(kind=xl.DomainKind.PVH, cmdline="x" * 4000)


@pytest.mark.parametrize("path", ["/my disk.raw", "/tab\t.raw", "/a\u00a0b", "/ends,", "", "/a\nb"])
def test_disk_paths_xl_would_change_are_refused(path):
    with pytest.raises(InputError):
        xl.DomainDisk(path=path, vdev="xvda")


@pytest.mark.parametrize("vdev", ["vda", "xvda1", "xvd", "sdaa", "d0p0", ""])
def test_device_names_that_fail_at_create_are_refused(vdev):
    with pytest.raises(UsageError):
        xl.DomainDisk(path="/d", vdev=vdev)


def test_read_only_disk():
    assert "access=ro," in xl.DomainDisk(path="/d", vdev="xvdb", writable=False).spec()


@given(st.text())
def test_quoting_keeps_every_character_or_refuses(text):
    try:
        quoted = xl.quoted(text)
    except InputError:
        return
    assert re.fullmatch(r'"([^"\\\n]|\\["\\])*"', quoted)
    assert re.sub(r"\\(.)", r"\1", quoted[1:-1]) == text


def test_the_commands():
    assert xl.create("xl.cfg", ["vif=['bridge=xenbr0']"]) == ("xl", "create", "-p", "xl.cfg", "vif=['bridge=xenbr0']")
    assert xl.domain_id("web1") == ("xl", "domid", "web1")
    assert xl.unpause(7) == ("xl", "unpause", "7")
    assert xl.console(7) == ("xl", "console", "7")
    assert xl.destroy(7) == ("xl", "destroy", "7")


def test_xenstore_write_gets_every_backslash_twice():
    assert xl.write_config(7, '{"a":"\\"\\n"}') == (
        "xenstore-write",
        "/local/domain/7/rumprun/cfg",
        '{"a":"\\\\"\\\\n"}',
    )


def test_a_configuration_fits_xenstore_on_any_host_or_not_at_all():
    xl.check_config("x" * 4064)
    for text in ("x" * 4065, "é" * 2033):
        with pytest.raises(ConfigError, match="xenstore takes 4064"):
            xl.check_config(text)
    with pytest.raises(ConfigError, match="NUL"):
        xl.check_config("a\0b")
    # The limit is of what is stored, not of what xenstore-write is given.
    xl.write_config(1, "\\" * 4064)


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("memroy=128", "would ignore 'memroy'"),
        ("Memory=128", "would ignore 'Memory'"),
        ("name='x'", "--name"),
        ("memory=1\nname='x'", "more than one line"),
    ],
)
def test_settings_xl_would_ignore_are_refused(argument, problem):
    with pytest.raises(UsageError, match=problem):
        xl.check_arguments([argument])


def test_arguments_for_xl_pass():
    xl.check_arguments(
        ["-q", "--vncviewer-autopass", "memory = 128", "vif=['mac=00:16:3e:00:00:01, bridge=br0']", "-d"]
    )


def test_a_misspelt_key_gets_a_suggestion():
    with pytest.raises(UsageError) as caught:
        xl.check_arguments(["on_reboots='destroy'"])
    assert caught.value.hint == "did you mean on_reboot?"


def test_debians_xl_knows_every_key():
    binary = debian_file("xen-utils-4.17", "usr/lib/xen-4.17/bin/xl").read_bytes()
    assert [key for key in sorted(xl.KEYS) if key.encode() + b"\0" not in binary] == []


@pytest.mark.parametrize(
    "config", ['{"rc": "a\\\\b \\" $(x) `y` \'z\'"}', json.dumps({"é": "\n"}, ensure_ascii=False)]
)
def test_the_script_does_in_a_shell_what_the_commands_do(tmp_path, config):
    for name in ("xl", "xenstore-write"):
        fake = tmp_path / name
        fake.write_text(
            f'#!/bin/sh\n{{ printf "%s|" {name} "$@"; echo; }} >>calls\n[ "$1" = domid ] && echo 7\nexit 0\n'
        )
        fake.chmod(0o755)
    (tmp_path / "it's.json").write_text(config + "\n")
    script = "\n".join(xl.script("web1", "xl.cfg", "it's.json")) + "\nwait"
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-e", "-c", script], cwd=tmp_path, env=env, check=True)
    calls = [tuple(line.split("|")[:-1]) for line in (tmp_path / "calls").read_text().splitlines()]
    assert calls == [
        xl.create("xl.cfg"),
        xl.domain_id("web1"),
        xl.write_config(7, config),
        ("xl", "console", "web1"),
        ("xl", "unpause", "web1"),
    ]


def test_the_script_without_a_configuration():
    assert xl.script("web1", "xl.cfg", None) == (
        "xl create -p xl.cfg",
        "(sleep 1; xl unpause web1) & xl console web1",
    )
