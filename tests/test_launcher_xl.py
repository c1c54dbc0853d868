"""The xl backend against a toolstack made of shell scripts. ``tests/test_xen.py`` has the real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
from support import kernels

import rumpbundle
from rumpbundle import dev_launch
from rumpbundle.bundling.writing import Recipe
from rumpbundle.config import Config, Program
from rumpbundle.dev_launch import Options
from rumpbundle.disk import tree
from rumpbundle.errors import GuestError, InputError, ToolError, UsageError
from rumpbundle.guests import Data, Writable
from rumpbundle.images import detect
from rumpbundle.launcher.backend import Reason
from rumpbundle.xen import xl

FAKE_XL = r"""#!/bin/sh
state=@STATE@
{ printf '%s|' xl "$@"; echo; } >>$state/calls
case $1 in
create) [ -e xl.cfg ] && cp xl.cfg $state/cfg && cp kernel $state/kernel && touch $state/domain ;;
domid) [ -e $state/domain ] && cat $state/number ;;
unpause) touch $state/running ;;
console)
    until [ -e $state/running ]; do sleep 0.05; done
    cat $state/says
    [ -e $state/hangs ] && exec sleep 60
    exec sleep 1 ;;
list)
    [ -e $state/domain ] || exit 1
    echo "Name ID Mem VCPUs State Time(s) UUID Reason-Code Security Label"
    echo "app 7 32 1 ---s-- 0.1 0acf3339-8a6d $(cat $state/reason) -" ;;
destroy) rm $state/domain ;;
esac
"""
FAKE_STORE = r"""#!/bin/sh
{ printf '%s|' "${0##*/}" "$@"; echo; } >>@STATE@/calls
case $0 in *read) exit 1 ;; esac
[ ! -e @STATE@/full ]
"""


@pytest.fixture
def toolstack(tmp_path, monkeypatch):
    """A directory that is what the fake toolstack knows; its ``calls`` are what it was asked."""
    state, programs = tmp_path / "state", tmp_path / "bin"
    state.mkdir()
    programs.mkdir()
    for name, text in (("xl", FAKE_XL), ("xenstore-write", FAKE_STORE), ("xenstore-read", FAKE_STORE)):
        (programs / name).write_text(text.replace("@STATE@", str(state)))
        (programs / name).chmod(0o755)
    for name, text in (("number", "7\n"), ("says", "hello\n"), ("reason", "0\n"), ("calls", "")):
        (state / name).write_text(text)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    # This console never opens the terminal that tells a real one has attached.
    monkeypatch.setattr("rumpbundle.launcher.xl.ATTACH", 0.1)
    return state


def calls(toolstack):
    """Return what the toolstack was asked, but for the looks at a running domain."""
    lines = (tuple(line.split("|")[:-1]) for line in (toolstack / "calls").read_text().splitlines())
    return [line for line in lines if line[:2] != ("xl", "list")]


def launch(kernel="xen-pv-rumprun", **more):
    return rumpbundle.launch(kernels.build(kernel), backend="xl", **more)


CONFIG = Config(rc=(Program(bin="httpd", argv=("-p", "80")),))
TEXT = '{"rc":[{"bin":"httpd","argv":["-p","80"]}]}'


def test_a_domain_lives_and_ends(toolstack, tmp_path):
    with launch(config=CONFIG, name="app", memory=32 << 20) as guest:
        guest.expect("hello", timeout=20)
        ending = guest.wait(timeout=20)
    assert ending.reason is Reason.POWERED_OFF
    assert ending.good
    made, *others = calls(toolstack)
    assert made[:4] == ("xl", "create", "-p", "xl.cfg")
    assert {'name="app"', 'on_crash="preserve"', "memory=32"} <= set(made[4:])
    assert others == [
        xl.domain_id("app"),
        xl.write_config(7, TEXT),
        xl.console(7),
        xl.unpause(7),
        xl.destroy("app"),
    ]
    assert (toolstack / "kernel").read_bytes() == kernels.build("xen-pv-rumprun").read_bytes()
    assert 'type = "pv"' in (toolstack / "cfg").read_text()


@pytest.mark.parametrize(("code", "reason"), [("1", Reason.RESET), ("3", Reason.PANICKED), ("2", Reason.STOPPED)])
def test_why_it_ended(toolstack, code, reason):
    (toolstack / "reason").write_text(code)
    with launch() as guest:
        assert guest.wait(timeout=20).reason is reason


def test_a_guest_that_hangs_is_destroyed_in_time(toolstack):
    (toolstack / "reason").write_text("-")
    (toolstack / "hangs").touch()
    with pytest.raises(GuestError, match="did not say 'ready' within 1 s"), launch() as guest:
        guest.expect("ready", timeout=1)
    assert calls(toolstack)[-1] == xl.destroy("xen-pv-rumprun")
    assert not (toolstack / "domain").exists()


def test_nothing_is_left_when_the_configuration_is_refused_by_xenstore(toolstack):
    (toolstack / "full").touch()
    with pytest.raises(ToolError, match="xenstore-write failed"):
        launch(config=CONFIG)
    assert not (toolstack / "domain").exists()
    assert xl.unpause(7) not in calls(toolstack)


def test_nothing_is_left_when_xl_talks_nonsense(toolstack):
    (toolstack / "number").write_text("seven\n")
    with pytest.raises(ToolError, match="expected a number"):
        launch()
    assert not (toolstack / "domain").exists()


def test_a_domain_that_cannot_be_made_is_not_destroyed(toolstack):
    (toolstack.parent / "bin" / "xl").write_text("#!/bin/sh\necho libxl: no memory >&2; exit 1\n")
    with pytest.raises(ToolError, match="libxl: no memory"):
        launch()


def test_our_own_violent_death_ends_the_domain(toolstack):
    (toolstack / "reason").write_text("-")
    (toolstack / "hangs").touch()
    script = (
        "import os, signal, sys, rumpbundle\n"
        "guest = rumpbundle.launch(sys.argv[1], backend='xl')\n"
        "guest.expect('hello', timeout=20)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    temporary = toolstack.parent / "tmp"
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary), "PYTHONPATH": os.getcwd()}
    subprocess.run([sys.executable, "-c", script, kernels.build("xen-pv")], env=environment, check=False)
    deadline = time.monotonic() + 20
    while ((toolstack / "domain").exists() or any(temporary.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not (toolstack / "domain").exists()
    assert list(temporary.iterdir()) == []


def test_a_finished_kit(toolstack, tmp_path):
    (kit,) = rumpbundle.bundle(
        kernels.build("xen-pv-rumprun"), "xen", output=tmp_path / "web.xen", config=CONFIG
    ).paths
    with dev_launch.run(kit, backend="xl", args=["vcpus=2"]) as guest:
        guest.expect("hello", timeout=20)
    asked = calls(toolstack)
    assert asked[0][-1] == "vcpus=2"
    assert xl.write_config(7, TEXT) in asked
    assert asked[-1] == xl.destroy("web")


def test_the_plan_can_be_pasted(toolstack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = dev_launch.launch_plan(
        Recipe(app=kernels.build("xen-pv-rumprun"), config=CONFIG, name="app"), Options(backend="xl")
    )
    assert calls(toolstack) == []
    rumpbundle.bundle(kernels.build("xen-pv-rumprun"), "xen", config=CONFIG, name="app")
    subprocess.run(["sh", "-e", "-c", "\n".join(plan.commands)], check=True)
    asked = calls(toolstack)
    assert asked[0] == xl.create("xl.cfg", ('name="app"', *asked[0][5:]))
    assert asked[1:3] == [xl.domain_id("app"), xl.write_config(7, TEXT)]
    assert asked[-1] == xl.destroy("app")


@pytest.mark.parametrize(
    ("option", "value"), [("publish", ["80:80"]), ("gdb", 1234), ("bus", "virtio"), ("accel", "kvm")]
)
def test_what_means_nothing_to_xen_is_refused(toolstack, option, value):
    with pytest.raises(UsageError, match="means nothing to Xen"):
        launch(**{option: value})
    assert calls(toolstack) == []


def test_misspelt_settings_are_refused(toolstack):
    with pytest.raises(UsageError, match="would ignore 'vcpu'"):
        launch(args=["vcpu=2"])
    assert calls(toolstack) == []


# --- finished images ---


def settings(toolstack):
    """Return the settings the first ``xl create`` was given, which is to read no file."""
    made = calls(toolstack)[0]
    assert made[:4] == ("xl", "create", "-p", "/dev/null")
    return dict(argument.split("=", 1) for argument in made[4:])


def disks(toolstack):
    """Return the disks it was given: each as what its specification says."""
    specs = json.loads(settings(toolstack)["disk"])
    return [dict(part.strip().split("=", 1) for part in spec.split(",")) for spec in specs]


def begin(image):
    """Return the first 2 MiB of the disk in *image*."""
    with detect.open_disk(image) as disk:
        return disk.read(0, min(disk.size, 2 << 20))


@pytest.fixture
def kept(toolstack):
    """A toolstack that keeps the begin of the first disk, and then writes to it as a guest would."""
    script = r"""create) path=$(printf '%s\n' "$@" | sed -n 's/.*target=\([^"]*\)".*/\1/p')
    head -c 2M "$path" >$state/disk
    ls "${path%/*}" >$state/beside
    printf written | dd of="$path" conv=notrunc status=none
    touch $state/domain ;;
"""
    text = (toolstack.parent / "bin" / "xl").read_text().replace("@STATE@", str(toolstack))
    (toolstack.parent / "bin" / "xl").write_text(text.replace("create) [", f"{script}never) [", 1))
    return toolstack


@pytest.mark.parametrize("format", ["raw", "iso", "vmdk", "vdi", "qcow2", "vhd", "vhdx", "ova", "gce", "azure"])
def test_a_copy_of_a_finished_image_boots(kept, tmp_path, format):
    built = rumpbundle.bundle(kernels.build("multiboot"), format, output=tmp_path / "image", name="app")
    image = built.paths[0]
    before = image.read_bytes() if image.is_file() else None
    expected = begin(image)
    with dev_launch.run(image, backend="xl", memory=64 << 20, args=["vcpus=2"]) as guest:
        guest.expect("hello", timeout=20)
    assert (kept / "disk").read_bytes() == expected
    assert before is None or image.read_bytes() == before
    (disk,) = disks(kept)
    assert (disk["format"], disk["vdev"], disk["access"]) == ("raw", "xvda", "rw")
    assert not os.path.exists(disk["target"])
    asked = settings(kept)
    assert (asked["type"], asked["memory"], asked["firmware"], asked["vcpus"]) == ('"hvm"', "64", '"bios"', "2")
    assert asked["on_poweroff"] == '"preserve"'
    assert calls(kept)[-1] == xl.destroy("image")


@pytest.mark.parametrize(("format", "xls"), [("raw", "raw"), ("iso", "raw"), ("qcow2", "qcow2"), ("vhd", "vhd")])
def test_a_guest_may_write_to_what_xl_takes(kept, tmp_path, format, xls):
    image = tmp_path / f"app.{format}"
    rumpbundle.bundle(kernels.build("multiboot"), format, output=image, firmware="uefi")
    with dev_launch.run(image, backend="xl", persist=True) as guest:
        guest.expect("hello", timeout=20)
    assert disks(kept) == [{"format": xls, "vdev": "xvda", "access": "rw", "target": str(image)}]
    assert settings(kept)["firmware"] == '"uefi"'
    assert image.read_bytes().startswith(b"written")


@pytest.mark.parametrize("format", ["vmdk", "vdi", "vhdx", "azure"])
def test_what_xl_does_not_take_is_not_written_to(toolstack, tmp_path, format, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rumpbundle.bundle(kernels.build("multiboot"), format, output="app.image")
    with pytest.raises(UsageError, match="cannot let a guest write") as caught:
        dev_launch.run("app.image", backend="xl", persist=True)
    assert calls(toolstack) == []
    _, _, convert = caught.value.hint.partition("convert it: ")
    subprocess.run(["sh", "-c", convert], check=True)
    with detect.open_disk("app.image") as disk, detect.open_disk("disk.raw") as converted:
        assert disk.read(0, disk.size) == converted.read(0, converted.size)[: disk.size]


def test_directories_become_further_disks(kept, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "page").write_text("page")
    site = tree.scan(tmp_path / "site")
    (image,) = rumpbundle.bundle(kernels.build("multiboot"), "raw", output=tmp_path / "app.raw").paths
    further = [Data(site, "/site"), Writable(site, "/site", 4 << 20)]
    with dev_launch.run(image, backend="xl", disks=further) as guest:
        guest.expect("hello", timeout=20)
    _, *others = disks(kept)
    assert [(disk["vdev"], os.path.basename(disk["target"])) for disk in others] == [
        ("xvdb", "site.iso"),
        ("xvdc", "site_2.ext2"),
    ]
    assert (kept / "beside").read_text().split() == ["site.iso", "site_2.ext2"]
    kit = rumpbundle.bundle(kernels.build("xen-pv"), "xen", output=tmp_path / "kit").paths[0]
    with pytest.raises(UsageError, match="a kit has its own disks"):
        dev_launch.run(kit, backend="xl", disks=further)


@pytest.mark.parametrize("format", ["raw", "ova", "azure"])
def test_the_plan_of_an_image_can_be_pasted(kept, tmp_path, monkeypatch, format):
    monkeypatch.chdir(tmp_path)
    (image,) = rumpbundle.bundle(kernels.build("multiboot"), format, output="my image").paths[:1]
    expected = begin(image)
    before, files = image.read_bytes(), set(os.listdir())
    plan = dev_launch.run_plan(image, Options(backend="xl"))
    assert (calls(kept), set(os.listdir())) == ([], files)
    subprocess.run(["sh", "-e", "-c", "\n".join(plan.commands)], check=True)
    assert (kept / "disk").read_bytes() == expected
    assert (image.read_bytes(), set(os.listdir())) == (before, files)
    assert calls(kept)[-1] == xl.destroy("my_image")


def test_the_plan_of_an_image_to_be_written_names_it(toolstack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rumpbundle.bundle(kernels.build("multiboot"), "qcow2", output="app.qcow2")
    create, *_ = dev_launch.run_plan("app.qcow2", Options(backend="xl", persist=True)).commands
    assert "format=qcow2, vdev=xvda, access=rw, target=app.qcow2" in create
    rumpbundle.bundle(kernels.build("multiboot"), "qcow2", output="an app.qcow2")
    with pytest.raises(InputError, match="may not survive xl with blanks"):
        dev_launch.run_plan("an app.qcow2", Options(backend="xl", persist=True))
