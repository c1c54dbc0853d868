"""``rumpbundle`` and ``python -m rumpbundle``."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys

# A process this short makes no garbage worth looking for: looking costs a tenth of a small bundle's time, and doubles
# that of 50,000 files. Before the imports, which make most of the objects.
gc.disable()

# Until the command line is there to take a Ctrl-C, it ends us without a word; Python would show where it was.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from rumpbundle.errors import NO_MEMORY, HostError, is_want_of_memory  # noqa: E402

try:
    from rumpbundle import cli
    from rumpbundle.host import environment, signals
except (ImportError, MemoryError, SyntaxError, SystemError) as error:
    if not is_want_of_memory(error):
        raise
    with contextlib.suppress(OSError):
        os.write(2, f"error: {NO_MEMORY}\n".encode())
    sys.exit(HostError.exit_code)


def main() -> int:
    """Run the command line as a process of its own and return its exit status."""
    environment.start_in_utf8()
    status = cli.main()
    # What is done is done. Python gives its handlers up before it ends, and a Ctrl-C then would kill it with another
    # status than that of the work.
    signals.ignore()
    # Python looks for garbage once more before it ends, which takes as long as a tenth of a small bundle.
    gc.freeze()
    return status


if __name__ == "__main__":
    sys.exit(main())
