"""Programs the tests lean on. Missing ones skip a developer's run and fail CI's."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess

import pytest


def require(program: str) -> str:
    """Return the path of *program*; without it skip, or fail where CI is set."""
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        message = f"{program} is not installed (make test installs it)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


def output_of(*argv: str, timeout: float = 120, check: bool = True, **kwargs) -> str:
    """Run a program and return its standard output and error as text."""
    require(argv[0])
    env = kwargs.pop("env", None) or os.environ | {
        "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin",
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
        env=env,
        text=True,
        errors="replace",
        **kwargs,
    )
    if check and done.returncode:
        raise AssertionError(f"{' '.join(argv)} gave {done.returncode}:\n{done.stdout}")
    return done.stdout


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def as_somebody() -> list[str]:
    """Return what turns root into another user, who may read everything (our Python may be root's) but not write.

    It goes before a command; for a user who is not root there is nothing to turn.
    """
    if os.getuid() != 0:
        return []
    user = ["--reuid=65534", "--regid=65534", "--clear-groups"]
    return [require("setpriv"), *user, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
