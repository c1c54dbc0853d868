"""Bundling while one call goes wrong: what is left must be the old output or the new one, whole, and one clear error.

A server with ``shim.c`` in it forks a child for each trial, so that a trial costs what the bundling costs.
:meth:`Campaign.trials` draws what goes wrong; :meth:`Campaign.run` looks at what is left.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rumpbundle import formats
from rumpbundle.disk.content import CHUNK, Zeros
from rumpbundle.disk.digest import BlockHash
from rumpbundle.disk.inputfile import InputFile
from rumpbundle.host import leftovers
from rumpbundle.images.medium import FdMedium

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

HOWS = {
    "name": ("KILL", "KILL", "INT", "TERM", errno.EIO, errno.ENOSPC, errno.EDQUOT),
    "write": ("KILL", "INT", "TERM", errno.EIO, errno.ENOSPC, errno.EDQUOT),
    "sync": ("KILL", "TERM", errno.EIO, errno.ENOSPC, errno.EDQUOT),
    "close": (errno.EIO,),
    "read": (errno.EIO,),
}
"""What can go wrong at each kind of call."""


@dataclass(frozen=True)
class Trial:
    """One bundling with a fault in it."""

    format: str
    calls: str
    at: int
    how: str
    sticky: bool
    old: bool
    """Whether there is an output already, and --force."""

    def __str__(self) -> str:
        how = errno.errorcode[int(self.how)] if self.how.isdigit() else f"SIG{self.how}"
        old = "over an old one" if self.old else "a new one"
        return f"{self.format}, {old}: {how} at {self.calls} {self.at}{' and after' if self.sticky else ''}"


class Campaign:
    """Trials in *place*, an empty directory; *app* is a kernel, *module* makes the disk larger."""

    def __init__(self, place: Path, app: Path, module: Path) -> None:
        self.inputs, self.outputs = place / "in", place / "out"
        self.place = place
        for directory in (self.inputs, self.outputs):
            directory.mkdir()
        shutil.copyfile(app, self.inputs / "app.bin")
        shutil.copyfile(module, self.inputs / "module")
        self.count = place / "count"
        shim = build_shim(place)
        env = os.environ | {"PYTHONPATH": str(ROOT), "LD_PRELOAD": str(shim), "PYTHONDONTWRITEBYTECODE": "1"}
        self._server = subprocess.Popen(
            [sys.executable, HERE / "server.py"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._states: dict[tuple[str, str], dict[str, str]] = {}
        self._counts: dict[tuple[str, str, bool], int] = {}

    def close(self) -> None:
        """End the server."""
        self._server.communicate()

    def trials(self, format: str, number: int, seed: int) -> Iterator[Trial]:
        """Yield *number* random trials of *format*: every kind of call, at a place it has."""
        draw = random.Random(f"{seed} {format}")
        drawn = 0
        while drawn < number:
            calls, old = draw.choice(list(HOWS)), draw.random() < 0.5
            how = str(draw.choice(HOWS[calls]))
            sticky = how.isdigit() and draw.random() < 0.3 and calls != "close"
            if count := self._calls(format, calls, old):
                drawn += 1
                yield Trial(format, calls, draw.randint(1, count), how, sticky, old)

    def run(self, trial: Trial) -> None:
        """Make *trial*; raise AssertionError if neither all old nor all new is left, or no clear error is said."""
        old, new = self._state(trial.format, "old"), self._state(trial.format, "new")
        before = old if trial.old else {}
        self._clear()
        if trial.old:
            copy(self.place / f"{trial.format}-old", self.outputs)
        status, said = self._bundle(trial)
        where = f"{trial}: status {status}, {said!r}"
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in said, where
        # Leftovers are only for who could not tidy up: killed, or told that a name could not be taken away.
        if status == -9 or (trial.calls == "name" and trial.how.isdigit()):
            leftovers.put_right(self.outputs)
        left = state(self.outputs)
        if status == -9:
            assert left in (before, new), f"{where}, left {sorted(left)}"
        elif status == 0:
            assert left == new, f"{where}, left {sorted(left)}"
            assert not errors, where
        else:
            assert status in (2, 3, 4, 130), where
            assert len(errors) == 1, where
            # The directory is synced last: what is new has its name by then, and is whole.
            named = trial.calls == "sync" and trial.old and left == new
            assert left == before or named, f"{where}, left {sorted(left)}"
        if trial.calls == "read" and status == 3 and not trial.old:
            assert "cannot write" not in said, where

    def _state(self, format: str, which: str) -> dict[str, str]:
        """Return what the old or the new output looks like; the old one is kept beside."""
        if (format, which) not in self._states:
            self._clear()
            status, said = self._bundle(Trial(format, "", 0, "0", False, False), which)
            assert status == 0, said
            copy(self.outputs, self.place / f"{format}-{which}")
            self._states[format, which] = state(self.outputs)
        return self._states[format, which]

    def _calls(self, format: str, calls: str, old: bool) -> int:
        """Return how many calls of a kind there are if nothing goes wrong."""
        if (format, calls, old) in self._counts:
            return self._counts[format, calls, old]
        self._state(format, "old")
        self._clear()
        if old:
            copy(self.place / f"{format}-old", self.outputs)
        status, said = self._bundle(Trial(format, calls, 0, "0", False, old))
        assert status == 0, said
        self._counts[format, calls, old] = self.count.stat().st_size
        return self._counts[format, calls, old]

    def _bundle(self, trial: Trial, which: str = "new") -> tuple[int, str]:
        self.count.write_bytes(b"")
        output = self.outputs / f"app{formats.find(trial.format).suffix.rstrip('/')}"
        argv = [trial.format, str(self.inputs / "app.bin"), "--module", str(self.inputs / "module"), "-q"]
        argv += ["--cmdline", which, "-o", str(output), *(["--force"] if trial.old else [])]
        faults = {
            "FAULT_BELOW": str(self.inputs if trial.calls in ("read", "close") else self.outputs),
            "FAULT_CALLS": trial.calls,
            "FAULT_AT": str(trial.at),
            "FAULT_HOW": trial.how,
            "FAULT_COUNT": str(self.count),
        }
        if trial.sticky:
            faults["FAULT_STICKY"] = "1"
        lines = (f"export {name}={value}\n" for name, value in faults.items())
        (self.place / "environment").write_text("unset FAULT_STICKY\n" + "".join(lines))
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        order = {"argv": argv, "environment": faults, "said": str(self.place / "said")}
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        status = json.loads(self._server.stdout.readline())
        return status, (self.place / "said").read_text("utf-8", "replace")

    def _clear(self) -> None:
        shutil.rmtree(self.outputs)
        self.outputs.mkdir()


def build_shim(place: Path) -> Path:
    """Compile ``shim.c`` in *place*."""
    shim = place / "shim.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", shim, HERE / "shim.c", "-ldl"], check=True)
    return shim


def copy(directory: Path, to: Path) -> None:
    """Copy what is in *directory* into *to*; holes stay holes."""
    to.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", "--sparse=always", f"{directory}/.", to], check=True)


def state(directory: Path) -> dict[str, str]:
    """Return every name below *directory* with a digest of what is there."""
    return {
        str(path.relative_to(directory)): "/" if path.is_dir() else digest(path)
        for path in sorted(directory.rglob("*"))
    }


def digest(path: Path) -> str:
    """Return a digest of the file's bytes, for which its holes need not be read: EC2's has a GiB."""
    with path.open("rb") as file:
        medium, seen = FdMedium(file.fileno(), InputFile(path)), BlockHash()
        for run in medium.runs():
            if isinstance(run.source, Zeros):
                seen.add_zeros(run.length)
            else:
                for at in range(run.offset, run.offset + run.length, CHUNK):
                    seen.add(medium.read(at, min(CHUNK, run.offset + run.length - at)))
        return seen.hexdigest()
