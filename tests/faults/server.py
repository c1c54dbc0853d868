"""Forks a child for each line on standard input and bundles in it: what a campaign's trials run in."""

from __future__ import annotations

import json
import os
import signal
import sys

from rumpbundle import __main__
from rumpbundle.bundling import writing

assert writing.formats.formats()  # loaded once, for all children


def bundle(argv: list[str], environment: dict[str, str], said: str) -> None:
    """Be the command line *argv*, with *environment* added and all output in the file *said*; never returns."""
    fd = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["rumpbundle", *argv]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.pop("FAULT_STICKY", None)
    os.environ.update(environment)
    status = 1
    try:
        status = __main__.main()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


for line in sys.stdin:
    child = os.fork()
    if not child:
        bundle(**json.loads(line))
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
