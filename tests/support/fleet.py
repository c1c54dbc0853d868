"""Fleets to try things on: a project of many rows, its runs, the workers that belong to one, and what it leaves."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from support import kernels

TEXT = """
[image.node]
app = "app.bin"
formats = ["iso"]
rows = "fleet.csv"
output = "out"
cmdline = "id={id} address={address}"

"""

States = dict[str, tuple[int, int, int]]
"""Inode, mtime and size of each output, by name."""


def address(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def make_project(directory: Path, count: int) -> None:
    """Describe *count* bundles of a small kernel in *directory*."""
    directory.mkdir(exist_ok=True)
    (directory / "app.bin").write_bytes(kernels.build("multiboot").read_bytes())
    (directory / "rumpbundle.toml").write_text(TEXT)
    rows = "".join(f"n{number},{address(number)}\n" for number in range(count))
    (directory / "fleet.csv").write_text(f"id,address\n{rows}")


def start(directory: Path, *arguments: str, command: str = "fleet") -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "rumpbundle", command, *arguments]
    return subprocess.Popen(argv, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(directory: Path, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run ``rumpbundle fleet`` in *directory* to its end."""
    with start(directory, *arguments) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def workers(pid: int) -> list[int]:
    """Return the worker processes of Dask below the process *pid*."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            words = (path / "cmdline").read_bytes()
            if b"spawn_main" in words and parent == pid:
                found.append(int(path.name))
    return sorted(found)


def wait_for(directory: Path, count: int, process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Wait until *count* outputs stand in *directory*."""
    end = time.monotonic() + seconds
    while len(states(directory)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{len(states(directory))} of {count} outputs after {seconds} s"
        time.sleep(0.01)


def kill(*pids: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_gone(pids: list[int], seconds: float = 30) -> None:
    """Wait until none of the processes *pids* is there."""
    end = time.monotonic() + seconds
    while any(_is_alive(pid) for pid in pids):
        assert time.monotonic() < end, pids
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def states(directory: Path) -> States:
    """Return what stands in the output directory, hidden names aside."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(directory / "out"):
            if not entry.name.startswith("."):
                status = entry.stat()
                found[entry.name] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found


def check_single(directory: Path, number: int) -> None:
    """Compare output *number* with what a single run gives."""
    single = directory / "single.iso"
    words = ["app.bin", "--cmdline", f"id=n{number} address={address(number)}", "-o", single.name, "--force", "-q"]
    subprocess.run(
        [sys.executable, "-m", "rumpbundle", "iso", *words],
        cwd=directory,
        check=True,
        timeout=60,
        stdout=subprocess.DEVNULL,
    )
    assert single.read_bytes() == (directory / "out" / f"node-n{number}.iso").read_bytes(), number
    single.unlink()


@contextlib.contextmanager
def cluster(directory: Path, count: int) -> Iterator[str]:
    """Start a scheduler and *count* workers of Dask on the loopback interface, and give the scheduler's address."""
    file = directory / "scheduler.json"
    common = {"cwd": directory, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
                 "--no-dashboard", "--scheduler-file", str(file)]  # fmt: skip
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file),
              "--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard", "--no-nanny"]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for argv in [scheduler, *[worker] * count]:
            process = stack.enter_context(subprocess.Popen(argv, **common))
            stack.callback(process.kill)
        end = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < end, "no scheduler"
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"]
