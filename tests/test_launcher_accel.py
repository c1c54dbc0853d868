"""``--accel auto``: asked of a guest, answered soon, remembered as long as it holds, said in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import kernels
from support.bootsector import SSE, bootsector
from support.tools import require

from rumpbundle.errors import GuestError, MissingToolError, ToolError
from rumpbundle.host import environment
from rumpbundle.launcher import accel, qemu
from rumpbundle.launcher.accel import Accelerator, choose
from rumpbundle.launcher.backend import Drive, LaunchRequest
from rumpbundle.launcher.session import Guest

WORKS = Accelerator("kvm", "it runs a guest here")
FAILS = Accelerator("tcg", "kvm is there but cannot run a guest")

BEHAVIOURS = {
    "works": ("exit 33", WORKS),
    "hangs": ("exec sleep 1000", FAILS),
    "hangs and will not be asked to end": ("trap '' TERM; sleep 1000 & wait", FAILS),
    "hangs and floods": ("exec yes", FAILS),
    "complains": ("echo 'failed to initialize kvm: Operation not permitted' >&2; exit 1", FAILS),
    "complains without an end": ("yes KVM internal error. Suberror: 1 >&2", FAILS),
    "resets": ("exit 0", FAILS),
    "fails otherwise": ("exit 3", FAILS),
    "crashes": ("kill -ABRT $$", FAILS),
}
"""What stand-ins for QEMU do when they are asked to run the probe; 33 is what isa-debug-exit makes of its 0x10."""


class StandIn:
    """A program on PATH that is called as QEMU is."""

    def __init__(self, directory: Path) -> None:
        self._calls = directory / "calls"
        self.path = directory / qemu.PROGRAM

    def does(self, script: str) -> None:
        self.path.write_text(f'#!/bin/sh\necho "$$ $*" >>{self._calls}\n{script}\n')
        self.path.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """The process number and arguments of each call."""
        return self._calls.read_text().splitlines() if self._calls.exists() else []


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The stand-in, on a Linux PC whose ``/dev/kvm`` opens, with an empty cache."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "kvm").touch()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(accel, "KVM", str(tmp_path / "kvm"))
    monkeypatch.setattr(accel, "PATIENCE", 0.3)
    return StandIn(tmp_path / "bin")


def is_a(monkeypatch: pytest.MonkeyPatch, sysname: str, machine: str, release: str = "1.0") -> None:
    """Let this machine call itself so."""
    said = SimpleNamespace(sysname=sysname, nodename="here", machine=machine, release=release)
    monkeypatch.setattr(os, "uname", lambda: said)


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_the_answer_is_a_guests(program: StandIn, behaviour: str):
    script, answer = BEHAVIOURS[behaviour]
    program.does(script)
    assert choose(qemu.PROGRAM) == answer
    (call,) = program.calls
    assert "-accel kvm" in call
    assert choose(qemu.PROGRAM) == answer
    assert len(program.calls) == 1, "it did not remember"


def test_a_probe_that_hangs_is_ended(program: StandIn):
    program.does("exec sleep 1000")
    choose(qemu.PROGRAM)
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{program.calls[0].split()[0]}") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not os.path.exists(f"/proc/{program.calls[0].split()[0]}")


def test_another_qemu_is_asked_again(program: StandIn):
    program.does("exit 1")
    assert choose(qemu.PROGRAM) == FAILS
    program.does("exit 33")
    os.utime(program.path, ns=(0, 0))
    assert choose(qemu.PROGRAM) == WORKS
    program.does("exit 35")  # of the same size
    assert choose(qemu.PROGRAM) == FAILS


@pytest.mark.parametrize("change", ["machine started anew", "kernel"])
def test_another_kernel_is_asked_again(program: StandIn, monkeypatch: pytest.MonkeyPatch, change: str):
    program.does("exit 1")
    assert choose(qemu.PROGRAM) == FAILS
    program.does("exit 33")
    key = json.loads((environment.cache_directory() / "accel.json").read_bytes())["key"]
    os.utime(program.path, ns=(key[-1], key[-1]))
    if change == "kernel":
        is_a(monkeypatch, "Linux", "x86_64", release="6.99")
    else:
        monkeypatch.setattr(environment, "boot_id", lambda: "another")
    assert choose(qemu.PROGRAM) == WORKS


@pytest.mark.parametrize("found", [b"", b"{", b"[]", b'{"key": null, "works": "yes"}', b"\xff\0", b"[" * 10000])
def test_a_cache_that_is_no_answer_is_replaced(program: StandIn, found: bytes):
    cache = environment.cache_directory() / "accel.json"
    cache.parent.mkdir(parents=True)
    cache.write_bytes(found)
    program.does("exit 33")
    assert choose(qemu.PROGRAM) == choose(qemu.PROGRAM) == WORKS
    assert len(program.calls) == 1
    assert [path.name for path in cache.parent.iterdir()] == ["accel.json"]


def test_without_a_cache_it_is_asked_each_time(program: StandIn, tmp_path: Path):
    (tmp_path / "cache").write_text("a file where the directory should be")
    program.does("exit 33")
    assert choose(qemu.PROGRAM) == choose(qemu.PROGRAM) == WORKS
    assert len(program.calls) == 2


def test_what_is_not_there_is_not_tried(program: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program.does("exit 33")
    with monkeypatch.context() as forbidden:
        forbidden.setattr(os, "access", lambda path, mode: False)
        assert choose(qemu.PROGRAM) == Accelerator(
            "tcg", f"{tmp_path}/kvm may not be opened; is this user in the group kvm?"
        )
    (tmp_path / "kvm").unlink()
    assert choose(qemu.PROGRAM) == Accelerator("tcg", f"there is no {tmp_path}/kvm")
    is_a(monkeypatch, "Linux", "aarch64")
    assert choose(qemu.PROGRAM) == Accelerator("tcg", "a PC has to be emulated on aarch64")
    is_a(monkeypatch, "Darwin", "arm64")
    assert choose(qemu.PROGRAM) == Accelerator("tcg", "a PC has to be emulated on arm64")
    assert program.calls == []


def test_a_mac_has_hvf(program: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "kvm").unlink()
    is_a(monkeypatch, "Darwin", "x86_64", release="23.6.0")
    monkeypatch.setattr(environment, "boot_id", lambda: "")
    program.does("exit 33")
    assert choose(qemu.PROGRAM) == Accelerator("hvf", "it runs a guest here")
    assert "-accel hvf" in program.calls[0]
    program.does("echo 'Error: HV_UNSUPPORTED' >&2; exit 1")
    os.utime(program.path, ns=(0, 0))
    assert choose(qemu.PROGRAM) == Accelerator("tcg", "hvf is there but cannot run a guest")


def test_without_qemu_it_says_so(program: StandIn, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment, "find_program", lambda name: None)
    with pytest.raises(MissingToolError, match="qemu-system-x86_64 is not installed"):
        choose(qemu.PROGRAM)


def truly_runs(directory: Path, name: str) -> bool:
    """Whether a guest under accelerator *name*, with SSE as most have it, comes to say something, in some seconds."""
    image = directory / "disk.raw"
    image.write_bytes(bootsector("here", "success", first=SSE).ljust(1 << 20, b"\0"))
    request = LaunchRequest(name="test", disk=Drive(path=str(image)), accel=name, bus="ide", args=("-nic", "none"))
    with Guest(qemu.BACKEND.start(qemu.BACKEND.plan(request), lambda event: None)) as guest:
        try:
            guest.expect("here", 4 * accel.PATIENCE)
        except (GuestError, ToolError):
            return False
    return True


@pytest.mark.boot
def test_it_chooses_what_truly_runs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On this very machine, whatever it has; one whose ``/dev/kvm`` opens and runs no firmware is the hard case."""
    require(qemu.PROGRAM)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    choice = choose(qemu.PROGRAM)
    if os.access(accel.KVM, os.R_OK | os.W_OK) and os.uname().machine == "x86_64":
        assert choice == (WORKS if truly_runs(tmp_path, "kvm") else FAILS)
    else:
        assert choice.name == "tcg"
    assert truly_runs(tmp_path, choice.name)


@pytest.mark.boot
def test_it_is_said_in_one_line(tmp_path: Path):
    require(qemu.PROGRAM)
    image = tmp_path / "disk.raw"
    image.write_bytes(bootsector("here\n", "success").ljust(1 << 20, b"\0"))
    command = [sys.executable, "-m", "rumpbundle", "run", str(image), "--boot", "qemu"]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(kernels.ROOT)}
    for _ in range(2):
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        first, *others = done.stderr.splitlines()
        assert first.startswith(("note: accelerator: tcg (", "note: accelerator: kvm (it runs a guest here)"))
        assert others == ["note: the guest exited with status 0 (isa-debug-exit)"]
