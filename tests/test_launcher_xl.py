"""The xl backend against a toolstack made of shell scripts. ``tests/test_xen.py`` has the real one."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from support import kernels

import rumpbundle
from rumpbundle import dev_launch, xl
from rumpbundle.api import Recipe
from rumpbundle.config import Config, Program
from rumpbundle.dev_launch import Options
from rumpbundle.errors import GuestError, ToolError, UsageError
from rumpbundle.launcher.backend import Reason

FAKE_XL = r"""#!/bin/sh
state=@STATE@
{ printf '%s|' xl "$@"; echo; } >>$state/calls
case $1 in
create) [ -e xl.cfg ] && cp xl.cfg $state/cfg && cp kernel $state/kernel && touch $state/domain ;;
domid) [ -e $state/domain ] && cat $state/number ;;
unpause) touch $state/running ;;
console)
    exec 9</dev/ptmx  # what shows that a console has attached
    readlink /proc/$$/fd/9 >/dev/null
    until [ -e $state/running ]; do sleep 0.05; done
    cat $state/says
    [ -e $state/hangs ] && exec sleep 60
    exec sleep 3 ;;
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


def test_misspelt_settings_and_other_images_are_refused(toolstack, tmp_path):
    with pytest.raises(UsageError, match="would ignore 'vcpu'"):
        launch(args=["vcpu=2"])
    (tmp_path / "disk.raw").write_bytes(bytes(512))
    with pytest.raises(UsageError, match="no directory with an"):
        dev_launch.run(tmp_path / "disk.raw", backend="xl")
    assert calls(toolstack) == []
