"""Cuts the power while an output is written, and after: what is there then is the old output or the new one, whole.

usage (as root): PYTHONPATH=.:tests python tests/faults/powercut.py [--moments N] [ext4|xfs|btrfs …]

A file system in a file, on a loop device. The bundling stops itself (shim.c) at every call that writes, syncs or
names; at some of these moments, drawn at random, and after its end, the file is copied as it stands. Each copy is
what a machine would find after a power cut: it is mounted, which replays the journal, and looked at after the next
run has put right what was left half done. What was told to be finished must be the new output then.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults.campaign import ROOT, build_shim, state
from rumpbundle import formats
from rumpbundle.host import leftovers

FILE_SYSTEMS = ("ext4", "xfs", "btrfs")
SCENARIOS = (("iso", False), ("iso", True), ("gce", True), ("xen", True), ("azure", False), ("qcow2", True))
"""A format, and whether it takes the place of an old output."""
SIZE = 384 << 20
"""Bytes; mkfs.xfs makes none below 300 MiB."""
_NAMING = 24
"""How many of the last calls are those that sync, name and tidy up."""
_OPTIONS = {"xfs": "loop,nouuid"}


class PowerCuts:
    """Power cuts on one kind of file system, in the empty directory *place*, while *app* and *module* are bundled."""

    def __init__(self, file_system: str, place: Path, app: Path, module: Path) -> None:
        self.file_system = file_system
        self.place = place
        self.inputs = place / "in"
        self.inputs.mkdir()
        shutil.copyfile(app, self.inputs / "app.bin")
        shutil.copyfile(module, self.inputs / "module")
        self.shim = build_shim(place)

    def scenario(
        self, format: str, old: bool, moments: int, seed: int, *, later: float = 0.0, sync: bool = True
    ) -> int:
        """Cut the power *moments* times while *format* is written, once after, and once *later* seconds after that.

        Returns the number of cuts; raises AssertionError if one has left anything else than it should.
        """
        work = Path(tempfile.mkdtemp(dir=self.place))
        disk = work / "disk"
        with disk.open("wb") as file:
            file.truncate(SIZE)
        subprocess.run([f"mkfs.{self.file_system}", "-q", disk], check=True, stdout=subprocess.DEVNULL)
        copies: list[tuple[str, Path, bool]] = []
        more = () if sync else ("--no-sync",)
        with mounted(disk, work / "mounted", self.file_system) as top:
            before: dict[str, str] = {}
            if old:
                assert self._bundle(top, format, "old").wait() == 0
                before = seen(top)
            subprocess.run(["sync", "-f", top], check=True)
            chosen = self._chosen(top, format, moments, seed)
            process = self._bundle(top, format, "new", *more, fault="STOP", at=1)
            count = 0
            while os.WIFSTOPPED(status := os.waitpid(process.pid, os.WUNTRACED)[1]):
                if count in chosen:
                    copies.append((f"at call {count}", copied(disk, work / f"copy{count}"), False))
                process.send_signal(signal.SIGCONT)
                count += 1
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == 0, (format, process.returncode)
            copies.append(("at its end", copied(disk, work / "end"), True))
            if later:
                time.sleep(later)
                copies.append((f"{later:g} s after its end", copied(disk, work / "later"), True))
            after = seen(top)
        for when, copy, finished in copies:
            self._look(
                copy, f"{self.file_system}, {format}{' --force' if old else ''}, {when}", before, after, finished
            )
        shutil.rmtree(work)
        return len(copies)

    def _look(self, copy: Path, when: str, before: dict[str, str], after: dict[str, str], finished: bool) -> None:
        with mounted(copy, copy.with_suffix(".mounted"), self.file_system) as top:
            leftovers.put_right(top)
            found = seen(top)
        allowed = (after,) if finished else (before, after)
        assert found in allowed, f"power cut on {when}: {found}, not one of {allowed}"
        copy.unlink()

    def _chosen(self, top: Path, format: str, moments: int, seed: int) -> set[int]:
        """Return the calls to look at: half of them among the last ones, which name, half anywhere."""
        (top / "elsewhere").mkdir()
        assert self._bundle(top / "elsewhere", format, "new", fault="0", at=0).wait() == 0
        shutil.rmtree(top / "elsewhere")
        subprocess.run(["sync", "-f", top], check=True)
        calls = (self.place / "count").stat().st_size
        draw = random.Random(f"{seed} {format}")
        late = range(max(calls - _NAMING, 0), calls)
        return {
            *draw.sample(late, min(moments // 2, len(late))),
            *draw.sample(range(calls), min(moments // 2, calls)),
        }

    def _bundle(
        self, top: Path, format: str, text: str, *more: str, fault: str | None = None, at: int = 0
    ) -> subprocess.Popen[bytes]:
        output = top / f"app{formats.find(format).suffix.rstrip('/')}"
        argv = [sys.executable, "-m", "rumpbundle", format, "app.bin", "--module", "module", "-q", "--force"]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        if fault is not None:
            env |= {"LD_PRELOAD": str(self.shim), "FAULT_BELOW": str(top), "FAULT_CALLS": "out", "FAULT_AT": str(at)}
            env |= {"FAULT_HOW": fault, "FAULT_STICKY": "1", "FAULT_COUNT": str(self.place / "count")}
            (self.place / "count").write_bytes(b"")
        return subprocess.Popen(
            [*argv, "--cmdline", text, "-o", output, *more], cwd=self.inputs, env=env, stdout=subprocess.DEVNULL
        )


@contextmanager
def mounted(disk: Path, at: Path, file_system: str) -> Iterator[Path]:
    """Mount the file system in the file *disk* in the new directory *at*."""
    at.mkdir()
    subprocess.run(["mount", "-t", file_system, "-o", _OPTIONS.get(file_system, "loop"), disk, at], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", at], check=True)


def copied(disk: Path, to: Path) -> Path:
    """Return a copy of *disk* as it stands."""
    subprocess.run(["cp", "--sparse=always", disk, to], check=True)
    return to


def seen(top: Path) -> dict[str, str]:
    return {name: digest for name, digest in state(top).items() if name != "lost+found"}


def run(file_system: str, moments: int, seed: int) -> tuple[int, int]:
    """Cut the power at *moments* or more on *file_system*; return how often, and how often that went badly."""
    from support import kernels

    cuts = failures = 0
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "module").write_bytes(random.Random(1).randbytes(20 << 20))
        (place / "cuts").mkdir()
        power = PowerCuts(file_system, place / "cuts", kernels.build("multiboot"), place / "module")
        for format, old in SCENARIOS:
            try:
                # Data that nobody asked to be on the disk gets there after 30 s.
                cuts += power.scenario(format, old, -(-moments // len(SCENARIOS)), seed, later=7.0)
            except AssertionError as error:
                failures += 1
                print(f"FAILED {error}", flush=True)
    print(f"{file_system}: {cuts} power cuts", flush=True)
    return cuts, failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file_systems", nargs="*", default=FILE_SYSTEMS)
    parser.add_argument("--moments", type=int, default=20, help="at least so many a file system")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    done = [run(each, arguments.moments, arguments.seed) for each in arguments.file_systems]
    return int(any(failures for _, failures in done))


if __name__ == "__main__":
    sys.exit(main())
