"""The unikernel of ``examples/hello``."""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path

from support.kernels import ROOT
from support.tools import require


def hello() -> Path:
    """Return it, built."""
    require("gcc")
    directory = ROOT / "examples" / "hello"
    with open(directory / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["make", "-s", "-C", directory], check=True, timeout=60)
    return directory / "hello.bin"
