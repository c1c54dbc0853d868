"""The one place that runs programs.

Every program gets the same small environment, no standard input, and is reported as an event that can be
pasted into a shell. A missing program is an error that names its Debian package.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

from rumpbundle.errors import MissingToolError, ToolError
from rumpbundle.events import Ran, Report, Waiting, silent
from rumpbundle.host import environment, signals
from rumpbundle.host.shell import joined

PACKAGES: Mapping[str, str] = {
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "grub-mkimage": "grub-common, grub-pc-bin and grub-efi-amd64-bin",
    "mke2fs": "e2fsprogs",
    "xl": "xen-system-amd64",
}
"""The Debian packages that bring each program we may run."""


def find(program: str) -> str:
    """Return the path of *program*.

    Raises:
        MissingToolError: it is not installed.
    """
    path = environment.find_program(program)
    if path is None:
        package = PACKAGES.get(program, program)
        raise MissingToolError(
            f"{program} is not installed",
            hint=f"on Debian and Ubuntu: sudo apt install {package.replace(' and', '').replace(',', '')}",
        )
    return path


def fixed_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment every program runs in: nothing of the user's but the search path."""
    base = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    for name in ("TMPDIR",):
        if name in os.environ:
            base[name] = os.environ[name]
    return base | dict(extra or {})


def shown(argv: Sequence[str]) -> str:
    """Return *argv* as a command line that can be pasted into a POSIX shell."""
    return joined(argv)


def run(
    argv: Sequence[str],
    *,
    report: Report = silent,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    pass_fds: Sequence[int] = (),
    stdin: bytes | None = None,
    told: Sequence[str] | None = None,
) -> bytes:
    """Run ``argv[0]`` and return what it wrote to standard output; it is killed if *report* raises meanwhile.

    Where *argv* names files that nobody else has, *told* is the command to tell: one that does the same when pasted.

    Raises:
        MissingToolError: the program is not installed.
        ToolError: it failed; the message holds the last line it wrote to standard error.
    """
    report(Ran(tuple(argv if told is None else told)))
    process, lifeline = None, -1
    try:
        with signals.held():
            process, lifeline = _start(
                argv,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                env=fixed_environment(env),
                cwd=cwd,
                pass_fds=pass_fds,
            )
        out, err = _communicate(process, stdin, lambda: report(Waiting(argv[0])))
    except BaseException:
        if process is not None:
            _kill(process)
            process.wait()
        raise
    finally:
        _call_off(lifeline)
    if process.returncode:
        raise _failure(argv[0], process.returncode, err)
    return out


_TICK = 0.1
"""Seconds between two words of :class:`~rumpbundle.events.Waiting`."""


def _communicate(
    process: subprocess.Popen[bytes], stdin: bytes | None, waiting: Callable[[], None]
) -> tuple[bytes, bytes]:
    """Return what *process* writes until it ends, calling *waiting* every now and then."""
    while True:
        try:
            return process.communicate(stdin, timeout=_TICK)
        except subprocess.TimeoutExpired:
            stdin = None  # taken in by the first call
            signals.check()
            waiting()


_UNTIL_WE_ARE_GONE = """\
(read -r _ <"$1" || kill -s "$2" -- -$$) >/dev/null 2>&1 &
shift 2
exec "$@"
"""
"""A shell that becomes the program, after leaving a watcher behind: its ``read`` ends without a line when the
other end of the pipe vanishes with us, however we die; then it ends all of the program's process group, itself too.
(``PR_SET_PDEATHSIG`` is Linux only, is tied to the thread that started the child, has to be set between fork and
exec, and does not reach the children of a wrapper.)"""


def _start(
    argv: Sequence[str],
    *,
    stdin: int,
    env: Mapping[str, str],
    pass_fds: Sequence[int],
    watcher: str = "KILL",
    **more: Any,
) -> tuple[subprocess.Popen[bytes], int]:
    """Start ``argv[0]`` in a process group of its own, which gets the signal *watcher* when we are gone.

    Returns it and the descriptor that :func:`_call_off` takes at its end.
    """
    command = [find(argv[0]), *argv[1:]]
    watched, lifeline = os.pipe()
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _UNTIL_WE_ARE_GONE, "sh", f"/dev/fd/{watched}", watcher, *command],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            pass_fds=(*pass_fds, watched),
            # A Ctrl-C is ours to handle: the program must not die of it before we have cleaned up after it.
            start_new_session=True,
            # What it makes on the way is for us to read, also where the user's own files are for nobody.
            umask=0o077,
            **more,
        )
    except BaseException:
        os.close(lifeline)
        raise
    finally:
        os.close(watched)
    return process, lifeline


def _call_off(lifeline: int) -> None:
    """Tell the watcher that its program has ended. (Its group's number is not given away while it is in it.)"""
    if lifeline >= 0:
        with contextlib.suppress(BrokenPipeError):
            os.write(lifeline, b"\n")
        os.close(lifeline)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End *process*, which is not reaped yet, and all it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


_GENTLE = 2.0
"""Seconds a program has to end on SIGTERM, where that is asked for."""


class Child:
    """A program that runs beside us and never outlives us, not even when we are killed. Made by :func:`spawn`."""

    def __init__(self, program: str, process: subprocess.Popen[bytes], lifeline: int, gently: bool) -> None:
        self._program = program
        self._process = process
        self._lifeline = lifeline
        self._gently = gently
        streams = (process.stdin, process.stdout, process.stderr)
        self._stdin, self._stdout, self._stderr = (stream for stream in streams if stream is not None)
        os.set_blocking(self._stdin.fileno(), False)
        os.set_blocking(self._stderr.fileno(), False)
        self.output = self._stdout.fileno()
        """The descriptor to read its standard output from."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def write(self, data: bytes) -> int:
        """Write *data* to its standard input as far as it takes it now; return how many bytes that were."""
        try:
            return os.write(self._stdin.fileno(), data)
        except BlockingIOError:
            return 0
        except (BrokenPipeError, ValueError):
            return len(data)

    def complaints(self) -> list[str]:
        """Return the lines it wrote to standard error since the last call."""
        said = b""
        with contextlib.suppress(BlockingIOError, ValueError):
            while data := os.read(self._stderr.fileno(), 65536):
                said += data
        return [line.strip() for line in said.decode("utf-8", "backslashreplace").splitlines() if line.strip()]

    def wait_until_open(self, prefix: str, seconds: float) -> None:
        """Wait until it has a file open whose path begins with *prefix*, has ended, or *seconds* are over.

        Where there is no /proc to tell (outside of Linux), that is at once.
        """
        files = f"/proc/{self._process.pid}/fd"
        deadline = time.monotonic() + seconds
        while os.path.isdir("/proc/self/fd") and self.poll() is None and time.monotonic() < deadline:
            signals.check()
            with contextlib.suppress(OSError):
                for name in os.listdir(files):
                    with contextlib.suppress(OSError):
                        if os.readlink(f"{files}/{name}").startswith(prefix):
                            return
            time.sleep(0.02)

    def poll(self) -> int | None:
        """Return its exit status, negative for a signal, or None while it runs."""
        if self._lifeline >= 0 and self._is_dead():
            self._reap()
        return self._process.returncode

    def _is_dead(self) -> bool:
        """Whether it has ended, without reaping it where the system can tell (macOS can from Python 3.13 on)."""
        if hasattr(os, "waitid"):
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return self._process.poll() is not None

    def _reap(self) -> None:
        # It is dead but its number is not free yet: the last moment to end what it left behind.
        _kill(self._process)
        _call_off(self._lifeline)
        self._lifeline = -1
        self._process.wait()

    def end(self) -> None:
        """End it, if it still runs, and close its pipes. May be called again."""
        if self.poll() is None and self._gently:
            self._process.terminate()
            deadline = time.monotonic() + _GENTLE
            while self.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
        if self.poll() is None:
            self._reap()
        for pipe in (self._stdin, self._stdout, self._stderr):
            with contextlib.suppress(OSError):
                pipe.close()

    def failure(self, complaint: str) -> ToolError:
        """Return the error that says it failed, for the status it ended with and its last *complaint*."""
        return _failure(self._program, self._process.returncode, complaint.encode())


def spawn(
    argv: Sequence[str], *, report: Report = silent, pass_fds: Sequence[int] = (), gently: bool = False
) -> Child:
    """Start ``argv[0]`` with pipes for its standard streams; it is killed when this process is gone.

    With *gently* it gets SIGTERM first, then and in :meth:`Child.end`.

    Raises:
        MissingToolError: the program is not installed.
    """
    report(Ran(tuple(argv)))
    child = None
    try:
        with signals.held():
            process, lifeline = _start(
                argv,
                stdin=subprocess.PIPE,
                env=fixed_environment(),
                pass_fds=pass_fds,
                watcher="TERM" if gently else "KILL",
                bufsize=0,
            )
            child = Child(argv[0], process, lifeline, gently)
    except BaseException:
        if child is not None:
            child.end()
        raise
    return child


@contextlib.contextmanager
def if_killed(argv: Sequence[str], *, stdin: str) -> Iterator[None]:
    """Run *argv*, reading from the file *stdin*, if this process is killed inside the block."""
    script = 'read -r _ || { terminal=$1; shift; exec "$@" <"$terminal"; }'
    with subprocess.Popen(
        ["/bin/sh", "-c", script, "sh", stdin, *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=fixed_environment(),
        start_new_session=True,
    ) as watcher:
        try:
            yield
        finally:
            watcher.communicate(b"\n")


def _failure(program: str, status: int, err: bytes) -> ToolError:
    if status < 0:
        return ToolError(f"{program} was killed by {signal.Signals(-status).name}")
    lines = [line.strip() for line in err.decode("utf-8", "backslashreplace").splitlines() if line.strip()]
    said = lines[-1].removeprefix(f"{program}: ") if lines else "it gave no reason"
    return ToolError(f"{program} failed with status {status}: {said}")
