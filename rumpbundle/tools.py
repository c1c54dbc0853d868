"""The one place that runs programs.

Every program gets the same small environment, no standard input, and is reported as an event that can be
pasted into a shell. A missing program is an error that names its Debian package.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence

from rumpbundle import host
from rumpbundle.errors import MissingToolError, ToolError
from rumpbundle.events import Ran, Report, silent

PACKAGES: Mapping[str, str] = {
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "grub-mkimage": "grub-common, grub-pc-bin and grub-efi-amd64-bin",
    "mke2fs": "e2fsprogs",
    "xl": "xen-utils",
}
"""The Debian packages that bring each program we may run."""


def find(program: str) -> str:
    """Return the path of *program*.

    Raises:
        MissingToolError: it is not installed.
    """
    path = host.find_program(program)
    if path is None:
        package = PACKAGES.get(program, program)
        raise MissingToolError(
            f"{program} is not installed",
            hint=f"on Debian and Ubuntu: sudo apt install {package.replace(' and', '').replace(',', '')}",
        )
    return path


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment every program runs in: nothing of the user's but the search path."""
    base = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    for name in ("TMPDIR",):
        if name in os.environ:
            base[name] = os.environ[name]
    return base | dict(extra or {})


def shown(argv: Sequence[str]) -> str:
    """Return *argv* as a command line that can be pasted into a POSIX shell."""
    return shlex.join(argv)


def run(
    argv: Sequence[str],
    *,
    report: Report = silent,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    pass_fds: Sequence[int] = (),
    stdin: bytes | None = None,
) -> bytes:
    """Run ``argv[0]`` and return what it wrote to standard output.

    Raises:
        MissingToolError: the program is not installed.
        ToolError: it failed; the message holds the last line it wrote to standard error.
    """
    command = [find(argv[0]), *argv[1:]]
    report(Ran(tuple(argv)))
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(env),
        cwd=cwd,
        pass_fds=pass_fds,
        # A Ctrl-C is ours to handle: the program must not die of it before we have cleaned up after it.
        start_new_session=True,
    )
    try:
        out, err = process.communicate(stdin)
    except BaseException:
        process.kill()
        process.wait()
        raise
    if process.returncode:
        raise _failure(argv[0], process.returncode, err)
    return out


def _failure(program: str, status: int, err: bytes) -> ToolError:
    if status < 0:
        return ToolError(f"{program} was killed by {signal.Signals(-status).name}")
    lines = [line.strip() for line in err.decode("utf-8", "backslashreplace").splitlines() if line.strip()]
    said = lines[-1].removeprefix(f"{program}: ") if lines else "it gave no reason"
    return ToolError(f"{program} failed with status {status}: {said}")
