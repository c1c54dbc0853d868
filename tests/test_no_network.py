"""Bundling opens no network connection: every command in an empty network namespace, and watched by strace."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.kernels import ROOT, build
from support.tools import require

import rumpbundle
from rumpbundle import formats

CLIENTS = {"boto3", "botocore", "mypy_boto3_ebs", "mypy_boto3_ec2", "googleapiclient", "azure", "ssl", "http"}
"""Top-level modules a program that talks to a cloud would have loaded."""


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """An environment whose cache has GRUB's boot images, so that each run does the same work; ``x.raw`` at home."""
    home = tmp_path_factory.mktemp("home")
    env = os.environ | {"HOME": str(home), "XDG_CACHE_HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run(
        [sys.executable, "-m", "rumpbundle", "raw", build("multiboot"), "-o", home / "x.raw"], env=env, check=True
    )
    return env


def without_network() -> list[str]:
    """Return what to put before a command so that it has no network at all, not even a loopback that is up."""
    for command in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        if subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            return command
    return []  # the kernel lets nobody make one here; strace sees everything anyway


def network_calls(log: str) -> list[str]:
    """Return the calls in strace's *log* that reach for anything but a local socket."""
    calls = [line for line in log.splitlines() if re.search(r"\b(connect|sendto|sendmsg|sendmmsg|bind)\(", line)]
    sockets = [line for line in log.splitlines() if re.search(r"\bsocket\((?!AF_UNIX|AF_LOCAL)", line)]
    return sockets + [line for line in calls if "AF_UNIX" not in line]


OTHERS = {
    "build": ["build", "{app}", "-f", "ec2:stream,gce,azure", "-o", "{out}", "--checksums"],
    "convert": ["convert", "{image}", "-f", "vmdk:stream,gce", "-o", "{out}"],
    "reconfig": ["reconfig", "{image}", "--cmdline", "other", "-o", "{out}.raw"],
    "volume": ["volume", "{data}", "-o", "{out}"],
    "component": ["component", "{data}", "-o", "{out}"],
    "init": ["init", "{app}"],
    "check": ["check", "{app}", "--target", "ec2"],
    "config": ["config", "--schema"],
    "formats": ["formats"],
}
"""The commands that are no formats."""


def command_lines():
    for name in formats.names():
        yield pytest.param([name, "{app}", "-o", "{out}", "--print-commands"], id=name)
    for name, argv in OTHERS.items():
        yield pytest.param(argv, id=name)


@pytest.mark.parametrize("argv", [*command_lines()])
def test_no_command_reaches_for_the_network(argv, warm, tmp_path):
    data, log = tmp_path / "data", tmp_path / "log"
    data.mkdir()
    (data / "file").write_text("content")
    places = {"app": build("multiboot"), "image": f"{warm['HOME']}/x.raw", "data": data, "out": tmp_path / "out"}
    strace = [require("strace"), "-f", "-qq", "-e", "trace=network", "-o", str(log)]
    command = [sys.executable, "-m", "rumpbundle", *(word.format(**places) for word in argv)]
    done = subprocess.run(
        [*without_network(), *strace, *command],
        cwd=tmp_path,
        env=warm | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (0, 5), done.stderr  # 5: check says no
    assert done.stdout
    assert network_calls(log.read_text()) == []


def test_every_command_that_writes_is_watched():
    from rumpbundle.cli import cli

    starts_a_guest = {"boot", "run"}  # and give it a network: that is their work
    its_network = {"fleet"}  # it talks to the workers of a cluster
    only_reads = {"inspect", "ls", "cat", "verify", "diff", "completion", "help", "version"}
    assert set(cli.list_commands(None)) - starts_a_guest - its_network - only_reads <= {*formats.names(), *OTHERS}


def test_the_watch_would_notice(tmp_path):
    log = tmp_path / "log"
    code = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 9))"
    strace = [require("strace"), "-f", "-qq", "-e", "trace=network", "-o", str(log)]
    subprocess.run([*strace, sys.executable, "-c", code], check=False, timeout=60)
    assert network_calls(log.read_text())


@pytest.mark.parametrize("name", ["ec2", "gce", "azure"])
def test_no_cloud_client_is_loaded(name, warm, tmp_path):
    code = (
        "import sys; from rumpbundle.cli import main; status = main(sys.argv[1:]);"
        "print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, name, str(build("multiboot")), "-o", str(tmp_path / "out")],
        env=warm,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert CLIENTS.isdisjoint(done.stderr.split())


def test_no_module_imports_a_cloud_client():
    for path in sorted(Path(rumpbundle.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text())
        typing_only = {
            id(node)
            for guard in ast.walk(tree)
            if isinstance(guard, ast.If) and ast.unparse(guard.test) == "TYPE_CHECKING"
            for node in ast.walk(guard)
        }
        for node in ast.walk(tree):
            if id(node) not in typing_only and isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                assert CLIENTS.isdisjoint(name.split(".")[0] for name in names), f"{path}:{node.lineno}"
                assert "urllib.request" not in names, f"{path}:{node.lineno}"
