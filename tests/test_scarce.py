"""What a machine that is short of something gives: short writes, no threads, a word at the wrong moment."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support import kernels

import rumpbundle
from rumpbundle import cli, dev_launch
from rumpbundle.errors import HostError
from rumpbundle.host import parallel, programs

FORMATS = ["iso", "vdi", "qcow2", "vhdx", "ova", "ec2"]


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return Path(shutil.copy(kernels.build("multiboot"), tmp_path / "app.bin"))


def files(output: Path) -> dict[str, bytes]:
    """Return what the files are that stand where *output* does, by name."""
    return {
        str(path.relative_to(output.parent)): path.read_bytes() for path in output.parent.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("format", FORMATS)
def test_short_writes_are_gone_on_with(tmp_path, app, monkeypatch, format):
    (tmp_path / "whole").mkdir()
    (tmp_path / "short").mkdir()
    rumpbundle.bundle(app, format, output=tmp_path / "whole" / "out", sync=False)
    pwrite = os.pwrite
    shortened = []

    def short(fd, data, offset):
        shortened.append(fd)
        return pwrite(fd, memoryview(data)[: max(len(data) // 2, 1)], offset)

    monkeypatch.setattr(os, "pwrite", short)
    rumpbundle.bundle(app, format, output=tmp_path / "short" / "out", sync=False)
    monkeypatch.undo()
    assert shortened
    assert files(tmp_path / "short" / "out") == files(tmp_path / "whole" / "out")


def test_an_input_that_is_read_may_fail_to_close(tmp_path, app, monkeypatch):
    module = tmp_path / "module"
    module.write_bytes(os.urandom(3 << 20))
    close = os.close
    failed = []

    def failing(fd):
        path = os.readlink(f"/proc/self/fd/{fd}")
        close(fd)
        if path in (str(app), str(module)):
            failed.append(path)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "close", failing)
    for name in ("iso", "qcow2", "ova"):
        rumpbundle.bundle(app, name, output=tmp_path / name, modules=[module], sync=False)
    monkeypatch.undo()
    assert {*failed} == {str(app), str(module)}
    rumpbundle.bundle(app, "iso", output=tmp_path / "again", modules=[module], sync=False)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "iso").read_bytes()


def no_more(thread):
    raise RuntimeError("can't start new thread")


@pytest.fixture
def no_threads(monkeypatch):
    """Let there have been threads, and now no more."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert parallel.has_threads()
    monkeypatch.setattr(threading.Thread, "start", no_more)


def test_no_thread_is_an_error_of_the_library(tmp_path, app, no_threads):
    with pytest.raises(HostError, match="no thread can be started: too many processes, or too little memory"):
        rumpbundle.bundle(app, "ova", output=tmp_path / "out.ova", jobs=2)
    assert os.listdir(tmp_path) == ["app.bin"]


def test_no_thread_is_one_line(tmp_path, app, no_threads, capsys):
    assert cli.main(["ova", str(app), "-o", str(tmp_path / "out.ova")]) == HostError.exit_code
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("error: ")] == [
        f"error: {tmp_path / 'out.ova'}: no thread can be started: too many processes, or too little memory"
    ]
    assert os.listdir(tmp_path) == ["app.bin"]


def test_several_formats_without_a_thread(tmp_path, app, no_threads):
    with pytest.raises(HostError, match="no thread can be started"):
        rumpbundle.build(app, ["iso", "vdi"], tmp_path)
    assert os.listdir(tmp_path) == ["app.bin"]


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Collect the hypervisors that are started; temporary files go to a directory that must be empty afterwards."""
    children = []
    spawn = programs.spawn

    def collecting(*words, **more):
        children.append(spawn(*words, **more))
        return children[-1]

    monkeypatch.setattr(programs, "spawn", collecting)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    yield children
    (child,) = children
    assert child.poll() is not None, "it outlives us"
    assert os.listdir(tmp_path / "tmp") == []


@pytest.mark.boot
def test_an_interrupt_between_qemus_start_and_its_guest(app, started, monkeypatch):
    spawn = programs.spawn

    def interrupted(*words, **more):
        child = spawn(*words, **more)
        signal.raise_signal(signal.SIGINT)
        return child

    monkeypatch.setattr(programs, "spawn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rumpbundle.launch(app, accel="tcg")


@pytest.mark.boot
def test_no_thread_for_the_console(app, started, monkeypatch):
    start = threading.Thread.start
    monkeypatch.setattr(
        threading.Thread,
        "start",
        lambda thread: no_more(thread) if thread.name == "rumpbundle console" else start(thread),
    )
    with pytest.raises(HostError, match="no thread can be started"):
        rumpbundle.launch(app, accel="tcg")


@pytest.mark.boot
def test_whatever_fails_before_there_is_a_guest_ends_qemu(app, started, monkeypatch):
    def failing(self, *words, **more):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("rumpbundle.launcher.session.Guest.__init__", failing)
    with pytest.raises(OSError, match="Too many open files"):
        dev_launch.launch(app, accel="tcg")


def test_pythons_parser_calls_code_wrong_that_does_not_fit(monkeypatch, capsys):
    def parse(*words, **more):
        raise SyntaxError("expected ':'")

    monkeypatch.setattr(cli.cli, "main", parse)
    with pytest.raises(SyntaxError):  # with all the memory there is it is a developer's own
        cli.main(["formats"])
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (26 << 20, 26 << 20))
    assert cli.main(["formats"]) == HostError.exit_code
    assert capsys.readouterr().err == "error: not enough memory\n"


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("format", ["raw", "vhdx", "ova", "ec2", "gce"])
def test_little_memory_is_one_line_and_leaves_nothing(tmp_path, app, format):
    """Neither a traceback of a module that does not fit, nor a crash of a library that gets none, as at 46 MiB."""
    statuses = []
    for mib in (20, 26, 36, 42, 46, 50, 54, 60, 256):
        place = tmp_path / str(mib)
        place.mkdir()
        done = subprocess.run(
            ["prlimit", f"--as={mib << 20}", sys.executable, "-m", "rumpbundle", format, str(app), "-q", "--no-sync"],
            cwd=place,
            env=os.environ | {"PYTHONPATH": str(kernels.ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        statuses.append(done.returncode)
        assert done.returncode in (0, HostError.exit_code), (mib, done)
        if done.returncode:
            assert re.fullmatch(r"error: .*(memory|thread).*\n", done.stderr), (mib, done)
            assert os.listdir(place) == []
    assert statuses == sorted(statuses, reverse=True)
    assert (statuses[0], statuses[-1]) == (HostError.exit_code, 0)
